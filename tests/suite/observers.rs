//! Observers get observations and events.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bolna_rate_limit::layer::{OnStoreFailure, OnUnidentified};
use bolna_rate_limit::observe::{Advice, Event, Observation, Observer};
use bolna_rate_limit::policy::PolicyBuilder;
use bolna_rate_limit::store::{Answer, Decisions, MemoryStore, Store};
use bolna_rate_limit::values::Outcome;
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{
    Account, BolnaRateLimitLayer, Decision, Endpoint, Enforcement, Limiter, Policy, Principal,
    Quota,
};
use http::{Method, Request};
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready};
use tower::{Layer, Service};

use crate::deferred::{Answers, DeferredStore};
use crate::support::{
    DecideNow, call_by, now, ok, one_call, organization, percent, request, send, stopped_limiter,
};

/// An observer that keeps everything that is reported to it.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    decided: Mutex<Vec<Told>>,
    happened: Mutex<Vec<Event>>,
}

/// An observation as an owned value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Told {
    pub(crate) principal: Option<Principal>,
    pub(crate) endpoint: Option<Endpoint>,
    pub(crate) outcome: &'static str,
    pub(crate) decision: Option<Decision>,
    pub(crate) enforced: bool,
    pub(crate) admitted: bool,
    pub(crate) candidate: Option<Decisions>,
    pub(crate) waited: bool,
}

impl Witness {
    pub(crate) fn of<St: Store>(limiter: &Limiter<St>) -> Arc<Self> {
        let witness = Arc::new(Self::default());
        limiter.observe(Arc::clone(&witness));
        witness
    }

    /// The observations since the last call of this method.
    pub(crate) fn told(&self) -> Vec<Told> {
        std::mem::take(&mut self.decided.lock().unwrap())
    }

    /// The events since the last call of this method.
    pub(crate) fn events(&self) -> Vec<Event> {
        std::mem::take(&mut self.happened.lock().unwrap())
    }

    /// The diagnoses since the last call of this method or of [`events`](Self::events).
    pub(crate) fn diagnoses(&self) -> Vec<Advice> {
        let diagnosis =
            |event| if let Event::Advice(diagnosis) = event { Some(diagnosis) } else { None };
        self.events().into_iter().filter_map(diagnosis).collect()
    }

    /// The only observation since the last call.
    #[track_caller]
    pub(crate) fn one(&self) -> Told {
        let mut told = self.told();
        assert_eq!(told.len(), 1, "{told:?}");
        told.remove(0)
    }
}

impl Observer for Witness {
    fn on_decision(&self, observation: &Observation<'_>) {
        let told = Told {
            principal: observation.principal.cloned(),
            endpoint: observation.ruling.endpoint(),
            outcome: observation.ruling.outcome().name(),
            decision: observation.ruling.decision().copied(),
            enforced: observation.ruling.is_enforced(),
            admitted: observation.ruling.is_admitted(),
            candidate: observation.ruling.candidate().cloned(),
            waited: observation.waited.is_some(),
        };
        let fits = match (observation.ruling.outcome(), told.decision, observation.error) {
            (Outcome::Allowed, Some(decision), None) => decision.is_allowed(),
            (Outcome::Limited, Some(decision), None) => {
                !decision.is_allowed() && !decision.is_blocked()
            }
            (Outcome::Blocked, Some(decision), None) => decision.is_blocked(),
            (Outcome::StoreFailed, None, Some(error)) => error.to_string().contains("store failed"),
            (Outcome::Unidentified | Outcome::TooCostly | Outcome::TooAmbiguous, None, None) => {
                true
            }
            _ => false,
        };
        assert!(fits, "{observation:?}");
        self.decided.lock().unwrap().push(told);
    }

    fn on_event(&self, event: &Event) {
        self.happened.lock().unwrap().push(event.clone());
    }
}

fn stranger(path: &str) -> Request<String> {
    Request::post(path).body(String::new()).unwrap()
}

