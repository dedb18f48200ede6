//! Local fallback: this process decides when the store is lost.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bolna_rate_limit::store::{
    Answer, Breaker, Charge, Command, DenialCache, Entry, Immediate, LocalFallback, MemoryStore,
    Reply, Store, StoreError,
};
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{
    BolnaRateLimitLayer, Decision, Endpoint, Limiter, Policy, Principal, Quota,
};
use tokio_test::assert_ready;
use tokio_test::task::spawn;

use crate::bucket::{Bucket, OneBucket, one};
use crate::deferred::{Answers, DeferredStore};
use crate::support::{call_by, now, organization, send, text as text_of};

const INTERVAL: Duration = Duration::from_millis(120);
const NANOSECOND: Duration = Duration::from_nanos(1);

type Replica = LocalFallback<Arc<DeferredStore>, ManualClock>;

fn quota(burst: u32) -> Quota {
    Quota::per_minute(500).burst(burst).build().unwrap()
}

fn replica_of(store: DeferredStore, replicas: u32, clock: &ManualClock) -> Replica {
    store.now_answers(Answers::Decision);
    let local = MemoryStore::with_clock(clock.clone());
    LocalFallback::with_local(Arc::new(store), local).expected_replicas(replicas)
}

/// A replica that shares its store with no other replica.
fn lone(replicas: u32) -> (Replica, ManualClock) {
    let clock = ManualClock::default();
    let decides = Arc::new(MemoryStore::with_clock(clock.clone()));
    (replica_of(DeferredStore::before(decides), replicas, &clock), clock)
}

fn decide<St: Store>(store: &St, principal: &Principal, quota: Quota) -> Decision {
    now(store.check_one(Bucket::new(principal, Endpoint::CALL, quota))).unwrap()
}

/// The number of requests that are admitted before the first refusal.
fn drain<St: Store>(store: &St, quota: Quota) -> u32 {
    let mut admitted = 0;
    while decide(store, &organization("o"), quota).is_allowed() {
        admitted += 1;
    }
    admitted
}

fn lose(replicas: &[Replica]) {
    for replica in replicas {
        replica.store().now_answers(Answers::Failure);
    }
}

#[test]
fn what_the_replicas_admit_together_is_what_one_store_would() {
    for (replicas, burst) in
        [1, 2, 3, 7].into_iter().flat_map(|n| [1, 2, 10, 500].map(|burst| (n, burst)))
    {
        for spent in [0, burst / 2, burst] {
            let (quota, clock) = (quota(burst), ManualClock::default());
            let one = MemoryStore::with_clock(clock.clone());
            // Each replica has at least one unit of a full bucket.
            let by_itself = Quota::per_minute(500).burst(burst.max(replicas)).build().unwrap();
            // Each replica has a store of its own, so that each has seen how full the bucket was.
            let own = || DeferredStore::before(Arc::new(MemoryStore::with_clock(clock.clone())));
            let fleet: Vec<_> =
                (0..replicas).map(|_| replica_of(own(), replicas, &clock)).collect();
            for _ in 0..spent {
                assert!(decide(&one, &organization("o"), by_itself).is_allowed());
                assert!(
                    fleet
                        .iter()
                        .all(|replica| decide(replica, &organization("o"), quota).is_allowed())
                );
            }
            lose(&fleet);
            let (mut by_one, mut by_all) = (0, 0);
            for pause in [
                0, 1, 119, 120, 121, 240, 360, 500, 839, 841, 10_000, 1, 119, 7, 3000, 60_000, 840,
                420_000,
            ] {
                clock.advance(Duration::from_millis(pause));
                by_one += drain(&one, by_itself);
                by_all += fleet.iter().map(|replica| drain(replica, quota)).sum::<u32>();
                let case =
                    format!("{replicas} replicas, {spent} of {burst} spent: {by_all} for {by_one}");
                assert!(by_all <= by_one, "{case}");
                if replicas == 1 {
                    assert_eq!(by_all, by_one, "{case}");
                }
            }
        }
    }
}

#[test]
fn a_share_of_what_is_there_at_once_is_rounded_down() {
    for (replicas, burst, each) in
        [(1, 500, 500), (2, 500, 250), (3, 500, 166), (7, 10, 1), (3, 2, 1), (7, 1, 1)]
    {
        let (replica, clock) = lone(replicas);
        lose(std::slice::from_ref(&replica));
        assert_eq!(drain(&replica, quota(burst)), each);
        clock.advance(INTERVAL * replicas - NANOSECOND);
        assert_eq!(drain(&replica, quota(burst)), 0);
        clock.advance(NANOSECOND);
        assert_eq!(drain(&replica, quota(burst)), 1);
    }
}

