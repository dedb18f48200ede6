//! Requests that are in flight and corrected, on a server, against the model of the suite.

use std::time::Duration;

use bolna_rate_limit::limiter::Admission;
use bolna_rate_limit::store::RedisStore;
use bolna_rate_limit::values::LimitName;
use bolna_rate_limit::{Account, Endpoint, Limiter};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::servers::Server;
use crate::support::{HOUR, store};
use model::{CALLERS, Kind, Model, NAMES, Plan, Request, Said, Spec, Whose, account, policy};

#[path = "../suite/corrections/model.rs"]
#[expect(dead_code, reason = "the clock of a server can't be set")]
mod model;

#[derive(Clone, Copy, Debug)]
enum Step {
    Admit(usize),
    Refund(usize),
    Settle(usize, usize, u32),
    End(usize),
    Drop(usize),
    Reset(usize),
    Block(usize),
}

/// A limit of which no unit comes back within a test.
fn spec() -> impl Strategy<Value = Spec> {
    let whose = prop::sample::select(vec![Whose::Account, Whose::User, Whose::Everyone]);
    let kind = prop_oneof![
        (1..=6_u32).prop_map(|burst| Kind::Rate { limit: 1, seconds: HOUR.as_secs(), burst }),
        (1..=4_u32).prop_map(Kind::Places),
    ];
    (whose, kind, prop::bool::weighted(0.3)).prop_map(|(whose, kind, shadow)| Spec {
        whose,
        kind,
        cost: 1,
        shadow,
    })
}

fn plan() -> impl Strategy<Value = Plan> {
    let kind = |burst| Kind::Rate { limit: 1, seconds: HOUR.as_secs(), burst };
    let first = (3..=12_u32).prop_map(move |burst| Spec {
        whose: Whose::Account,
        kind: kind(burst),
        cost: 1,
        shadow: false,
    });
    (first, prop::collection::vec(spec(), 1..=3))
        .prop_map(|(first, others)| [first].into_iter().chain(others).collect())
}

fn step() -> impl Strategy<Value = Step> {
    let who = || 0..CALLERS.len();
    let any = || 0..1000_usize;
    prop_oneof![
        10 => who().prop_map(Step::Admit),
        2 => any().prop_map(Step::Refund),
        2 => (any(), 0..NAMES.len(), 0..20_u32).prop_map(|(it, name, units)| Step::Settle(it, name, units)),
        1 => any().prop_map(Step::End),
        4 => any().prop_map(Step::Drop),
        1 => who().prop_map(Step::Reset),
        1 => who().prop_map(Step::Block),
    ]
}

struct Both<'a> {
    limiter: Limiter<RedisStore>,
    plan: &'a Plan,
    model: Model,
    /// Each with its caller.
    kept: Vec<(Admission, Request, usize)>,
}

impl Both<'_> {
    async fn run(&mut self, step: Step) {
        match step {
            Step::Admit(who) => {
                let verdict = self.model.ask(CALLERS[who], self.plan, None);
                let admitted = self.limiter.admit(&account(CALLERS[who]), "/call").unwrap();
                let admitted = admitted.wait().await.unwrap();
                let request = self.model.answered(verdict, &admitted.ruling);
                let kept = admitted.admission.zip(request);
                self.kept.extend(kept.map(|(admission, request)| (admission, request, who)));
            }
            Step::Reset(who) => {
                self.model.reset(CALLERS[who], self.plan, None);
                self.limiter.reset(account(CALLERS[who]), Endpoint::CALL).await.unwrap();
            }
            Step::Block(who) => {
                self.model.block(CALLERS[who], self.plan, HOUR.as_nanos());
                let account: Account = account(CALLERS[who]);
                self.limiter.block(account, Endpoint::CALL, HOUR).await.unwrap();
            }
            Step::Refund(index)
            | Step::Settle(index, ..)
            | Step::End(index)
            | Step::Drop(index) => {
                let Some(index) = index.checked_rem(self.kept.len()) else { return };
                let (admission, request, who) = &mut self.kept[index];
                match step {
                    Step::Refund(_) => {
                        admission.refund();
                        self.model.refund(request, self.plan);
                    }
                    Step::Settle(_, name, units) => {
                        admission.settle(LimitName::new(NAMES[name]).unwrap(), units);
                        self.model.settle(request, name, units, self.plan);
                    }
                    _ => {
                        admission.end();
                        self.model.end(request);
                    }
                }
                let who = *who;
                if matches!(step, Step::Drop(_)) {
                    self.kept.swap_remove(index);
                }
                self.wait_for_corrections(who).await;
            }
        }
    }

    /// Nothing waits for a correction, and that of a bucket of everyone can be carried out after
    /// what its caller sends next.
    async fn wait_for_corrections(&self, who: usize) {
        for _ in 0..10_000 {
            let (said, expected) = self.peek(who).await;
            if said == expected {
                return;
            }
        }
        self.compare(who).await;
    }

    async fn peek(&self, who: usize) -> (Vec<Said>, Vec<Said>) {
        let ruling = self.limiter.peek(account(CALLERS[who]), Endpoint::CALL).await;
        self.model.peek(CALLERS[who], self.plan, None, &ruling.unwrap().unwrap())
    }

    async fn compare(&self, who: usize) {
        assert_eq!(u128::from(self.limiter.report().in_flight), self.model.in_flight());
        let (said, expected) = self.peek(who).await;
        assert_eq!(said, expected, "a peek");
    }
}

#[tokio::test]
async fn a_server_charges_and_corrects_as_the_model_says() {
    let server = Server::start().await;
    let mut runner = TestRunner::deterministic();
    for case in 0..20 {
        let plan = plan().new_tree(&mut runner).unwrap().current();
        let steps = prop::collection::vec(step(), 60).new_tree(&mut runner).unwrap().current();
        let store = store(server.url())
            .prefix(format!("case-{case}"))
            .deadline(Duration::from_secs(10))
            .expected_replicas(1)
            .without_fallback();
        let limiter = Limiter::with_store(policy(&plan), store.connect().await.unwrap()).unwrap();
        limiter.print_advice(false);
        // A test takes less than a minute.
        let model = Model::with_slack(60_000_000_000);
        let mut both = Both { limiter, plan: &plan, model, kept: Vec::new() };
        for (number, step) in steps.iter().enumerate() {
            println!("case {case}, step {number}: {step:?}");
            both.run(*step).await;
            for who in 0..CALLERS.len() {
                both.compare(who).await;
            }
        }
        both.kept.clear();
        let report = both.limiter.report();
        assert_eq!((report.in_flight, report.failed_corrections), (0, 0));
        assert_eq!(report.store.lost_corrections, 0);
    }
}