#[tokio::test]
async fn each_request_is_told_once_with_what_came_of_it() {
    let policy =
        Policy::bolna().quota("call", Quota::per_hour(1)).exempt(["/healthz"]).build().unwrap();
    let (limiter, _clock) = stopped_limiter(policy);
    let witness = Witness::of(&limiter);
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone());
    let status = async |request| send(&layer, request).await.status().as_u16();

    assert_eq!(status(call_by("u", "o")).await, 200);
    let told = witness.one();
    assert_eq!((told.principal, told.endpoint), (Some(organization("o")), Some(Endpoint::CALL)));
    assert_eq!(
        (told.outcome, told.enforced, told.admitted, told.waited),
        ("allowed", true, true, false)
    );
    assert_eq!((told.decision.unwrap().remaining(), told.candidate), (0, None));

    assert_eq!(status(call_by("u", "o")).await, 429);
    let told = witness.one();
    assert_eq!((told.outcome, told.enforced, told.admitted), ("limited", true, false));
    assert_eq!(told.decision.unwrap().retry_after(), Some(Duration::from_secs(3600)));

    assert_eq!(status(stranger("/call")).await, 401);
    let told = witness.one();
    assert_eq!((told.principal, told.endpoint, told.decision), (None, None, None));
    assert_eq!((told.outcome, told.enforced, told.admitted), ("unidentified", true, false));

    for request in [request(Method::GET, "/healthz", "u", "o"), stranger("/healthz")] {
        assert_eq!(status(request).await, 200);
        assert_eq!(witness.told(), [], "nothing is decided about an exempt path");
    }

    limiter.set_enforcement(Enforcement::SHADOW);
    assert_eq!(status(call_by("u", "o")).await, 200);
    let told = witness.one();
    assert_eq!((told.outcome, told.enforced, told.admitted), ("limited", false, true));
    assert_eq!(status(stranger("/call")).await, 401);
    let told = witness.one();
    assert_eq!((told.outcome, told.enforced, told.admitted), ("unidentified", true, false));
}

#[tokio::test]
async fn strangers_who_are_admitted_by_choice_are_told_as_such() {
    let (limiter, _clock) = stopped_limiter(Policy::default());
    let witness = Witness::of(&limiter);
    let layer = BolnaRateLimitLayer::with_limiter(limiter).on_unidentified(OnUnidentified::Admit);
    assert_eq!(send(&layer, stranger("/call")).await.status(), 200);
    let told = witness.one();
    assert_eq!((told.outcome, told.enforced, told.admitted), ("unidentified", true, true));
}

#[tokio::test]
async fn a_store_that_fails_is_told_with_what_came_of_the_request() {
    for answers in [Answers::Failure, Answers::FailureAtOnce] {
        for (fallback, enforcement, mode, status) in [
            (OnStoreFailure::Refuse, Enforcement::FULL, true, 503),
            (OnStoreFailure::Admit, Enforcement::FULL, true, 200),
            (OnStoreFailure::Refuse, Enforcement::SHADOW, false, 200),
        ] {
            let limiter = DeferredStore::limiter(Policy::default());
            limiter.store().now_answers(answers);
            limiter.set_enforcement(enforcement);
            let witness = Witness::of(&limiter);
            let layer = BolnaRateLimitLayer::with_limiter(limiter).on_store_failure(fallback);
            assert_eq!(send(&layer, call_by("u", "o")).await.status(), status);
            let told = witness.one();
            assert_eq!(
                (told.outcome, told.enforced, told.admitted),
                ("store_failed", mode, status == 200)
            );
            assert_eq!((told.endpoint, told.decision), (Some(Endpoint::CALL), None));
            assert_eq!(told.waited, answers == Answers::Failure);
        }
    }
}