#[test]
fn nobody_who_was_refused_by_the_store_is_admitted_because_it_is_lost() {
    for burst in [1, 2, 10, 500] {
        let clock = ManualClock::default();
        let shared = Arc::new(MemoryStore::with_clock(clock.clone()));
        let before = || DeferredStore::before(Arc::clone(&shared));
        let fleet: Vec<_> = (0..3).map(|_| replica_of(before(), 3, &clock)).collect();
        assert_eq!(fleet.iter().map(|replica| drain(replica, quota(burst))).sum::<u32>(), burst);
        lose(&fleet);
        let admitted = || fleet.iter().map(|replica| drain(replica, quota(burst))).sum::<u32>();
        assert_eq!(admitted(), 0);
        clock.advance(INTERVAL * 3 - NANOSECOND);
        assert_eq!(admitted(), 0);
        clock.advance(NANOSECOND);
        assert_eq!(admitted(), 3);
    }
}

#[test]
fn zero_replicas_are_one_and_one_is_the_default() {
    let clock = ManualClock::default();
    let lost = DeferredStore::that(Answers::Failure, &clock);
    let local = || MemoryStore::with_clock(clock.clone());
    assert_eq!(drain(&LocalFallback::with_local(Arc::clone(&lost), local()), quota(500)), 500);
    assert_eq!(
        drain(&LocalFallback::with_local(lost, local()).expected_replicas(0), quota(500)),
        500
    );
}

fn replicas(store: &impl Store) -> u32 {
    store.capabilities().replicas.get()
}

/// The limiter counts requests in flight, and needs to know by how many processes it is divided.
#[test]
fn capabilities_tell_the_number_of_replicas() {
    let fallback = || LocalFallback::new(MemoryStore::new());
    let of = |replicas| fallback().expected_replicas(replicas);
    assert_eq!(replicas(&MemoryStore::new()), 1);
    assert_eq!(replicas(&fallback()), 1);
    assert_eq!([0, 1, 3].map(|number| replicas(&of(number))), [1, 1, 3]);
    // Through other wrappers, and the larger number of two.
    assert_eq!(replicas(&DenialCache::new(Breaker::new(of(3)))), 3);
    let twice = |inner, outer| LocalFallback::new(of(inner)).expected_replicas(outer);
    assert_eq!([replicas(&twice(3, 1)), replicas(&twice(2, 5))], [3, 5]);
}

#[test]
fn a_decision_says_what_it_was_measured_by() {
    let (replica, clock) = lone(3);
    let caller = organization("o");
    assert_eq!(decide(&replica, &caller, quota(500)).quota(), quota(500));
    replica.store().now_answers(Answers::Failure);
    let decision = decide(&replica, &caller, quota(500));
    assert_eq!(
        decision.quota(),
        Quota::per(500, Duration::from_secs(180)).burst(166).build().unwrap()
    );
    // 499 of 500 units were left. A third of them is 166.33, and this check spends one.
    assert_eq!((decision.is_allowed(), decision.remaining()), (true, 165));
    assert_eq!(drain(&replica, quota(500)), 165);
    let refused = decide(&replica, &caller, quota(500));
    assert_eq!(refused.remaining(), 0);
    let wait = refused.retry_after().unwrap();
    clock.advance(wait - NANOSECOND);
    assert!(!decide(&replica, &caller, quota(500)).is_allowed());
    clock.advance(NANOSECOND);
    assert!(decide(&replica, &caller, quota(500)).is_allowed());
}

#[test]
fn with_one_replica_counting_goes_on_as_if_nothing_had_happened() {
    let (replica, clock) = lone(1);
    let one = MemoryStore::with_clock(clock.clone());
    let caller = organization("o");
    for round in 0..1000_u32 {
        if round == 300 {
            replica.store().now_answers(Answers::Failure);
        }
        clock.advance(Duration::from_millis((round % 7).into()));
        assert_eq!(decide(&replica, &caller, quota(50)), decide(&one, &caller, quota(50)));
    }
}

#[test]
fn errors_of_requests_are_decided_here_too() {
    let (replica, _clock) = lone(1);
    replica.store().now_answers(Answers::FailureOfRequest);
    assert_eq!(drain(&replica, quota(10)), 10);
}

