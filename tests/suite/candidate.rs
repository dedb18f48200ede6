//! Candidates: policies that are evaluated beside the active one.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bolna_rate_limit::limiter::CandidateReport;
use bolna_rate_limit::store::{
    Answer, Charge, Command, Decisions, MemoryStore, Reply, Store, StoreError,
};
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{
    Account, BolnaRateLimitLayer, Decision, Endpoint, Enforcement, Limiter, Policy, Quota, Ruling,
};
use http::{Method, Request};
use proptest::prelude::*;
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready};
use tower::{Layer, Service};

use crate::deferred::{Answers, DeferredStore};
use crate::observers::Witness;
use crate::support::{
    DecideNow, call_by, now, ok, one_call, organization, request, send, stopped_limiter, tight,
    traffic,
};

/// A policy with other quotas, endpoints and exempt paths than [`tight`].
fn other() -> Policy {
    Policy::builder()
        .endpoint("call", Quota::per(3, Duration::from_secs(10)).burst(1), ["/call"])
        .endpoint("agents", Quota::per_second(2), ["/v2/{*rest}"])
        .default_quota(Quota::per_second(2).burst(4))
        .exempt(["/free"])
        .build()
        .unwrap()
}

/// The counts of a report over all endpoints. In this order: both policies allow, both limit, only
/// the candidate limits, only the candidate allows.
fn sums(report: &[CandidateReport]) -> [u64; 4] {
    let sum = |count: fn(&CandidateReport) -> u64| report.iter().map(count).sum();
    [
        sum(|one| one.allowed),
        sum(|one| one.limited),
        sum(|one| one.newly_limited),
        sum(|one| one.newly_allowed),
    ]
}

proptest! {
    #[test]
    fn a_candidate_says_what_it_would_have_decided_alone(traffic in traffic(), without_tower in any::<bool>()) {
        let policy = tight().exempt(["/v2/agent/1/executions"]).build().unwrap();
        let (limiter, clock) = stopped_limiter(policy.clone());
        let (enforced, candidate) = [policy, other()]
            .map(|policy| Limiter::with_store(policy, MemoryStore::with_clock(clock.clone())).unwrap())
            .into();
        limiter.set_candidate(other()).unwrap();
        let witness = Witness::of(&limiter);
        let layer = BolnaRateLimitLayer::with_limiter(limiter.clone());
        let alone = BolnaRateLimitLayer::with_limiter(enforced);
        let mut judged = Vec::new();
        for sent in traffic {
            clock.advance(sent.pause);
            let caller = organization(sent.caller);
            if without_tower {
                prop_assert_eq!(limiter.decide_now(&caller, sent.path), alone.limiter().decide_now(&caller, sent.path));
            } else {
                let send = |layer| now(send(layer, request(Method::GET, sent.path, "u", sent.caller)));
                let (response, expected) = (send(&layer), send(&alone));
                prop_assert_eq!(response.status(), expected.status());
                prop_assert_eq!(response.headers(), expected.headers());
            }
            let Some(told) = witness.told().pop() else {
                prop_assert_eq!(sent.path, "/v2/agent/1/executions");
                continue;
            };
            let expected = candidate.check_now(&(&caller).into(), sent.path);
            prop_assert_eq!(
                told.candidate.as_ref().map(Decisions::as_slice),
                expected.as_ref().map(Ruling::decisions)
            );
            prop_assert_eq!(told.enforced, true);
            judged.extend(told.decision.zip(expected));
            let usage = |limiter: &Limiter<_>| now(limiter.usage(&caller)).unwrap();
            prop_assert_eq!(usage(&limiter), usage(alone.limiter()));
        }
        let report = limiter.candidate_report();
        let endpoints: Vec<_> = report.iter().map(|one| (one.endpoint, one.quota)).collect();
        prop_assert_eq!(endpoints, other().endpoints().collect::<Vec<_>>());
        for one in report {
            let count = |enforced, candidate| {
                let is = |(by_policy, by_candidate): &&(Decision, Ruling)| {
                    by_candidate.endpoint() == Some(one.endpoint)
                        && (by_policy.is_allowed(), by_candidate.is_allowed()) == (enforced, candidate)
                };
                judged.iter().filter(is).count() as u64
            };
            prop_assert_eq!(
                [one.allowed, one.limited, one.newly_limited, one.newly_allowed],
                [count(true, true), count(false, false), count(true, false), count(false, true)]
            );
        }
    }
}