#[test]
fn a_request_that_waits_is_told_when_it_is_answered() {
    let limiter = DeferredStore::limiter(one_call());
    let witness = Witness::of(&limiter);
    let mut service =
        BolnaRateLimitLayer::with_limiter(limiter.clone()).layer(tower::service_fn(ok));
    let mut waiting = spawn(service.call(call_by("u", "o")));
    let dropped = spawn(service.call(call_by("u", "o")));
    assert_pending!(waiting.poll());
    assert_eq!(witness.told(), []);
    drop(dropped);
    limiter.store().now_answers(Answers::Decision);
    assert_eq!(assert_ready!(waiting.poll()).unwrap().status(), 200);
    let told = witness.one();
    assert_eq!(
        (told.principal, told.outcome, told.waited),
        (Some(organization("o")), "allowed", true)
    );
    assert_eq!(now(service.call(call_by("u", "o"))).unwrap().status(), 429);
    assert_eq!((witness.one().outcome, witness.told()), ("limited", vec![]));
}

#[test]
fn checks_without_tower_are_told_too() {
    let (limiter, _clock) = stopped_limiter(one_call());
    let witness = Witness::of(&limiter);
    let caller = organization("o");
    let decision = limiter.decide_now(&caller, "/call").unwrap();
    let told = witness.one();
    assert_eq!(
        (told.principal.as_ref(), told.decision, told.outcome),
        (Some(&caller), Some(decision), "allowed")
    );
    let decision = limiter.check(&caller.into(), "/call").unwrap().now().unwrap().unwrap();
    let decision = *decision.decision().unwrap();
    let told = witness.one();
    assert_eq!(
        (told.decision, told.outcome, told.admitted, told.waited),
        (Some(decision), "limited", false, false)
    );
}

#[test]
fn checks_without_tower_are_told_when_they_are_answered() {
    let limiter = DeferredStore::limiter(one_call());
    let witness = Witness::of(&limiter);
    let caller = organization("o");
    let Some(Answer::Later(check)) = limiter.check(&caller.clone().into(), "/call") else {
        panic!("the store answers later")
    };
    let mut check = spawn(check);
    assert_pending!(check.poll());
    assert_eq!(witness.told(), []);
    limiter.store().now_answers(Answers::Decision);
    let decision = assert_ready!(check.poll()).unwrap();
    let told = witness.one();
    assert_eq!(
        (told.principal, told.decision, told.waited),
        (Some(caller.clone()), decision.decision().copied(), true)
    );
    limiter.store().now_answers(Answers::Failure);
    assert!(now(limiter.check(&caller.clone().into(), "/call").unwrap().wait()).is_err());
    let told = witness.one();
    assert_eq!((told.outcome, told.admitted, told.waited), ("store_failed", false, true));
    // A limiter without an observer answers too.
    let unwatched = DeferredStore::limiter(one_call());
    unwatched.store().now_answers(Answers::Decision);
    assert!(now(unwatched.check(&caller.into(), "/call").unwrap().wait()).unwrap().is_allowed());
}

#[test]
fn looking_is_not_told() {
    let (limiter, _clock) = stopped_limiter(Policy::default());
    let witness = Witness::of(&limiter);
    let caller = organization("o");
    now(limiter.peek(&caller, Endpoint::CALL)).unwrap();
    now(limiter.usage(&caller)).unwrap();
    now(limiter.reset(&caller, Endpoint::CALL)).unwrap();
    assert_eq!(witness.told(), []);
    assert!(witness.events().is_empty());
}

#[test]
fn all_observers_are_told_through_whichever_clone_they_were_added() {
    let (limiter, _clock) = stopped_limiter(Policy::default());
    let first = Witness::of(&limiter);
    let second = Arc::new(Witness::default());
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone());
    let mut service = layer.layer(tower::service_fn(ok));
    layer.limiter().observe(Arc::clone(&second));
    now(service.call(call_by("u", "o"))).unwrap();
    assert_eq!(first.one(), second.one());
    limiter.set_enforcement(percent(50));
    assert_eq!((first.events().len(), second.events().len()), (1, 1));
}

