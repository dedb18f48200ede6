//! What one server's core promises, step by step. The simulation shows what follows from it.

mod corrections;

use std::cell::{Cell, RefCell};
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;

use super::core::{Action, CallError, Core, Greeting, Limits};
use super::corrections::Corrections;
use super::failure::{Failure, Reason};
use super::pending::{Op, Pending, Ticket};
use super::request::{Reply as Answer, Request, Run};
use super::server_time::Sighting;
use crate::store::fallback::Ledger;
use crate::store::{Bucket, BucketState, Charge, Command, Entry, Reply, StoreEvent};
use crate::values::{Endpoint, Limit, LimitName, OwnedBucket, Principal, Quota, Scope};

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
const DEADLINE: u64 = 25 * MILLI;
const EPOCH: i64 = 1_795_000_000_000_000;

/// What was answered, with the numbers of the requests.
type Answers = Rc<RefCell<Vec<(usize, Result<Reply, Failure>)>>>;

/// A core that is driven by hand.
struct Bench {
    core: Core<Tag>,
    now: u64,
    answers: Answers,
    tags: usize,
    ledger: Arc<Ledger>,
    corrections: Arc<Corrections>,
}

#[derive(Debug)]
struct Tag {
    number: usize,
    is_waiting: Rc<Cell<bool>>,
    answers: Answers,
}

impl Ticket for Tag {
    fn is_waiting(&self) -> bool {
        self.is_waiting.get()
    }

    fn say(self, answer: Result<Reply, Failure>) {
        self.answers.borrow_mut().push((self.number, answer));
    }
}

impl Bench {
    /// A core that has not connected yet.
    fn new(most: usize) -> Self {
        let limits = Limits { deadline: DEADLINE, patience: 500 * MILLI, most };
        let ledger = Arc::new(Ledger::new(NonZeroU32::MIN, 10_000));
        let corrections = Arc::new(Corrections::new(10_000));
        let (owed, waiting) = (Some(Arc::clone(&ledger)), Arc::clone(&corrections));
        let core = Core::new("server".into(), limits, owed, waiting, |_| true, 7);
        Self { core, now: 0, answers: Rc::default(), tags: 0, ledger, corrections }
    }

    /// A core that is connected.
    fn connected() -> Self {
        Self::new(1000).connect()
    }

    fn connect(mut self) -> Self {
        assert!(matches!(self.core.next(self.now), Some(Action::Connect)));
        self.greet();
        assert!(self.actions().is_empty());
        self
    }

    /// As [`connect`](Self::connect), where something waits for the connection.
    fn connect_only(mut self) -> Self {
        assert!(matches!(self.core.next(self.now), Some(Action::Connect)));
        self.greet();
        self
    }

    fn greet(&mut self) {
        let seen = Sighting { sent: self.now, arrived: self.now, shown: self.server_time() };
        let greeting = Greeting { server: "server".into(), seen: Some(seen), names_time: false };
        self.core.connected(self.now, greeting);
    }

    fn server_time(&self) -> i64 {
        EPOCH + i64::try_from(self.now / 1000).expect("small")
    }

    fn request(&mut self, who: &str, op: Op) -> Rc<Cell<bool>> {
        let is_waiting = Rc::new(Cell::new(true));
        let tag = Tag {
            number: self.tags,
            is_waiting: Rc::clone(&is_waiting),
            answers: Rc::clone(&self.answers),
        };
        self.tags += 1;
        self.core.accept(Pending::new(user(who), op, self.now + DEADLINE, tag));
        is_waiting
    }

    /// The replica has admitted the entry's cost without the server.
    fn owe(&self, who: &str, entry: &Entry) {
        self.ledger.note(Charge::of_one(&user(who), entry).bucket(entry), entry, self.now);
    }

    /// What the core wants done, but for events.
    fn actions(&mut self) -> Vec<Action<Tag>> {
        let mut all = Vec::new();
        while let Some(action) = self.core.next(self.now) {
            if !matches!(action, Action::Tell(_)) {
                all.push(action);
            }
        }
        all
    }

