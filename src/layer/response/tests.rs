//! The texts are the same, wherever they come from.

use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use proptest::prelude::*;

use super::buffer::{Buffer, Digits};
use super::cache;
use super::fields::{Dialect, Fields, Format, LegacyReset, Longest, Special, draft11};
use super::refusal::{Reason, Refusal};
use crate::values::{
    ChargeOutcome, Decision, Decisions, Endpoint, Enforced, Entry, Limit, LimitName, Quota, Ruling,
    Scope,
};

/// The fields as the standard library formats them.
fn plain(decision: &Decision) -> [String; 2] {
    let (quota, name) = (decision.quota(), decision.name().name());
    if quota.is_concurrent() {
        let wait = if decision.is_allowed() { "" } else { ";t=1" };
        return [
            format!("\"{name}\";q={};qu=\"concurrent-requests\"", quota.limit()),
            format!("\"{name}\";r={}{wait}", decision.remaining()),
        ];
    }
    let wait = if decision.is_allowed() {
        decision.next_unit()
    } else {
        decision.retry_after().expect("the request is limited").max(Duration::from_nanos(1))
    };
    let seconds = match decision.remaining() {
        0 => wait.as_nanos().div_ceil(1_000_000_000).try_into().expect("it is not too long"),
        remaining => quota.seconds_for(remaining),
    };
    [
        format!("\"{name}\";q={};w={}", quota.burst(), quota.seconds_for(quota.burst())),
        format!("\"{name}\";r={};t={seconds}", decision.remaining()),
    ]
}

fn appended(decision: &Decision) -> [String; 2] {
    let mut response = Response::new(());
    Fields::of_one(decision, Format::default()).append_to(&mut response);
    ["ratelimit-policy", "ratelimit"]
        .map(|name| response.headers()[name].to_str().expect("the field is ASCII").to_owned())
}

fn parts(response: Response<Bytes>) -> (u16, HeaderMap, Bytes) {
    let (head, body) = response.into_parts();
    (head.status.as_u16(), head.headers, body)
}

fn quotas() -> impl Strategy<Value = Quota> {
    let periods = prop_oneof![
        (1..100_000_u64).prop_map(Duration::from_secs),
        (1..u64::MAX / 100).prop_map(Duration::from_nanos),
    ];
    let units = || prop_oneof![1..10_u32, 1..10_000_u32, 1..=u32::MAX];
    (units(), units(), periods).prop_filter_map("too slow", |(limit, burst, period)| {
        Quota::per(limit, period).burst(burst).build().ok()
    })
}

proptest! {
    #[test]
    fn digits_are_those_of_the_standard_library(number: u64, shift in 0..64_u32) {
        let number = number >> shift;
        let digits = Digits::of(number);
        prop_assert_eq!(digits.as_ref(), number.to_string().into_bytes());
    }

    #[test]
    fn fields_are_what_the_standard_library_formats(quota in quotas(), part in 0..=1000_u32) {
        let debt = quota.refill_time() * part / 1000;
        let limit = Limit::new(Endpoint::CALL, quota);
        for decision in [
            Decision::allowed(limit, debt),
            Decision::limited(limit, debt),
            Decision::blocked(limit, debt),
        ] {
            // The first times they may be rendered for reuse.
            for _ in 0..3 {
                prop_assert_eq!(appended(&decision), plain(&decision));
            }
            let mut buffer = Buffer::default();
            let policy = draft11::policy(&mut buffer, limit.name(), quota);
            let written = [policy, draft11::limit(&mut buffer, &decision)];
            prop_assert_eq!(written, plain(&decision));
        }
    }
}

proptest! {
    #[test]
    fn fields_of_requests_in_flight_have_a_unit_and_no_time(
        most in prop_oneof![1..300_u32, 1..=Quota::MAX_CONCURRENT],
        part in 0..=1000_u64,
    ) {
        let quota = Quota::concurrent(most).build().expect("the quota is valid");
        let limit = Limit::new(Endpoint::CALL, quota);
        let debt = |in_flight| Duration::from_secs(in_flight);
        let some = u64::from(most) * part / 1000;
        for (decision, left) in [
            (Decision::allowed(limit, debt(some)), u64::from(most) - some),
            // The last request that is allowed.
            (Decision::allowed(limit, debt(most.into())), 0),
            (Decision::limited(limit, debt(most.into())), 0),
        ] {
            prop_assert_eq!(u64::from(decision.remaining()), left);
            for _ in 0..3 {
                prop_assert_eq!(appended(&decision), plain(&decision));
            }
            let mut buffer = Buffer::default();
            let policy = draft11::policy(&mut buffer, limit.name(), quota);
            let written = [policy, draft11::limit(&mut buffer, &decision)];
            prop_assert_eq!(written, plain(&decision));
        }
    }
}