fn more_than_forty(limit: u32) -> PolicyBuilder {
    (0..45).fold(Policy::builder(), |policy, number| {
        let path = format!("/many/{number}");
        policy.endpoint(format!("many-{number}"), Quota::per_minute(limit), [path])
    })
}

#[test]
fn a_policy_that_charges_paths_otherwise_is_not_told_as_the_same() {
    let (limiter, _clock) = stopped_limiter(Policy::default());
    let last = Arc::new(Mutex::new(String::new()));
    let written = Arc::clone(&last);
    limiter.on_event(move |event| *written.lock().unwrap() = event.to_string());
    let said_of = |policy: PolicyBuilder| {
        limiter.set_policy(policy.build().unwrap()).unwrap();
        last.lock().unwrap().replace("the policy was changed: ", "")
    };
    let base = || {
        Policy::builder()
            .endpoint("search", Quota::per_minute(60), ["/search", "/v2/{kind}/search"])
            .endpoint("call", Quota::per_minute(5), ["/call"])
    };
    said_of(base().exempt(["/healthz", "/static/{*rest}"]));
    assert_eq!(
        said_of(base()),
        "path /healthz exempt -> default, path /static/{*rest} exempt -> default"
    );
    let moved = Policy::builder().endpoint("search", Quota::per_minute(60), ["/search"]).endpoint(
        "call",
        Quota::per_minute(5),
        ["/call", "/v2/{kind}/search"],
    );
    assert_eq!(said_of(moved.clone()), "path /v2/{kind}/search search -> call");
    assert_eq!(
        said_of(moved.clone().stripped_prefix("/api")),
        "stripped prefixes or ignored spellings are others"
    );
    let pages = || (10..25).map(|page| format!("/page-{page}"));
    let text = said_of(moved.clone().stripped_prefix("/api").exempt(pages()));
    assert!(text.starts_with("path /page-10 default -> exempt, path /page-11 "), "{text}");
    assert!(text.ends_with("path /page-19 default -> exempt and 5 more paths"), "{text}");
    // Narrower templates may claim some paths of a template: then another of its paths tells.
    let three = |search: &[&str], call: &[&str], jobs: &[&str]| {
        let minute = Quota::per_minute(60);
        Policy::builder()
            .endpoint("search", minute, search.iter().copied())
            .endpoint("call", minute, call.iter().copied())
            .endpoint("jobs", minute, jobs.iter().copied())
    };
    for (from, to, expected) in [
        (
            three(&["/{*rest}"], &["/call"], &["/jobs"]),
            three(&["/{*rest}"], &["/call", "/{one}"], &["/jobs"]),
            "path /{one} search -> call",
        ),
        (
            three(&["/{*rest}", "/search"], &["/call", "/{one}"], &["/jobs"]),
            three(&["/search"], &["/call", "/{one}"], &["/jobs", "/{*rest}"]),
            "path /{*rest} search -> jobs",
        ),
        (
            three(&["/search"], &["/call"], &["/jobs"]).exempt(["/x/{*rest}"]),
            three(&["/search"], &["/call", "/x/{one}"], &["/jobs"]).exempt(["/x/{*rest}"]),
            "path /x/{one} exempt -> call",
        ),
    ] {
        said_of(from);
        assert_eq!(said_of(to), expected);
    }
    said_of(more_than_forty(1));
    let text = said_of(more_than_forty(2));
    assert_eq!(text.matches(" -> ").count(), 40, "{text}");
    assert!(text.ends_with(" and 5 more limits"), "{text}");
    said_of(moved.clone().stripped_prefix("/api").exempt(pages()));
    // What a new endpoint brings with it is told as that endpoint.
    let more = moved.stripped_prefix("/api").exempt(pages());
    assert_eq!(
        said_of(more.endpoint("jobs", Quota::per_second(1), ["/jobs"])),
        "jobs none -> 1 request per second"
    );
}

