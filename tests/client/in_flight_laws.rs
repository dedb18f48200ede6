//! Any requests and calls under limits of requests in flight.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bolna_rate_limit::client::{
    BolnaClientLayer, PaceLayer, Pacer, Permit, ResponseBody, RetryPolicy,
};
use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::{Policy, Quota};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use proptest::prelude::*;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::retry::budget::Budget;
use tower::util::BoxCloneService;
use tower::{BoxError, Layer, ServiceExt};

use crate::lines::{Answer, Ends, Lines, Running, Slow, serve};
use crate::support::{Log, patient, request, slow_to_ready};

const DAY: Duration = Duration::from_secs(86_400);

const PATHS: [&str; 3] = ["/call", "/v2/agent/7", "/v2/agent/7/executions"];
const ENDPOINTS: [&str; 3] = ["call", "agent", "executions"];

fn millis(most: u64) -> impl Strategy<Value = Duration> {
    prop_oneof![1 => Just(0), 3 => 0..most].prop_map(Duration::from_millis)
}

/// How many may be in flight, and the endpoints that have the limit.
type Limit = (u32, Vec<usize>);

fn limits() -> impl Strategy<Value = Vec<Limit>> {
    let limit = (1..5_u32, prop::sample::subsequence(vec![0, 1, 2], 1..=3));
    prop::collection::vec(limit, 1..=3)
}

/// The limits, of every scope. With a `rate`, so many calls a second besides.
fn policy(limits: &[Limit], rate: Option<u32>) -> Policy {
    let scopes = [LimitBuilder::account, LimitBuilder::user, LimitBuilder::everyone];
    let mut policy = Policy::bolna();
    for (index, (most, endpoints)) in limits.iter().enumerate() {
        let limit = scopes[index % 3](format!("limit-{index}"), Quota::concurrent(*most));
        policy = policy.shared(limit, endpoints.iter().map(|&endpoint| ENDPOINTS[endpoint]));
    }
    if let Some(rate) = rate {
        policy = policy.quota("call", Quota::per_second(rate));
    }
    policy.build().unwrap()
}

/// What becomes of a request.
#[derive(Clone, Debug)]
struct Plan {
    comes: Duration,
    endpoint: usize,
    answer: Answer,
    /// A call goes on for that time after the response, which is dropped or read.
    lasts: Option<Duration>,
    reads: bool,
    /// It does not go through the layer.
    acquires: bool,
    /// The caller drops everything at the poll with this number.
    leaves: Option<usize>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let ends = prop_oneof![
        3 => Just(Ends::Known),
        2 => Just(Ends::Unknown),
        1 => Just(Ends::Broken),
        1 => Just(Ends::Failed),
    ];
    let answer = (millis(600), prop::collection::vec(millis(300), 0..3), ends)
        .prop_map(|(head, frames, ends)| Answer { head, frames, ends, ..Answer::default() });
    (
        (millis(3000), 0..3_usize, answer),
        (prop::option::of(millis(1000)), any::<bool>(), prop::bool::weighted(0.2)),
        prop::option::weighted(0.4, 0..9_usize),
    )
        .prop_map(|((comes, endpoint, answer), (lasts, reads, acquires), leaves)| Plan {
            comes,
            endpoint,
            answer,
            lasts,
            reads,
            acquires,
            leaves,
        })
}

type Client = BoxCloneService<Request<String>, Response<ResponseBody<Slow>>, BoxError>;

/// Returns when the request, its body and its call have ended.
async fn live(client: Client, pacer: Pacer, lines: Vec<Lines>, number: usize, plan: Plan) {
    let path = PATHS[plan.endpoint];
    if plan.acquires {
        // Locals are dropped in reverse order: the server sees the end first.
        let _permit = pacer.acquire(path).await.unwrap();
        let _busy: Vec<_> = lines.iter().map(Lines::enter).collect();
        sleep(plan.lasts.unwrap_or_default()).await;
        return;
    }
    let Ok(response) = client.oneshot(request(&format!("{path}?{number}"))).await else { return };
    let _permit = plan.lasts.and_then(|_| Permit::of(response.extensions()));
    let _call = plan.lasts.map(|_| response.extensions().get::<Running>().unwrap().goes_on());
    if plan.reads {
        let _ = response.into_body().collect().await;
    } else {
        sleep(Duration::from_millis(50)).await;
        drop(response);
    }
    sleep(plan.lasts.unwrap_or_default()).await;
}

