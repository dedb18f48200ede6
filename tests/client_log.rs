//! The lines that a client logs with `tracing`, as a subscriber writes them.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bolna_rate_limit::client::{BolnaClientLayer, PaceLayer, Pacer, RetryPolicy};
use bolna_rate_limit::{Policy, Quota};
use futures_util::future::join_all;
use http::{Request, Response, StatusCode};
use tokio::time::{Instant, sleep};
use tower::util::BoxCloneService;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tracing::subscriber::with_default;
use tracing::{Level, Metadata, span};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

type Remote = BoxCloneService<Request<String>, Response<String>, BoxError>;

/// The bytes that the subscriber has written.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    /// The lines of the client since the last call.
    fn lines(&self) -> Vec<String> {
        let written = std::mem::take(&mut *self.0.lock().unwrap());
        String::from_utf8(written)
            .unwrap()
            .lines()
            .filter(|line| line.contains(" bolna_rate_limit::client: "))
            .map(|line| line.trim_start().to_owned())
            .collect()
    }

    /// Those of one event.
    fn of(&self, event: &str) -> Vec<String> {
        let event = format!("event=\"{event}\"");
        self.lines().into_iter().filter(|line| line.contains(&event)).collect()
    }
}

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs something in virtual time, with the lines up to that level.
fn logged(level: Level, run: impl AsyncFnOnce(&Written)) {
    let written = Written::default();
    let writer = written.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .without_time()
        .with_writer(move || writer.clone())
        .finish();
    with_default(subscriber, || in_virtual_time(run(&written)));
}

fn in_virtual_time(run: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(run);
}

/// A server that answers the first request by `answer(1)`, and so on, a millisecond later.
fn server(answer: impl Fn(usize) -> Response<String> + Clone + Send + 'static) -> Remote {
    let count = Arc::new(AtomicUsize::new(0));
    Remote::new(service_fn(move |_: Request<String>| {
        let response = answer(count.fetch_add(1, Ordering::Relaxed) + 1);
        async move {
            sleep(Duration::from_millis(1)).await;
            Ok(response)
        }
    }))
}

/// A server that admits one request in that time, and says nothing else.
fn one_in(interval: Duration) -> Remote {
    let next = Arc::new(Mutex::new(Instant::now()));
    server(move |_| {
        let mut next = next.lock().unwrap();
        if *next > Instant::now() {
            return says(StatusCode::TOO_MANY_REQUESTS, &[]);
        }
        *next = Instant::now() + interval;
        ok()
    })
}

