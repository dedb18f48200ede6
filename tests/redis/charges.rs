//! Charges of several buckets with costs and shadow entries, on a server.

use std::time::Duration;

use bolna_rate_limit::store::{Bucket, Charge, ChargeOutcome, Command, Decisions, Entry, Store};
use bolna_rate_limit::{Endpoint, Limiter, Policy, Principal, Ruling};
use tokio::task::JoinSet;

use crate::read::charges::{Case, Step, charges, endpoint, entries};
use crate::servers::Server;
use crate::support::{
    Events, Replica, buckets, charged, once_an_hour, organization, store, stored, time_of,
};

/// What the vectors call a millisecond is a second here, so that no time passes between two steps.
const UNIT: Duration = Duration::from_secs(1);

async fn check(store: &impl Store, charge: Charge<'_>) -> Decisions {
    store.check(charge).wait().await.unwrap()
}

async fn peek(store: &impl Store, charge: Charge<'_>) -> Decisions {
    store.command(Command::Peek(charge)).await.unwrap().into_decisions().unwrap()
}

/// Does to all buckets what the passing of that time does.
async fn let_pass(server: &Server, time: Duration) {
    let micros = u64::try_from(time.as_micros()).unwrap();
    for key in buckets(server).await {
        let value: String = stored(server, &["GET", &key]).await;
        let now = time_of(server).await;
        let (mut aged, mut end) = (String::new(), 0);
        for number in value.split_inclusive(['+', '!']) {
            let digits = number.trim_end_matches(['+', '!']);
            let at = digits.parse::<u64>().unwrap() - micros;
            aged += &format!("{at}{}", &number[digits.len()..]);
            end = end.max(at);
        }
        if end <= now {
            stored::<()>(server, &["DEL", &key]).await;
        } else {
            let left = ((end - now) / 1000 + 2).to_string();
            stored::<()>(server, &["SET", &key, &aged, "PX", &left]).await;
        }
    }
}

async fn run(case: &Case, server: &Server, caller: &Principal) {
    let connect = async || store(server.url()).without_fallback().connect().await.unwrap();
    let (mut store, mut quotas, mut now) = (connect().await, case.quotas.clone(), 0);
    for (index, step) in case.steps.iter().enumerate() {
        let what = format!("{}, step {index}", case.says);
        let at = step.at.unwrap_or(now);
        if at > now {
            let_pass(server, UNIT * u32::try_from(at - now).unwrap()).await;
            // A store that remembers no refusals from before.
            store = connect().await;
            now = at;
        }
        let (kind, parts) = match step {
            Step { charge: Some(parts), .. } => ("charge", parts),
            Step { peek: Some(parts), .. } => ("peek", parts),
            Step { refund: Some(parts), .. } => ("refund", parts),
            Step { settle: Some(parts), .. } => ("settle", parts),
            Step { reset: Some(name), .. } => {
                let bucket = Bucket::of_account(caller, endpoint(name));
                store.command(Command::Reset(bucket)).await.unwrap();
                continue;
            }
            Step { block: Some(name), ms: Some(time), .. } => {
                let period = UNIT * u32::try_from(*time).unwrap();
                let bucket = Bucket::of_account(caller, endpoint(name));
                store.command(Command::block(bucket, period)).await.unwrap();
                continue;
            }
            Step { quotas: Some(changed), .. } => {
                quotas.extend(changed.clone());
                continue;
            }
            _ => panic!("{what}: unknown"),
        };
        let slow = quotas
            .iter()
            .map(|(name, (limit, period, burst))| (name.clone(), (*limit, period * 1000, *burst)));
        let entries = entries(parts, &slow.collect());
        let charge = entries.as_ref().map_err(|error| *error);
        match (charge.and_then(|entries| Charge::new(caller, entries)), &step.error) {
            (Err(error), Some(text)) => {
                assert!(error.to_string().contains(text), "{what}: {error}");
            }
            (Ok(charge), None) => match kind {
                "charge" => {
                    let foretold = peek(&store, charge).await.outcome();
                    let decisions = check(&store, charge).await;
                    assert_eq!(foretold, decisions.outcome(), "{what}: a peek foretells it");
                    step.assert_says_in(UNIT, &decisions, &what);
                }
                "peek" => step.assert_says_in(UNIT, &peek(&store, charge).await, &what),
                "refund" => drop(store.command(Command::Refund(charge)).await.unwrap()),
                _ => drop(store.command(Command::Settle(charge)).await.unwrap()),
            },
            (charge, error) => panic!("{what}: {charge:?}, {error:?}"),
        }
    }
}

#[tokio::test]
async fn every_sentence_about_charges_holds_on_a_server() {
    let server = Server::start().await;
    for (number, case) in charges().iter().enumerate() {
        run(case, &server, &organization(&format!("case-{number}"))).await;
    }
}

