//! Batches: the requests of one principal that arrive while a call for it is in flight share the
//! next call.
//!
//! So apart from overdue calls, a principal has at most one call in flight, however many requests
//! there are and whatever their quotas. No timer delays a request, and units go to the requests in
//! the order of their arrival.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::mem;

use foldhash::quality::RandomState;
use smallvec::SmallVec;

use super::call::{Batch, Call};
use super::corrections::{Claimed, Corrections};
use super::failure::Failure;
use super::pending::{Op, Pending, Ticket};
use super::replay::Replay;
use super::request::Request;
use super::ring::Ring;
use crate::store::BucketState;
use crate::store::fallback::{Ledger, Owed};
use crate::values::{OwnedBucket, Principal};

/// The queues of the requests that wait, one for each principal.
#[derive(Debug)]
pub(super) struct Batches<T> {
    /// All requests that wait, in the order of their arrival.
    pending: Ring<Waiting<T>>,
    /// The deadlines and numbers of requests that expire before one with a lower number: another
    /// server has sent them on.
    early: Vec<(u64, u64)>,
    /// A queue for each principal for which a request waits or a call is in flight.
    lines: HashMap<Principal, Line, RandomState>,
    /// How many of them have requests. The others only charge back.
    places: usize,
    /// The principals that are to be called for, in the order of arrival.
    ready: VecDeque<Principal>,
    latest: u64,
}

#[derive(Debug)]
struct Waiting<T> {
    pending: Pending<T>,
    /// The call in which it is in flight.
    call: Option<u64>,
}

/// The requests of one principal.
#[derive(Debug, Default)]
struct Line {
    /// The numbers of those that are not in flight, in the order of arrival.
    waiting: VecDeque<u64>,
    /// The call in flight, unless it is overdue.
    in_flight: Option<u64>,
    /// Whether there are requests that wait or are in flight.
    has_requests: bool,
    /// Whether the principal is among those that are ready.
    is_ready: bool,
    /// Whether the principal needs another call after the one in flight, even without requests.
    is_next: bool,
    /// Whether each call is about the buckets of its first request only: some of the principal's
    /// keys are on another node, so calls about several buckets may not be carried out.
    is_narrow: bool,
}

impl<T: Ticket> Batches<T> {
    /// Adds a request. Fails it if requests of `most` other principals wait.
    pub(super) fn join(&mut self, pending: Pending<T>, most: usize) {
        let has_place = |line: &Line| line.has_requests;
        if self.places >= most && !self.lines.get(&pending.principal).is_some_and(has_place) {
            return pending.ticket.say(Err(Failure::TooMany(most)));
        }
        let (principal, deadline) = (pending.principal.clone(), pending.deadline);
        let number = self.pending.push(Waiting { pending, call: None });
        if deadline >= self.latest {
            self.latest = deadline;
            return self.line(principal, |line, _| line.waiting.push_back(number));
        }
        // Another server has sent it on, so it is older than some of the requests in the queue.
        self.early.push((deadline, number));
        self.line(principal, |line, pending| {
            let is_before = |other: &u64| {
                pending.get(*other).is_none_or(|waiting| waiting.pending.deadline <= deadline)
            };
            let place = line.waiting.iter().take_while(|other| is_before(other)).count();
            line.waiting.insert(place, number);
        });
    }

    /// Makes a principal ready even without requests, because it owes something or there are
    /// corrections.
    pub(super) fn call_for(&mut self, principal: Principal) {
        self.line(principal, |line, _| line.is_next = true);
    }

    /// Changes the queue of a principal, which is ready unless a call is in flight.
    fn line(&mut self, principal: Principal, change: impl FnOnce(&mut Line, &Ring<Waiting<T>>)) {
        let mut entry = match self.lines.entry(principal) {
            Entry::Occupied(entry) => entry,
            Entry::Vacant(entry) => entry.insert_entry(Line::default()),
        };
        let line = entry.get_mut();
        change(line, &self.pending);
        if !line.waiting.is_empty() && !mem::replace(&mut line.has_requests, true) {
            self.places += 1;
        }
        if line.in_flight.is_none() && !mem::replace(&mut line.is_ready, true) {
            self.ready.push_back(entry.key().clone());
        }
    }