#[tokio::test]
async fn a_candidate_refuses_nobody_and_its_buckets_names_are_seen_by_nobody() {
    let (limiter, _clock) = stopped_limiter(Policy::default());
    limiter.set_candidate(one_call()).unwrap();
    let witness = Witness::of(&limiter);
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone()).ruling_in_extensions();
    let mut seen = Vec::new();
    for remaining in (490..500).rev() {
        let response = send(&layer, call_by("u", "o")).await;
        assert_eq!(
            response.headers()["ratelimit"],
            format!("\"call\";r={remaining};t={}", (remaining * 12_u32).div_ceil(100))
        );
        assert_eq!((response.status().as_u16(), response.headers().len()), (200, 2));
        seen.push(format!("{:?}", response.headers()));
    }
    let told = witness.told();
    assert!(
        told[1..]
            .iter()
            .all(|told| told.admitted && told.candidate.as_ref().is_some_and(|by| !by.all_allow()))
    );
    assert_eq!(sums(&limiter.candidate_report()), [1, 0, 9, 0]);
    assert_eq!(limiter.candidate().unwrap().quota_of(Endpoint::CALL).unwrap().limit(), 1);
    seen.push(format!("{told:?} {:?} {:?}", limiter.candidate_report(), limiter.candidate()));
    seen.push(format!(
        "{:?} {limiter:?} {:?}",
        now(limiter.usage(&organization("o"))),
        witness.events()
    ));
    assert!(!seen.iter().any(|seen| seen.contains("+candidate")), "{seen:?}");
    assert!(Endpoint::new("call+candidate").is_err());
    assert!(
        Policy::builder().endpoint("call+candidate", Quota::per_minute(1), ["/x"]).build().is_err()
    );
}

#[tokio::test]
async fn an_endpoint_with_the_longest_name_can_be_tried_too() {
    let policy =
        Policy::builder().endpoint("x".repeat(64), Quota::per_minute(1), ["/x"]).build().unwrap();
    let (limiter, _clock) = stopped_limiter(Policy::default());
    limiter.set_candidate(policy).unwrap();
    for _ in 0..2 {
        limiter.decide_now(&organization("o"), "/x").unwrap();
    }
    let report = limiter.candidate_report();
    assert_eq!((report[0].endpoint.name().len(), sums(&report)), (64, [1, 0, 1, 0]));
}

#[tokio::test]
async fn accounts_with_limits_of_their_own_are_not_evaluated() {
    let standard = Policy::default();
    let (limiter, _clock) = stopped_limiter(standard.clone());
    limiter.set_candidate(one_call()).unwrap();
    let witness = Witness::of(&limiter);
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone());
    // Whatever the limits of the plan are, they stay when the candidate becomes active.
    for plan in [tight().build().unwrap(), standard] {
        let mut request = Request::post("/call").body(String::new()).unwrap();
        request.extensions_mut().insert(Account::user("u").with_policy(plan));
        assert_eq!(send(&layer, request).await.status(), 200);
        let told = witness.one();
        assert_eq!((told.outcome, told.candidate), ("allowed", None));
    }
    assert_eq!(sums(&limiter.candidate_report()), [0; 4]);
}

#[tokio::test]
async fn strangers_and_shadow_mode_do_not_disturb_a_candidate() {
    let (limiter, _clock) = stopped_limiter(one_call());
    limiter.set_candidate(Policy::default()).unwrap();
    limiter.set_enforcement(Enforcement::SHADOW);
    let witness = Witness::of(&limiter);
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone());
    for _ in 0..2 {
        assert_eq!(send(&layer, call_by("u", "o")).await.status(), 200);
        assert_eq!(
            send(&layer, Request::post("/call").body(String::new()).unwrap()).await.status(),
            401
        );
    }
    assert_eq!(sums(&limiter.candidate_report()), [1, 0, 0, 1]);
    let told: Vec<_> = witness.told().into_iter().map(|told| told.candidate.is_some()).collect();
    assert_eq!(told, [true, false, true, false]);
}

