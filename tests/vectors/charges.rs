//! The test vectors of charges of several buckets, `charges.json`.

use std::collections::HashMap;
use std::time::Duration;

use bolna_rate_limit::store::{ChargeError, ChargeOutcome, Decisions, Entry};
use bolna_rate_limit::{Decision, Endpoint, Quota};
use serde::Deserialize;

use super::read;

pub(crate) fn charges() -> Vec<Case> {
    let Vectors { cases } = read("charges.json");
    assert!(cases.len() >= 20);
    cases
}

#[derive(Deserialize)]
struct Vectors {
    cases: Vec<Case>,
}

/// Limit, period in milliseconds and burst, by the names of buckets.
pub(crate) type Quotas = HashMap<String, (u32, u64, u32)>;

#[derive(Deserialize)]
pub(crate) struct Case {
    pub(crate) says: String,
    pub(crate) quotas: Quotas,
    pub(crate) steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    pub(crate) at: Option<u64>,
    pub(crate) charge: Option<Vec<Part>>,
    pub(crate) peek: Option<Vec<Part>>,
    pub(crate) refund: Option<Vec<Part>>,
    pub(crate) settle: Option<Vec<Part>>,
    pub(crate) reset: Option<String>,
    pub(crate) block: Option<String>,
    pub(crate) ms: Option<u64>,
    pub(crate) quotas: Option<Quotas>,
    pub(crate) error: Option<String>,
    outcome: Option<String>,
    allowed: Option<Vec<bool>>,
    remaining: Option<Vec<u32>>,
    wait: Option<Vec<Option<u64>>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Part {
    Binding(String, u32),
    Shadow(String, u32, String),
}

pub(crate) fn endpoint(name: &str) -> Endpoint {
    Endpoint::new(&format!("vector-{name}")).unwrap()
}

pub(crate) fn entries(parts: &[Part], quotas: &Quotas) -> Result<Vec<Entry>, ChargeError> {
    let entry = |name: &String, cost| {
        let (limit, period, burst) = quotas[name];
        let quota = Quota::per(limit, Duration::from_millis(period)).burst(burst).build().unwrap();
        Entry::new(endpoint(name), quota).with_cost(cost)
    };
    let of_part = |part: &Part| match part {
        Part::Binding(name, cost) => entry(name, *cost),
        Part::Shadow(name, cost, shadow) => {
            assert_eq!(shadow, "shadow");
            entry(name, *cost).map(Entry::shadow)
        }
    };
    parts.iter().map(of_part).collect()
}

impl Step {
    pub(crate) fn assert_says(&self, decisions: &Decisions, what: &str) {
        self.assert_says_but_for_waits(decisions, what);
        let wait: Vec<_> = decisions.as_slice().iter().map(Decision::retry_after).collect();
        assert_eq!(self.waits(Duration::from_millis(1)), Some(wait), "{what}");
    }

    /// With waits in another unit than milliseconds, and hardly shorter: time passes.
    #[allow(dead_code, reason = "for stores whose clock can't be set")]
    pub(crate) fn assert_says_in(&self, unit: Duration, decisions: &Decisions, what: &str) {
        self.assert_says_but_for_waits(decisions, what);
        let waits = self.waits(unit).unwrap();
        assert_eq!(waits.len(), decisions.as_slice().len(), "{what}");
        for (wanted, decision) in waits.into_iter().zip(decisions.as_slice()) {
            let hardly_less = match (wanted, decision.retry_after()) {
                (Some(wanted), Some(wait)) => wait <= wanted && wait + unit > wanted,
                (wanted, wait) => wanted == wait,
            };
            assert!(hardly_less, "{what}: {wanted:?}, {decision:?}");
        }
    }

    fn waits(&self, unit: Duration) -> Option<Vec<Option<Duration>>> {
        let wait = |wait: &Option<u64>| wait.map(|it| unit * u32::try_from(it).unwrap());
        self.wait.as_ref().map(|waits| waits.iter().map(wait).collect())
    }

    fn assert_says_but_for_waits(&self, decisions: &Decisions, what: &str) {
        let outcome = match decisions.outcome() {
            ChargeOutcome::Refused => "refused",
            ChargeOutcome::Admitted => "admitted",
            ChargeOutcome::AdmittedWithShadow => "admitted with shadow",
        };
        assert_eq!(self.outcome.as_deref(), Some(outcome), "{what}");
        let all = decisions.as_slice();
        let allowed: Vec<_> = all.iter().map(Decision::is_allowed).collect();
        assert_eq!(self.allowed.as_ref(), Some(&allowed), "{what}");
        let remaining: Vec<_> = all.iter().map(Decision::remaining).collect();
        assert_eq!(self.remaining.as_ref(), Some(&remaining), "{what}");
    }
}
