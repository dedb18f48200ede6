//! The most endpoint names that a process can have. Alone in its process, since it uses them up.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use bolna_rate_limit::policy::{LimitBuilder, PolicyBuilder};
use bolna_rate_limit::{Endpoint, Policy, PolicyError, Quota};

/// The number of names that the test leaves free until its end.
const FREE: usize = 2;

#[test]
fn a_process_has_a_bounded_number_of_names() {
    failed_builds_use_up_no_names();

    let numbers = 0..Endpoint::MAX - 4 - FREE;
    let names: Vec<_> = numbers.map(|number| format!("endpoint-{number}")).collect();
    let (from_policy, from_new) = names.split_at(names.len() / 2);
    let policy = with_endpoints(from_policy).build().unwrap();
    assert!(policy.endpoints().map(|(endpoint, _)| endpoint.name()).take(8000).eq(&names[..8000]));
    for name in from_new {
        assert_eq!(Endpoint::new(name).unwrap().name(), name);
    }

    // A policy gets all its names or none.
    let error = with_endpoints(["new-1", "endpoint-7", "new-2", "new-3"]).build().unwrap_err();
    assert!(matches!(&error, PolicyError::Name { reason, .. } if reason.is_one_too_many()));
    let says = "endpoint name \"new-3\": it would be one more than the 16384 distinct names";
    assert!(error.to_string().starts_with(says), "{error}");
    let limit = LimitBuilder::account("new-3", Quota::per_minute(1));
    let error = with_endpoints(["new-1", "new-2"]).also("new-1", limit).build().unwrap_err();
    let says = "limit name \"new-3\": it would be one more than the 16384 distinct names";
    assert!(error.to_string().starts_with(says), "{error}");
    #[cfg(feature = "policy-file")]
    a_file_says_where_the_first_limit_is_for_which_there_is_no_name();
    for name in ["new-1", "new-2", "new-3"] {
        assert_eq!(Endpoint::known(name), None);
    }
    assert!(with_endpoints(["new-1", "endpoint-7", "new-2"]).build().is_ok());

    // The names that are known stay known.
    assert_eq!(Endpoint::new("call"), Ok(Endpoint::CALL));
    for name in names.iter().step_by(1000) {
        assert_eq!(Endpoint::new(name).unwrap().name(), name);
    }
    let error = Endpoint::new("one-too-many").unwrap_err();
    assert!(error.is_one_too_many() && error.to_string().contains("16384"), "{error}");
    assert!(with_endpoints(["one-too-many"]).build().is_err());
    assert!(with_endpoints(["new-1", "endpoint-7"]).build().is_ok());
}

/// More policies than a process can have names, each with a name of its own and a mistake that is
/// found as late as possible.
fn failed_builds_use_up_no_names() {
    for number in 0..=Endpoint::MAX {
        let name = format!("failed-{number}");
        let error = with_endpoints([&name]).exempt(["healthz"]).build().unwrap_err();
        assert!(matches!(error, PolicyError::Path { .. }), "{error}");
        assert_eq!(Endpoint::known(&name), None);
    }
}

#[cfg(feature = "policy-file")]
fn a_file_says_where_the_first_limit_is_for_which_there_is_no_name() {
    let limit =
        |name| format!("[[endpoint.also]]\nname = \"{name}\"\nlimit = 1\nper = \"minute\"\n");
    let limits = ["new-1", "new-2", "new-3"].map(limit).concat();
    let error = Policy::from_toml(&format!("[[endpoint]]\nname = \"call\"\n{limits}")).unwrap_err();
    let says = "line 12, column 8: limit name \"new-3\": it would be one more than";
    assert!(error.to_string().starts_with(says), "{error}");
}

fn with_endpoints(names: impl IntoIterator<Item = impl AsRef<str>>) -> PolicyBuilder {
    names.into_iter().fold(Policy::builder(), |policy, name| {
        let name = name.as_ref();
        policy.endpoint(name, Quota::per_minute(1), [format!("/{name}")])
    })
}