    /// The calls that the core wants sent. It must want nothing else.
    fn calls(&mut self) -> Vec<(u64, Request)> {
        let actions = self.actions();
        let call = |action| match action {
            Action::Call(number, request) => (number, request),
            other => panic!("{other:?}"),
        };
        actions.into_iter().map(call).collect()
    }

    fn events(&mut self) -> Vec<StoreEvent> {
        std::iter::from_fn(|| self.core.next_event()).collect()
    }

    /// The server carries a call out: all buckets were full before.
    fn carry_out(&mut self, (number, request): &(u64, Request)) {
        let states = request.buckets.iter().map(|_| BucketState::default()).collect();
        let answer = Answer::Done { now: self.server_time(), states };
        self.core.answered(self.now, *number, Ok(answer));
    }

    fn pass(&mut self, time: u64) {
        self.now += time;
        self.core.wake(self.now);
    }

    /// Whether each request that was answered since the last time was admitted, in that order.
    fn admitted(&mut self) -> Vec<bool> {
        let answers = self.answers.take().into_iter();
        let outcome = |(_, answer): (_, Result<Reply, Failure>)| {
            answer.expect("an answer").into_decisions().expect("decisions").outcome()
        };
        answers.map(|answer| outcome(answer).is_admitted()).collect()
    }

    fn failures(&mut self) -> Vec<Failure> {
        let answers = self.answers.take().into_iter();
        answers.map(|(_, answer)| answer.expect_err("a failure")).collect()
    }
}

fn user(who: &str) -> Principal {
    Principal::user(who).expect("it is not empty")
}

fn call(burst: u32) -> Entry {
    let quota = Quota::per(1, std::time::Duration::from_secs(1)).burst(burst).build();
    Entry::new(Endpoint::CALL, quota.expect("it is valid"))
}

fn check(burst: u32) -> Op {
    Op::Check([call(burst)].into())
}

/// The bucket of an account.
fn bucket(endpoint: Endpoint) -> OwnedBucket {
    OwnedBucket::of(Bucket::of_account(&user("u"), endpoint))
}

/// An entry of a limit of that name.
fn limit(name: &str, scope: Scope, burst: u32) -> Entry {
    let name = LimitName::new(name).expect("a valid name");
    Entry::of(Limit::new(name, call(burst).quota()).with_scope(scope))
}

fn broken() -> Reason {
    Reason { server: "server".into(), kind: "unreachable", detail: "it broke".into() }
}

#[test]
fn twenty_thousand_requests_for_one_bucket_are_one_call_and_need_one_place() {
    let mut bench = Bench::new(1).connect();
    for _ in 0..20_000 {
        bench.request("u", check(500));
    }
    let calls = bench.calls();
    let [(_, request)] = &calls[..] else { panic!("{} calls", calls.len()) };
    assert_eq!(*request.runs, [Run::Charge { entries: [call(500)].into(), count: 20_000 }]);
    bench.carry_out(&calls[0]);
    let admitted = bench.admitted();
    assert_eq!(admitted.iter().filter(|admitted| **admitted).count(), 500);
    assert!(admitted[..500].iter().all(|admitted| *admitted), "in the order of arrival");
    // Another principal has no place while that one waits.
    bench.request("u", check(500));
    bench.request("another", check(500));
    assert_eq!(bench.failures(), [Failure::TooMany(1)]);
}

#[test]
fn requests_with_two_quotas_for_one_bucket_share_a_call() {
    let mut bench = Bench::connected();
    for number in 0..30 {
        bench.request("u", check(500 + number % 2));
    }
    let calls = bench.calls();
    assert_eq!((calls.len(), calls[0].1.runs.len(), calls[0].1.buckets.len()), (1, 30, 1));
    bench.carry_out(&calls[0]);
    assert_eq!(bench.admitted(), [true; 30]);
}

#[test]
fn what_arrives_while_a_call_is_in_flight_shares_the_next_one() {
    let mut bench = Bench::connected();
    bench.request("u", check(2));
    let first = bench.calls();
    bench.request("u", check(2));
    bench.request("v", check(2));
    bench.request("u", check(2));
    let other = bench.calls();
    assert_eq!((other.len(), &other[0].1.principal), (1, &user("v")));
    bench.carry_out(&first[0]);
    assert_eq!(bench.calls().len(), 1);
}