    /// The next call, the request to send for it, and the earliest deadline. The core sets the
    /// times of the request.
    pub(super) fn next_call(
        &mut self,
        number: u64,
        now: u64,
        ledger: Option<&Ledger>,
        corrections: &Corrections,
    ) -> Option<(Call, Request, u64)> {
        while let Some(principal) = self.ready.pop_front() {
            if self.is_after_everyones(&principal, ledger) {
                self.ready.push_front(principal);
                self.pay_everyones();
                continue;
            }
            let Some(line) = self.lines.get_mut(&principal) else { continue };
            line.is_ready = false;
            line.is_next = false;
            let mut batch = Batch::default();
            let is_narrow = line.is_narrow;
            let pending = &mut self.pending;
            line.waiting.retain(|number| {
                let waits = pending.get(*number).is_some_and(|it| it.pending.ticket.is_waiting());
                if !waits {
                    pending.remove(*number);
                }
                waits
            });
            let first = line.waiting.front().and_then(|first| pending.get(*first));
            let bucket = first
                .filter(|_| is_narrow)
                .and_then(|waiting| waiting.pending.op.buckets(&principal).next());
            let owed = ledger.map_or_else(Owed::new, |ledger| {
                pay(ledger, &principal, bucket.clone(), is_narrow, now, &mut batch)
            });
            let taken = correct(corrections, &principal, bucket, is_narrow, &mut batch);
            line.is_next = corrections.wait_for(&principal);
            let paid = batch.runs.clone();
            while let Some(next) = line.waiting.front() {
                let Some(waiting) = self.pending.get_mut(*next) else { break };
                if !batch.add(&waiting.pending, is_narrow) {
                    break;
                }
                waiting.call = Some(number);
                batch.members.push(*next);
                line.waiting.pop_front();
            }
            if batch.members.is_empty() {
                self.places -= usize::from(mem::take(&mut line.has_requests));
                if owed.is_empty() && taken.is_empty() {
                    self.lines.remove(&principal);
                    continue;
                }
            }
            line.in_flight = Some(number);
            let Batch { members, buckets, runs, steps, deadline, asking } = batch;
            let (copy, buckets_of_call) = (principal.clone(), buckets.clone());
            let request = Request { principal: copy, buckets, runs, deadline: 0, now: 0, asking };
            let call = Call {
                principal,
                members,
                buckets: buckets_of_call,
                owed,
                corrections: taken,
                paid,
                steps,
                sent: now,
                is_narrow,
                is_overdue: false,
            };
            return Some((call, request, deadline));
        }
        None
    }

    /// Whether requests of the principal name buckets of everyone for which something is owed. What
    /// is owed is charged before these requests, by a call of its own. Charged later, it could be
    /// more than the overdraft has room for.
    fn is_after_everyones(&self, principal: &Principal, ledger: Option<&Ledger>) -> bool {
        let everyone = Principal::everyone();
        if principal.is_everyone() || !ledger.is_some_and(|ledger| ledger.has_dues(everyone)) {
            return false;
        }
        let names_everyones = |number: &u64| {
            self.pending.get(*number).is_some_and(|waiting| waiting.pending.op.is_of_everyone())
        };
        let is_in_flight = |line: &Line| line.in_flight.is_some();
        !self.lines.get(everyone).is_some_and(is_in_flight)
            && self
                .lines
                .get(principal)
                .is_some_and(|line| line.waiting.iter().any(names_everyones))
    }

    /// Makes everyone the first principal that is ready.
    #[cold]
    fn pay_everyones(&mut self) {
        self.call_for(Principal::everyone().clone());
        if let Some(place) = self.ready.iter().position(Principal::is_everyone) {
            let everyone = self.ready.remove(place);
            everyone.into_iter().for_each(|everyone| self.ready.push_front(everyone));
        }
    }

    /// The call has ended: the requests that arrived meanwhile are next.
    fn end(&mut self, principal: &Principal, number: u64) {
        let Some(line) = self.lines.get_mut(principal) else { return };
        if line.in_flight != Some(number) {
            return;
        }
        line.in_flight = None;
        if line.is_ready {
            return;
        }
        if line.waiting.is_empty() && !line.is_next {
            self.places -= usize::from(line.has_requests);
            self.lines.remove(principal);
        } else {
            line.is_ready = true;
            self.ready.push_back(principal.clone());
        }
    }

