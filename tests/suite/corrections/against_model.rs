//! The limiter against the model, over random orders of all that can happen to requests.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bolna_rate_limit::limiter::{Admission, Admitted, LimiterAdmit};
use bolna_rate_limit::store::{Answer, MemoryStore, Store};
use bolna_rate_limit::values::LimitName;
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{Account, Endpoint, Limiter};
use proptest::prelude::*;

use super::model::policy;
use super::model::{CALLERS, Kind, Model, NAMES, Plan, Request, Spec, Verdict, Whose, account};
use crate::deferred::{Answers, DeferredStore};
use crate::support::{now, quiet};

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A request is admitted and kept.
    Admit {
        who: usize,
        own: bool,
    },
    /// A request is decided, and not in flight.
    Check {
        who: usize,
        own: bool,
    },
    /// The store answers all requests that wait.
    Answer,
    /// A request goes away while it waits for the store.
    Leave(usize),
    Refund(usize),
    Settle {
        request: usize,
        name: usize,
        units: u32,
    },
    End(usize),
    Clone(usize),
    Drop(usize),
    Reset {
        who: usize,
        own: bool,
    },
    Block {
        who: usize,
        millis: u64,
    },
    Pass(u64),
    /// Another policy becomes the active one.
    Change,
}

fn spec() -> impl Strategy<Value = Spec> {
    let whose = prop::sample::select(vec![Whose::Account, Whose::User, Whose::Everyone]);
    let kind = prop_oneof![
        (1..=6_u32, 1..=60_u64, 1..=6_u32).prop_map(|(limit, seconds, burst)| Kind::Rate {
            limit,
            seconds,
            burst
        }),
        (1..=4_u32).prop_map(Kind::Places),
    ];
    let cost = prop_oneof![3 => Just(1), 1 => 1..=6_u32];
    (whose, kind, cost, prop::bool::weighted(0.3)).prop_map(|(whose, kind, cost, shadow)| {
        let most = match kind {
            Kind::Rate { burst, .. } => burst,
            Kind::Places(most) => most,
        };
        Spec { whose, kind, cost: cost.min(most), shadow }
    })
}

fn plan() -> impl Strategy<Value = Plan> {
    let first = (1..=8_u32, 1..=60_u64, 1..=8_u32, prop::bool::weighted(0.2)).prop_map(
        |(limit, seconds, burst, shadow)| Spec {
            whose: Whose::Account,
            kind: Kind::Rate { limit, seconds, burst },
            cost: 1,
            shadow,
        },
    );
    (first, prop::collection::vec(spec(), 0..=3))
        .prop_map(|(first, others)| [first].into_iter().chain(others).collect())
}

fn step() -> impl Strategy<Value = Step> {
    let who = || 0..CALLERS.len();
    let own = || prop::bool::weighted(0.2);
    let any = || 0..1000_usize;
    let units = prop_oneof![3 => 0..4_u32, 2 => 4..20_u32, 1 => Just(u32::MAX)];
    prop_oneof![
        12 => (who(), own()).prop_map(|(who, own)| Step::Admit { who, own }),
        2 => (who(), own()).prop_map(|(who, own)| Step::Check { who, own }),
        4 => Just(Step::Answer),
        1 => any().prop_map(Step::Leave),
        2 => any().prop_map(Step::Refund),
        3 => (any(), 0..NAMES.len(), units)
            .prop_map(|(request, name, units)| Step::Settle { request, name, units }),
        2 => any().prop_map(Step::End),
        1 => any().prop_map(Step::Clone),
        5 => any().prop_map(Step::Drop),
        1 => (who(), own()).prop_map(|(who, own)| Step::Reset { who, own }),
        1 => (who(), 0..20_000_u64).prop_map(|(who, millis)| Step::Block { who, millis }),
        5 => prop_oneof![1 => 0..2_000_000_000_u64, 1 => 0..20_000_000_000_u64]
            .prop_map(Step::Pass),
        1 => Just(Step::Change),
    ]
}

/// The limiter and the model side by side.
struct Both<'a, St: Store> {
    limiter: Limiter<St>,
    clock: ManualClock,
    plans: &'a [Plan; 3],
    /// The active plan. The third is that of accounts with one of their own.
    active: usize,
    model: Model,
    waiting: Vec<(Pin<Box<LimiterAdmit<St>>>, Verdict)>,
    kept: Vec<(Vec<Admission>, Request)>,
}

impl<'a, St: Store> Both<'a, St> {
    fn new(store: St, clock: ManualClock, plans: &'a [Plan; 3]) -> Self {
        let limiter = quiet(Limiter::with_store(policy(&plans[0]), store).unwrap());
        let (model, active) = (Model::with_slack(0), 0);
        Self { limiter, clock, plans, active, model, waiting: Vec::new(), kept: Vec::new() }
    }

    fn account(&self, who: usize, own: bool) -> Account {
        let account = account(CALLERS[who]);
        if own { account.with_policy(policy(&self.plans[2])) } else { account }
    }

    fn plan(&self, own: bool) -> (&'a Plan, Option<&'a Plan>) {
        (&self.plans[self.active], own.then_some(&self.plans[2]))
    }