/// An entry of requests in flight that takes `cost` places.
fn places(name: &str, scope: Scope, most: u32, cost: u32) -> Entry {
    let quota = Quota::concurrent(most).build().expect("the quota is valid");
    let name = LimitName::new(name).expect("the name is valid");
    let entry = Entry::of(Limit::new(name, quota).with_scope(scope));
    entry.with_cost(cost).expect("the cost is valid")
}

/// The decision of a limit of requests in flight that has no room for a request that takes `cost`
/// places.
fn in_flight(scope: Scope, most: u32, cost: u32, in_flight: u64) -> Decision {
    places("call-concurrent", scope, most, cost).limited(Duration::from_secs(in_flight))
}

/// The decision of another limit of requests in flight, which has 7 places left.
fn with_room() -> Decision {
    places("call-user-concurrent", Scope::User, 10, 1).allowed(Duration::from_secs(3))
}

fn lines(headers: &HeaderMap, name: &str) -> Vec<String> {
    let values = headers.get_all(name).iter();
    values.map(|value| value.to_str().expect("the field is ASCII").to_owned()).collect()
}

/// They say when a bucket is full again, which is not known for requests in flight.
#[test]
fn the_older_fields_of_an_admitted_request_are_those_of_a_rate() {
    let older = ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"];
    let legacy = Special { legacy: Some(LegacyReset::DeltaSeconds), private: false };
    let format = Format { special: Some(legacy), ..Format::default() };
    let quota = Quota::per_minute(500).build().expect("the quota is valid");
    let rate = Decision::allowed(Limit::new(Endpoint::CALL, quota), Duration::from_secs(30));
    let entry = places("call-concurrent", Scope::Account, 110, 1);
    let in_flight = entry.allowed(Duration::from_secs(10));
    let admitted = |decisions: &[Decision]| {
        let decisions = Decisions::new(ChargeOutcome::Admitted, decisions.iter().copied());
        let mut ruling = Ruling::of_decisions(Endpoint::CALL, decisions, Enforced::ALL, None);
        let mut response = Response::new(());
        Fields::new(&mut ruling, format, false).append_to(&mut response);
        response.into_parts().0.headers
    };
    let headers = admitted(&[rate, in_flight]);
    assert_eq!(older.map(|name| lines(&headers, name).concat()), ["500", "250", "30"]);
    let expected = ["\"call\";r=250;t=30", "\"call-concurrent\";r=100"];
    assert_eq!(lines(&headers, "ratelimit"), expected);
    let expected = ["\"call\";q=500;w=60", "\"call-concurrent\";q=110;qu=\"concurrent-requests\""];
    assert_eq!(lines(&headers, "ratelimit-policy"), expected);
    // Without a rate there are none.
    let headers = admitted(&[in_flight]);
    assert_eq!(lines(&headers, "ratelimit"), ["\"call-concurrent\";r=100"]);
    assert!(older.iter().all(|name| !headers.contains_key(*name)), "{headers:?}");
}

/// Beside another limit of requests in flight, and no rate: the store is not asked about them.
#[test]
fn a_refusal_for_requests_in_flight_names_a_wait_of_a_second() {
    let both = [in_flight(Scope::Account, 110, 1, 110), with_room()];
    let decisions = Decisions::new(ChargeOutcome::Refused, both);
    let ruling = Ruling::of_decisions(Endpoint::CALL, decisions, Enforced::ALL, None);
    let request = Request::new(());
    let headers = |format| {
        let too_costly = StatusCode::PAYLOAD_TOO_LARGE;
        let refusal = Refusal::new(&request, &ruling, None, too_costly, format);
        assert_eq!(refusal.wait(), Some(Duration::from_secs(1)));
        let limits: Vec<_> = refusal.limits().map(|limit| limit.name().name()).collect();
        assert_eq!(limits, ["call-concurrent"]);
        let (status, headers, _) = parts(refusal.answer(None).into_response());
        assert_eq!(status, 429);
        assert_eq!(lines(&headers, "retry-after"), ["1"]);
        let expected = ["\"call-concurrent\";r=0;t=1", "\"call-user-concurrent\";r=7"];
        assert_eq!(lines(&headers, "ratelimit"), expected);
        let expected = ["\"call-concurrent\";q=110", "\"call-user-concurrent\";q=10"];
        let expected = expected.map(|it| format!("{it};qu=\"concurrent-requests\""));
        assert_eq!(lines(&headers, "ratelimit-policy"), expected);
        headers
    };
    headers(Format::default());
    let legacy = Special { legacy: Some(LegacyReset::DeltaSeconds), private: false };
    let headers =
        headers(Format { special: Some(legacy), retry_after_ms: true, ..Format::default() });
    assert_eq!(lines(&headers, "retry-after-ms"), ["1000"]);
    let older = ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"];
    assert_eq!(older.map(|name| lines(&headers, name).concat()), ["110", "0", "1"]);
}