    /// Answers the requests of a call that was carried out. `states` are the buckets before it.
    ///
    /// Requests that no longer wait were decided without the server. What it has charged for them
    /// is no longer owed. Returns the number of these units.
    pub(super) fn conclude(
        &mut self,
        number: u64,
        call: Call,
        states: SmallVec<[BucketState; 1]>,
        ledger: Option<&Ledger>,
    ) -> u64 {
        let Call { principal, members, buckets, paid, steps, .. } = call;
        let mut replay = Replay { principal: &principal, buckets: &buckets, states };
        paid.iter().for_each(|run| replay.apply(run));
        let (mut members, mut late) = (members.into_iter(), 0);
        for (op, count) in steps {
            let count = count as usize;
            let mut waiting: SmallVec<[T; 1]> = SmallVec::new();
            for number in members.by_ref().take(count) {
                let pending = self.pending.remove(number).map(|waiting| waiting.pending);
                waiting.extend(pending.map(|pending| pending.ticket).filter(Ticket::is_waiting));
            }
            match &op {
                Op::Check(entries) if waiting.len() < count => {
                    let gone = replay.charge_gone(entries, count, waiting.len());
                    let charge = entries.charge(&principal);
                    for entry in charge.entries().iter().filter(|_| gone > 0) {
                        let time = entry.time().saturating_mul(gone as u64);
                        ledger.map(|ledger| ledger.reduce(charge.bucket(entry), time));
                        late += u64::from(entry.cost()) * gone as u64;
                    }
                }
                Op::Check(_) => {}
                // The server has done it, whether or not the request waits.
                op => {
                    let answer = replay.answer(op);
                    waiting.into_iter().for_each(|ticket| ticket.say(Ok(answer.clone())));
                    continue;
                }
            }
            for ticket in waiting {
                ticket.say(Ok(replay.answer(&op)));
            }
        }
        self.end(&principal, number);
        late
    }

    /// Puts the requests of a call that changed nothing back to the head of the queue. Those that
    /// do not wait any more are dropped.
    pub(super) fn again(&mut self, number: u64, call: &Call) {
        self.put_back(call);
        self.end(&call.principal, number);
    }

    /// As [`again`](Self::again), in calls that are about the buckets of their first request only.
    pub(super) fn again_narrowly(&mut self, number: u64, call: &Call) {
        if let Some(line) = self.lines.get_mut(&call.principal) {
            line.is_narrow = true;
        }
        self.again(number, call);
    }

    /// Sets the requests of a call aside until they are [put back](Self::put_back).
    pub(super) fn park(&mut self, number: u64, call: &Call) {
        for number in &call.members {
            if let Some(waiting) = self.pending.get_mut(*number) {
                waiting.call = None;
            }
        }
        self.end(&call.principal, number);
    }

    /// Puts the requests of a call back into the queue, in the order of arrival: a later call may
    /// have been put back before.
    pub(super) fn put_back(&mut self, call: &Call) {
        let mut members: SmallVec<[u64; 4]> = SmallVec::new();
        for number in &call.members {
            if let Some(pending) = self.pending.get_mut(*number) {
                pending.call = None;
                members.push(*number);
            }
        }
        self.line(call.principal.clone(), |line, pending| {
            line.waiting.extend(members);
            line.is_next = true;
            let arrival =
                |number: &u64| (pending.get(*number).map(|it| it.pending.deadline), *number);
            line.waiting.make_contiguous().sort_by_key(arrival);
        });
    }

    /// Takes the requests of a call out, to send them to another server.
    pub(super) fn hand_over(&mut self, number: u64, call: &Call) -> Vec<Pending<T>> {
        let members = call.members.iter().filter_map(|number| self.pending.remove(*number));
        let pending = members.map(|waiting| waiting.pending).collect();
        self.end(&call.principal, number);
        pending
    }

    /// Fails the requests of a call for the bucket with that index. The call has changed nothing,
    /// and the other requests are called for again.
    pub(super) fn fail_those_of(
        &mut self,
        number: u64,
        call: &Call,
        index: usize,
        failure: &Failure,
    ) {
        let bucket = call.buckets.get(index);
        for member in &call.members {
            let of_bucket = |waiting: &Waiting<T>| {
                let mut its = waiting.pending.op.buckets(&call.principal);
                bucket.is_none_or(|bucket| its.any(|its| its == *bucket))
            };
            if self.pending.get(*member).is_some_and(of_bucket) {
                if let Some(waiting) = self.pending.remove(*member) {
                    waiting.pending.ticket.say(Err(failure.clone()));
                }
            }
        }
        self.again(number, call);
    }