#[test]
fn a_candidate_begins_full_and_another_begins_as_it_was_left() {
    let (limiter, clock) = stopped_limiter(Policy::default());
    let caller = organization("o");
    let check = || assert!(limiter.decide_now(&caller, "/call").is_some());
    (0..100).for_each(|_| check());
    assert!(limiter.candidate().is_none() && limiter.candidate_report().is_empty());
    limiter.set_candidate(one_call()).unwrap();
    (0..3).for_each(|_| check());
    assert_eq!(sums(&limiter.candidate_report()), [1, 0, 2, 0]);
    // The report starts from zero. The candidate's bucket keeps its state.
    limiter.set_candidate(one_call()).unwrap();
    assert_eq!(sums(&limiter.candidate_report()), [0; 4]);
    check();
    assert_eq!(sums(&limiter.candidate_report()), [0, 0, 1, 0]);
    clock.advance(Duration::from_secs(10));
    check();
    assert_eq!(sums(&limiter.candidate_report()), [1, 0, 1, 0]);
    limiter.set_candidate(None).unwrap();
    assert!(limiter.candidate().is_none() && limiter.candidate_report().is_empty());
    // The candidate stays when the policy is replaced, and is not the active policy.
    limiter.set_candidate(one_call()).unwrap();
    limiter.set_policy(tight().build().unwrap()).unwrap();
    assert_eq!(limiter.candidate().unwrap().quota_of(Endpoint::CALL).unwrap().limit(), 1);
    assert_eq!(limiter.policy().quota_of(Endpoint::CALL).unwrap().limit(), 2);
}

#[test]
fn a_candidate_is_set_and_removed_under_traffic_without_a_trace() {
    let (limiter, _clock) = stopped_limiter(Policy::default());
    let admitted: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let limiter = limiter.clone();
                let allowed =
                    move || limiter.decide_now(&organization("o"), "/call").unwrap().is_allowed();
                scope.spawn(move || (0..1000).filter(|_| allowed()).count())
            })
            .collect();
        for _ in 0..100 {
            for candidate in [Some(one_call()), Some(other()), None] {
                limiter.set_candidate(candidate).unwrap();
            }
        }
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(admitted, 500);
    assert_eq!(limiter.decide_now(&organization("o"), "/call").unwrap().remaining(), 0);
}

/// A store that answers the checks by the active policy's quota in one way, and those by the
/// candidate's quota in another.
#[derive(Debug)]
struct Split {
    by_policy: DeferredStore,
    by_candidate: DeferredStore,
}

impl Split {
    fn limiter() -> Limiter<Self> {
        let store =
            || DeferredStore::before(Arc::new(MemoryStore::with_clock(ManualClock::default())));
        let limiter = Limiter::with_store(
            Policy::default(),
            Self { by_policy: store(), by_candidate: store() },
        )
        .unwrap();
        limiter.set_candidate(one_call()).unwrap();
        limiter
    }

    fn of(&self, charge: &Charge<'_>) -> &DeferredStore {
        let by_candidate = charge.entries()[0].quota().limit() == 1;
        if by_candidate { &self.by_candidate } else { &self.by_policy }
    }
}

impl Store for Split {
    type Check = <DeferredStore as Store>::Check;

    fn check(&self, charge: Charge<'_>) -> Answer<Self::Check> {
        self.of(&charge).check(charge)
    }

    async fn command(&self, command: Command<'_>) -> Result<Reply, StoreError> {
        match command {
            Command::Peek(charge) | Command::Refund(charge) => {
                self.of(&charge).command(command).await
            }
            Command::Reset { .. } | Command::Block { .. } => self.by_policy.command(command).await,
            _ => Err(StoreError::unsupported(&command)),
        }
    }
}

const ALL: [Answers; 5] = [
    Answers::NotYet,
    Answers::Decision,
    Answers::DecisionAtOnce,
    Answers::Failure,
    Answers::FailureAtOnce,
];

fn fails(answers: Answers) -> bool {
    matches!(answers, Answers::Failure | Answers::FailureAtOnce)
}

