//! Batches: requests for a bucket that arrive while a call for it is in flight share the next call.
//!
//! So a process has at most one call in flight for a bucket, however many requests there are. No
//! timer delays a request, and units go to the requests in the order of their arrival.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use foldhash::quality::RandomState;
use tokio::sync::oneshot;

use super::error::Failure;
use crate::store::StoreError;
use crate::values::Rate;

/// One request for a bucket, and the channel for its answer.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) key: Arc<str>,
    /// Its times are whole microseconds.
    pub(super) rate: Rate,
    /// When the request stops waiting.
    pub(super) deadline: Instant,
    pub(super) answer: oneshot::Sender<Result<Taken, StoreError>>,
}

/// The answer to a request for a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// The unit was charged, and the bucket is full again after `debt` microseconds.
    Granted { debt: u64 },
    /// The unit was not charged, and the bucket is full again after `debt` microseconds.
    Denied { debt: u64 },
    /// The unit was not charged, and none will be for at least `wait` microseconds.
    Blocked { wait: u64 },
}

impl Ask {
    pub(super) fn is_waiting(&self) -> bool {
        !self.answer.is_closed()
    }

    pub(super) fn say(self, answer: Result<Taken, StoreError>) -> bool {
        self.answer.send(answer).is_ok()
    }
}

/// The queues of waiting requests, one for each bucket.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// Has an entry for a bucket as long as a request waits for it or a call for it is in flight.
    waiting: HashMap<Arc<str>, VecDeque<Ask>, RandomState>,
    /// The buckets for which requests wait and no call is in flight, in the order of arrival.
    ready: VecDeque<Arc<str>>,
}

/// A batch: one call that charges a bucket one unit for each of its requests.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) key: Arc<str>,
    pub(super) rate: Rate,
    /// The requests in the order of arrival.
    members: Vec<Ask>,
}

impl Desk {
    pub(super) fn join(&mut self, ask: Ask) {
        match self.waiting.entry(Arc::clone(&ask.key)) {
            Entry::Occupied(line) => line.into_mut().push_back(ask),
            Entry::Vacant(line) => {
                self.ready.push_back(Arc::clone(&ask.key));
                line.insert(VecDeque::from([ask]));
            }
        }
    }

    /// The next call to send, if there is one.
    pub(super) fn next_call(&mut self) -> Option<Call> {
        while let Some(key) = self.ready.pop_front() {
            let Some(line) = self.waiting.get_mut(&key) else { continue };
            line.retain(Ask::is_waiting);
            let Some(rate) = line.front().map(|first| first.rate) else {
                self.waiting.remove(&key);
                continue;
            };
            // The first request with another quota, and all requests behind it, wait for the call
            // after this one.
            let same = line.iter().take_while(|ask| ask.rate == rate).count();
            return Some(Call { members: line.drain(..same).collect(), key, rate });
        }
        None
    }

    /// Notes that the call for the bucket has ended: the requests that arrived meanwhile are next.
    pub(super) fn done(&mut self, key: &Arc<str>) {
        match self.waiting.get(key) {
            Some(line) if line.is_empty() => {
                self.waiting.remove(key);
            }
            Some(_) => self.ready.push_back(Arc::clone(key)),
            None => {}
        }
    }
}

impl Call {
    pub(super) fn units(&self) -> usize {
        self.members.len()
    }