#[test]
fn a_unit_of_a_request_that_has_gone_is_the_next_ones() {
    let mut bench = Bench::connected();
    let gone = bench.request("u", check(2));
    for _ in 0..2 {
        bench.request("u", check(2));
    }
    let calls = bench.calls();
    gone.set(false);
    bench.carry_out(&calls[0]);
    assert_eq!(bench.admitted(), [true, true]);
    assert_eq!(bench.core.late_charges(), 0);
    // A request that has gone before it was sent is not sent.
    bench.request("u", check(2)).set(false);
    assert!(bench.calls().is_empty() && bench.core.is_idle());
}

#[test]
fn a_request_waits_for_its_deadline_and_no_longer() {
    let mut bench = Bench::connected();
    bench.request("u", check(2));
    let calls = bench.calls();
    assert_eq!(bench.core.due(), Some(DEADLINE));
    // The server must not charge what comes too late to be answered.
    let deadline = EPOCH + i64::try_from((DEADLINE - DEADLINE / 25) / 1000).expect("small");
    assert_eq!(calls[0].1.deadline, deadline);
    bench.pass(DEADLINE - 1);
    assert!(bench.failures().is_empty());
    bench.pass(1);
    assert!(matches!(bench.failures()[..], [Failure::NoAnswer(_)]));
    // It was charged all the same.
    bench.carry_out(&calls[0]);
    assert_eq!((bench.core.late_charges(), bench.core.is_idle()), (1, true));
}

#[test]
fn a_call_that_came_too_late_is_sent_again_for_those_that_have_time() {
    let mut bench = Bench::connected();
    bench.request("u", check(2));
    bench.pass(10 * MILLI);
    bench.request("u", check(2));
    let calls = bench.calls();
    bench.now += DEADLINE - 10 * MILLI;
    // The server's clock was set forward.
    let ahead = bench.server_time() + 3_600_000_000;
    bench.core.answered(bench.now, calls[0].0, Ok(Answer::Late { now: ahead }));
    assert!(matches!(bench.failures()[..], [Failure::NoAnswer(_)]));
    let again = bench.calls();
    assert_eq!((again.len(), again[0].1.deadline > ahead), (1, true));
    bench.carry_out(&again[0]);
    assert_eq!(bench.admitted(), [true]);
}

#[test]
fn a_long_queue_of_one_principal_is_no_failure_of_the_server() {
    let mut bench = Bench::connected();
    for _ in 0..20 {
        bench.request("u", check(500));
        let calls = bench.calls();
        // These wait for the call, longer than their deadline.
        for _ in 0..10 {
            bench.request("u", check(500));
        }
        bench.now += DEADLINE - 1;
        bench.carry_out(&calls[0]);
        let next = bench.calls();
        bench.pass(1);
        // The next call is overdue as soon as it was sent, once.
        bench.carry_out(&next[0]);
        bench.answers.take();
    }
    assert!(bench.core.is_up() && bench.events().is_empty());
}

#[test]
fn five_calls_without_an_answer_are_a_loss() {
    let mut bench = Bench::connected();
    for number in 0..5 {
        assert!(bench.core.is_up(), "after {number} failures");
        bench.request("u", check(500));
        assert_eq!(
            bench.calls().len(),
            1,
            "the next call does not wait for the one that is overdue"
        );
        bench.pass(DEADLINE);
    }
    assert!(!bench.core.is_up());
    let actions = bench.core.next_event();
    assert!(matches!(actions, Some(StoreEvent::Lost { kind: "unreachable", .. })), "{actions:?}");
    assert!(matches!(bench.actions()[..], [Action::Close, Action::Trouble]));
    bench.failures();
    bench.request("u", check(500));
    assert_eq!(bench.failures(), [Failure::Lost]);
}

