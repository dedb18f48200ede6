//! A request is decided in the same way whether it takes the short path or the general one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bolna_rate_limit::layer::OnStoreFailure;
use bolna_rate_limit::observe::{Observation, Observer};
use bolna_rate_limit::policy::{LimitBuilder, PolicyBuilder};
use bolna_rate_limit::store::{
    Answer, Capabilities, Charge, Command, Decisions, Immediate, MemoryStore, Reply, Store,
    StoreError,
};
use bolna_rate_limit::values::ChargeOutcome;
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{
    Account, BolnaRateLimitLayer, Endpoint, Enforcement, Limiter, Policy, Quota,
};
use http::Request;
use proptest::prelude::*;
use proptest::sample::select;

use crate::support::{now, send};

/// A store that fails or contradicts itself now and then, in every way in which it can.
struct Unreliable {
    inner: MemoryStore<ManualClock>,
    calls: AtomicU64,
    /// Of so many calls, four are wrong. None if it is 0.
    period: u64,
}

impl Store for Unreliable {
    type Check = Immediate;

    fn check(&self, charge: Charge<'_>) -> Answer<Immediate> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let Answer::Now(Ok(decisions)) = self.inner.check(charge) else { unreachable!() };
        let (outcome, list) = (decisions.outcome(), decisions.as_slice());
        Answer::Now(match call.checked_rem(self.period) {
            Some(1) => Err(StoreError::new("gone")),
            Some(2) if outcome.is_admitted() => {
                Ok(Decisions::new(ChargeOutcome::Refused, list.to_vec()))
            }
            Some(2) => Ok(Decisions::new(ChargeOutcome::Admitted, list.to_vec())),
            Some(3) => Ok(Decisions::new(outcome, [list, list].concat())),
            Some(4) => Ok(Decisions::new(ChargeOutcome::AdmittedWithShadow, list.to_vec())),
            _ => Ok(decisions),
        })
    }

    async fn command(&self, command: Command<'_>) -> Result<Reply, StoreError> {
        self.inner.command(command).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}

#[derive(Default)]
struct Witness(Mutex<Vec<String>>);

impl Observer for Witness {
    fn on_decision(&self, observation: &Observation<'_>) {
        self.0.lock().unwrap().push(format!("{observation:?}"));
    }
}

#[derive(Clone, Debug)]
struct Step {
    user: &'static str,
    organization: &'static str,
    path: &'static str,
    /// Which of the plans the account has; none if there is no such plan.
    plan: usize,
    pause: u64,
    blocks: bool,
}

fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    let paths = ["/call", "/v2/agent/1", "/x", "/%63all", "/free", "/multi", "/shadow"];
    let step = (
        select(vec!["a", "b", ""]),
        select(vec!["o", "p", ""]),
        select(paths.to_vec()),
        0..6_usize,
        prop_oneof![3 => Just(0), 1 => 0..3000_u64],
        prop::bool::weighted(0.05),
    );
    let step = step.prop_map(|(user, organization, path, plan, pause, blocks)| Step {
        user,
        organization,
        path,
        plan,
        pause,
        blocks,
    });
    prop::collection::vec(step, 1..60)
}

fn policy() -> PolicyBuilder {
    Policy::bolna()
        .quota("call", Quota::per_second(2))
        .quota("agent", Quota::per_second(1))
        .exempt(["/free"])
        .endpoint("multi", Quota::per_second(2), ["/multi"])
        .also("multi", LimitBuilder::user("multi-user", Quota::per_second(1)))
        .endpoint("shadow", Quota::per_second(1), ["/shadow"])
        .enforce("shadow", Enforcement::SHADOW)
}

/// The answers to the requests, and what an observer was told of them. `takes_general_path` notes
/// what each request pays, which the short path leaves out.
fn run(
    steps: &[Step],
    (period, percent, on_failure): (u64, u8, OnStoreFailure),
    takes_general_path: bool,
) -> (Vec<String>, Vec<String>) {
    let clock = ManualClock::default();
    let (inner, calls) = (MemoryStore::with_clock(clock.clone()), AtomicU64::new(0));
    let store = Unreliable { inner, calls, period };
    let limiter = Limiter::with_store(policy().build().unwrap(), store).unwrap();
    let witness = Arc::new(Witness::default());
    limiter.observe(Arc::clone(&witness));
    limiter.set_enforcement(Enforcement::percent(percent).unwrap());
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone()).on_store_failure(on_failure);
    let layer = if takes_general_path { layer.admission_in_extensions() } else { layer };
    let plans = [
        Policy::unlimited(),
        policy().quota("call", Quota::per_second(5)).build().unwrap(),
        policy().enforce("call", Enforcement::SHADOW).build().unwrap(),
    ];
    let answer = |step: &Step| {
        clock.advance(Duration::from_millis(step.pause));
        let account = Account::user(step.user).in_organization(step.organization);
        let account = match plans.get(step.plan) {
            Some(plan) => account.with_policy(plan.clone()),
            None => account,
        };
        if step.blocks && account.principal().is_some() {
            now(limiter.block(&account, Endpoint::CALL, Duration::from_secs(2))).unwrap();
        }
        let mut request = Request::post(step.path).body(String::new()).unwrap();
        request.extensions_mut().insert(account);
        let response = now(send(&layer, request));
        format!("{} {:?}", response.status(), response.headers())
    };
    let answers = steps.iter().map(answer).collect();
    let told = std::mem::take(&mut *witness.0.lock().unwrap());
    (answers, told)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn observers_and_callers_see_the_same_on_the_short_path_and_on_the_general_one(
        steps in any_steps(),
        period in select(vec![0_u64, 7, 13]),
        percent in select(vec![0_u8, 50, 100]),
        on_failure in select(vec![OnStoreFailure::Refuse, OnStoreFailure::Admit]),
    ) {
        let setting = (period, percent, on_failure);
        prop_assert_eq!(run(&steps, setting, false), run(&steps, setting, true));
    }
}