    /// When the first of its requests stops waiting. A unit that is charged later would be charged
    /// for a request that has been decided without it.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.members.iter().map(|ask| ask.deadline).min()
    }

    /// The call without the requests that are gone or late; late ones fail. `None` if no request is
    /// left.
    pub(super) fn of_those_in_time(mut self, now: Instant) -> Option<Self> {
        let in_time = |ask: &Ask| ask.is_waiting() && ask.deadline > now;
        let (members, late): (Vec<_>, Vec<_>) = self.members.into_iter().partition(in_time);
        for ask in late {
            ask.say(Err(Failure::Late.into()));
        }
        self.members = members;
        (!self.members.is_empty()).then_some(self)
    }

    /// Answers the requests: `granted` units were charged, and the bucket is full again after
    /// `used` microseconds.
    pub(super) fn conclude(self, granted: u64, used: u64) {
        let interval = self.rate.interval() / 1000;
        let mut left = granted;
        for ask in self.members {
            if left > 0 {
                // The debt as if the request had been charged alone, without the units that were
                // charged for the requests behind it.
                let debt = used.saturating_sub((left - 1) * interval);
                // If the request is gone, its unit goes to the next one.
                left -= u64::from(ask.say(Ok(Taken::Granted { debt })));
            } else {
                ask.say(Ok(Taken::Denied { debt: used }));
            }
        }
    }

    /// Answers the requests: the bucket is blocked for at least `wait` microseconds.
    pub(super) fn block(self, wait: u64) {
        for ask in self.members {
            ask.say(Ok(Taken::Blocked { wait }));
        }
    }

    pub(super) fn fail(self, error: impl Fn() -> StoreError) {
        for ask in self.members {
            ask.say(Err(error()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use proptest::prelude::*;
    use tokio::sync::oneshot::{self, Receiver};

    use super::{Ask, Desk, Taken};
    use crate::store::StoreError;
    use crate::values::Quota;

    type Answer = Receiver<Result<Taken, StoreError>>;

    const INTERVAL: u64 = 120_000;

    fn quota(limit: u32) -> Quota {
        Quota::per_minute(limit).build().expect("the quota is valid")
    }

    fn ask(key: &str, limit: u32) -> (Ask, Answer) {
        let (answer, answered) = oneshot::channel();
        (
            Ask {
                key: Arc::from(key),
                rate: quota(limit).rate(),
                deadline: Instant::now(),
                answer,
            },
            answered,
        )
    }

    fn charge(answered: &mut Answer) -> Option<Taken> {
        answered.try_recv().ok().and_then(Result::ok)
    }

    #[test]
    fn a_bucket_has_one_call_at_a_time_and_later_requests_join_the_next() {
        let mut desk = Desk::default();
        let (first, mut first_answer) = ask("a", 500);
        desk.join(first);
        let call = desk.next_call().expect("a request waits");
        let (meanwhile, _answers): (Vec<_>, Vec<_>) = (0..3).map(|_| ask("a", 500)).unzip();
        meanwhile.into_iter().for_each(|ask| desk.join(ask));
        assert!(desk.next_call().is_none());
        let (other, _other_answer) = ask("b", 500);
        desk.join(other);
        assert_eq!(
            desk.next_call().map(|call| (call.key.to_string(), call.units())),
            Some(("b".to_owned(), 1))
        );
        desk.done(&call.key);
        call.conclude(1, INTERVAL);
        assert_eq!(charge(&mut first_answer), Some(Taken::Granted { debt: INTERVAL }));
        assert_eq!(desk.next_call().map(|call| call.units()), Some(3));
        assert!(desk.next_call().is_none());
    }

    #[test]
    fn grants_go_out_in_the_order_of_arrival_each_as_if_it_had_been_charged_alone() {
        let mut desk = Desk::default();
        let (asks, mut answers): (Vec<_>, Vec<_>) = (0..5).map(|_| ask("a", 500)).unzip();
        asks.into_iter().for_each(|ask| desk.join(ask));
        let used = 500 * INTERVAL - 7;
        desk.next_call().expect("a request waits").conclude(3, used);
        let debts: Vec<_> = answers.iter_mut().filter_map(charge).collect();
        let granted = |behind| Taken::Granted { debt: used - behind * INTERVAL };
        let denied = Taken::Denied { debt: used };
        assert_eq!(debts, [granted(2), granted(1), granted(0), denied, denied]);
    }

    #[test]
    fn a_request_with_another_quota_waits_for_the_call_after() {
        let mut desk = Desk::default();
        let mut answers = VecDeque::new();
        for limit in [500, 500, 1000, 500] {
            let (ask, answer) = ask("a", limit);
            desk.join(ask);
            answers.push_back(answer);
        }
        for (limit, units) in [(500, 2), (1000, 1), (500, 1)] {
            let call = desk.next_call().expect("a request waits");
            assert_eq!((call.rate, call.units()), (quota(limit).rate(), units));
            assert!(desk.next_call().is_none());
            desk.done(&call.key);
        }
        assert!(desk.next_call().is_none());
        assert!(desk.waiting.is_empty());
    }

    #[test]
    fn a_call_is_due_when_the_first_of_its_requests_stops_waiting() {
        let mut desk = Desk::default();
        let now = Instant::now();
        let mut answers = Vec::new();
        for millis in [25, 20, 30] {
            let (ask, answer) = ask("a", 500);
            desk.join(Ask { deadline: now + Duration::from_millis(millis), ..ask });
            answers.push(answer);
        }
        let call = desk.next_call().expect("a request waits");
        assert_eq!(call.deadline(), Some(now + Duration::from_millis(20)));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Arrives,
        Leaves(prop::sample::Index),
        Sends,
        /// The call in flight is answered, with at most this many units charged.
        Lands(u64),
        /// The call in flight is answered with an error.
        Fails,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => Just(Step::Arrives),
            2 => any::<prop::sample::Index>().prop_map(Step::Leaves),
            3 => Just(Step::Sends),
            3 => (0..6_u64).prop_map(Step::Lands),
            1 => Just(Step::Fails),
        ]
    }

    proptest! {
        /// A request may leave at any moment between two steps: while it waits, while its call is
        /// in flight, or as the first request of its call.
        #[test]
        fn no_request_that_leaves_takes_a_unit_from_another_nor_holds_it_up(
            steps in prop::collection::vec(step(), 1..200),
        ) {
            let mut desk = Desk::default();
            // The requests that were not answered yet, in the order of arrival.
            let mut waiting: VecDeque<Answer> = VecDeque::new();
            let mut flying = None;
            for step in steps {
                match step {
                    Step::Arrives => {
                        let (ask, answer) = ask("a", 500);
                        desk.join(ask);
                        waiting.push_back(answer);
                    }
                    Step::Leaves(index) if !waiting.is_empty() => {
                        waiting.remove(index.index(waiting.len()));
                    }
                    Step::Leaves(_) => {}
                    Step::Sends => if let Some(call) = desk.next_call() {
                        prop_assert!(flying.is_none(), "two calls for one bucket");
                        prop_assert_eq!(call.units(), waiting.len(), "every waiting request");
                        flying = Some((call, waiting.len()));
                    },
                    Step::Lands(most) => if let Some((call, units)) = flying.take() {
                        let granted = most.min(units as u64);
                        desk.done(&call.key);
                        call.conclude(granted, 500 * INTERVAL);
                        let before = waiting.len();
                        let answers: Vec<_> = waiting.iter_mut().map_while(charge).collect();
                        waiting.drain(..answers.len());
                        let alive = answers.len();
                        let granted = alive.min(usize::try_from(granted).expect("small"));
                        prop_assert!(alive <= units && alive <= before);
                        let is_granted = |charge: &Taken| matches!(charge, Taken::Granted { .. });
                        let (first, rest) = answers.split_at(granted);
                        prop_assert!(first.iter().all(is_granted), "in the order of arrival");
                        prop_assert!(!rest.iter().any(is_granted), "no unit twice");
                    },
                    Step::Fails => if let Some((call, _)) = flying.take() {
                        desk.done(&call.key);
                        call.fail(|| StoreError::new("lost"));
                        let failed = |answer: &mut Answer| answer.try_recv().ok();
                        let failed = waiting.iter_mut().map_while(failed).count();
                        waiting.drain(..failed);
                    },
                }
            }
            // At the end, every request that still waits gets an answer.
            for _ in 0..3 {
                if let Some((call, units)) = flying.take() {
                    desk.done(&call.key);
                    call.conclude(units as u64, 500 * INTERVAL);
                }
                flying = desk.next_call().map(|call| { let units = call.units(); (call, units) });
            }
            prop_assert!(flying.is_none());
            prop_assert!(waiting.iter_mut().all(|answer| charge(answer).is_some()));
            prop_assert!(desk.waiting.is_empty() && desk.ready.is_empty());
        }
    }
}
