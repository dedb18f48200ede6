//! What the law makes of the values on the server.

use std::time::Duration;

use bolna_rate_limit::store::{BucketState, Charge, Decisions};
use bolna_rate_limit::{Endpoint, Principal};

use super::{CENTURY, Call, Run, bucket_of, micros, state_of};

/// The values of some buckets, as they are on the server.
#[derive(Clone, Debug)]
pub(super) struct Model {
    principal: Principal,
    buckets: Vec<(Endpoint, Option<String>)>,
}

impl Model {
    pub(super) fn new(buckets: &[Endpoint]) -> Self {
        let buckets = buckets.iter().map(|bucket| (*bucket, None)).collect();
        Self { principal: Principal::user("u").unwrap(), buckets }
    }

    pub(super) fn set(&mut self, bucket: Endpoint, value: &str) {
        self.at(bucket).1 = Some(value.to_owned());
    }

    pub(super) fn value(&self, bucket: Endpoint) -> Option<&str> {
        let found = self.buckets.iter().find(|(other, _)| *other == bucket);
        found.unwrap().1.as_deref()
    }

    pub(super) fn state(&self, bucket: Endpoint, now: u64) -> BucketState {
        state(self.value(bucket), now)
    }

    /// Carries out the runs of a call, one request after the other.
    pub(super) fn run(&mut self, call: &Call) {
        let Call { buckets, runs, now, .. } = call;
        let before: Vec<_> = buckets.iter().map(|bucket| self.state(*bucket, *now)).collect();
        let mut after = before.clone();
        for run in runs {
            if call.is_estimate {
                about(&self.principal, buckets, run, &mut after);
            } else {
                replay(&self.principal, buckets, std::slice::from_ref(run), &mut after);
            }
        }
        for ((bucket, before), after) in buckets.iter().zip(before).zip(after) {
            let (_, value) = self.at(*bucket);
            // A quota corrects it, even if the number stays.
            let measured = |run: &Run| {
                !matches!(run, Run::Block(..) | Run::Reset(_)) && run.buckets().contains(bucket)
            };
            let replaced = points(value.as_deref()).is_none() && runs.iter().any(measured);
            if before != after || replaced {
                *value = text(&after, *now);
            }
        }
    }

    fn at(&mut self, bucket: Endpoint) -> &mut (Endpoint, Option<String>) {
        self.buckets.iter_mut().find(|(other, _)| *other == bucket).unwrap()
    }
}

/// What becomes of the states of these buckets, and the decisions about each request.
pub(super) fn replay(
    principal: &Principal,
    buckets: &[Endpoint],
    runs: &[Run],
    states: &mut [BucketState],
) -> Vec<Decisions> {
    let at = |bucket| buckets.iter().position(|other| *other == bucket).unwrap();
    let mut decisions = Vec::new();
    for run in runs {
        match run {
            Run::Charge { count, entries } => {
                let charge = Charge::new(principal, entries).unwrap();
                let places: Vec<_> = entries.iter().map(|entry| at(bucket_of(entry))).collect();
                for _ in 0..*count {
                    let mut charged: Vec<_> = places.iter().map(|place| states[*place]).collect();
                    decisions.push(charge.apply(&mut charged));
                    for (place, state) in places.iter().zip(charged) {
                        states[*place] = state;
                    }
                }
            }
            Run::Settle(entry) => {
                let state = std::slice::from_mut(&mut states[at(bucket_of(entry))]);
                Charge::of_one(principal, entry).settle(state);
            }
            Run::Refund(entry) => {
                let state = std::slice::from_mut(&mut states[at(bucket_of(entry))]);
                Charge::of_one(principal, entry).refund(state);
            }
            Run::Block(bucket, time) => {
                let state = &mut states[at(*bucket)];
                *state = state.blocked_for(Duration::from_micros(*time));
            }
            Run::Reset(bucket) => states[at(*bucket)] = BucketState::default(),
        }
    }
    decisions
}

/// Carries out a run at a time that is an estimate. A bucket that seems to owe up to a second too
/// much has no unit, and still owes that afterwards.
fn about(principal: &Principal, buckets: &[Endpoint], run: &Run, states: &mut [BucketState]) {
    let entries = match run {
        Run::Charge { entries, .. } => &entries[..],
        Run::Settle(entry) | Run::Refund(entry) => std::slice::from_ref(entry),
        Run::Block(..) | Run::Reset(_) => &[],
    };
    let before = states.to_vec();
    replay(principal, buckets, std::slice::from_ref(run), states);
    for entry in entries {
        let place = buckets.iter().position(|other| *other == bucket_of(entry)).unwrap();
        let [time, refill] = super::times(entry);
        let debt = micros(before[place].until_full());
        let overdraft = micros(before[place].overdraft()).min(refill);
        if !(1..=1_000_000).contains(&debt.saturating_sub(refill + overdraft)) {
            continue;
        }
        let (debt, overdraft) = match run {
            Run::Settle(_) => {
                let debt = debt.max((debt + time).min(2 * refill));
                (debt, overdraft.max(debt - refill))
            }
            Run::Refund(_) => {
                let debt = debt.saturating_sub(time);
                (debt, overdraft.saturating_sub(time))
            }
            _ => (debt, overdraft),
        };
        states[place] = state_of(debt, overdraft, micros(before[place].blocked()));
    }
}

fn state(value: Option<&str>, now: u64) -> BucketState {
    let Some([tat, overdrawn, blocked]) = points(value) else { return state_of(CENTURY, 0, 0) };
    let left = |point: u64| point.saturating_sub(now);
    state_of(left(tat), left(overdrawn).min(left(tat)), left(blocked))
}

/// Three points in time. `None` if another program wrote the value.
fn points(value: Option<&str>) -> Option<[u64; 3]> {
    let Some(value) = value else { return Some([0; 3]) };
    let point = |digits: &str| {
        let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|point| is_plain && *point < 1 << 53)
    };
    let (rest, blocked) = match value.split_once('!') {
        Some((rest, blocked)) => (rest, point(blocked)?),
        None => (value, 0),
    };
    let (tat, overdrawn) = match rest.split_once('+') {
        Some((tat, overdrawn)) => (tat, point(overdrawn)?),
        None => (rest, 0),
    };
    Some([point(tat)?, overdrawn, blocked])
}

fn text(state: &BucketState, now: u64) -> Option<String> {
    let point = |time: Duration| now + micros(time);
    let mut text = point(state.until_full()).to_string();
    if state.overdraft() > Duration::ZERO {
        text.push_str(&format!("+{}", point(state.overdraft())));
    }
    if state.blocked() > Duration::ZERO {
        text.push_str(&format!("!{}", point(state.blocked())));
    }
    (*state != BucketState::default()).then_some(text)
}