#[test]
fn what_was_admitted_without_the_server_is_charged_before_the_next_request() {
    let mut bench = Bench::connected();
    let entry = call(10);
    for _ in 0..3 {
        bench.owe("u", &entry);
    }
    bench.request("u", check(10));
    let calls = bench.calls();
    let time = 3 * SECOND;
    let settled = Run::Settle { bucket: bucket(Endpoint::CALL), rate: entry.rate(), time };
    assert_eq!(calls[0].1.runs[0], settled);
    // The connection breaks: whether it was charged is not known, so it is owed.
    bench.core.closed(bench.now, &broken());
    assert_eq!((bench.ledger.len(), bench.failures()), (1, vec![Failure::Lost]));
    // It is charged when the server is back, without a request.
    bench.pass(100 * MILLI);
    assert!(matches!(bench.actions()[..], [Action::Close, Action::Trouble, Action::Connect]));
    bench.greet();
    let calls = bench.calls();
    assert_eq!(*calls[0].1.runs, [settled]);
    bench.carry_out(&calls[0]);
    assert!(bench.ledger.is_empty() && bench.core.is_idle());
}

#[test]
fn a_key_that_holds_no_bucket_harms_its_own_bucket_only() {
    let mut bench = Bench::connected();
    let agent = Entry::new(Endpoint::AGENT, call(10).quota());
    bench.owe("u", &call(10));
    bench.owe("u", &agent);
    bench.request("u", check(10));
    bench.request("u", Op::Check([agent].into()));
    let calls = bench.calls();
    assert_eq!(*calls[0].1.buckets, [Endpoint::CALL, Endpoint::AGENT].map(bucket));
    let error = CallError::Foreign { index: 0, class: "a key".into() };
    bench.core.answered(bench.now, calls[0].0, Err(error));
    assert_eq!(bench.failures(), [Failure::Foreign("a key".into())]);
    let calls = bench.calls();
    assert_eq!(
        *calls[0].1.buckets,
        [bucket(Endpoint::AGENT)],
        "without what is owed for the other one"
    );
    bench.carry_out(&calls[0]);
    assert_eq!((bench.admitted(), bench.ledger.is_empty()), (vec![true], true));
}

#[test]
fn a_connection_that_has_served_is_replaced_at_once() {
    let mut bench = Bench::connected();
    // An outage of eight seconds, during which the waits grow.
    bench.core.closed(bench.now, &broken());
    bench.actions();
    while bench.now < 8 * SECOND {
        let due = bench.core.due().expect("the next attempt");
        bench.pass(due.saturating_sub(bench.now));
        if let [Action::Connect] = bench.actions()[..] {
            bench.core.refused(bench.now, &broken());
            bench.actions();
        }
    }
    let due = bench.core.due().expect("the next attempt");
    bench.pass(due - bench.now);
    bench.actions();
    bench.greet();
    bench.events();
    // It is cut every 300 ms.
    for _ in 0..10 {
        bench.pass(300 * MILLI);
        bench.request("u", check(10));
        let calls = bench.calls();
        bench.carry_out(&calls[0]);
        bench.core.closed(bench.now, &broken());
        let actions = bench.actions();
        assert!(matches!(actions[..], [Action::Close, Action::Trouble, Action::Connect]));
        bench.greet();
        bench.actions();
    }
}

#[test]
fn a_server_that_fails_under_load_is_not_connected_to_again_and_again() {
    let mut bench = Bench::connected();
    let mut attempts = 0;
    while bench.now < 10 * SECOND {
        for action in bench.actions() {
            if matches!(action, Action::Connect) {
                attempts += 1;
                bench.greet();
            }
        }
        bench.request("u", check(10));
        bench.pass(DEADLINE);
        bench.failures();
    }
    assert!((5..25).contains(&attempts), "{attempts} attempts in ten seconds");
}

