//! Servers that say in points in time, or in whole seconds, when a window ends.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bolna_rate_limit::client::{BolnaClientLayer, RetryPolicy};
use http::{HeaderValue, Request, Response, StatusCode};
use tokio::time::{Instant, timeout};
use tower::{Layer, service_fn};

use crate::support::{Log, Remote, assert_all_ok, distant, patient, send_calls};

const LIMIT: usize = 5;
const WINDOW: Duration = Duration::from_secs(3);
const CALLS: usize = 40;

/// 40 calls need eight windows, and the last of them begins after seven.
const LEAST: Duration = Duration::from_secs(21);

/// What a server tells about its windows.
#[derive(Clone, Copy, Debug)]
enum Says {
    /// slowapi, with headers: a reset that is one second late, and `Retry-After` rounded down from
    /// it, both with every response.
    Slowapi,
    /// The same with `retry_after="http-date"`.
    SlowapiDate,
    /// Flask-Limiter: a reset that is rounded up, and `Retry-After` rounded down from it.
    FlaskLimiter,
    /// express-rate-limit: a reset that is rounded up, and with refusals `Retry-After` too.
    Express,
    /// A Unix time with a fraction.
    Fraction,
    /// A Unix time in milliseconds.
    Millis,
    /// `toISOString`.
    Iso,
    /// rate-limiter-flexible's README, in which the only reset is a `Date`.
    Flexible,
}

use Says::{Express, FlaskLimiter, Flexible, Fraction, Iso, Millis, Slowapi, SlowapiDate};

impl Says {
    /// `reset` and `now` are the server's times.
    fn fields(
        self,
        remaining: usize,
        reset: Duration,
        now: Duration,
    ) -> Vec<(&'static str, String)> {
        let whole = |time: Duration| httpdate::fmt_http_date(UNIX_EPOCH + time);
        let second = Duration::from_secs(1);
        let up = Duration::from_secs((reset + second - Duration::from_nanos(1)).as_secs());
        let fraction = |time: Duration| format!("{:.3}", time.as_secs_f64());
        let is_refused = remaining == 0;
        let (reset, retry_after) = match self {
            Slowapi => {
                (fraction(reset + second), Some((reset + second - now).as_secs().to_string()))
            }
            SlowapiDate => (fraction(reset + second), Some(whole(reset + second))),
            FlaskLimiter => (up.as_secs().to_string(), Some((up - now).as_secs().to_string())),
            Express => {
                let left = (reset - now).as_secs() + 1;
                (up.as_secs().to_string(), is_refused.then(|| left.to_string()))
            }
            Fraction => (fraction(reset), None),
            Millis => (reset.as_millis().to_string(), None),
            Iso => {
                let date = whole(reset);
                let [_, day, month, year, time, _] =
                    date.split(' ').collect::<Vec<_>>().try_into().unwrap();
                let month = "JanFebMarAprMayJunJulAugSepOctNovDec".find(month).unwrap() / 3 + 1;
                let millis = reset.subsec_millis();
                (format!("{year}-{month:02}-{day}T{time}.{millis:03}Z"), None)
            }
            Flexible => (
                whole(reset).replace("GMT", "GMT+0000 (Coordinated Universal Time)"),
                is_refused.then(|| fraction(reset - now)),
            ),
        };
        let mut fields = vec![
            ("x-ratelimit-limit", LIMIT.to_string()),
            ("x-ratelimit-remaining", remaining.to_string()),
            ("x-ratelimit-reset", reset),
            ("date", whole(now)),
        ];
        fields.extend(retry_after.map(|wait| ("retry-after", wait)));
        fields
    }
}

/// A server whose clock is that many milliseconds ahead of the system's. A window begins with the
/// first request in it.
fn server(log: &Log, says: Says, ahead: i64) -> Remote {
    // Where time is paused, the client's clock is ahead of the real one by as much as time has been
    // advanced.
    let advanced = Instant::now().into_std() - std::time::Instant::now();
    let system = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + advanced;
    let difference = Duration::from_millis(ahead.unsigned_abs());
    let started = if ahead < 0 { system - difference } else { system + difference };
    let window = Arc::new(Mutex::new((Duration::ZERO, 0)));
    let log = log.clone();
    let server = service_fn(move |request: Request<String>| {
        let now = started + log.elapsed();
        let mut window = window.lock().unwrap();
        if window.0 <= now {
            *window = (now + WINDOW, 0);
        }
        let is_admitted = window.1 < LIMIT;
        window.1 += usize::from(is_admitted);
        let mut response = Response::new(String::new());
        for (name, value) in says.fields(LIMIT - window.1, window.0, now) {
            response.headers_mut().append(name, HeaderValue::try_from(value).unwrap());
        }
        if !is_admitted {
            *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        }
        log.add(request.uri().to_string(), response.status());
        async move { Ok(response) }
    });
    distant(Remote::new(server), |_| Duration::from_millis(20))
}

/// How many requests a job of 40 calls sends, and how long it takes.
async fn a_job(says: Says, ahead: i64) -> (usize, Duration) {
    let log = Log::new();
    let retry = RetryPolicy::builder().total_time(Duration::from_secs(10_000)).build().unwrap();
    let pacer = patient().build().unwrap();
    let client = BolnaClientLayer::with_pacer(pacer).retry(retry).layer(server(&log, says, ahead));
    // The first call learns the quota.
    let mut answers = timeout(Duration::from_secs(60), send_calls(&client, 1)).await.unwrap();
    answers
        .extend(timeout(Duration::from_secs(600), send_calls(&client, CALLS - 1)).await.unwrap());
    assert_all_ok(&answers);
    (log.len(), *log.times("").last().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_window_is_over_when_the_server_says_so_whatever_the_form() {
    for says in [Slowapi, SlowapiDate, FlaskLimiter, Express, Fraction, Millis, Iso, Flexible] {
        // The system's clock is right, a little off, and wrong.
        for ahead in [0, 30, -30, 400, -400, 3_600_250, -3_600_250] {
            let (sent, took) = a_job(says, ahead).await;
            // With slowapi's dates nothing shows that they are a second late. And if the system's
            // clock is wrong, it takes some windows until it is known by how much.
            let is_exact = match says {
                SlowapiDate => false,
                Fraction | Millis | Iso => ahead.abs() <= 30,
                Slowapi | FlaskLimiter | Express | Flexible => true,
            };
            let most = LEAST.mul_f64(if is_exact { 1.2 } else { 1.4 });
            assert!(took >= LEAST, "{says:?}, {ahead} ms ahead: {took:?}");
            assert!(took <= most, "{says:?}, {ahead} ms ahead: {took:?}");
            assert!(sent <= CALLS * 12 / 10, "{says:?}, {ahead} ms ahead: {sent} requests");
        }
    }
}