#[test]
fn an_answer_at_once_stays_at_once_and_is_noted() {
    let (replica, _clock) = lone(1);
    let caller = organization("o");
    let bucket = Bucket::new(&caller, Endpoint::CALL, quota(10));
    replica.store().now_answers(Answers::DecisionAtOnce);
    assert_eq!(one(replica.check(bucket.charge()).now().unwrap()).unwrap().remaining(), 9);
    replica.store().now_answers(Answers::FailureAtOnce);
    assert_eq!(one(replica.check(bucket.charge()).now().unwrap()).unwrap().remaining(), 8);
}

#[test]
fn a_debt_counts_from_when_the_answer_arrives() {
    let (replica, clock) = lone(1);
    let caller = organization("o");
    replica.store().now_answers(Answers::NotYet);
    let bucket = Bucket::new(&caller, Endpoint::CALL, quota(1));
    let Answer::Later(check) = replica.check(bucket.charge()) else {
        panic!("the store answers later")
    };
    clock.advance(INTERVAL);
    replica.store().now_answers(Answers::Decision);
    assert!(one(assert_ready!(spawn(check).poll())).unwrap().is_allowed());
    replica.store().now_answers(Answers::Failure);
    assert_eq!(decide(&replica, &caller, quota(1)).retry_after(), Some(INTERVAL));
}

#[test]
fn what_is_owed_here_is_never_forgiven_by_an_answer() {
    let (replica, clock) = lone(1);
    let lost =
        |lost| replica.store().now_answers(if lost { Answers::Failure } else { Answers::Decision });
    lost(true);
    assert_eq!(drain(&replica, quota(10)), 10);
    // The store was not charged for these ten.
    lost(false);
    assert_eq!(decide(&replica, &organization("o"), quota(10)).remaining(), 9);
    lost(true);
    assert_eq!(drain(&replica, quota(10)), 0);
    clock.advance(INTERVAL);
    assert_eq!(drain(&replica, quota(10)), 1);
}

#[test]
fn a_refusal_here_is_not_remembered_beyond_an_answer() {
    let (replica, clock) = lone(1);
    let caller = organization("o");
    replica.store().now_answers(Answers::Failure);
    assert_eq!(drain(&replica, quota(1)), 1);
    clock.advance(INTERVAL / 2);
    // The store was not charged for that one, and admits another.
    replica.store().now_answers(Answers::Decision);
    assert!(decide(&replica, &caller, quota(1)).is_allowed());
    replica.store().now_answers(Answers::Failure);
    assert_eq!(decide(&replica, &caller, quota(1)).retry_after(), Some(INTERVAL));
}

#[test]
fn no_answer_is_noted_as_more_than_a_share_can_owe() {
    let (replica, clock) = lone(3);
    let slow = Quota::per_hour(10).build().unwrap();
    assert_eq!(drain(&replica, slow), 10);
    // By the faster quota, the store cuts the debt to a minute, and the decision says so.
    assert!(!decide(&replica, &organization("o"), quota(500)).is_allowed());
    replica.store().now_answers(Answers::Failure);
    assert_eq!(drain(&replica, quota(500)), 0);
    clock.advance(INTERVAL * 3);
    assert_eq!(drain(&replica, quota(500)), 1);
}

#[tokio::test]
async fn a_look_is_at_the_store_or_else_here() {
    let (replica, _clock) = lone(2);
    let caller = organization("o");
    let bucket = Bucket::new(&caller, Endpoint::CALL, quota(10));
    assert!(decide(&replica, &caller, quota(10)).is_allowed());
    assert_eq!(replica.peek(bucket).await.unwrap().remaining(), 9);
    replica.store().now_answers(Answers::Failure);
    let peeked = replica.peek(bucket).await.unwrap();
    assert_eq!((peeked.remaining(), peeked.quota().burst()), (4, 5));
    assert_eq!(replica.peek(bucket).await.unwrap(), peeked);
}

#[tokio::test]
async fn a_reset_fills_both_and_says_if_it_could_not() {
    let (replica, _clock) = lone(1);
    let caller = organization("o");
    assert_eq!(drain(&replica, quota(10)), 10);
    replica.reset(&caller, Endpoint::CALL).await.unwrap();
    replica.store().now_answers(Answers::Failure);
    assert_eq!(drain(&replica, quota(10)), 10);
    replica.reset(&caller, Endpoint::CALL).await.unwrap_err();
    assert_eq!(drain(&replica, quota(10)), 10);
}