#[test]
fn each_loss_that_was_reported_has_its_end() {
    let mut bench = Bench::new(10);
    bench.actions();
    bench.core.refused(bench.now, &broken());
    assert!(matches!(bench.events()[..], [StoreEvent::Lost { .. }]));
    // It serves the slots of two servers that were lost, too.
    bench.core.inherit(2);
    assert_eq!((bench.events().len(), bench.core.told().losses), (0, 3));
    bench.core.refused(bench.now, &broken());
    assert_eq!(bench.events().len(), 0, "the same reason is not reported again");
    bench.greet();
    let events = bench.events();
    assert!(events.iter().all(|event| matches!(event, StoreEvent::Regained { .. })));
    assert_eq!((events.len(), bench.core.told().losses), (3, 0));
    // One that can be used ends losses at once.
    bench.core.inherit(1);
    assert!(matches!(bench.events()[..], [StoreEvent::Regained { .. }]));
}

#[test]
fn a_beat_that_is_not_answered_is_a_loss() {
    let mut bench = Bench::connected();
    bench.pass(SECOND);
    assert!(matches!(bench.actions()[..], [Action::Beat]));
    bench.pass(500 * MILLI - 1);
    assert!(bench.core.is_up());
    bench.pass(1);
    assert!(!bench.core.is_up());
}

#[test]
fn requests_that_are_sent_on_keep_their_deadline_and_their_order() {
    let mut bench = Bench::connected();
    bench.request("u", check(10));
    bench.request("u", check(10));
    let calls = bench.calls();
    let error = CallError::Elsewhere { to: Some("other".into()), moved: false };
    bench.core.answered(bench.now, calls[0].0, Err(error));
    let mut actions = bench.actions();
    let Some(Action::Forward(to, pending)) = actions.pop() else { panic!("{actions:?}") };
    assert_eq!((&*to, pending.len(), pending[0].asking), ("other", 2, true));
    let numbers: Vec<_> = pending.iter().map(|pending| pending.ticket.number).collect();
    assert_eq!(numbers, [0, 1]);
    // The other server has requests that arrived later.
    bench.now += 5 * MILLI;
    bench.request("v", check(10));
    for pending in pending {
        bench.core.accept(pending);
    }
    assert_eq!(bench.core.due(), Some(DEADLINE));
    bench.pass(DEADLINE - bench.now);
    assert_eq!(bench.failures().len(), 2);
}

#[test]
fn while_keys_are_migrated_each_bucket_is_called_for_by_itself() {
    let mut bench = Bench::connected();
    let agent = Entry::new(Endpoint::AGENT, call(10).quota());
    let both: Op = Op::Check([call(10), agent].as_slice().into());
    bench.request("u", check(10));
    bench.request("u", both);
    bench.request("u", Op::Check([agent].into()));
    let calls = bench.calls();
    assert_eq!((calls.len(), calls[0].1.buckets.len()), (1, 2));
    let some_here = || Err(CallError::Elsewhere { to: None, moved: false });
    bench.core.answered(bench.now, calls[0].0, some_here());
    let calls = bench.calls();
    assert_eq!(*calls[0].1.buckets, [bucket(Endpoint::CALL)]);
    bench.carry_out(&calls[0]);
    assert_eq!(bench.admitted(), [true]);
    // Several buckets can't be charged at once now, which holds up nothing else.
    let calls = bench.calls();
    assert_eq!(*calls[0].1.buckets, [Endpoint::CALL, Endpoint::AGENT].map(bucket));
    bench.core.answered(bench.now, calls[0].0, some_here());
    let calls = bench.calls();
    assert_eq!(*calls[0].1.buckets, [bucket(Endpoint::AGENT)]);
    bench.carry_out(&calls[0]);
    assert_eq!((bench.admitted(), bench.core.is_up()), (vec![true], true));
    // It is tried again in a while.
    let due = bench.core.due().expect("the next attempt");
    assert!(due < DEADLINE && bench.calls().is_empty());
    bench.pass(due);
    let calls = bench.calls();
    assert_eq!(*calls[0].1.buckets, [Endpoint::CALL, Endpoint::AGENT].map(bucket));
    bench.carry_out(&calls[0]);
    assert_eq!((bench.admitted(), bench.core.is_idle()), (vec![true], true));
}