    fn run(&mut self, step: Step, release: &impl Fn(Answers)) {
        match step {
            Step::Admit { who, own } => {
                let (active, plan) = self.plan(own);
                let verdict = self.model.ask(CALLERS[who], active, plan);
                match self.limiter.admit(&self.account(who, own), "/call").unwrap() {
                    Answer::Now(admitted) => self.answered(admitted.unwrap(), verdict),
                    Answer::Later(future) => self.waiting.push((Box::pin(future), verdict)),
                }
            }
            Step::Check { who, own } => {
                let (active, plan) = self.plan(own);
                let verdict = self.model.ask(CALLERS[who], active, plan);
                release(Answers::Decision);
                let answer = self.limiter.check(&self.account(who, own), "/call").unwrap();
                let ruling = now(answer.wait()).unwrap();
                release(Answers::NotYet);
                if let Some(mut request) = self.model.answered(verdict, &ruling) {
                    self.model.end(&mut request);
                }
            }
            Step::Answer => {
                release(Answers::Decision);
                for (mut future, verdict) in std::mem::take(&mut self.waiting) {
                    let mut context = Context::from_waker(Waker::noop());
                    let Poll::Ready(admitted) = future.as_mut().poll(&mut context) else {
                        panic!("it is answered")
                    };
                    self.answered(admitted.unwrap(), verdict);
                }
                release(Answers::NotYet);
            }
            Step::Leave(index) => {
                if let Some(index) = chosen(index, self.waiting.len()) {
                    let (future, verdict) = self.waiting.swap_remove(index);
                    drop(future);
                    self.model.left(&verdict);
                }
            }
            Step::Reset { who, own } => {
                let (active, plan) = self.plan(own);
                self.model.reset(CALLERS[who], active, plan);
                now(self.limiter.reset(self.account(who, own), Endpoint::CALL)).unwrap();
            }
            Step::Block { who, millis } => {
                let period = Duration::from_millis(millis);
                self.model.block(CALLERS[who], &self.plans[0], period.as_nanos());
                let account = account(CALLERS[who]);
                now(self.limiter.block(account, Endpoint::CALL, period)).unwrap();
            }
            Step::Pass(nanos) => {
                self.clock.advance(Duration::from_nanos(nanos));
                self.model.advance(nanos.into());
            }
            Step::Change => {
                self.active = 1 - self.active;
                self.limiter.set_policy(policy(&self.plans[self.active])).unwrap();
            }
            Step::Refund(index)
            | Step::Settle { request: index, .. }
            | Step::End(index)
            | Step::Clone(index)
            | Step::Drop(index) => {
                if let Some(index) = chosen(index, self.kept.len()) {
                    self.correct(index, step);
                }
            }
        }
    }

    fn correct(&mut self, index: usize, step: Step) {
        let (admissions, request) = &mut self.kept[index];
        let admission = admissions.last().unwrap();
        match step {
            Step::Refund(_) => {
                admission.refund();
                self.model.refund(request, &self.plans[self.active]);
            }
            Step::Settle { name, units, .. } => {
                admission.settle(LimitName::new(NAMES[name]).unwrap(), units);
                self.model.settle(request, name, units, &self.plans[self.active]);
            }
            Step::End(_) => {
                admission.end();
                self.model.end(request);
            }
            Step::Clone(_) => {
                let clone = admission.clone();
                admissions.insert(0, clone);
            }
            _ => {
                admissions.pop();
                if admissions.is_empty() {
                    self.model.end(request);
                    self.kept.swap_remove(index);
                }
            }
        }
    }

    fn answered(&mut self, admitted: Admitted, verdict: Verdict) {
        let request = self.model.answered(verdict, &admitted.ruling);
        assert_eq!(admitted.admission.is_some(), request.is_some());
        if let Some((admission, request)) = admitted.admission.zip(request) {
            self.kept.push((vec![admission], request));
        }
    }

    /// Asserts that they agree about a caller, and about the number of requests in flight.
    fn compare(&self, who: usize, own: bool) {
        assert_eq!(u128::from(self.limiter.report().in_flight), self.model.in_flight());
        let peek = self.limiter.peek(self.account(who, own), Endpoint::CALL);
        let ruling = now(peek).unwrap().unwrap();
        let (active, plan) = self.plan(own);
        let (said, expected) = self.model.peek(CALLERS[who], active, plan, &ruling);
        assert_eq!(said, expected, "a peek");
    }

    fn run_all(mut self, steps: &[Step], release: &impl Fn(Answers)) {
        release(Answers::NotYet);
        for (number, step) in steps.iter().enumerate() {
            self.run(*step, release);
            self.compare(number % CALLERS.len(), number % 3 == 0);
        }
        self.waiting.clear();
        self.kept.clear();
        let report = self.limiter.report();
        assert_eq!((report.in_flight, report.failed_corrections), (0, 0));
    }
}

fn chosen(index: usize, len: usize) -> Option<usize> {
    index.checked_rem(len)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn requests_are_charged_corrected_and_in_flight_as_the_model_says(
        plans in [plan(), plan(), plan()],
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let clock = ManualClock::new();
        let store = MemoryStore::with_clock(clock.clone());
        Both::new(store, clock, &plans).run_all(&steps, &|_| {});
    }

    #[test]
    fn a_slow_store_only_changes_when_places_are_freed(
        plans in [plan(), plan(), plan()],
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let clock = ManualClock::new();
        let store = DeferredStore::before(Arc::new(MemoryStore::with_clock(clock.clone())));
        let store = Arc::new(store);
        let answers = Arc::clone(&store);
        Both::new(store, clock, &plans).run_all(&steps, &|now| answers.now_answers(now));
    }
}
