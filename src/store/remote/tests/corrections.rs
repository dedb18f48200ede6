//! What becomes of refunds and settlements for which no request waits.

use std::sync::Arc;

use super::super::core::{Action, CallError, Core, Limits};
use super::super::corrections::{Corrections, Full, Kind};
use super::super::failure::Reason;
use super::super::pending::Op;
use super::super::request::{Reply as Answer, Request, Run};
use super::{Bench, DEADLINE, MILLI, SECOND, Tag, broken, bucket, call, check, limit, user};
use crate::store::{Bucket, Charge, Entry};
use crate::values::{Endpoint, Principal, Quota, Scope};

impl Bench {
    /// Submits a correction, as a store does.
    fn submit(&mut self, who: &str, kind: Kind, entries: &[Entry]) -> Result<(), Full> {
        let principal = user(who);
        let charge = Charge::new(&principal, entries).expect("it is valid");
        let added = self.corrections.add(&charge, kind);
        self.core.correct(principal);
        added
    }

    fn refund(&mut self, who: &str, units: u32) {
        let entry = call(10).with_cost(units).expect("at most the burst");
        self.submit(who, Kind::Refund, &[entry]).expect("there is room");
    }

    fn settle(&mut self, who: &str, units: u32) {
        let entry = call(10).with_cost(units).expect("at most the burst");
        self.submit(who, Kind::Settlement, &[entry]).expect("there is room");
    }

    fn lose(&mut self) {
        self.core.closed(self.now, &broken());
        assert!(!self.core.is_up());
        self.actions();
    }

    fn regain(&mut self) {
        self.pass(SECOND);
        assert!(matches!(self.actions()[..], [Action::Connect]));
        self.greet();
    }

    /// How many wait, and how many are lost.
    fn corrections(&self) -> (usize, u64) {
        (self.corrections.len(), self.corrections.lost())
    }

    /// Beats once, so that the server is called for what still waits.
    fn beat(&mut self) {
        self.pass(SECOND);
        assert!(matches!(self.actions()[..], [Action::Beat]));
        self.core.beaten(self.now, Ok(None));
    }
}

fn refund(seconds: u64) -> Run {
    let rate = call(10).rate();
    Run::Refund { bucket: bucket(Endpoint::CALL), rate, time: seconds * SECOND }
}

fn settlement(seconds: u64) -> Run {
    let rate = call(10).rate();
    Run::Settle { bucket: bucket(Endpoint::CALL), rate, time: seconds * SECOND }
}

fn runs(calls: &[(u64, Request)]) -> &[Run] {
    let [(_, request)] = calls else { panic!("{} calls", calls.len()) };
    &request.runs
}

fn busy() -> Reason {
    Reason { server: "server".into(), kind: "busy", detail: "it is loading its data".into() }
}

#[test]
fn a_correction_is_sent_at_once_and_is_done_when_it_is_answered() {
    let mut bench = Bench::connected();
    bench.refund("u", 2);
    let calls = bench.calls();
    assert_eq!(runs(&calls), [refund(2)]);
    assert_eq!(bench.corrections(), (1, 0));
    bench.carry_out(&calls[0]);
    assert_eq!((bench.corrections(), bench.calls().len()), ((0, 0), 0));
    assert!(bench.core.is_idle());
}

#[test]
fn corrections_share_the_call_of_requests_and_come_before_them() {
    let mut bench = Bench::connected();
    bench.request("u", check(10));
    bench.settle("u", 3);
    bench.owe("u", &call(10));
    let calls = bench.calls();
    let charge = Run::Charge { entries: [call(10)].into(), count: 1 };
    assert_eq!(runs(&calls), [settlement(1), settlement(3), charge]);
    bench.carry_out(&calls[0]);
    let decisions = bench.answers.take().remove(0).1.expect("an answer").into_decisions();
    assert_eq!(decisions.expect("decisions").first().remaining(), 5, "all of them are counted");
}

#[test]
fn a_correction_that_arrives_while_a_call_is_in_flight_is_next() {
    let mut bench = Bench::connected();
    bench.request("u", check(10));
    let first = bench.calls();
    bench.refund("u", 1);
    bench.refund("another", 1);
    let other = bench.calls();
    assert_eq!(other[0].1.principal, user("another"), "the bucket of another need not wait");
    bench.carry_out(&first[0]);
    assert_eq!(runs(&bench.calls()), [refund(1)]);
}