#[test]
fn requests_do_not_wait_for_a_call_without_an_answer_that_only_charges_back() {
    let mut bench = Bench::connected();
    bench.owe("u", &call(10));
    bench.pass(SECOND);
    assert!(matches!(bench.actions()[..], [Action::Beat]));
    bench.core.beaten(bench.now, Ok(None));
    let first = bench.calls();
    assert!(matches!(first[0].1.runs[..], [Run::Settle { .. }]));
    bench.request("u", check(10));
    assert!(bench.calls().is_empty());
    bench.pass(DEADLINE);
    assert_eq!(bench.failures().len(), 1);
    bench.request("u", check(10));
    let calls = bench.calls();
    assert_eq!(calls.len(), 1);
    bench.carry_out(&calls[0]);
    assert_eq!(bench.admitted(), [true]);
}

#[test]
fn what_is_charged_back_takes_no_place_of_requests() {
    let mut bench = Bench::new(8).connect();
    for number in 0..1000 {
        bench.owe(&format!("owes-{number}"), &call(10));
    }
    bench.pass(SECOND);
    assert!(matches!(bench.actions()[..], [Action::Beat]));
    bench.core.beaten(bench.now, Ok(None));
    assert!(bench.calls().len() > 8);
    for number in 0..6 {
        bench.request(&format!("u-{number}"), check(10));
    }
    let calls = bench.calls();
    assert_eq!(bench.failures(), []);
    calls.iter().for_each(|call| bench.carry_out(call));
    assert_eq!(bench.admitted(), [true; 6]);
    // Of requests there are no more than before.
    for number in 0..10 {
        bench.request(&format!("u-{number}"), check(10));
    }
    assert_eq!(bench.failures(), [Failure::TooMany(8), Failure::TooMany(8)]);
}

#[test]
fn two_users_of_one_organization_share_a_call_and_have_separate_runs() {
    let mut bench = Bench::connected();
    let entries = [call(10), limit("remote-user", Scope::User, 2)];
    let organization = user("o");
    let of = |who: &str| {
        let user = user(who);
        let charge = Charge::with_user(&organization, &user, &entries).expect("two buckets");
        (
            Op::check(&charge),
            OwnedBucket::of(Bucket::of_user(&organization, &user, entries[1].name())),
        )
    };
    let ((one, one_bucket), (other, other_bucket)) = (of("one"), of("other"));
    for op in [&one, &one, &one, &other, &other, &one] {
        bench.request("o", op.clone());
    }
    let calls = bench.calls();
    let [(_, request)] = &calls[..] else { panic!("{} calls", calls.len()) };
    assert_eq!(*request.buckets, [bucket(Endpoint::CALL), one_bucket, other_bucket]);
    let counts: Vec<_> = request
        .runs
        .iter()
        .map(|run| match run {
            Run::Charge { entries, count } => (entries.clone(), *count),
            other => panic!("{other:?}"),
        })
        .collect();
    let (Op::Check(one), Op::Check(other)) = (one, other) else { panic!("two checks") };
    assert_eq!(counts, [(one.clone(), 3), (other, 2), (one, 1)]);
    // Each user has a bucket of two.
    bench.carry_out(&calls[0]);
    assert_eq!(bench.admitted(), [true, true, false, true, true, false]);
}

#[test]
fn a_user_whose_bucket_is_not_charged_does_not_matter() {
    let mut bench = Bench::connected();
    let (organization, entries) = (user("o"), [call(10)]);
    for who in ["one", "other"] {
        let user = user(who);
        let charge = Charge::with_user(&organization, &user, &entries).expect("one bucket");
        bench.request("o", Op::check(&charge));
    }
    let calls = bench.calls();
    assert_eq!(*calls[0].1.runs, [Run::Charge { entries: entries.into(), count: 2 }]);
}