#[test]
fn a_refusal_for_requests_in_flight_says_so() {
    let refused = [
        (
            in_flight(Scope::Account, 10, 1, 10),
            "The limit of 10 requests at once for each account, call-concurrent, is reached. Wait \
             until one of the requests in flight has ended.",
            "Limit of 10 requests at once exceeded for call-concurrent",
        ),
        (
            in_flight(Scope::User, 1, 1, 1),
            "The limit of 1 request at once for each user, call-concurrent, is reached. Wait until \
             the request in flight has ended.",
            "Limit of 1 request at once exceeded for call-concurrent",
        ),
        (
            in_flight(Scope::Everyone, 10, 3, 8),
            "The limit of 10 requests at once for all accounts together, call-concurrent, has 2 \
             left, and the request counts as 3. Wait until more of the requests in flight have \
             ended.",
            "Limit of 10 requests at once exceeded for call-concurrent",
        ),
        // Nothing is left, so it does not matter what the request takes.
        (
            in_flight(Scope::Account, 10, 3, 10),
            "The limit of 10 requests at once for each account, call-concurrent, is reached. Wait \
             until one of the requests in flight has ended.",
            "Limit of 10 requests at once exceeded for call-concurrent",
        ),
    ];
    let full = places("call-user-concurrent", Scope::User, 10, 1).limited(Duration::from_secs(10));
    for (decision, detail, message) in refused {
        // Alone, after a limit that has room, and after one that has none either: the last of those
        // with the longest wait is told.
        for (decisions, violated) in [
            (vec![decision], vec!["call-concurrent"]),
            (vec![with_room(), decision], vec!["call-concurrent"]),
            (vec![full, decision], vec!["call-user-concurrent", "call-concurrent"]),
        ] {
            let decisions = Decisions::new(ChargeOutcome::Refused, decisions);
            let ruling = Ruling::of_decisions(Endpoint::CALL, decisions, Enforced::ALL, None);
            let body = problem(&ruling);
            let kind = "https://iana.org/assignments/http-problem-types#quota-exceeded";
            assert_eq!((&body["type"], &body["status"]), (&kind.into(), &429.into()));
            assert_eq!((&body["detail"], &body["message"]), (&detail.into(), &message.into()));
            assert_eq!(body["violated-policies"], serde_json::json!(violated));
        }
    }
}

#[test]
fn a_rate_refuses_beside_requests_in_flight_that_have_room() {
    let quota = Quota::per_minute(5).build().expect("the quota is valid");
    let rate = Decision::limited(Limit::new(Endpoint::CALL, quota), Duration::from_secs(60));
    let decisions = Decisions::new(ChargeOutcome::Refused, [rate, with_room()]);
    let ruling = Ruling::of_decisions(Endpoint::CALL, decisions, Enforced::ALL, None);
    let body = problem(&ruling);
    let detail = "The quota of 5 requests per minute for endpoint call is used up. It refills at \
                  that rate; wait 12 seconds.";
    assert_eq!(body["detail"], detail);
    assert_eq!(body["violated-policies"], serde_json::json!(["call"]));
    let request = Request::new(());
    let too_costly = StatusCode::PAYLOAD_TOO_LARGE;
    let refusal = Refusal::new(&request, &ruling, None, too_costly, Format::default());
    let (_, headers, _) = parts(refusal.answer(None).into_response());
    let expected = ["\"call\";r=0;t=12", "\"call-user-concurrent\";r=7"];
    assert_eq!(lines(&headers, "ratelimit"), expected);
    assert_eq!(lines(&headers, "retry-after"), ["12"]);
}

#[test]
fn a_request_that_takes_more_places_than_there_are_is_told_so() {
    let quota = Quota::concurrent(10).build().expect("the quota is valid");
    let name = LimitName::new("call-concurrent").expect("the name is valid");
    let ruling = Ruling::too_costly(Endpoint::CALL, Limit::new(name, quota), 11, true);
    let body = problem(&ruling);
    let detail = "The request counts as 11 requests in flight for the limit call-concurrent, which \
                  never allows more than 10. Waiting does not help; ask for less at once.";
    assert_eq!(body["detail"], detail);
    let message = "The request costs 11 of call-concurrent, and at most 10 are allowed at once";
    assert_eq!(body["message"], message);
}