#[test]
fn corrections_wait_while_the_server_is_lost_and_are_sent_once() {
    let mut bench = Bench::connected();
    bench.lose();
    bench.refund("u", 2);
    bench.settle("v", 1);
    assert!(bench.calls().is_empty());
    bench.regain();
    let calls = bench.calls();
    assert_eq!((calls.len(), bench.corrections()), (2, (2, 0)));
    calls.iter().for_each(|call| bench.carry_out(call));
    bench.lose();
    bench.regain();
    assert_eq!((bench.calls().len(), bench.corrections()), (0, (0, 0)));
}

#[test]
fn corrections_of_one_bucket_by_one_quota_are_merged_in_their_order() {
    let mut bench = Bench::new(1000);
    for _ in 0..3 {
        bench.refund("u", 2);
    }
    bench.settle("u", 1);
    bench.settle("u", 4);
    bench.refund("u", 1);
    let slower = call(20);
    bench.submit("u", Kind::Refund, &[slower]).expect("there is room");
    assert_eq!(bench.corrections(), (4, 0));
    let mut bench = bench.connect_only();
    let by_the_other =
        Run::Refund { bucket: bucket(Endpoint::CALL), rate: slower.rate(), time: SECOND };
    assert_eq!(runs(&bench.calls()), [refund(6), settlement(5), refund(1), by_the_other]);
}

#[test]
fn merged_refunds_are_the_sum_of_those_that_were_submitted() {
    let mut bench = Bench::new(1000);
    for _ in 0..1000 {
        bench.refund("u", 10);
    }
    assert_eq!(bench.corrections(), (1, 0));
    let mut bench = bench.connect_only();
    assert_eq!(runs(&bench.calls()), [refund(10_000)]);
    bench.lose();
    assert_eq!(bench.corrections(), (0, 1000), "each that was submitted is counted");
}

#[test]
fn merged_refunds_never_give_back_more_than_any_bucket_can_owe() {
    let mut bench = Bench::new(1000);
    let century = Quota::per(1, Quota::MAX_REFILL_TIME).build().expect("it is valid");
    let entry = Entry::new(Endpoint::CALL, century);
    for _ in 0..10 {
        bench.submit("u", Kind::Refund, &[entry]).expect("there is room");
    }
    let mut bench = bench.connect_only();
    let (rate, time) = (entry.rate(), entry.time());
    let one = Run::Refund { bucket: bucket(Endpoint::CALL), rate, time };
    assert_eq!(runs(&bench.calls()), [one]);
}

#[test]
fn a_correction_that_came_too_late_is_sent_again() {
    let mut bench = Bench::connected();
    bench.refund("u", 2);
    let calls = bench.calls();
    bench.pass(DEADLINE);
    assert_eq!(bench.corrections(), (1, 0), "an answer may still come");
    let late = Ok(Answer::Late { now: bench.server_time() });
    bench.core.answered(bench.now, calls[0].0, late);
    let again = bench.calls();
    assert_eq!(runs(&again), [refund(2)]);
    bench.carry_out(&again[0]);
    assert_eq!((bench.corrections(), bench.calls().len()), ((0, 0), 0));
}

#[test]
fn a_correction_that_was_answered_after_the_deadline_is_not_sent_again() {
    let mut bench = Bench::connected();
    bench.refund("u", 2);
    let calls = bench.calls();
    bench.pass(DEADLINE);
    bench.refund("u", 1);
    let next = bench.calls();
    assert_eq!(runs(&next), [refund(1)], "it need not wait for the call that is overdue");
    bench.carry_out(&calls[0]);
    bench.carry_out(&next[0]);
    assert_eq!((bench.corrections(), bench.calls().len()), ((0, 0), 0));
}

#[test]
fn a_sent_correction_is_lost_with_the_connection_and_others_are_kept() {
    let mut bench = Bench::connected();
    bench.refund("u", 2);
    assert_eq!(bench.calls().len(), 1);
    bench.refund("u", 1);
    bench.lose();
    assert_eq!(bench.corrections(), (1, 1));
    bench.regain();
    assert_eq!(runs(&bench.calls()), [refund(1)]);
    // The server froze: its calls have no answer, and the connection is given up.
    for _ in 0..5 {
        bench.pass(DEADLINE);
        bench.refund("u", 1);
        bench.actions();
    }
    assert!(!bench.core.is_up());
    assert_eq!(bench.corrections().0 as u64 + bench.corrections().1, 7);
    assert!(bench.corrections().1 >= 5, "{:?}", bench.corrections());
}