#[test]
fn only_those_who_owe_are_kept_and_not_more_than_the_cap() {
    let clock = ManualClock::default();
    let store = DeferredStore::that(Answers::Decision, &clock);
    let local = MemoryStore::with_clock(clock.clone()).max_buckets(100);
    let replica = LocalFallback::with_local(store, local).expected_replicas(2);
    for caller in 0..1000 {
        assert!(decide(&replica, &organization(&caller.to_string()), quota(1)).is_allowed());
    }
    assert_eq!(replica.local().len(), 100);
    // The callers for which there was no room in the local store are refused too.
    replica.store().now_answers(Answers::Failure);
    assert!((0..1000).all(|caller| {
        !decide(&replica, &organization(&caller.to_string()), quota(1)).is_allowed()
    }));
    replica.store().now_answers(Answers::Decision);
    // Answers of the store sweep the local store, without a request that is decided locally.
    clock.advance(INTERVAL * 2);
    for _ in 0..10_000 {
        clock.advance(Duration::from_millis(30));
        let _ = decide(&replica, &organization("p"), quota(1));
    }
    assert!(replica.local().len() <= 2, "{} buckets are left", replica.local().len());
}

#[test]
fn answers_on_several_threads_are_all_noted() {
    let (replica, _clock) = lone(1);
    let caller = organization("o");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                (0..100).for_each(|_| assert!(decide(&replica, &caller, quota(500)).is_allowed()));
            });
        }
    });
    replica.store().now_answers(Answers::Failure);
    assert_eq!(decide(&replica, &caller, quota(500)).remaining(), 99);
}

#[test]
fn a_share_of_the_slowest_quota_is_a_quota() {
    let (replica, clock) = lone(u32::MAX);
    let slowest = Quota::per(1, Quota::MAX_REFILL_TIME).build().unwrap();
    replica.store().now_answers(Answers::Failure);
    assert_eq!(drain(&replica, slowest), 1);
    clock.advance(Duration::MAX);
    assert_eq!(drain(&replica, slowest), 1);
}

#[test]
fn an_answer_that_was_on_its_way_during_a_reset_does_not_take_the_reset_back() {
    let (replica, _) = lone(1);
    let (caller, quota) = (organization("o"), quota(2));
    replica.store().now_answers(Answers::NotYet);
    let Answer::Later(check) = replica.check(Bucket::new(&caller, Endpoint::CALL, quota).charge())
    else {
        panic!("the store answers later")
    };
    let mut check = spawn(check);
    assert!(check.poll().is_pending());
    assert_ready!(spawn(replica.reset(&caller, Endpoint::CALL)).poll()).unwrap();
    replica.store().now_answers(Answers::Decision);
    assert!(one(assert_ready!(check.poll())).unwrap().is_allowed());
    lose(std::slice::from_ref(&replica));
    assert_eq!(drain(&replica, quota), 2);
}

#[test]
fn a_cost_above_this_replicas_share_is_an_error_and_no_fallback() {
    let clock = ManualClock::default();
    // This store can do everything, and fails.
    let store = Breaker::with_clock(MemoryStore::with_clock(clock.clone()), clock.clone());
    store.open();
    let local = MemoryStore::with_clock(clock);
    let replica = LocalFallback::with_local(store, local).expected_replicas(2);
    let caller = organization("o");
    let check = |cost| {
        let entry = Entry::new(Endpoint::CALL, quota(10)).with_cost(cost).unwrap();
        replica.check(Charge::of_one(&caller, &entry)).now().unwrap()
    };
    let error = check(6).unwrap_err();
    assert_eq!((error.kind(), error.is_of_store()), ("share", false));
    let text = error.to_string();
    assert!(text.contains("cost of 6") && text.contains("raise the burst"), "{text}");
    assert!(text.contains("circuit breaker"), "{text}");
    assert_eq!(replica.report().fallbacks, 0);
    assert!(check(5).unwrap().outcome().is_admitted());
    assert_eq!(replica.report().fallbacks, 1);
}

/// A store that charges one unit of one bucket.
struct OneUnit(MemoryStore<ManualClock>);

impl Store for OneUnit {
    type Check = Immediate;

    fn check(&self, charge: Charge<'_>) -> Answer<Immediate> {
        match self.capabilities().permit(&charge) {
            Ok(()) => self.0.check(charge),
            Err(error) => Answer::Now(Err(error)),
        }
    }

    async fn command(&self, command: Command<'_>) -> Result<Reply, StoreError> {
        self.0.command(command).await
    }
}