#[test]
fn changes_are_told_in_words() {
    let (limiter, _clock) = stopped_limiter(Policy::default());
    let witness = Witness::of(&limiter);
    let lines = Arc::new(Mutex::new(Vec::new()));
    let written = Arc::clone(&lines);
    limiter.on_event(move |event| written.lock().unwrap().push(event.to_string()));
    let said = || {
        let lines = std::mem::take(&mut *lines.lock().unwrap());
        let told: Vec<_> = witness.events().iter().map(ToString::to_string).collect();
        assert_eq!(lines, told);
        lines
    };

    let faster = Policy::bolna()
        .quota("call", Quota::per_minute(2000).burst(100))
        .enforce("agent", percent(25))
        .endpoint("search", Quota::per_second(5), ["/search"])
        .build()
        .unwrap();
    limiter.set_policy(faster.clone()).unwrap();
    assert_eq!(
        said(),
        ["the policy was changed: agent 500 requests per minute -> 500 requests per minute \
            (25 %), call 500 requests per minute -> 2000 requests per minute with a burst of 100, \
            search none -> 5 requests per second"]
    );
    limiter.set_policy(faster).unwrap();
    assert_eq!(said(), ["the policy was changed: all limits and paths are the same"]);
    limiter.set_policy(Policy::builder().build().unwrap()).unwrap();
    assert_eq!(
        said(),
        ["the policy was changed: executions 500 requests per minute -> none, agent 500 \
            requests per minute (25 %) -> none, call 2000 requests per minute with a burst of 100 \
            -> none, search 5 requests per second -> none"]
    );

    limiter.set_enforcement(Enforcement::SHADOW);
    limiter.set_enforcement(Enforcement::SHADOW);
    limiter.set_enforcement(percent(5));
    assert_eq!(
        said(),
        ["enforcement was changed: full -> shadow", "enforcement was changed: shadow -> 5 %"]
    );

    limiter.set_candidate(one_call()).unwrap();
    limiter.set_candidate(None).unwrap();
    assert_eq!(
        said(),
        ["a candidate policy is evaluated", "no candidate policy is evaluated any more"]
    );
}

#[test]
fn events_carry_what_changed() {
    let (limiter, _clock) = stopped_limiter(Policy::default());
    let witness = Witness::of(&limiter);
    limiter.set_policy(one_call()).unwrap();
    limiter.set_candidate(Policy::default()).unwrap();
    let happened = witness.events();
    let limit = |policy: &Policy| policy.quota_of(Endpoint::CALL).unwrap().limit();
    let [
        Event::PolicyChanged { from, to, .. },
        Event::CandidateChanged { to: Some(candidate), .. },
    ] = &happened[..]
    else {
        panic!("{happened:?}")
    };
    assert_eq!((limit(from), limit(to), limit(candidate)), (500, 1, 500));
}

#[tokio::test]
async fn an_observer_goes_with_the_limiter() {
    let witness = Arc::new(Witness::default());
    let limiter =
        Limiter::with_store(one_call(), DeferredStore::that(Answers::NotYet, &Default::default()))
            .unwrap();
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone());
    limiter.observe(Arc::clone(&witness));
    limiter.on_event({
        let witness = Arc::clone(&witness);
        move |event| witness.on_event(event)
    });
    limiter.set_policy(Policy::default()).unwrap();
    limiter.set_candidate(one_call()).unwrap();
    let mut service = layer.layer(tower::service_fn(ok));
    let mut waiting = spawn(service.call(call_by("u", "o")));
    assert_pending!(waiting.poll());
    drop((limiter, layer, service));
    assert!(Arc::strong_count(&witness) > 1);
    drop(waiting);
    assert_eq!(Arc::strong_count(&witness), 1);
}

#[tokio::test]
async fn an_account_with_limits_of_its_own_is_told_by_them() {
    let (limiter, _clock) = stopped_limiter(one_call());
    let witness = Witness::of(&limiter);
    let plan =
        Policy::builder().endpoint("calls", Quota::per_minute(7), ["/call"]).build().unwrap();
    let mut request = Request::post("/call").body(String::new()).unwrap();
    request.extensions_mut().insert(Account::user("u").with_policy(plan));
    assert_eq!(send(&BolnaRateLimitLayer::with_limiter(limiter), request).await.status(), 200);
    let told = witness.one();
    assert_eq!((told.endpoint.unwrap().name(), told.decision.unwrap().remaining()), ("calls", 6));
}