#[test]
fn an_error_loses_a_correction_unless_it_is_a_refusal() {
    let unknown = Reason { kind: "server_error", ..broken() };
    for (error, is_lost) in [
        (CallError::Failed(busy()), false),
        (CallError::Failed(unknown), true),
        (CallError::Lost(Reason { kind: "read_only", ..broken() }), false),
        (CallError::Lost(broken()), true),
        (CallError::Elsewhere { to: Some("another".into()), moved: true }, false),
        (CallError::Elsewhere { to: None, moved: false }, false),
    ] {
        let mut bench = Bench::connected();
        bench.refund("u", 2);
        let calls = bench.calls();
        bench.core.answered(bench.now, calls[0].0, Err(error.clone()));
        let expected = if is_lost { (0, 1) } else { (1, 0) };
        assert_eq!(bench.corrections(), expected, "{error:?}");
    }
}

#[test]
fn a_refused_correction_is_tried_again_at_the_next_beat() {
    let mut bench = Bench::connected();
    bench.refund("u", 2);
    let calls = bench.calls();
    bench.core.answered(bench.now, calls[0].0, Err(CallError::Failed(busy())));
    assert!(bench.calls().is_empty(), "a server that refuses calls is not called in a loop");
    bench.beat();
    let again = bench.calls();
    assert_eq!(runs(&again), [refund(2)]);
    bench.carry_out(&again[0]);
    assert_eq!(bench.corrections(), (0, 0));
}

#[test]
fn a_key_that_holds_no_bucket_loses_its_own_corrections_only() {
    let mut bench = Bench::connected();
    let agent = Entry::new(Endpoint::AGENT, call(10).quota());
    bench.submit("u", Kind::Refund, &[agent, call(10)]).expect("there is room");
    let calls = bench.calls();
    let index = calls[0].1.buckets.iter().position(|it| *it == bucket(Endpoint::AGENT));
    let foreign = CallError::Foreign { index: index.expect("it is one"), class: "a".into() };
    bench.core.answered(bench.now, calls[0].0, Err(foreign));
    assert_eq!(bench.corrections(), (1, 1));
    assert_eq!(runs(&bench.calls()), [refund(1)]);
}

#[test]
fn a_call_corrects_one_bucket_while_keys_are_migrated() {
    let mut bench = Bench::connected();
    let agent = Entry::new(Endpoint::AGENT, call(10).quota());
    bench.submit("u", Kind::Refund, &[agent, call(10)]).expect("there is room");
    let calls = bench.calls();
    let elsewhere = CallError::Elsewhere { to: None, moved: false };
    bench.core.answered(bench.now, calls[0].0, Err(elsewhere));
    let mut corrected = Vec::new();
    for _ in 0..2 {
        let calls = bench.calls();
        corrected.extend(runs(&calls).to_vec());
        assert_eq!(calls[0].1.buckets.len(), 1);
        bench.carry_out(&calls[0]);
    }
    assert_eq!((corrected.len(), bench.corrections()), (2, (0, 0)));
}

#[test]
fn corrections_are_lost_and_counted_if_the_queue_is_full() {
    let corrections = Corrections::new(2);
    let add = |who: &str| {
        let entry = call(10);
        corrections.add(&Charge::of_one(&user(who), &entry), Kind::Refund)
    };
    assert_eq!((add("u"), add("v"), add("u")), (Ok(()), Ok(()), Ok(())), "one is merged");
    assert_eq!((add("w"), add("w")), (Err(Full { most: 2 }), Err(Full { most: 2 })));
    assert_eq!((corrections.len(), corrections.lost()), (2, 2));
    corrections.done(&corrections.claim(&user("u"), None));
    assert_eq!((add("w"), corrections.len()), (Ok(()), 2));
}

#[test]
fn a_correction_in_flight_needs_room_until_it_is_answered() {
    let corrections = Corrections::new(1);
    let (u, v, entry) = (user("u"), user("v"), call(10));
    corrections.add(&Charge::of_one(&u, &entry), Kind::Refund).expect("there is room");
    let taken = corrections.claim(&u, None);
    assert!(corrections.add(&Charge::of_one(&v, &entry), Kind::Refund).is_err());
    corrections.put_back(&u, taken);
    assert_eq!((corrections.len(), corrections.wait_for(&u)), (1, true));
}

