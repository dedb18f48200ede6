//! Nearly all requests are exempt.

use std::sync::mpsc;

use bolna_rate_limit::observe::{Advice, Event};
use bolna_rate_limit::{Account, Limiter, Policy};
use http::Request;

use super::{MemoryLayer, only, unidentified, watched};
use crate::deferred::lost_store;
use crate::observers::Witness;
use crate::support::{now, send};

/// The requests of the sample are one in so many.
const PERIOD: usize = 127;

fn policy() -> Policy {
    Policy::bolna().exempt(["/v2/{*rest}", "/assets/{*file}", "/healthz"]).build().unwrap()
}

fn check<'a>(layer: &MemoryLayer, account: &Account, paths: impl IntoIterator<Item = &'a str>) {
    for path in paths {
        let _ = layer.limiter().check_now(account, path);
    }
}

#[track_caller]
fn assert_nearly_all(advice: &Advice, of_a_thousand: u32) {
    let Advice::NearlyAllExempt { requests, exempt, .. } = advice else {
        panic!("reported something else: {advice}")
    };
    assert_eq!((*requests, *exempt), (1000, of_a_thousand));
}

/// So many of a thousand requests are exempt, and the others go to `/call`.
fn thousand(exempt: usize) -> impl Iterator<Item = &'static str> + Clone {
    std::iter::repeat_n("/v2/batches", exempt).chain(std::iter::repeat_n("/call", 1000 - exempt))
}

#[test]
fn an_exemption_that_matches_nearly_all_requests_is_reported_after_a_thousand_of_them() {
    for exempt in [990_u32, 1000] {
        let (layer, witness) = watched(policy());
        check(&layer, &Account::user("u"), thousand(exempt as usize).take(999));
        assert_eq!(witness.diagnoses(), []);
        check(&layer, &Account::user("u"), thousand(exempt as usize).skip(999));
        assert_nearly_all(&only(&witness), exempt);
        // Once.
        check(&layer, &Account::user("u"), thousand(exempt as usize).cycle().take(3000));
        assert_eq!(witness.diagnoses(), []);
    }
}

#[test]
fn a_policy_without_limits_is_meant_so() {
    let (layer, witness) = watched(Policy::unlimited());
    check(&layer, &Account::user("u"), thousand(1000).cycle().take(3000));
    assert_eq!(witness.diagnoses(), []);
    // So is the plan of an account, whatever the policy of the limiter exempts.
    let (layer, witness) = watched(policy());
    let staff = Account::user("u").with_policy(Policy::unlimited());
    check(&layer, &staff, thousand(1000).cycle().take(3000));
    assert_eq!(witness.diagnoses(), []);
}

#[test]
fn too_wide_an_exemption_is_found_late() {
    let (layer, witness) = watched(Policy::default());
    check(&layer, &Account::user("u"), ["/call", "/v2/batches"].repeat(1500));
    layer.limiter().set_policy(policy()).unwrap();
    check(&layer, &Account::user("u"), thousand(995).cycle().take(2000 * PERIOD));
    let Advice::NearlyAllExempt { requests: 1000, exempt: 990.., .. } = only(&witness) else {
        panic!("reported something else")
    };
}