#[test]
fn what_everyone_owes_is_charged_by_a_call_of_its_own_before_requests_that_name_the_bucket() {
    let mut bench = Bench::connected();
    let everyones = limit("remote-everyone", Scope::Everyone, 10);
    let bucket = OwnedBucket::of(Bucket::of_everyone(everyones.name()));
    let settled = Run::Settle { bucket: bucket.clone(), rate: everyones.rate(), time: 3 * SECOND };
    for who in ["u", "u", "v"] {
        bench.owe(who, &everyones);
    }
    // One that does not name it does not wait for that.
    bench.request("w", check(10));
    let calls = bench.calls();
    assert_eq!((calls.len(), &calls[0].1.principal), (1, &user("w")));
    bench.request("u", Op::Check([call(10), everyones].into()));
    bench.request("v", Op::Check([everyones].into()));
    let calls = bench.calls();
    let whose: Vec<_> = calls.iter().map(|(_, request)| &request.principal).collect();
    assert_eq!(whose, [Principal::everyone(), &user("u"), &user("v")]);
    assert_eq!((&*calls[0].1.buckets, &*calls[0].1.runs), (&[bucket][..], &[settled.clone()][..]));
    calls[1..].iter().for_each(|call| bench.carry_out(call));
    assert_eq!(bench.admitted(), [true; 2]);
    // The connection breaks: whether it was charged is not known, so it is owed. It is charged when
    // the server is back, without a request.
    bench.core.closed(bench.now, &broken());
    assert_eq!(bench.ledger.len(), 1);
    bench.pass(100 * MILLI);
    bench.actions();
    bench.greet();
    let calls = bench.calls();
    assert_eq!((calls.len(), &*calls[0].1.runs), (1, &[settled][..]));
    bench.carry_out(&calls[0]);
    assert!(bench.ledger.is_empty() && bench.core.is_idle());
}

#[test]
fn what_everyone_owes_is_tried_once_for_each_call_that_names_the_bucket() {
    let mut bench = Bench::connected();
    let everyones = limit("remote-everyone", Scope::Everyone, 10);
    bench.owe("u", &everyones);
    for _ in 0..3 {
        bench.request("u", Op::Check([everyones].into()));
        let calls = bench.calls();
        assert_eq!(calls.len(), 2);
        let failed = || Err(CallError::Failed(broken()));
        bench.core.answered(bench.now, calls[0].0, failed());
        assert!(bench.calls().is_empty());
        bench.carry_out(&calls[1]);
        assert_eq!(bench.admitted(), [true]);
    }
    assert_eq!((bench.ledger.len(), bench.core.is_up()), (1, true));
}

#[test]
fn a_unit_that_none_gets_is_owed_no_more_by_users_and_everyone() {
    let mut bench = Bench::connected();
    let entries =
        [limit("remote-user", Scope::User, 10), limit("remote-everyone", Scope::Everyone, 10)];
    let (organization, user) = (user("o"), user("u"));
    let charge = Charge::with_user(&organization, &user, &entries).expect("two buckets");
    bench.request("o", Op::check(&charge));
    let calls = bench.calls();
    bench.pass(DEADLINE);
    assert_eq!(bench.failures().len(), 1);
    // The request was decided locally, and the server has charged it all the same.
    for entry in &entries {
        bench.ledger.note(charge.bucket(entry), entry, bench.now);
    }
    assert_eq!(bench.ledger.len(), 2);
    bench.carry_out(&calls[0]);
    assert_eq!((bench.core.late_charges(), bench.ledger.is_empty()), (2, true));
}

#[test]
fn everyones_bucket_is_reset_and_blocked_by_itself() {
    let mut bench = Bench::connected();
    let name = LimitName::new("remote-everyone").expect("a valid name");
    let bucket = Bucket::of_everyone(name);
    let block = Command::block(bucket, std::time::Duration::from_secs(1));
    for command in [Command::Reset(bucket), block] {
        let pending = Op::of(&command);
        let tag = Tag { number: 0, is_waiting: Rc::default(), answers: Rc::clone(&bench.answers) };
        let deadline = bench.now + DEADLINE;
        tag.is_waiting.set(true);
        bench.core.accept(Pending::new(bucket.principal().clone(), pending, deadline, tag));
    }
    let calls = bench.calls();
    let owned = OwnedBucket::of(bucket);
    let runs = [Run::Reset { bucket: owned.clone() }, Run::Block { bucket: owned, time: SECOND }];
    assert_eq!((calls.len(), &*calls[0].1.runs), (1, &runs[..]));
    bench.carry_out(&calls[0]);
    assert_eq!(bench.answers.take().len(), 2);
}
