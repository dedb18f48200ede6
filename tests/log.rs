//! The lines that are logged with `tracing`, as a subscriber writes them.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bolna_rate_limit::observe::Log;
use bolna_rate_limit::store::{Breaker, MemoryStore};
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{
    Account, BolnaRateLimitLayer, Endpoint, Enforcement, Limiter, Policy, Principal, Quota,
};
use http::{Request, Response};
use tokio_test::block_on;
use tower::{Layer, ServiceExt};
use tracing::Level;
use tracing::subscriber::with_default;

/// The bytes that the subscriber has written.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    fn lines(&self) -> Vec<String> {
        String::from_utf8(self.0.lock().unwrap().clone())
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect()
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

/// Runs `run` and returns the lines that were logged.
fn logged(level: Level, run: impl FnOnce()) -> Vec<String> {
    let written = Written::default();
    let writer = written.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .without_time()
        .with_writer(move || writer.clone())
        .finish();
    with_default(subscriber, run);
    written.lines()
}

struct Rig {
    layer: BolnaRateLimitLayer<MemoryStore<ManualClock>>,
    clock: ManualClock,
}

impl Rig {
    fn new(set_up: impl FnOnce(Log<ManualClock>) -> Log<ManualClock>) -> Self {
        let clock = ManualClock::default();
        let policy =
            Policy::bolna().quota("call", Quota::per_hour(1)).quota("agent", Quota::per_hour(1));
        let store = MemoryStore::with_clock(clock.clone()).max_buckets(2);
        let limiter = Limiter::with_store(policy.build().unwrap(), store).unwrap();
        let traces = set_up(Log::new().with_clock(clock.clone()));
        limiter.observe(traces);
        Self { layer: BolnaRateLimitLayer::with_limiter(limiter), clock }
    }

    fn send(&self, path: &str) -> u16 {
        self.send_of("org-4", path)
    }

    fn send_of(&self, organization: &str, path: &str) -> u16 {
        let mut request = Request::get(path).body(String::new()).unwrap();
        request.extensions_mut().insert(Account::user("u-17").in_organization(organization));
        let ok = async |_: Request<String>| {
            Ok::<_, std::convert::Infallible>(Response::new(String::new()))
        };
        block_on(self.layer.layer(tower::service_fn(ok)).oneshot(request))
            .unwrap()
            .status()
            .as_u16()
    }
}

#[test]
fn a_refusal_is_logged_at_debug_with_why_and_how_long_and_without_an_id() {
    let rig = Rig::new(|traces| traces);
    let lines = logged(Level::DEBUG, || {
        rig.send("/call");
        rig.clock.advance(Duration::from_secs(600));
        assert_eq!(rig.send("/call"), 429);
    });
    assert_eq!(
        lines,
        ["DEBUG bolna_rate_limit: a request was refused endpoint=\"call\" outcome=\"limited\" \
            mode=\"enforced\" retry_after_ms=3000000 left_out=0"],
    );
    let lines = logged(Level::INFO, || assert_eq!(rig.send("/call"), 429));
    assert_eq!(lines, [""; 0]);
}

#[test]
fn who_was_refused_is_logged_on_demand() {
    let rig = Rig::new(Log::with_principals);
    rig.send("/call");
    let lines = logged(Level::DEBUG, || assert_eq!(rig.send("/call"), 429));
    assert!(lines[0].contains(" principal=organization org-4 "), "{lines:?}");
}

#[test]
fn an_id_cannot_make_up_a_line() {
    let rig = Rig::new(Log::with_principals);
    let organization = "org-4\n INFO bolna_rate_limit: all is well\r\u{1b}[31m";
    rig.send_of(organization, "/call");
    let lines = logged(Level::DEBUG, || assert_eq!(rig.send_of(organization, "/call"), 429));
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(!lines[0].contains(char::is_control), "{lines:?}");
    assert!(
        lines[0].contains(
            r" principal=organization org-4\n INFO bolna_rate_limit: all is well\r\u{1b}[31m "
        ),
        "{lines:?}"
    );
}