fn says(status: StatusCode, fields: &[(&'static str, &str)]) -> Response<String> {
    let mut response = Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response.body(String::new()).unwrap()
}

fn ok() -> Response<String> {
    Response::new(String::new())
}

fn refused(retry_after: &str) -> Response<String> {
    says(StatusCode::TOO_MANY_REQUESTS, &[("retry-after", retry_after)])
}

async fn call<S: Service<Request<String>> + Clone>(client: &S) -> Result<S::Response, S::Error> {
    client.clone().oneshot(Request::post("/call").body(String::new()).unwrap()).await
}

/// Many calls at once.
async fn calls<S: Service<Request<String>> + Clone>(client: &S, calls: usize) {
    join_all((0..calls).map(|_| call(client))).await;
}

/// The number after `name=`.
#[track_caller]
fn number(line: &str, name: &str) -> f64 {
    let begins = format!(" {name}=");
    let (_, rest) = line.split_once(&begins).unwrap_or_else(|| panic!("no {name} in {line}"));
    rest.split(' ').next().unwrap().parse().unwrap()
}

/// The event of a line, and its level.
fn kind(line: &str) -> String {
    let (level, rest) = line.split_once(' ').unwrap();
    let (_, rest) = rest.split_once("event=\"").unwrap();
    format!("{level} {}", rest.split('"').next().unwrap())
}

#[test]
fn nothing_is_logged_of_requests_that_are_admitted() {
    logged(Level::TRACE, async |written| {
        let policy = Policy::bolna().quota("call", Quota::per_minute(600)).build().unwrap();
        let client = BolnaClientLayer::with_policy(policy)
            .layer(server(|_| says(StatusCode::OK, &[("ratelimit", "\"call\";r=300")])));
        calls(&client, 1000).await;
        assert_eq!(written.lines(), [""; 0]);
    });
}

#[test]
fn a_pause_is_logged_once_with_its_reason_however_many_requests_are_refused() {
    logged(Level::INFO, async |written| {
        // The first fifty are refused together, and the two that come after the pause.
        let client = BolnaClientLayer::new().layer(server(|number| match number {
            1..=50 => refused("30"),
            51 | 52 => refused("2"),
            _ => ok(),
        }));
        calls(&client, 50).await;
        let lines = written.of("paused");
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(
            lines[0].starts_with(
                "INFO bolna_rate_limit::client: the endpoint is paused: a request was refused \
                 event=\"paused\" endpoint=\"call\" pause_ms=30"
            ),
            "{lines:?}"
        );
        assert!(
            lines[0].ends_with(" status=429 named_ms=30000 in_a_row=1 left_out=0"),
            "{lines:?}"
        );
        assert!((30_000.0..30_200.0).contains(&number(&lines[0], "pause_ms")), "{lines:?}");
        assert!(lines[1].ends_with(" status=429 named_ms=2000 in_a_row=2 left_out=0"), "{lines:?}");
        assert_eq!(number(&lines[2], "in_a_row"), 3.0);
    });
}

#[test]
fn a_pause_that_turns_out_much_longer_is_logged_again() {
    logged(Level::INFO, async |written| {
        let client = BolnaClientLayer::new().layer(server(|number| match number {
            1..=20 => refused("2"),
            21 => refused("60"),
            22..=40 => refused("61"),
            _ => ok(),
        }));
        calls(&client, 40).await;
        let pauses: Vec<_> =
            written.of("paused").iter().map(|line| number(line, "named_ms")).collect();
        assert_eq!(pauses, [2000.0, 60_000.0]);
    });
}

#[test]
fn a_short_pause_is_logged_at_debug() {
    logged(Level::DEBUG, async |written| {
        let client = BolnaClientLayer::new().layer(server(|number| match number {
            1 => refused("0.2"),
            _ => ok(),
        }));
        calls(&client, 1).await;
        let kinds: Vec<_> = written.lines().iter().map(|line| kind(line)).collect();
        assert_eq!(kinds, ["DEBUG paused", "DEBUG retry"]);
    });
}

#[test]
fn a_pause_without_a_refusal_is_logged_once() {
    logged(Level::INFO, async |written| {
        let client = BolnaClientLayer::new().layer(server(|number| match number {
            ..=20 => says(StatusCode::OK, &[("ratelimit", "\"call\";r=0;t=60")]),
            _ => ok(),
        }));
        calls(&client, 20).await;
        let lines = written.lines();
        assert_eq!(
            lines,
            ["INFO bolna_rate_limit::client: the endpoint is paused: the server reports that no \
              units are left event=\"paused\" endpoint=\"call\" pause_ms=60000 left_out=0"]
        );
    });
}

#[test]
fn what_refusals_teach_is_logged_until_it_is_forgotten() {
    logged(Level::DEBUG, async |written| {
        let policy = Policy::bolna().quota("call", Quota::per_second(10)).build().unwrap();
        let client = BolnaClientLayer::with_policy(policy).layer(one_in(SECOND));
        calls(&client, 100).await;
        let lines = written.of("learned");
        let levels: Vec<_> = lines.iter().map(|line| line.starts_with("INFO ")).collect();
        assert!(levels.len() > 1 && levels[0], "{lines:?}");
        assert!(levels[1..].iter().all(|is_info| !is_info), "{lines:?}");
        let last = lines.last().unwrap();
        assert!(last.contains(" the server admits fewer requests than the policy "), "{last}");
        assert!(last.contains(" limit=\"call\" "), "{last}");
        assert!((50.0..65.0).contains(&number(last, "measured_per_minute")), "{last}");
        assert!((45.0..75.0).contains(&number(last, "plateau_per_minute")), "{last}");
        assert!(number(last, "per_minute") < number(last, "plateau_per_minute"), "{last}");
        let (requests, time) = (number(last, "from_requests"), number(last, "from_ms"));
        assert!(requests >= 10.0 && (time / requests - 1000.0).abs() < 200.0, "{last}");

        sleep(HOUR).await;
        assert_eq!(written.lines(), [""; 0]);
        calls(&client, 1).await;
        assert_eq!(
            written.lines(),
            ["INFO bolna_rate_limit::client: the learned rate is forgotten: nothing was refused \
              for an hour event=\"rate_forgotten\" limit=\"call\" left_out=0"]
        );
    });
}

#[test]
fn what_is_ended_and_forgotten_by_hand_is_logged_if_there_was_something() {
    logged(Level::DEBUG, async |written| {
        let pacer = Pacer::new();
        let client = PaceLayer::new(pacer.clone()).layer(server(|_| refused("60")));
        let refuse = async || drop(call(&client).await.unwrap());
        for all in [false, true] {
            let (resume, forget): (&dyn Fn(), &dyn Fn()) = if all {
                (&|| pacer.resume_all(), &|| pacer.forget_all())
            } else {
                (&|| pacer.resume("/call"), &|| pacer.forget("/call"))
            };
            for end in [resume, forget] {
                end();
                assert_eq!(written.lines(), [""; 0]);
                refuse().await;
                sleep(SECOND * 10).await;
                written.lines();
                end();
                let lines = written.lines();
                assert_eq!(lines.len(), 1, "{lines:?}");
                let begins = "INFO bolna_rate_limit::client: a pause of the endpoint was ended by \
                              hand event=\"resumed\" endpoint=\"call\" early_ms=";
                assert!(lines[0].starts_with(begins), "{lines:?}");
                // Up to 120 ms are added to the 60 s.
                assert!(
                    (50_000.0..=50_120.0).contains(&number(&lines[0], "early_ms")),
                    "{lines:?}"
                );
                // The next pause is logged as ever.
                refuse().await;
                assert_eq!(written.of("paused").len(), 1);
                end();
                written.lines();
            }
        }

        let policy = Policy::bolna().quota("call", Quota::per_second(10)).build().unwrap();
        let client = BolnaClientLayer::with_policy(policy).layer(one_in(SECOND));
        calls(&client, 100).await;
        sleep(SECOND * 10).await;
        written.lines();
        client.pacer().forget("/call");
        assert_eq!(
            written.lines(),
            ["INFO bolna_rate_limit::client: the learned rate is forgotten by hand \
              event=\"rate_forgotten\" limit=\"call\" left_out=0"]
        );

        let client = BolnaClientLayer::new().layer(server(|_| {
            let policy = ("ratelimit-policy", "\"call\";q=60;w=60");
            says(StatusCode::OK, &[policy, ("ratelimit", "\"call\";r=20")])
        }));
        call(&client).await.unwrap();
        written.lines();
        client.pacer().forget_all();
        assert_eq!(
            written.lines(),
            ["INFO bolna_rate_limit::client: the quota of the policy counts again \
              event=\"quota_dropped\" limit=\"call\" left_out=0"]
        );
    });
}

#[test]
fn a_server_that_turns_out_not_to_be_stricter_is_logged() {
    logged(Level::INFO, async |written| {
        let policy = Policy::bolna().quota("call", Quota::per_second(2)).build().unwrap();
        let pacer = Pacer::builder().policy(policy).max_wait(HOUR).build().unwrap();
        let began = Instant::now();
        let next = Arc::new(Mutex::new(began));
        // It is strict for a minute. After that it refuses one of 400 requests.
        let client = BolnaClientLayer::with_pacer(pacer).layer(server(move |number| {
            let (mut next, now) = (next.lock().unwrap(), Instant::now());
            let is_strict = began.elapsed() < SECOND * 60;
            let is_refused = if is_strict { *next > now } else { number % 400 == 0 };
            if is_refused {
                return says(StatusCode::TOO_MANY_REQUESTS, &[]);
            }
            *next = now + SECOND * 2;
            ok()
        }));
        calls(&client, 3000).await;
        let events = written.lines().iter().map(|line| kind(line)).collect::<Vec<_>>();
        let events: Vec<_> = events.iter().filter(|kind| *kind != "INFO paused").collect();
        assert_eq!(events[..2], ["INFO learned", "INFO not_stricter"], "{events:?}");
    });
}

#[test]
fn a_stricter_quota_that_is_reported_is_logged_when_it_changes() {
    logged(Level::DEBUG, async |written| {
        let client = BolnaClientLayer::new().layer(server(|number| {
            let policy = match number {
                // Wider than the policy.
                ..=10 => "\"call\";q=5000;w=60",
                11..=30 => "\"call\";q=60;w=60",
                31..=50 => "\"call\";q=30;w=60",
                51..=70 => "\"call\";q=500;w=60",
                _ => "\"call\";q=120;w=60",
            };
            says(StatusCode::OK, &[("ratelimit-policy", policy), ("ratelimit", "\"call\";r=20")])
        }));
        for _ in 0..7 {
            calls(&client, 10).await;
            sleep(SECOND * 120).await;
        }
        assert_eq!(
            written.lines(),
            [
                "INFO bolna_rate_limit::client: the server reports a stricter quota than the \
                 policy event=\"quota_adopted\" limit=\"call\" burst=60 window_ms=60000 left_out=0",
                "INFO bolna_rate_limit::client: the server reports a stricter quota than the \
                 policy event=\"quota_adopted\" limit=\"call\" burst=30 window_ms=60000 left_out=0",
                "INFO bolna_rate_limit::client: the quota of the policy counts again \
                 event=\"quota_dropped\" limit=\"call\" left_out=0",
            ]
        );
        // One more report, which is then forgotten.
        calls(&client, 1).await;
        sleep(HOUR).await;
        call(&client).await.unwrap();
        let kinds: Vec<_> = written.lines().iter().map(|line| kind(line)).collect();
        assert_eq!(kinds[..2], ["INFO quota_adopted", "INFO quota_dropped"]);
    });
}

#[test]
fn limits_of_requests_in_flight_are_logged() {
    logged(Level::INFO, async |written| {
        let policy = "\"lines\";q=4;qu=\"concurrent-requests\"";
        let client = BolnaClientLayer::new().layer(server(move |number| {
            let (status, left) = match number {
                4 => (StatusCode::TOO_MANY_REQUESTS, "\"lines\";r=0"),
                _ => (StatusCode::OK, "\"lines\";r=1"),
            };
            says(status, &[("ratelimit-policy", policy), ("ratelimit", left)])
        }));
        let kept = call(&client).await.unwrap();
        calls(&client, 4).await;
        drop(kept);
        let lines = written.lines();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!(
            lines[0],
            "INFO bolna_rate_limit::client: the server reports another limit of requests in \
             flight event=\"concurrency_adopted\" endpoint=\"call\" most=4 left_out=0"
        );
        assert!(lines[1].contains(" event=\"lowered\" endpoint=\"call\" most="), "{lines:?}");
        assert!(lines[1].ends_with(" status=429 in_a_row=1 left_out=0"), "{lines:?}");
    });
}

#[test]
fn retries_are_logged_at_debug_up_to_a_bound() {
    logged(Level::DEBUG, async |written| {
        let client = BolnaClientLayer::new().layer(server(|number| match number {
            1..=45 => refused("30"),
            _ => ok(),
        }));
        calls(&client, 45).await;
        let lines = written.of("retry");
        assert_eq!(lines.len(), 10, "{lines:?}");
        assert!(
            lines[0].starts_with(
                "DEBUG bolna_rate_limit::client: a request was refused, and is sent again \
                 event=\"retry\" endpoint=\"call\" status=429 attempt=2 delay_ms=30"
            ),
            "{lines:?}"
        );
        // Five minutes are left for retries.
        let (delay, left) = (number(&lines[0], "delay_ms"), number(&lines[0], "left_ms"));
        assert!((delay + left - 300_000.0).abs() <= 1.0, "{lines:?}");
        assert!(lines[9].ends_with(" left_out=0"), "{lines:?}");
    });
    logged(Level::INFO, async |written| {
        let client = BolnaClientLayer::new().layer(server(|number| match number {
            1 => refused("30"),
            _ => ok(),
        }));
        calls(&client, 1).await;
        assert_eq!(written.of("retry"), [""; 0]);
    });
}

#[test]
fn what_was_left_out_is_counted_in_the_next_line() {
    logged(Level::DEBUG, async |written| {
        let policy = RetryPolicy::builder().attempts(2).build().unwrap();
        let client = BolnaClientLayer::new().retry(policy).layer(server(|_| refused("30")));
        calls(&client, 45).await;
        assert_eq!(written.of("retry").len(), 10);
        sleep(SECOND * 60).await;
        call(&client).await.unwrap();
        assert!(written.of("retry")[0].ends_with(" left_out=35"));
    });
}

#[test]
fn requests_that_are_too_late_are_logged_together() {
    logged(Level::DEBUG, async |written| {
        let pacer = Pacer::builder()
            .policy(Policy::bolna().quota("call", Quota::per(1, SECOND)).build().unwrap())
            .max_wait(SECOND * 30)
            .build()
            .unwrap();
        // The second request is refused for longer than any may wait.
        let client = BolnaClientLayer::with_pacer(pacer).layer(server(|number| match number {
            2 => refused("200"),
            _ => ok(),
        }));
        calls(&client, 25).await;
        let lines = written.of("unsent");
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(
            lines[0].starts_with(
                "DEBUG bolna_rate_limit::client: requests were not sent: the wait or the queue \
                 would have been too long event=\"unsent\" endpoint=\"call\" requests=23 wait_ms="
            ),
            "{lines:?}"
        );
        assert!(lines[0].ends_with(" limit=\"call\" left_out=0"), "{lines:?}");
    });
}

/// Looks at the client with each event, which takes its locks.
struct Curious(Pacer);

impl tracing::Subscriber for Curious {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("bolna_rate_limit")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let place = self.0.occupy("/call");
        let _ = self.0.usage();
        drop(place);
        EVENTS.lock().unwrap().push(event.metadata().line());
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

static EVENTS: Mutex<Vec<Option<u32>>> = Mutex::new(Vec::new());

#[test]
fn a_subscriber_may_use_the_client() {
    let policy = Policy::bolna().quota("call", Quota::per(1, SECOND)).concurrent("call", 5);
    let pacer = Pacer::builder()
        .policy(policy.build().unwrap())
        .max_wait(SECOND * 30)
        .max_waiting(40)
        .build()
        .unwrap();
    with_default(Curious(pacer.clone()), || {
        in_virtual_time(async {
            let client = BolnaClientLayer::with_pacer(pacer).layer(server(|number| match number {
                2 | 4 => refused("20"),
                5 => says(
                    StatusCode::OK,
                    &[("ratelimit-policy", "\"call\";q=1;w=7"), ("ratelimit", "\"call\";r=0;t=7")],
                ),
                _ => ok(),
            }));
            calls(&client, 60).await;
            sleep(HOUR).await;
            calls(&client, 2).await;
        });
    });
    let mut events = EVENTS.lock().unwrap().clone();
    events.sort_unstable();
    events.dedup();
    assert!(events.len() >= 4, "a retry, a pause, unsent requests and a quota: {events:?}");
}