const REQUESTS: Endpoint = Endpoint::CALL;
const ROWS: Endpoint = Endpoint::DEFAULT;
const SHADOW: Endpoint = Endpoint::AGENT;

/// One request of so many rows. A tenth as many rows are allowed by the shadow limit.
fn request(rows: u32) -> [Entry; 3] {
    [
        Entry::new(REQUESTS, once_an_hour(200)),
        Entry::new(ROWS, once_an_hour(2000)).with_cost(rows).unwrap(),
        Entry::new(SHADOW, once_an_hour(200)).with_cost(rows).unwrap().shadow(),
    ]
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Spent {
    requests: u64,
    rows: u64,
    shadow: u64,
}

impl Spent {
    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.rows += other.rows;
        self.shadow += other.shadow;
    }

    async fn of(server: &Server, organization: &str) -> Self {
        let of = async |endpoint: Endpoint| {
            let key = format!("bolna:2:{{organization:{organization}}}:{endpoint}");
            charged(server, &key).await
        };
        Self { requests: of(REQUESTS).await, rows: of(ROWS).await, shadow: of(SHADOW).await }
    }
}

/// Requests of three replicas, each with a cost of its own and four at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_replicas_admit_together_is_charged_to_each_bucket() {
    let server = Server::start().await;
    for (id, most) in [("small", 5), ("large", 40)] {
        let (mut tasks, mut events) = (JoinSet::new(), Vec::new());
        for replica in 0..3 {
            let store = store(server.url()).connect().await.unwrap();
            events.push(Events::of(&store));
            let store = std::sync::Arc::new(store);
            for task in 0..4_u32 {
                let store = std::sync::Arc::clone(&store);
                tasks.spawn(async move {
                    let (caller, mut spent) = (organization(id), Spent::default());
                    for number in 0..40 {
                        let rows = 1 + (number * 7 + task * 3 + replica) % most;
                        let entries = request(rows);
                        let charge = Charge::new(&caller, &entries).unwrap();
                        let rows = u64::from(rows);
                        spent.add(match check(&*store, charge).await.outcome() {
                            ChargeOutcome::Refused => Spent::default(),
                            ChargeOutcome::Admitted => Spent { requests: 1, rows, shadow: 0 },
                            ChargeOutcome::AdmittedWithShadow => {
                                Spent { requests: 1, rows, shadow: rows }
                            }
                        });
                    }
                    spent
                });
            }
        }
        let mut spent = Spent::default();
        tasks.join_all().await.into_iter().for_each(|of_one| spent.add(of_one));
        assert_eq!(Spent::of(&server, id).await, spent, "{id}");
        // Of the small requests the number is the limit, of the large ones their rows are: what is
        // left is less than the rows of the last one that was refused.
        match id {
            "small" => assert_eq!(spent.requests, 200),
            _ => assert!((1961..=2000).contains(&spent.rows), "{spent:?}"),
        }
        assert!((200 - u64::from(most) + 1..=200).contains(&spent.shadow), "{spent:?}");
        for events in events {
            assert_eq!(events.all(), []);
        }
    }
}

#[tokio::test]
async fn a_limiter_decides_on_a_server_as_it_does_in_this_process() {
    let server = Server::start().await;
    let policy = Policy::bolna()
        .quota("call", once_an_hour(9))
        .quota("agent", once_an_hour(7))
        .quota("executions", once_an_hour(12))
        .default_quota(once_an_hour(20))
        .build()
        .unwrap();
    let there = Replica::on(&server, policy.clone()).await;
    let here = Limiter::new(policy);
    let callers = [organization("o"), Principal::user("u").unwrap()];
    let paths = ["/call", "//call", "/v2/agent/7", "/v2/agent/7/../8", "/v2/agent/7;x/executions"];
    let mut refused = 0;
    for number in 0..150 {
        let caller = &callers[number % 2];
        let path = paths[number / 2 % paths.len()];
        let ruling = there.limiter.check(&caller.into(), path).unwrap().wait().await.unwrap();
        let wanted = here.check(&caller.into(), path).unwrap().wait().await.unwrap();
        let told = |ruling: &Ruling| {
            let decision = ruling.decision().unwrap();
            (decision.name(), decision.is_allowed(), decision.remaining())
        };
        assert_eq!(told(&ruling), told(&wanted), "{number}: {path}");
        refused += usize::from(!ruling.is_allowed());
        // Support acts on both alike.
        let endpoint = [Endpoint::CALL, Endpoint::AGENT, Endpoint::DEFAULT][number % 3];
        match number % 50 {
            20 => {
                there.limiter.refund(caller, endpoint, 2).await.unwrap();
                here.refund(caller, endpoint, 2).await.unwrap();
            }
            35 => {
                there.limiter.reset(caller, endpoint).await.unwrap();
                here.reset(caller, endpoint).await.unwrap();
            }
            _ => {}
        }
    }
    assert!(refused > 20, "{refused} were refused");
    assert_eq!(there.events.all(), []);
}
