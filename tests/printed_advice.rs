//! Advice on standard error, as it comes out of a real process. In debug builds a mistake is seen
//! without an observer.
//!
//! Each test runs this program once more, for one of the scenes below, and reads what that prints.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::convert::Infallible;
use std::env;
use std::process::{Command, Stdio};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::middleware::map_request;
use axum::routing::post;
use bolna_rate_limit::observe::{MostRefused, Observer};
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Limiter, Policy, Quota};
use http::Request;
use tower::{Service, ServiceExt};

/// The variable that holds the name of the scene.
const SCENE: &str = "BOLNA_TEST_SCENE";
const CODES: &str =
    "https://docs.rs/bolna-rate-limit/latest/bolna_rate_limit/observe/enum.Advice.html#variant.";

/// Whether advice is printed without anything that is done for it.
const USUALLY: bool = cfg!(debug_assertions);

/// The name of a scene, what is done with the limiter before the first request, and whether advice
/// is printed then.
type Scene = (&'static str, fn(&Limiter), bool);

const SCENES: [Scene; 7] = [
    ("as it comes", |_| {}, USUALLY),
    ("switched off", |limiter| limiter.print_advice(false), false),
    ("switched on", |limiter| limiter.print_advice(true), true),
    ("a closure", |limiter| limiter.on_event(|_| {}), false),
    (
        "a closure, and switched on",
        |limiter| {
            limiter.on_event(|_| {});
            limiter.print_advice(true);
        },
        true,
    ),
    ("an observer that shows advice", |limiter| limiter.observe(Arc::new(Shows)), false),
    ("an observer that does not", |limiter| limiter.observe(MostRefused::new(10)), USUALLY),
];

struct Shows;

impl Observer for Shows {
    fn shows_advice(&self) -> bool {
        true
    }
}

/// What the first example of the README is, but that its layers are the wrong way round.
async fn play(scene: &str) {
    let (_, set_up, _) = SCENES.iter().find(|(name, ..)| *name == scene).unwrap();
    // Its quota never limits anything.
    let policy = Policy::bolna().quota("call", Quota::per_second(u32::MAX)).build().unwrap();
    let layer = BolnaRateLimitLayer::with_policy(policy);
    set_up(layer.limiter());
    let authenticate = async |mut request: Request<Body>| {
        request.extensions_mut().insert(Account::user("u-17").in_organization("org-4"));
        request
    };
    let mut app = Router::new()
        .route("/call", post(async || "calling"))
        .layer(map_request(authenticate))
        .layer(layer);
    for _ in 0..40 {
        let request = Request::post("/call").header("authorization", "Bearer secret-17");
        let request = request.body(Body::empty()).unwrap();
        let response: Result<_, Infallible> =
            app.as_service().ready().await.unwrap().call(request).await;
        assert_eq!(response.unwrap().status(), 401);
    }
}

/// The lines that the scene prints on standard error.
fn lines(scene: &str) -> Vec<String> {
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "a_scene", "--nocapture"])
        .env(SCENE, scene)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let printed = String::from_utf8(child.stderr).unwrap();
    assert!(child.status.success(), "{scene}: {printed}");
    printed.lines().map(str::to_owned).collect()
}

/// Does nothing unless it is run as a child.
#[tokio::test]
async fn a_scene() {
    if let Ok(scene) = env::var(SCENE) {
        play(&scene).await;
    }
}

#[test]
fn in_debug_builds_each_advice_is_a_line_on_standard_error_until_an_observer_shows_it() {
    for (scene, _, prints) in SCENES {
        let lines = lines(scene);
        if !prints {
            assert_eq!(lines, Vec::<String>::new(), "{scene}");
            continue;
        }
        // What is odd about the policy, once, and then the mistake, at the first request.
        let [policy, mistake] = &lines[..] else { panic!("{scene}: {lines:#?}") };
        assert!(policy.starts_with("bolna-rate-limit: BRL006: the quota of call"), "{policy}");
        let begin = "bolna-rate-limit: BRL001: a request with credentials reached the limiter \
                     without an account";
        assert!(mistake.starts_with(begin), "{mistake}");
        assert!(mistake.ends_with(&format!(" ({CODES}AllUnidentified)")), "{mistake}");
        assert!(!mistake.contains("secret"), "{mistake}");
    }
}

/// A closed standard error is no reason for a request to fail.
#[cfg(unix)]
#[test]
fn where_standard_error_can_not_be_written_to_requests_are_answered_all_the_same() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let status = Command::new(env::current_exe().unwrap())
        .args(["--exact", "a_scene", "--nocapture"])
        .env(SCENE, "switched on")
        .stdout(Stdio::null())
        .stderr(full)
        .status()
        .unwrap();
    assert!(status.success());
}
