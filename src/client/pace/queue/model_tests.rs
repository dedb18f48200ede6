//! Any events, and a naive queue that looks at all of its requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use proptest::prelude::*;

use super::index::Index;
use super::{Place, Polled, Queue, Stage, Ticket};
use crate::client::pace::error::Lack;

const LACK: Lack = Lack { limit: None, in_flight: None };

/// One event, of one of the requests that are there.
#[derive(Clone, Copy, Debug)]
enum Event {
    Arrive { is_retry: bool, patience: u64 },
    Dispatch,
    Poll(usize),
    Hold(usize),
    Redispatch,
    Lapse(usize),
    LapseLastHeld,
    LapseUnpolled,
    ExpireOverdue,
    ExpireLate { step: u64 },
    Leave(usize),
    TimePasses(u64),
    MoveDeadlines(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let any_request = || 0..64_usize;
    prop_oneof![
        4 => (any::<bool>(), 0..40_u64)
            .prop_map(|(is_retry, patience)| Event::Arrive { is_retry, patience }),
        3 => Just(Event::Dispatch),
        6 => any_request().prop_map(Event::Poll),
        2 => any_request().prop_map(Event::Hold),
        1 => Just(Event::Redispatch),
        1 => any_request().prop_map(Event::Lapse),
        1 => Just(Event::LapseLastHeld),
        1 => Just(Event::LapseUnpolled),
        1 => Just(Event::ExpireOverdue),
        1 => (0..10_u64).prop_map(|step| Event::ExpireLate { step }),
        2 => any_request().prop_map(Event::Leave),
        2 => (1..10_u64).prop_map(Event::TimePasses),
        1 => (0..10_u64).prop_map(Event::MoveDeadlines),
    ]
}

/// A request of the naive queue.
#[derive(Clone, Debug)]
struct Naive {
    ticket: Ticket,
    is_retry: bool,
    number: u64,
    deadline: u64,
    dispatch: u64,
    stage: Stage,
    /// How often its waker has been returned, and whether one is stored.
    woken: usize,
    has_waker: bool,
    counter: Arc<Counter>,
}

impl Naive {
    fn rank(&self) -> (bool, u64) {
        (!self.is_retry, self.number)
    }

    fn wake(&mut self) {
        self.woken += usize::from(std::mem::take(&mut self.has_waker));
    }
}

#[derive(Debug, Default)]
struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Model {
    queue: Queue,
    requests: Vec<Naive>,
    now: u64,
    arrivals: u64,
    dispatches: u64,
}

impl Model {
    fn position(&self, is: impl Fn(&Naive) -> bool, key: impl Fn(&Naive) -> u64) -> Option<usize> {
        let found = self.requests.iter().enumerate().filter(|(_, it)| is(it));
        found.min_by_key(|(_, it)| key(it)).map(|(at, _)| at)
    }

    fn first_waiting(&self) -> Option<usize> {
        let waiting = self.requests.iter().enumerate().filter(|(_, it)| it.stage == Stage::Waiting);
        waiting.min_by_key(|(_, it)| it.rank()).map(|(at, _)| at)
    }

    fn count(&self, is: impl Fn(Stage) -> bool) -> usize {
        self.requests.iter().filter(|it| is(it.stage)).count()
    }