/// Each replica alone would admit the whole limit, while the store works.
#[test]
fn what_the_store_can_not_do_the_local_store_does_not_do_either() {
    let clock = ManualClock::default();
    let store = OneUnit(MemoryStore::with_clock(clock.clone()));
    let replica = LocalFallback::with_local(store, MemoryStore::with_clock(clock));
    let caller = organization("o");
    let entries = [Endpoint::CALL, Endpoint::AGENT].map(|it| Entry::new(it, quota(10)));
    let error = replica.check(Charge::new(&caller, &entries).unwrap()).now().unwrap().unwrap_err();
    assert_eq!((error.kind(), error.is_of_store()), ("unsupported", false));
    let text = "the request charges 2 buckets, and the store can charge at most 1 at once";
    assert_eq!(error.to_string(), text);
    assert_eq!((replica.report().fallbacks, replica.local().len()), (0, 0));
}

#[test]
fn a_store_that_is_charged_back_admits_one_burst_more_after_any_number_of_losses() {
    const BURST: u32 = 10;
    let (clock, quota) = (ManualClock::default(), quota(BURST));
    let shared = Arc::new(MemoryStore::with_clock(clock.clone()));
    let own = || replica_of(DeferredStore::before(Arc::clone(&shared)), 2, &clock).max_owed(100);
    let fleet = [own(), own()];
    let drain_all = || fleet.iter().map(|replica| drain(replica, quota)).sum::<u32>();
    let mut admitted = 0;
    for _ in 0..50 {
        admitted += drain_all();
        lose(&fleet);
        clock.advance(5 * INTERVAL);
        admitted += drain_all();
        clock.advance(5 * INTERVAL);
        for replica in &fleet {
            assert_ready!(spawn(replica.charge_back()).poll()).unwrap_err();
            assert_eq!(replica.report().owed, 1, "what can't be charged is still owed");
            replica.store().now_answers(Answers::Decision);
        }
        for replica in &fleet {
            assert_ready!(spawn(replica.charge_back()).poll()).unwrap();
            assert_eq!(replica.report().owed, 0);
        }
    }
    let came_back = 50 * 10;
    assert!((came_back..=came_back + 2 * BURST).contains(&admitted), "{admitted}");
}

#[test]
fn a_refund_of_what_is_owed_reduces_what_is_charged_back() {
    let (replica, _) = lone(1);
    let (replica, caller) = (replica.max_owed(100), organization("o"));
    lose(std::slice::from_ref(&replica));
    for _ in 0..3 {
        assert!(decide(&replica, &caller, quota(10)).is_allowed());
    }
    let refund = |units| {
        let entry = Entry::new(Endpoint::CALL, quota(10)).with_cost(units).unwrap();
        let charge = [entry];
        let command = Command::Refund(Charge::new(&caller, &charge).unwrap());
        assert_ready!(spawn(replica.command(command)).poll())
    };
    // The store need not be asked for what it was not charged.
    assert_eq!(refund(2).unwrap(), Reply::Done);
    // Of these, one is still owed, and the store can't give the rest back.
    assert!(refund(4).is_err());
    assert_eq!(replica.report().owed, 1);
    replica.store().now_answers(Answers::Decision);
    assert_ready!(spawn(replica.charge_back()).poll()).unwrap();
    assert_eq!(decide(replica.store(), &caller, quota(10)).remaining(), 8);
}

#[test]
fn where_there_is_no_room_to_remember_the_check_fails() {
    let (replica, _) = lone(1);
    let replica = replica.max_owed(1);
    lose(std::slice::from_ref(&replica));
    assert!(decide(&replica, &organization("o"), quota(10)).is_allowed());
    let other = organization("another");
    let bucket = Bucket::new(&other, Endpoint::CALL, quota(10));
    assert!(now(replica.check_one(bucket)).is_err());
    assert!(decide(&replica, &organization("o"), quota(10)).is_allowed());
}

#[test]
fn a_refusal_names_the_share_as_a_part_of_the_limit_if_it_is_a_whole_number() {
    let expected = [
        (2, "\"call\";q=250;w=60", "The quota of 250 requests per minute for endpoint call"),
        (3, "\"call\";q=166;w=60", "The quota of 500 requests per 180 seconds for endpoint call"),
        (5, "\"call\";q=100;w=60", "The quota of 100 requests per minute for endpoint call"),
    ];
    for (replicas, field, text) in expected {
        let (replica, _clock) = lone(replicas);
        lose(std::slice::from_ref(&replica));
        let limiter = Limiter::with_store(Policy::default(), replica).unwrap();
        let layer = BolnaRateLimitLayer::with_limiter(limiter);
        let refused = (0..)
            .map(|_| now(send(&layer, call_by("u", "o"))))
            .find(|response| response.status() == 429)
            .unwrap();
        assert_eq!(refused.headers()["ratelimit-policy"], field);
        let body = now(text_of(refused));
        assert!(body.contains(text), "{body}");
    }
}
