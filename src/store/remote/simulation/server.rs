//! A simulated server: buckets, a clock, and the law.

use std::collections::HashMap;

use super::super::core::CallError;
use super::super::replay::Replay;
use super::super::request::{Reply, Request, Run};
use crate::store::BucketState;
use crate::values::{OwnedBucket, Principal};

const EPOCH: i64 = 1_795_000_000_000_000;

#[derive(Default)]
pub(super) struct Server {
    buckets: HashMap<Key, Bucket>,
    /// How far its clock is ahead, in microseconds.
    pub(super) ahead: i64,
    /// Until when it does nothing, in nanoseconds of the world.
    pub(super) frozen_until: u64,
    pub(super) dead_until: u64,
}

/// The principal that the bucket belongs to, and the bucket.
type Key = (Principal, OwnedBucket);

fn key(request: &Request, bucket: &OwnedBucket) -> Key {
    (bucket.borrow(&request.principal).principal().clone(), bucket.clone())
}

/// Points in time in microseconds of the server's clock.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    full_at: i64,
    overdrawn_until: i64,
    blocked_until: i64,
}

impl Server {
    pub(super) fn time(&self, now: u64) -> i64 {
        EPOCH + i64::try_from(now / 1000).expect("small") + self.ahead
    }

    /// Carries a call out. Returns its reply, and the time that was charged to each bucket for
    /// requests.
    pub(super) fn carry_out(
        &mut self,
        request: &Request,
        now: u64,
    ) -> (Result<Reply, CallError>, Vec<(OwnedBucket, u64)>) {
        let now = if request.now == 0 { self.time(now) } else { request.now.abs() };
        if request.deadline > 0 && now > request.deadline {
            return (Ok(Reply::Late { now }), Vec::new());
        }
        let states = request.buckets.iter().map(|bucket| {
            let bucket = self.buckets.get(&key(request, bucket)).copied();
            bucket.unwrap_or_default().state(now, request.now < 0)
        });
        let states: smallvec::SmallVec<[BucketState; 1]> = states.collect();
        let mut replay = Replay {
            principal: &request.principal,
            buckets: &request.buckets,
            states: states.clone(),
        };
        let mut charged = Vec::new();
        for run in &request.runs {
            let before = replay.states.clone();
            replay.apply(run);
            if let Run::Charge { entries, .. } = run {
                for (index, bucket) in request.buckets.iter().enumerate() {
                    let mut each = entries.buckets(&request.principal).zip(entries.as_slice());
                    let entry = each.find(|(its, _)| its == bucket);
                    let mut from = before[index];
                    entry.iter().for_each(|(_, entry)| from.correct(entry.rate()));
                    charged.push((
                        bucket.clone(),
                        replay.states[index].debt.saturating_sub(from.debt),
                    ));
                }
            }
        }
        for (bucket, state) in request.buckets.iter().zip(&replay.states) {
            let bucket = key(request, bucket);
            if (state.debt, state.blocked) == (0, 0) {
                self.buckets.remove(&bucket);
            } else {
                self.buckets.insert(bucket, Bucket::of(state, now));
            }
        }
        (Ok(Reply::Done { now, states }), charged)
    }

    /// How many of the buckets it has.
    pub(super) fn count(&self, request: &Request) -> usize {
        let is_here = |bucket: &&OwnedBucket| self.buckets.contains_key(&key(request, bucket));
        request.buckets.iter().filter(is_here).count()
    }

    /// Takes the buckets of a principal out.
    pub(super) fn give_up(&mut self, principal: &Principal) -> Vec<(Key, [i64; 3])> {
        let all: Vec<_> =
            self.buckets.keys().filter(|(owner, _)| owner == principal).cloned().collect();
        let ahead = self.ahead;
        all.into_iter()
            .filter_map(|key| {
                let bucket = self.buckets.remove(&key)?;
                let times = [bucket.full_at, bucket.overdrawn_until, bucket.blocked_until];
                Some((key, times.map(|time| time - ahead)))
            })
            .collect()
    }

    pub(super) fn receive(&mut self, buckets: Vec<(Key, [i64; 3])>) {
        for (key, times) in buckets {
            let [full_at, overdrawn_until, blocked_until] = times.map(|time| time + self.ahead);
            self.buckets.insert(key, Bucket { full_at, overdrawn_until, blocked_until });
        }
    }
}

impl Bucket {
    fn state(self, now: i64, is_estimate: bool) -> BucketState {
        let left = |until: i64| u64::try_from(until - now).unwrap_or(0) * 1000;
        BucketState {
            debt: left(self.full_at),
            overdraft: left(self.overdrawn_until),
            blocked: left(self.blocked_until),
            shared: false,
            is_estimate,
        }
    }

    fn of(state: &BucketState, now: i64) -> Self {
        let until = |left: u64| {
            assert_eq!(left % 1000, 0, "the server counts whole microseconds");
            now + i64::try_from(left / 1000).expect("it is at most a century")
        };
        Self {
            full_at: until(state.debt),
            overdrawn_until: until(state.overdraft),
            blocked_until: until(state.blocked),
        }
    }
}