/// What a gRPC client shows is the same sentence.
#[test]
fn a_grpc_refusal_for_requests_in_flight_names_a_wait_of_a_second() {
    let decisions = Decisions::of_one(in_flight(Scope::Account, 10, 1, 10));
    let ruling = Ruling::of_decisions(Endpoint::CALL, decisions, Enforced::ALL, None);
    let request = Request::new(());
    let too_costly = StatusCode::PAYLOAD_TOO_LARGE;
    let refusal = Refusal::new(&request, &ruling, None, too_costly, Format::default());
    let (status, headers, _) = parts(refusal.answer_grpc().into_response());
    assert_eq!((status, lines(&headers, "grpc-status")), (200, vec!["8".to_owned()]));
    assert_eq!(lines(&headers, "grpc-message"), [refusal.detail()]);
    assert_eq!(lines(&headers, "grpc-retry-pushback-ms"), ["1000"]);
    assert_eq!(lines(&headers, "ratelimit"), ["\"call-concurrent\";r=0;t=1"]);
}

/// The body of the usual refusal by that ruling, which is the same when it is found again.
fn problem(ruling: &Ruling) -> serde_json::Value {
    let request = Request::new(());
    let too_costly = StatusCode::PAYLOAD_TOO_LARGE;
    let refusal = Refusal::new(&request, ruling, None, too_costly, Format::default());
    let body = || parts(refusal.answer(None).into_response()).2;
    let first = body();
    assert_eq!(first, body());
    serde_json::from_slice(&first).expect("the body is JSON")
}

/// In a thread of its own, whose tables are empty.
#[test]
fn a_refusal_is_the_same_whether_it_is_rendered_for_reuse_or_not() {
    let refusals = || {
        let off = Format { dialect: Dialect::Off, ..Format::default() };
        let longest = |seconds| Longest::of(Duration::from_secs(seconds));
        let capped = |seconds| Format { longest: longest(seconds), ..Format::default() };
        let mut refusals = Vec::new();
        for units in [20, 21, 22] {
            let quota = Quota::per_minute(units).burst(3).build().expect("the quota is valid");
            let limit = Limit::new(Endpoint::CALL, quota);
            for format in [Format::default(), off, capped(1), capped(3)] {
                for debt in (6_000..=20_000).step_by(250).map(Duration::from_millis) {
                    for decision in [Decision::limited(limit, debt), Decision::blocked(limit, debt)]
                    {
                        let request = Request::new(());
                        let decisions = Decisions::of_one(decision);
                        let all = Enforced::ALL;
                        let ruling = Ruling::of_decisions(Endpoint::CALL, decisions, all, None);
                        let too_costly = StatusCode::PAYLOAD_TOO_LARGE;
                        let refusal = Refusal::new(&request, &ruling, None, too_costly, format);
                        assert!(matches!(refusal.reason(), Reason::Limited(by) if by == decision));
                        let answer = || parts(refusal.answer(None).into_response());
                        let afresh = parts(refusal.render(None));
                        assert_eq!(answer(), afresh, "{decision:?}");
                        assert_eq!(answer(), afresh, "{decision:?}");
                        refusals.push(afresh);
                    }
                }
            }
        }
        refusals
    };
    let threads = [(); 3].map(|()| thread::spawn(refusals));
    let [first, second, third] = threads.map(|thread| thread.join().expect("the thread ends"));
    assert!(first == second && second == third);
}

#[test]
fn the_policy_in_use_is_found_however_many_there_have_been() {
    let decision = |limit| {
        let quota = Quota::per_minute(limit).burst(100).build().expect("the quota is valid");
        Decision::allowed(Limit::new(Endpoint::EXECUTIONS, quota), Duration::ZERO)
    };
    // Texts that are written for a response are dropped with it. So their address is the same once
    // more only if nothing else is written meanwhile.
    let address = |limit| {
        let mut response = Response::new(());
        Fields::of_one(&decision(limit), Format::default()).append_to(&mut response);
        let _other = appended(&decision(limit + 1_000_000));
        response.headers()["ratelimit"].as_bytes().as_ptr()
    };
    (1..20_000).for_each(|limit| {
        address(limit);
    });
    (0..40_000).for_each(|_| {
        address(50_000);
    });
    assert_eq!(address(50_000), address(50_000));
}

#[test]
fn a_thread_that_ends_can_still_answer() {
    struct AtTheEnd;
    impl Drop for AtTheEnd {
        fn drop(&mut self) {
            let quota = Quota::per_minute(7).build().expect("the quota is valid");
            let decision = Decision::allowed(Limit::new(Endpoint::AGENT, quota), Duration::ZERO);
            assert_eq!(appended(&decision), plain(&decision));
        }
    }
    thread_local!(static AT_THE_END: AtTheEnd = const { AtTheEnd });
    thread::spawn(|| {
        AT_THE_END.with(|_| ());
        cache::with(|_| ());
    })
    .join()
    .expect("it can answer");
}