/// Drops the future at the poll with this number.
async fn leave<F: Future<Output = ()>>(future: F, at: Option<usize>) {
    let mut polls = 0;
    let mut future = pin!(future);
    poll_fn(|cx| {
        if Some(polls) == at {
            return Poll::Ready(());
        }
        polls += 1;
        future.as_mut().poll(cx)
    })
    .await;
}

async fn hold(
    limits: Vec<Limit>,
    rate: Option<u32>,
    plans: Vec<Plan>,
    slow: Vec<Duration>,
) -> Result<(), TestCaseError> {
    let pacer = patient().policy(policy(&limits, rate)).build().unwrap();
    let lines: Vec<Lines> = limits.iter().map(|_| Lines::default()).collect();
    let of_endpoint = |endpoint: usize| -> Vec<Lines> {
        let all = limits.iter().zip(&lines);
        all.filter(|((_, of), _)| of.contains(&endpoint)).map(|(_, it)| it.clone()).collect()
    };
    let all: Vec<_> = (0..3).map(of_endpoint).collect();
    let (log, answers, of) = (Log::new(), plans.clone(), all.clone());
    let server = serve(&log, move |request| {
        let plan = &answers[number_of(request.uri())];
        (plan.answer.clone(), of[plan.endpoint].clone())
    });
    let server = slow_to_ready(server, move |number| slow[number as usize % slow.len()]);
    let client = Client::new(PaceLayer::new(pacer.clone()).layer(server));
    let mut set = JoinSet::new();
    for (number, plan) in plans.iter().cloned().enumerate() {
        let (client, pacer) = (client.clone(), pacer.clone());
        let (lines, comes, leaves) = (all[plan.endpoint].clone(), plan.comes, plan.leaves);
        let live = live(client, pacer, lines, number, plan);
        set.spawn(async move {
            sleep(comes).await;
            leave(live, leaves).await;
        });
    }
    let all = async { while set.join_next().await.transpose().unwrap().is_some() {} };
    let hanging = timeout(DAY, all).await;
    prop_assert!(hanging.is_ok(), "a call hangs: {:?}", pacer.usage());
    for ((most, _), lines) in limits.iter().zip(&lines) {
        prop_assert!(lines.most() <= *most as usize, "{} of {most}", lines.most());
        prop_assert_eq!(lines.now(), 0);
    }
    let stays = plans.iter().filter(|plan| plan.leaves.is_none() && !plan.acquires).count();
    prop_assert!(log.len() >= stays, "{} of {stays}", log.len());
    for usage in pacer.usage() {
        prop_assert_eq!((usage.waiting(), usage.unanswered()), (0, 0));
        if let Some(concurrency) = usage.concurrency() {
            prop_assert_eq!((concurrency.in_flight(), concurrency.waiting()), (0, 0));
        }
    }
    Ok(())
}

/// Requests to one endpoint with one limit: when they come, and how long each is in flight. Each is
/// sent as soon as there is a place for it, in the order of arrival.
async fn hurry(most: usize, jobs: Vec<(Duration, Duration)>) -> Result<(), TestCaseError> {
    let policy = Policy::bolna().concurrent("call", u32::try_from(most).unwrap()).build().unwrap();
    let (log, lines, served) = (Log::new(), Lines::default(), jobs.clone());
    let server = serve(&log, {
        let lines = lines.clone();
        move |request| (Answer::after(served[number_of(request.uri())].1), vec![lines.clone()])
    });
    let client = PaceLayer::new(patient().policy(policy).build().unwrap()).layer(server);
    let client = Client::new(client);
    let mut set = JoinSet::new();
    for (number, (comes, _)) in jobs.iter().copied().enumerate() {
        let client = client.clone();
        set.spawn(async move {
            sleep(comes).await;
            drop(client.oneshot(request(&format!("/call?{number}"))).await.unwrap());
        });
    }
    let all = async { while set.join_next().await.transpose().unwrap().is_some() {} };
    prop_assert!(timeout(DAY, all).await.is_ok(), "a call hangs");
    prop_assert!(lines.most() <= most && log.len() == jobs.len());
    // An independent model: each takes the place that becomes free first.
    let mut free = BinaryHeap::from(vec![Reverse(Duration::ZERO); most]);
    for got in log.got() {
        let number = number_of(&got.target.parse().unwrap());
        // The timers have whole milliseconds, and several requests may come in one.
        let (comes, lasts) = jobs[number];
        let Reverse(at) = free.pop().unwrap();
        let due = at.max(comes);
        let late = got.at.saturating_sub(due);
        prop_assert!(got.at >= due && late <= LATE, "{number} at {:?}, not {due:?}", got.at);
        free.push(Reverse(got.at + lasts));
    }
    let targets = log.targets();
    let comes = |target: &String| jobs[number_of(&target.parse().unwrap())].0;
    prop_assert!(targets.iter().map(comes).is_sorted(), "{targets:?}");
    Ok(())
}