#[test]
fn the_users_of_one_principal_share_a_call_of_bounded_size() {
    let bench = Bench::new(1000);
    let (organization, entry) = (user("u"), limit("call-user", Scope::User, 10));
    for number in 0..100 {
        let (user, entries) = (user(&format!("user-{number}")), [entry]);
        let charge = Charge::with_user(&organization, &user, &entries).expect("it is valid");
        bench.corrections.add(&charge, Kind::Refund).expect("there is room");
    }
    let mut bench = bench.connect_only();
    let mut sizes = Vec::new();
    loop {
        let calls = bench.calls();
        let [call] = &calls[..] else { break };
        sizes.push(call.1.runs.len());
        bench.carry_out(call);
    }
    assert_eq!((sizes, bench.corrections()), (vec![64, 36], (0, 0)));
}

#[test]
fn many_principals_are_called_for_a_few_at_a_time() {
    let mut bench = Bench::new(1000);
    for number in 0..500 {
        bench.refund(&format!("u-{number}"), 1);
    }
    let mut bench = bench.connect_only();
    let (mut in_flight, mut sent) = (bench.calls(), 0);
    while let Some(call) = in_flight.pop() {
        assert!(in_flight.len() < 32, "{} calls at once", in_flight.len());
        sent += 1;
        bench.carry_out(&call);
        in_flight.extend(bench.calls());
    }
    assert_eq!((sent, bench.corrections()), (500, (0, 0)));
}

#[test]
fn corrections_for_one_server_do_not_wait_behind_those_for_another() {
    let corrections = Arc::new(Corrections::new(1000));
    let mut cores: Vec<Core<Tag>> = ["a", "b"]
        .map(|name| {
            let limits = Limits { deadline: DEADLINE, patience: 500 * MILLI, most: 1000 };
            let holds = move |principal: &Principal| principal.id().to_string().starts_with(name);
            Core::new(name.into(), limits, None, Arc::clone(&corrections), holds, 7)
        })
        .into();
    let entry = call(10);
    for number in 0..400 {
        for name in ["a", "b"] {
            let principal = user(&format!("{name}-{number}"));
            corrections.add(&Charge::of_one(&principal, &entry), Kind::Refund).expect("room");
        }
    }
    // Only the second server is there.
    let core = &mut cores[1];
    assert!(matches!(core.next(0), Some(Action::Connect)));
    let greeting = super::Greeting { server: "b".into(), seen: None, names_time: false };
    core.connected(0, greeting);
    let mut called = 0;
    while let Some(action) = core.next(0) {
        let Action::Call(number, request) = action else { continue };
        assert!(request.principal.id().to_string().starts_with('b'));
        let states = request.buckets.iter().map(|_| super::BucketState::default()).collect();
        core.answered(0, number, Ok(Answer::Done { now: 1, states }));
        called += 1;
    }
    assert_eq!((called, corrections.len(), corrections.lost()), (400, 400, 0));
}

#[test]
fn corrections_in_flight_are_lost_with_the_runtime_and_others_still_wait() {
    let mut bench = Bench::connected();
    bench.refund("u", 1);
    assert_eq!(bench.calls().len(), 1);
    bench.refund("v", 1);
    let Bench { core, corrections, .. } = bench;
    drop(core);
    assert_eq!((corrections.len(), corrections.lost()), (1, 1));
}

#[test]
fn after_a_reset_there_is_nothing_to_correct() {
    let mut bench = Bench::new(1000);
    let agent = Entry::new(Endpoint::AGENT, call(10).quota());
    bench.submit("u", Kind::Refund, &[agent, call(10)]).expect("there is room");
    bench.corrections.forget(Bucket::of_account(&user("u"), Endpoint::AGENT));
    assert_eq!(bench.corrections(), (1, 0));
    let mut bench = bench.connect_only();
    assert_eq!(runs(&bench.calls()), [refund(1)]);
}

#[test]
fn everyones_buckets_are_corrected_by_calls_for_everyone() {
    let mut bench = Bench::new(1000);
    let everyones = limit("call-all", Scope::Everyone, 10);
    bench.submit("u", Kind::Refund, &[call(10), everyones]).expect("there is room");
    let mut bench = bench.connect_only();
    let mut principals: Vec<_> =
        bench.calls().into_iter().map(|(_, request)| request.principal).collect();
    principals.sort_unstable();
    let mut expected = [user("u"), Principal::everyone().clone()];
    expected.sort_unstable();
    assert_eq!(principals, expected);
}

#[test]
fn a_correction_beside_a_request_gets_no_answer() {
    let mut bench = Bench::connected();
    bench.refund("u", 1);
    bench.request("u", Op::Refund([call(10)].into()));
    let calls = bench.calls();
    assert_eq!(runs(&calls), [refund(1), refund(1)]);
    bench.carry_out(&calls[0]);
    assert_eq!(bench.answers.take().len(), 1);
}