#[test]
fn a_wait_is_rounded_up() {
    let rig = Rig::new(|traces| traces);
    rig.send("/call");
    rig.clock.advance(Duration::from_micros(3_599_999_500));
    let lines = logged(Level::DEBUG, || assert_eq!(rig.send("/call"), 429));
    assert!(lines[0].contains(" retry_after_ms=1 "), "{lines:?}");
}

#[test]
fn in_shadow_mode_it_says_what_would_have_been() {
    let rig = Rig::new(|traces| traces);
    rig.layer.limiter().set_enforcement(Enforcement::SHADOW);
    rig.send("/call");
    let lines = logged(Level::DEBUG, || assert_eq!(rig.send("/call"), 200));
    assert!(
        lines[0].contains("a request would have been refused")
            && lines[0].contains("mode=\"shadow\""),
        "{lines:?}"
    );
}

#[test]
fn an_attack_does_not_drown_the_log_nor_hide_what_else_there_is() {
    let rig = Rig::new(|traces| traces);
    rig.send("/call");
    let lines = logged(Level::DEBUG, || (0..1000).for_each(|_| assert_eq!(rig.send("/call"), 429)));
    assert_eq!(lines.len(), 10);
    rig.send("/v2/agent/17");
    let lines = logged(Level::DEBUG, || assert_eq!(rig.send("/v2/agent/17"), 429));
    assert!(
        lines[0].contains("endpoint=\"agent\"") && lines[0].ends_with("left_out=990"),
        "{lines:?}"
    );
    rig.clock.advance(Duration::from_secs(1));
    let lines = logged(Level::DEBUG, || (0..1000).for_each(|_| assert_eq!(rig.send("/call"), 429)));
    assert_eq!(lines.len(), 1);
}

#[test]
fn refusals_of_one_kind_do_not_hide_those_of_another() {
    let rig = Rig::new(|traces| traces);
    rig.send("/call");
    let caller = Principal::organization("org-4").unwrap();
    let lines = logged(Level::DEBUG, || {
        (0..1000).for_each(|_| assert_eq!(rig.send("/call"), 429));
        block_on(rig.layer.limiter().block(&caller, Endpoint::CALL, Duration::from_secs(60)))
            .unwrap();
        assert_eq!(rig.send("/call"), 429);
    });
    assert_eq!(lines.len(), 11);
    assert!(lines[10].contains(r#"endpoint="call" outcome="blocked""#), "{lines:?}");
}

#[test]
fn changed_limits_are_logged_at_info_and_a_full_store_or_a_wrong_setting_at_warn() {
    let rig = Rig::new(|traces| traces);
    let lines = logged(Level::INFO, || {
        let limiter = rig.layer.limiter();
        limiter
            .set_policy(Policy::bolna().quota("call", Quota::per_minute(600)).build().unwrap())
            .unwrap();
        limiter.set_enforcement(Enforcement::percent(25).unwrap());
    });
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains("INFO bolna_rate_limit: the policy was changed: "), "{lines:?}");
    assert!(lines[0].contains("call 1 request per hour -> 600 requests per minute"), "{lines:?}");
    assert!(lines[1].contains("enforcement was changed: full -> 25 %"), "{lines:?}");

    let lines = logged(Level::WARN, || {
        rig.send("/call");
        rig.send("/v2/agent/17");
        rig.send("/user/me");
        let policy = Policy::bolna().quota("call", Quota::per_second(2_000_000)).build().unwrap();
        rig.layer.limiter().set_policy(policy).unwrap();
    });
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains("event=\"cap_reached\""), "{lines:?}");
    assert!(
        lines[1].contains("code=\"BRL006\"") && lines[1].contains("help=\"https://docs.rs/"),
        "{lines:?}"
    );
}

#[test]
fn the_kind_of_the_cause_is_a_field_when_the_store_is_lost() {
    let limiter = Limiter::with_store(Policy::default(), Breaker::new(MemoryStore::new())).unwrap();
    limiter.observe(Log::new());
    let lines = logged(Level::INFO, || limiter.store().open());
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with(" WARN bolna_rate_limit: "), "{lines:?}");
    assert!(lines[0].contains(" event=\"store_lost\" kind=\"by_hand\" "), "{lines:?}");
    let lines = logged(Level::INFO, || limiter.store().close());
    assert!(!lines[0].contains("kind="), "{lines:?}");
}