/// An observer that uses every method of the limiter whenever something is reported to it.
#[derive(Default)]
struct Meddler {
    limiter: Mutex<Option<Limiter<MemoryStore<ManualClock>>>>,
    told: AtomicU32,
}

thread_local! {
    static MEDDLING: Cell<bool> = const { Cell::new(false) };
}

impl Meddler {
    fn meddle(&self) {
        let Some(limiter) = self.limiter.lock().unwrap().clone() else { return };
        self.told.fetch_add(1, Ordering::Relaxed);
        // Its own changes are reported to it too.
        if MEDDLING.replace(true) {
            return;
        }
        let _ = limiter.decide_now(&organization("meddler"), "/v2/agent/17");
        limiter.set_enforcement(percent(50));
        limiter.set_enforcement(Enforcement::FULL);
        limiter.set_candidate(limiter.policy()).unwrap();
        limiter.set_candidate(None).unwrap();
        limiter.set_policy(limiter.policy()).unwrap();
        limiter.on_event(|_| ());
        limiter.store().shrink();
        now(limiter.refund(&organization("meddler"), Endpoint::AGENT, 1)).unwrap();
        MEDDLING.set(false);
    }
}

impl Observer for Meddler {
    fn on_decision(&self, _: &Observation<'_>) {
        self.meddle();
    }

    fn on_event(&self, _: &Event) {
        self.meddle();
    }
}

#[test]
fn an_observer_may_do_anything_with_the_limiter_from_several_threads() {
    let clock = ManualClock::default();
    let store = MemoryStore::with_clock(clock.clone()).max_buckets(2);
    let limiter = Limiter::with_store(one_call(), store).unwrap();
    let meddler =
        Arc::new(Meddler { limiter: Mutex::new(Some(limiter.clone())), told: AtomicU32::new(0) });
    limiter.observe(Arc::clone(&meddler));
    thread::scope(|scope| {
        for thread in 0..4 {
            let (limiter, clock) = (&limiter, &clock);
            scope.spawn(move || {
                for number in 0..25 {
                    // Fills the store to its cap, which is reported, and lets it empty again.
                    let caller = organization(&format!("{thread}-{}", number % 5));
                    let _ = limiter.decide_now(&caller, "/call");
                    clock.advance(Duration::from_secs(1));
                }
            });
        }
    });
    assert!(meddler.told.load(Ordering::Relaxed) > 100);
    // Breaks the cycle: this observer owned the limiter, which an observer should not do.
    meddler.limiter.lock().unwrap().take();
}

#[test]
fn observers_that_come_while_limits_are_changed_are_all_told_of_everything_after() {
    let (limiter, _clock) = stopped_limiter(one_call());
    let witnesses = thread::scope(|scope| {
        let adding: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..8).map(|_| Witness::of(&limiter)).collect::<Vec<_>>()))
            .collect();
        for _ in 0..2 {
            scope.spawn(|| (0..50).for_each(|_| limiter.set_policy(one_call()).unwrap()));
            scope.spawn(|| (0..50).for_each(|_| limiter.set_candidate(one_call()).unwrap()));
        }
        adding.into_iter().flat_map(|adding| adding.join().unwrap()).collect::<Vec<_>>()
    });
    witnesses.iter().for_each(|witness| drop(witness.events()));
    limiter.set_policy(Policy::default()).unwrap();
    let _ = limiter.decide_now(&organization("o"), "/call");
    assert_eq!(witnesses.len(), 32);
    for witness in witnesses {
        assert!(witness.one().candidate.is_some());
        assert!(matches!(witness.events()[..], [Event::PolicyChanged { .. }]));
    }
}
