//! The most endpoint names that a process can have. Alone in its process, since it uses them up.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use bolna_rate_limit::{Endpoint, Policy, Quota};

#[test]
fn a_process_has_a_bounded_number_of_names() {
    let names = 0..Endpoint::MAX - 4;
    for number in names.clone() {
        assert_eq!(
            Endpoint::new(&format!("endpoint-{number}")).unwrap().name(),
            format!("endpoint-{number}")
        );
    }
    assert!(Endpoint::new("one-too-many").unwrap_err().is_one_too_many());
    // The names that are known stay known.
    assert_eq!(Endpoint::new("call"), Ok(Endpoint::CALL));
    for number in names.step_by(1000) {
        assert_eq!(
            Endpoint::new(&format!("endpoint-{number}")).unwrap().name(),
            format!("endpoint-{number}")
        );
    }
    let error = Policy::builder()
        .endpoint("one-too-many", Quota::per_minute(1), ["/x"])
        .build()
        .unwrap_err();
    assert!(error.to_string().contains("the process has 16384 distinct names already"), "{error}");
}