#[test]
fn what_was_found_while_no_observer_showed_it_is_found_again_for_one_that_does() {
    let (layer, witness) = watched(policy());
    check(&layer, &Account::user("u"), thousand(995));
    assert_nearly_all(&only(&witness), 995);
    let (shown, listener) = mpsc::channel();
    layer.limiter().on_event(move |event| {
        if let Event::Advice(advice) = event {
            shown.send(advice.code()).unwrap();
        }
    });
    check(&layer, &Account::user("u"), thousand(995).cycle().take(2000 * PERIOD));
    assert_eq!(listener.try_iter().collect::<Vec<_>>(), ["BRL013"]);
    // A second listener does not have all of it said once more.
    layer.limiter().on_event(|_| {});
    check(&layer, &Account::user("u"), thousand(995).cycle().take(2000 * PERIOD));
    assert_eq!(listener.try_iter().collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn a_tenth_of_a_percent_less_is_nothing_odd() {
    let (layer, witness) = watched(policy());
    // The first thousand, and then a sample of those of a hundred times as many.
    check(&layer, &Account::user("u"), thousand(989));
    check(&layer, &Account::user("u"), thousand(900).cycle().take(1100 * PERIOD));
    assert_eq!(witness.diagnoses(), []);
}

#[test]
fn charged_requests_count_while_the_store_is_lost_too() {
    let policy = Policy::bolna().exempt(["/usage"]).build().unwrap();
    let limiter = Limiter::with_store(policy, lost_store()).unwrap();
    let witness = Witness::of(&limiter);
    for _ in 0..5000 {
        let _ = limiter.check(&Account::user("u"), "/usage");
        for _ in 0..9 {
            let _ = limiter.check(&Account::user("u"), "/call");
        }
    }
    assert_eq!(witness.diagnoses(), []);
}

#[test]
fn health_checks_are_nothing_odd() {
    let (layer, witness) = watched(policy());
    for _ in 0..2000 {
        assert_eq!(now(send(&layer, unidentified("/healthz"))).status(), 200);
        assert_eq!(now(send(&layer, unidentified("/v2/batches"))).status(), 200);
    }
    check(&layer, &Account::user("u"), ["/call"]);
    assert_eq!(witness.diagnoses(), []);
}

/// Also where a cookie identifies the caller of each of them.
#[test]
fn files_are_nothing_odd() {
    let (layer, witness) = watched(policy());
    for _ in 0..500 {
        for file in ["app.js", "fonts/inter.woff2", "a.b.css", "logo.svg"] {
            let mut request = Request::get(format!("/assets/{file}")).body(String::new()).unwrap();
            request.extensions_mut().insert(Account::user("u"));
            assert_eq!(now(send(&layer, request)).status(), 200);
        }
    }
    check(&layer, &Account::user("u"), ["/call"]);
    assert_eq!(witness.diagnoses(), []);
    // What is no file counts.
    check(&layer, &Account::user("u"), ["/v2/versions/1.", "/v2/1.extension"].repeat(500));
    assert_nearly_all(&only(&witness), 999);
}

#[test]
fn a_plan_that_exempts_all_is_nothing_odd() {
    let (layer, witness) = watched(policy());
    let unlimited = Policy::builder().exempt(["/", "/{*rest}"]).build().unwrap();
    let planned = Account::user("load-test").with_policy(unlimited);
    check(&layer, &planned, ["/call"; 5000]);
    assert_eq!(witness.diagnoses(), []);
}

#[test]
fn charged_requests_by_plans_do_not_hide_that_all_others_are_exempt() {
    let (layer, witness) = watched(policy());
    let planned = Account::user("planned").with_policy(Policy::default());
    for _ in 0..1000 {
        check(&layer, &Account::user("u"), ["/v2/batches"]);
        check(&layer, &planned, ["/call"]);
    }
    assert_nearly_all(&only(&witness), 1000);
}

/// Requests by plans are not counted, so the first thousand that are counted take longer to come.
#[test]
fn half_of_the_requests_exempt_is_nothing_odd_after_many_requests_by_plans() {
    let (layer, witness) = watched(policy());
    let planned = Account::user("planned").with_policy(Policy::default());
    check(&layer, &planned, ["/call"; 1000]);
    check(&layer, &Account::user("u"), ["/call", "/v2/batches"].repeat(3000));
    assert_eq!(witness.diagnoses(), []);
}

/// Work without a path is not exempt because the policy does not have its endpoint.
#[test]
fn an_endpoint_that_the_policy_does_not_have_is_no_exemption() {
    let (layer, witness) = watched(policy());
    let missing = bolna_rate_limit::Endpoint::new("missing").unwrap();
    for _ in 0..2000 {
        let ruling = layer.limiter().check_endpoint_now(&Account::user("u"), missing, 1);
        assert!(ruling.is_none());
    }
    assert_eq!(witness.diagnoses(), []);
}