#[test]
fn either_may_answer_later_or_fail_and_the_candidate_never_matters() {
    for (by_policy, by_candidate) in ALL.into_iter().flat_map(|one| ALL.map(|other| (one, other))) {
        for without_tower in [false, true] {
            let case = format!("{by_policy:?}, the candidate {by_candidate:?}");
            let limiter = Split::limiter();
            limiter.store().by_policy.now_answers(by_policy);
            limiter.store().by_candidate.now_answers(by_candidate);
            let witness = Witness::of(&limiter);
            let mut service =
                BolnaRateLimitLayer::with_limiter(limiter.clone()).layer(tower::service_fn(ok));
            let caller = organization("o");
            let mut answer = spawn(Box::pin({
                let limiter = limiter.clone();
                let caller = caller.clone();
                async move {
                    if without_tower {
                        limiter
                            .check(&caller.clone().into(), "/call")
                            .unwrap()
                            .wait()
                            .await
                            .map_or(503, |_| 200)
                    } else {
                        service.call(call_by("u", "o")).await.unwrap().status().as_u16()
                    }
                }
            }));
            let mut polled = answer.poll();
            for (answers, store) in [
                (by_candidate, &limiter.store().by_candidate),
                (by_policy, &limiter.store().by_policy),
            ] {
                if answers == Answers::NotYet {
                    assert!(polled.is_pending(), "{case}");
                    assert_eq!(witness.told(), [], "{case}");
                    store.now_answers(Answers::Decision);
                    polled = answer.poll();
                }
            }
            assert_eq!(assert_ready!(polled), if fails(by_policy) { 503 } else { 200 }, "{case}");
            let told = witness.one();
            assert_eq!(
                told.outcome,
                if fails(by_policy) { "store_failed" } else { "allowed" },
                "{case}"
            );
            assert_eq!(told.candidate.is_some(), !fails(by_candidate), "{case}");
            let at_once =
                |answers| matches!(answers, Answers::DecisionAtOnce | Answers::FailureAtOnce);
            assert_eq!(told.waited, !at_once(by_policy) || !at_once(by_candidate), "{case}");
            let both = u64::from(!fails(by_policy) && !fails(by_candidate));
            assert_eq!(sums(&limiter.candidate_report()), [both, 0, 0, 0], "{case}");
            assert_eq!(
                (limiter.store().by_policy.asked(), limiter.store().by_candidate.asked()),
                (1, 1),
                "{case}"
            );
        }
    }
}

#[test]
fn a_request_that_is_dropped_while_it_waits_leaves_nothing_behind() {
    for (by_policy, by_candidate) in [
        (Answers::NotYet, Answers::NotYet),
        (Answers::DecisionAtOnce, Answers::NotYet),
        (Answers::NotYet, Answers::Failure),
    ] {
        let limiter = Split::limiter();
        limiter.store().by_policy.now_answers(by_policy);
        limiter.store().by_candidate.now_answers(by_candidate);
        let witness = Witness::of(&limiter);
        let mut service =
            BolnaRateLimitLayer::with_limiter(limiter.clone()).layer(tower::service_fn(ok));
        let mut request = spawn(service.call(call_by("u", "o")));
        assert_pending!(request.poll());
        drop(request);
        assert_eq!(
            (limiter.store().by_policy.waiting(), limiter.store().by_candidate.waiting()),
            (0, 0)
        );
        assert_eq!((witness.told(), sums(&limiter.candidate_report())), (vec![], [0; 4]));
    }
}

#[test]
fn a_request_that_waits_is_judged_by_the_candidate_it_was_asked_under() {
    let limiter = Split::limiter();
    let witness = Witness::of(&limiter);
    let mut service =
        BolnaRateLimitLayer::with_limiter(limiter.clone()).layer(tower::service_fn(ok));
    let mut request = spawn(service.call(call_by("u", "o")));
    assert_pending!(request.poll());
    limiter.set_candidate(other()).unwrap();
    limiter.store().by_policy.now_answers(Answers::Decision);
    limiter.store().by_candidate.now_answers(Answers::Decision);
    assert_eq!(assert_ready!(request.poll()).unwrap().status(), 200);
    let candidate = witness.one().candidate.unwrap();
    let [candidate] = candidate.as_slice() else { panic!("{candidate:?}") };
    assert_eq!(candidate.name(), Endpoint::CALL);
    assert_eq!(candidate.quota().limit(), 1);
    // The decision belongs to the report of the candidate that was replaced.
    assert_eq!(sums(&limiter.candidate_report()), [0; 4]);
}

#[tokio::test]
async fn whoever_is_blocked_is_so_under_a_candidate_too() {
    let (limiter, clock) = stopped_limiter(one_call());
    limiter.set_candidate(one_call()).unwrap();
    let witness = Witness::of(&limiter);
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone());
    limiter.block(&organization("o"), Endpoint::CALL, Duration::from_secs(3600)).await.unwrap();
    assert_eq!(send(&layer, call_by("u", "o")).await.status(), 429);
    let decision = limiter.decide_now(&organization("o"), "/call").unwrap();
    assert!(decision.is_blocked());
    assert_eq!(
        witness.told().into_iter().map(|told| told.candidate).collect::<Vec<_>>(),
        [None, None]
    );
    assert_eq!(sums(&limiter.candidate_report()), [0; 4], "it would not have admitted them either");

    clock.advance(Duration::from_secs(3599));
    assert_eq!(send(&layer, call_by("u", "o")).await.status(), 429);
    clock.advance(Duration::from_secs(1));
    assert_eq!(send(&layer, call_by("u", "o")).await.status(), 200);
    assert_eq!(sums(&limiter.candidate_report()), [1, 0, 0, 0], "nothing was charged meanwhile");
}