/// How late the timers may be.
const LATE: Duration = Duration::from_millis(3);

fn number_of(uri: &Uri) -> usize {
    uri.query().unwrap().parse().unwrap()
}

/// A server with `most` lines, of which other clients have some for a while, and refuses what is too
/// much. The client's policy has `believed` lines, or no limit at all.
async fn adapt(
    most: usize,
    believed: Option<u32>,
    reports: bool,
    others: Vec<(Duration, Duration)>,
    jobs: Vec<(Duration, Duration)>,
) -> Result<(), TestCaseError> {
    let mut policy = Policy::bolna();
    if let Some(believed) = believed {
        policy = policy.concurrent("call", believed);
    }
    let pacer = patient().policy(policy.build().unwrap()).build().unwrap();
    let (log, lines, served) = (Log::new(), Lines::default(), jobs.clone());
    let server = serve(&log, {
        let lines = lines.clone();
        move |request| {
            let (taken, head) = (lines.now(), served[number_of(request.uri())].1);
            let answer = Answer::after(head);
            let says = |answer: Answer, left: usize| {
                answer
                    .field("ratelimit-policy", format!("\"lines\";q={most};qu=concurrent-requests"))
                    .field("ratelimit", format!("\"lines\";r={left}"))
            };
            let answer = if taken >= most {
                says(Answer { head: LATE, ..answer }.refused(), 0).field("retry-after", "1")
            } else if reports {
                says(answer, most - taken - 1)
            } else {
                answer
            };
            (answer, vec![lines.clone()])
        }
    });
    let retry = RetryPolicy::builder().attempts(10_000).total_time(DAY).budget(Endless);
    let client =
        BolnaClientLayer::with_pacer(pacer.clone()).retry(retry.build().unwrap()).layer(server);
    let client = Client::new(client);
    let mut set = JoinSet::new();
    for (comes, lasts) in others {
        let lines = lines.clone();
        set.spawn(async move {
            sleep(comes).await;
            if lines.now() < most {
                let _busy = lines.enter();
                sleep(lasts).await;
            }
        });
    }
    for (number, (comes, _)) in jobs.iter().copied().enumerate() {
        let client = client.clone();
        set.spawn(async move {
            sleep(comes).await;
            let response = client.oneshot(request(&format!("/call?{number}"))).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
        });
    }
    let all = async { while set.join_next().await.transpose().unwrap().is_some() {} };
    prop_assert!(timeout(DAY, all).await.is_ok(), "a call hangs: {:?}", pacer.usage());
    prop_assert!(lines.most() <= most);
    // What others have done does not slow it down for ever.
    prop_assert!(log.elapsed() < Duration::from_secs(300), "{:?}", log.elapsed());
    let usage = pacer.peek("/call").unwrap();
    prop_assert_eq!((usage.waiting(), usage.unanswered()), (0, 0));
    prop_assert_eq!(usage.concurrency().map_or(0, |concurrency| concurrency.in_flight()), 0);
    Ok(())
}

/// A budget that allows every retry.
struct Endless;

impl Budget for Endless {
    fn deposit(&self) {}

    fn withdraw(&self) -> bool {
        true
    }
}

fn block_on<F: Future>(test: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(test)
}

fn jobs(most: usize) -> impl Strategy<Value = Vec<(Duration, Duration)>> {
    prop::collection::vec((millis(5000), millis(2000)), 1..most)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn never_more_are_in_flight_than_each_limit_allows_and_none_waits_for_ever(
        limits in limits(),
        rate in prop::option::of(1..20_u32),
        plans in prop::collection::vec(plan(), 1..60),
        slow in prop_oneof![
            2 => Just(vec![Duration::ZERO]),
            1 => prop::collection::vec(millis(600), 1..20),
        ],
    ) {
        block_on(hold(limits, rate, plans, slow))?;
    }

    #[test]
    fn each_request_is_sent_as_soon_as_there_is_a_place(most in 1..6_usize, jobs in jobs(60)) {
        block_on(hurry(most, jobs))?;
    }

    #[test]
    fn beside_other_clients_all_requests_are_admitted_in_the_end(
        most in 1..6_usize,
        believed in prop::option::of(1..9_u32),
        reports in any::<bool>(),
        others in jobs(30),
        jobs in jobs(40),
    ) {
        block_on(adapt(most, believed, reports, others, jobs))?;
    }
}
