//! Any events, and a naive queue that looks at all of its requests.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use proptest::prelude::*;

use super::index::Index;
use super::{Order, Place, Polled, Queue, Stage, Ticket};
use crate::client::pace::error::Lack;
use crate::client::priority::Priority;

const LACK: Lack = Lack { limit: None, in_flight: None };

const EACH: [Priority; 2] = [Priority::Interactive, Priority::Bulk];

/// The share of the bulk requests, in percent.
const SHARE: u8 = 30;

/// One event, of one of the requests that are there.
#[derive(Clone, Copy, Debug)]
enum Event {
    Arrive { priority: Priority, is_retry: bool, patience: u64 },
    Dispatch(Priority),
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

fn priority() -> impl Strategy<Value = Priority> {
    prop::sample::select(vec![Priority::Interactive, Priority::Bulk])
}

fn event() -> impl Strategy<Value = Event> {
    let any_request = || 0..64_usize;
    prop_oneof![
        4 => (priority(), any::<bool>(), 0..40_u64).prop_map(|(priority, is_retry, patience)| {
            Event::Arrive { priority, is_retry, patience }
        }),
        3 => priority().prop_map(Event::Dispatch),
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
    priority: Priority,
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

    fn first_waiting(&self, priority: Priority) -> Option<usize> {
        let waits = |it: &Naive| it.stage == Stage::Waiting && it.priority == priority;
        let waiting = self.requests.iter().enumerate().filter(|(_, it)| waits(it));
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
            Event::Arrive { priority, is_retry, patience } => {
                self.arrivals += 1;
                let deadline = self.now + patience;
                let ticket =
                    self.queue.arrive(self.arrivals, priority, is_retry, deadline, "".into());
                self.requests.push(Naive {
                    ticket,
                    priority,
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
            Event::Dispatch(priority) => {
                woken.extend(self.queue.dispatch(priority, self.now));
                if let Some(at) = self.first_waiting(priority) {
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
                let expired = self.queue.expire_overdue(self.now, 0, LACK, &mut woken);
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
                let order = Order::new(SHARE);
                let expired = self.queue.expire_late(order, now, due, LACK, &mut woken);
                let (mut order, mut ahead, mut expected) = (order, 0, 0);
                // Those that have lapsed come back before the others, and are in time.
                let mut rest = EACH.map(|priority| {
                    let is_of = |it: &(usize, &Naive)| {
                        it.1.priority == priority
                            && matches!(it.1.stage, Stage::Waiting | Stage::Lapsed)
                    };
                    let all = self.requests.iter().enumerate().filter(is_of);
                    let mut all: Vec<_> =
                        all.map(|(at, it)| (it.stage == Stage::Waiting, it.rank(), at)).collect();
                    all.sort_unstable();
                    VecDeque::from(all)
                });
                while let Some(priority) = order.next(rest.each_ref().map(|it| !it.is_empty())) {
                    let waits = rest.each_ref().map(|it| !it.is_empty());
                    let (waiting, _, at) =
                        rest[priority as usize].pop_front().expect("it is there");
                    let request = &mut self.requests[at];
                    if waiting && due(ahead) > now.max(request.deadline) {
                        request.stage = Stage::Expired { wait: due(ahead) - now, lack: LACK };
                        request.wake();
                        expected += 1;
                    } else {
                        order.dispatch(priority, waits);
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
        assert_eq!(queue.undispatched(), (of(Stage::Waiting) + of(Stage::Lapsed)) as u64);
        assert_eq!(queue.unsent().iter().sum::<usize>(), self.requests.len() - expired);
        for priority in EACH {
            let of = |is: &dyn Fn(&Stage) -> bool| {
                let all = self.requests.iter().filter(|it| it.priority == priority);
                all.filter(|it| is(&it.stage)).count()
            };
            let waits = of(&|stage| *stage == Stage::Waiting);
            let lapsed = of(&|stage| *stage == Stage::Lapsed);
            let unsent = of(&|stage| !matches!(stage, Stage::Expired { .. }));
            assert_eq!(queue.waits()[priority as usize], waits > 0);
            assert_eq!(queue.each_undispatched()[priority as usize], (waits + lapsed) as u64);
            assert_eq!(queue.unsent()[priority as usize], unsent);
            let first = self.first_waiting(priority).map(|at| &self.requests[at]);
            assert_eq!(queue.first(priority), first.map(|it| it.ticket));
        }
        assert_eq!(queue.dispatched(), self.count(Stage::is_dispatched) as u64);
        assert_eq!(queue.unaware(), unaware as u64);
        assert_eq!(queue.held(), of(Stage::Held) as u64);
        assert_eq!(queue.is_empty(), of(Stage::Waiting) + unaware == 0);
        assert_eq!(queue.is_idle(), of(Stage::Waiting) + of(Stage::Held) == 0);
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
        let (queue, requests) = (Queue::default(), Vec::new());
        let mut model = Model { queue, requests, now: 10_000, arrivals: 0, dispatches: 0 };
        for event in events {
            model.event(event);
            model.agree();
        }
    }

    /// The number of requests before a new one is what counting them one by one gives.
    #[test]
    fn so_many_requests_are_dispatched_before_a_new_one(
        share in 0..100_u8,
        before in prop::collection::vec(priority(), 0..120),
        interactive in 0..60_u64,
        bulk in 0..60_u64,
    ) {
        // Any credit.
        let mut order = Order::new(share);
        before.into_iter().for_each(|priority| order.dispatch(priority, [true, true]));
        for priority in EACH {
            let (mut order, mut waiting, mut ahead) = (order, [interactive, bulk], 0);
            let expected = order.ahead(priority, waiting);
            waiting[priority as usize] += 1;
            loop {
                let waits = waiting.map(|waiting| waiting > 0);
                let next = order.next(waits).expect("the new one waits");
                order.dispatch(next, waits);
                waiting[next as usize] -= 1;
                if next == priority && waiting[next as usize] == 0 {
                    break;
                }
                ahead += 1;
            }
            prop_assert_eq!(expected, ahead, "{:?}", priority);
        }
    }

    /// Of any dispatches in a row while both wait, bulk requests have their share.
    #[test]
    fn bulk_requests_keep_their_share_and_no_more(share in 0..100_u8) {
        let mut order = Order::new(share);
        let mut bulk = vec![0_u64];
        for _ in 0..500 {
            let next = order.next([true, true]).expect("both wait");
            order.dispatch(next, [true, true]);
            bulk.push(bulk[bulk.len() - 1] + u64::from(next == Priority::Bulk));
        }
        for (from, before) in bulk.iter().enumerate() {
            for (to, after) in bulk.iter().enumerate().skip(from) {
                let exact = (to - from) as u64 * u64::from(share);
                let dispatched = 100 * (after - before);
                prop_assert!(dispatched + 100 > exact && dispatched < exact + 100);
            }
        }
    }
}