    /// Fails the requests of a call.
    pub(super) fn fail(&mut self, number: u64, call: &Call, failure: &Failure) {
        for pending in self.hand_over(number, call) {
            pending.ticket.say(Err(failure.clone()));
        }
    }

    /// Fails all requests.
    pub(super) fn fail_all(&mut self, failure: &Failure) {
        self.lines.clear();
        self.places = 0;
        self.ready.clear();
        self.early.clear();
        while let Some(waiting) = self.pending.pop() {
            waiting.pending.ticket.say(Err(failure.clone()));
        }
    }

    /// When the next request stops waiting.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        let early = self.early.iter().map(|(deadline, _)| *deadline);
        early.chain(self.pending.oldest().map(|(_, waiting)| waiting.pending.deadline)).min()
    }

    /// Fails the requests whose deadline has passed. Returns the calls in which they were.
    pub(super) fn expire(&mut self, now: u64, failure: &Failure) -> SmallVec<[u64; 4]> {
        let mut overdue = SmallVec::new();
        let mut late: SmallVec<[u64; 4]> = SmallVec::new();
        self.early.retain(|(deadline, number)| {
            if *deadline <= now {
                late.push(*number);
            }
            *deadline > now
        });
        loop {
            let number = late.pop().or_else(|| {
                let (number, waiting) = self.pending.oldest()?;
                (waiting.pending.deadline <= now).then_some(number)
            });
            let Some(number) = number else { return overdue };
            let Some(Waiting { pending, call }) = self.pending.remove(number) else { continue };
            if let Some(call) = call.filter(|call| !overdue.contains(call)) {
                overdue.push(call);
            }
            pending.ticket.say(Err(failure.clone()));
        }
    }

    /// The next requests of the principal need not wait for the call any more.
    pub(super) fn overtake(&mut self, number: u64, call: &Call) {
        self.end(&call.principal, number);
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.places == 0 && self.pending.len() == 0
    }
}

impl<T> Default for Batches<T> {
    fn default() -> Self {
        Self {
            pending: Ring::default(),
            early: Vec::new(),
            lines: HashMap::default(),
            places: 0,
            ready: VecDeque::new(),
            latest: 0,
        }
    }
}

/// Adds what is owed for all buckets to a batch. If the batch `is_narrow`, adds only what is owed
/// for `bucket`, or for any one bucket if that is `None`.
fn pay(
    ledger: &Ledger,
    principal: &Principal,
    bucket: Option<OwnedBucket>,
    is_narrow: bool,
    now: u64,
    batch: &mut Batch,
) -> Owed {
    let mut owed = ledger.remove(principal);
    if is_narrow {
        let bucket = bucket.or_else(|| owed.first().map(|(bucket, _)| bucket.clone()));
        let (of_bucket, others): (Owed, Owed) =
            owed.into_iter().partition(|(its, _)| Some(its) == bucket.as_ref());
        ledger.put_back(principal, others, now);
        owed = of_bucket;
    }
    // After a long loss nothing may be left to pay.
    owed.retain(|(bucket, dues)| {
        let amount = ledger.amount(dues, now);
        if amount > 0 {
            batch.settle(bucket.clone(), dues.entry().rate(), amount);
        }
        amount > 0
    });
    owed
}

/// Adds the corrections that wait for the principal to a batch. If the batch `is_narrow`, adds only
/// those of `bucket`, or of any one bucket if that is `None`.
fn correct(
    corrections: &Corrections,
    principal: &Principal,
    bucket: Option<OwnedBucket>,
    is_narrow: bool,
    batch: &mut Batch,
) -> Claimed {
    let bucket = is_narrow.then(|| {
        let paid = || batch.buckets.first().cloned();
        bucket.or_else(paid).or_else(|| corrections.first_bucket(principal))
    });
    let taken = corrections.claim(principal, bucket.flatten().as_ref());
    taken.iter().for_each(|one| batch.correct(one));
    taken
}