    fn event(&mut self, event: Event) {
        let picked = |at: usize, model: &Self| {
            (!model.requests.is_empty()).then(|| at % model.requests.len())
        };
        let mut woken = Vec::new();
        match event {
            Event::TimePasses(time) => self.now += time,
            Event::MoveDeadlines(by) => {
                self.queue.move_deadlines(by);
                self.requests.iter_mut().for_each(|request| request.deadline += by);
            }
            Event::Arrive { is_retry, patience } => {
                self.arrivals += 1;
                let deadline = self.now + patience;
                let ticket = self.queue.arrive(self.arrivals, is_retry, deadline);
                self.requests.push(Naive {
                    ticket,
                    is_retry,
                    number: self.arrivals,
                    deadline,
                    dispatch: 0,
                    stage: Stage::Waiting,
                    woken: 0,
                    has_waker: false,
                    counter: Arc::default(),
                });
            }
            Event::Dispatch => {
                woken.extend(self.queue.dispatch(self.now));
                if let Some(at) = self.first_waiting() {
                    self.dispatches += 1;
                    let request = &mut self.requests[at];
                    request.dispatch = self.dispatches;
                    request.stage = Stage::Dispatched { at: self.now };
                    request.wake();
                }
            }
            Event::Poll(at) => {
                let Some(at) = picked(at, self) else { return };
                let request = &mut self.requests[at];
                let mut waker = Some(Waker::from(Arc::clone(&request.counter)));
                let polled = self.queue.poll(request.ticket, &mut waker);
                let expected = match request.stage {
                    Stage::Waiting => Polled::Waits,
                    Stage::Lapsed => Polled::WaitsAgain,
                    Stage::Expired { wait, lack } => Polled::Expired { wait, lack },
                    _ => Polled::Dispatched,
                };
                assert_eq!(polled, expected);
                match request.stage {
                    Stage::Waiting | Stage::Lapsed => {
                        request.stage = Stage::Waiting;
                        request.has_waker = true;
                    }
                    Stage::Dispatched { .. } => request.stage = Stage::Readying,
                    Stage::Expired { .. } => drop(self.requests.remove(at)),
                    _ => {}
                }
            }
            Event::Hold(at) => {
                let Some(at) = picked(at, self) else { return };
                let request = &mut self.requests[at];
                if request.stage.is_dispatched() {
                    let mut waker = Some(Waker::from(Arc::clone(&request.counter)));
                    self.queue.hold(request.ticket, &mut waker);
                    (request.stage, request.has_waker) = (Stage::Held, true);
                }
            }
            Event::Redispatch => {
                woken.extend(self.queue.redispatch(self.now));
                if let Some(at) = self.position(|it| it.stage == Stage::Held, |it| it.dispatch) {
                    self.requests[at].stage = Stage::Dispatched { at: self.now };
                    self.requests[at].wake();
                }
            }
            Event::Lapse(at) => {
                let Some(at) = picked(at, self) else { return };
                if self.requests[at].stage.is_dispatched() {
                    woken.extend(self.queue.lapse(self.requests[at].ticket));
                    self.requests[at].stage = Stage::Lapsed;
                    self.requests[at].wake();
                }
            }
            Event::LapseLastHeld => {
                woken.extend(self.queue.lapse_last_held());
                let last = self.position(|it| it.stage == Stage::Held, |it| u64::MAX - it.dispatch);
                if let Some(at) = last {
                    self.requests[at].stage = Stage::Lapsed;
                    self.requests[at].wake();
                }
            }
            Event::LapseUnpolled => {
                let by = self.now.saturating_sub(5);
                while self.queue.lapse_unpolled(by) {}
                for request in &mut self.requests {
                    if matches!(request.stage, Stage::Dispatched { at } if at <= by) {
                        request.stage = Stage::Lapsed;
                    }
                }
            }
            Event::ExpireOverdue => {
                let expired = self.queue.expire_overdue(self.now, LACK, &mut woken);
                let mut expected = 0;
                for request in &mut self.requests {
                    if request.stage == Stage::Waiting && request.deadline <= self.now {
                        request.stage = Stage::Expired { wait: 0, lack: LACK };
                        request.wake();
                        expected += 1;
                    }
                }
                assert_eq!(expired, expected);
            }
            Event::ExpireLate { step } => {
                let now = self.now;
                let due = move |ahead: u64| now + step * ahead;
                let expired = self.queue.expire_late(now, due, LACK, &mut woken);
                let mut ahead = self.count(|stage| stage == Stage::Lapsed) as u64;
                let mut expected = 0;
                let mut waiting: Vec<_> =
                    self.requests.iter_mut().filter(|it| it.stage == Stage::Waiting).collect();
                waiting.sort_by_key(|it| it.rank());
                for request in waiting {
                    if due(ahead) > now.max(request.deadline) {
                        request.stage = Stage::Expired { wait: due(ahead) - now, lack: LACK };
                        request.wake();
                        expected += 1;
                    } else {
                        ahead += 1;
                    }
                }
                assert_eq!(expired, expected);
            }
            Event::Leave(at) => {
                let Some(at) = picked(at, self) else { return };
                let request = self.requests.remove(at);
                let (stage, waker) = self.queue.leave(request.ticket).expect("it is there");
                assert_eq!((stage, waker.is_some()), (request.stage, request.has_waker));
                assert_eq!(self.queue.leave(request.ticket).map(|left| left.0), None);
            }
        }
        woken.into_iter().for_each(Waker::wake);
    }

    /// The queue says of itself what is true of the naive one.
    fn agree(&self) {
        let queue = &self.queue;
        assert_eq!(queue.index, Index::of(&queue.requests));
        assert_eq!(queue.requests.len(), self.requests.len());
        for request in &self.requests {
            assert_eq!(queue.stage(request.ticket), Some(request.stage));
            assert_eq!(request.counter.0.load(Ordering::Relaxed), request.woken);
        }
        let of = |stage: Stage| self.count(|other| other == stage);
        let unaware = self.count(|stage| matches!(stage, Stage::Dispatched { .. }));
        let expired = self.count(|stage| matches!(stage, Stage::Expired { .. }));
        assert_eq!(queue.waiting(), of(Stage::Waiting));
        assert_eq!(queue.ahead(), (of(Stage::Waiting) + of(Stage::Lapsed)) as u64);
        assert_eq!(queue.unsent(), self.requests.len() - expired);
        assert_eq!(queue.dispatched(), self.count(Stage::is_dispatched) as u64);
        assert_eq!(queue.unaware(), unaware as u64);
        assert_eq!(queue.held(), of(Stage::Held) as u64);
        assert_eq!(queue.is_empty(), of(Stage::Waiting) + unaware == 0);
        assert_eq!(queue.is_idle(), of(Stage::Waiting) + of(Stage::Held) == 0);
        let first = self.first_waiting().map(|at| &self.requests[at]);
        assert_eq!(queue.first(), first.map(|it| it.ticket));
        let waiting = self.requests.iter().filter(|it| it.stage == Stage::Waiting);
        assert_eq!(queue.next_deadline(), waiting.map(|it| it.deadline).min());
        for request in self.requests.iter().filter(|it| it.stage.is_dispatched()) {
            let held = self.requests.iter().filter(|it| it.stage == Stage::Held);
            let before = held.clone().filter(|it| it.dispatch < request.dispatch).count();
            let after = held.filter(|it| it.dispatch > request.dispatch).count();
            match queue.place(request.ticket) {
                Place::First => assert_eq!(before, 0),
                Place::Between => assert!(before > 0 && after > 0),
                Place::Last(others) => assert_eq!((before as u64, after), (others, 0)),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn after_any_events_the_queue_is_as_a_naive_one(
        events in prop::collection::vec(event(), 0..150),
    ) {
        // Late enough that no deadline is before 0.
        let mut model = Model { queue: Queue::default(), requests: vec![], now: 10_000, arrivals: 0, dispatches: 0 };
        for event in events {
            model.event(event);
            model.agree();
        }
    }
}
