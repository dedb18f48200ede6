//! The example `operator`, as support uses it.

use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use bolna_rate_limit::observe::MostRefused;
use bolna_rate_limit::store::MemoryStore;
use bolna_rate_limit::values::clock::ManualClock;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::support::text;

#[path = "../../examples/operator/main.rs"]
#[expect(dead_code, reason = "the example's `main` is not called")]
mod example;

const HOUR: Duration = Duration::from_secs(3600);

struct Fixture {
    callers: Router,
    operators: Router,
    clock: ManualClock,
}

impl Fixture {
    fn new() -> Self {
        let clock = ManualClock::new();
        let store = MemoryStore::with_clock(clock.clone());
        let refused = MostRefused::new(200).with_clock(clock.clone());
        let desk = example::Desk::new(store.into(), refused).unwrap();
        let callers = example::callers::router(desk.limiter.clone());
        Self { callers, operators: example::router(desk, "secret".to_owned()), clock }
    }

    /// How many of that many calls are admitted.
    async fn calls(&self, token: &str, calls: usize) -> usize {
        let mut admitted = 0;
        for _ in 0..calls {
            let request = Request::post("/call").header("authorization", bearer(token));
            let request = request.body(Body::empty()).unwrap();
            let response = self.callers.clone().oneshot(request).await.unwrap();
            admitted += usize::from(response.status() == StatusCode::OK);
        }
        admitted
    }

    /// The answer to an operator, which is always JSON.
    async fn ask(&self, method: Method, path: &str, body: &str) -> (StatusCode, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", bearer("secret"))
            .header("content-type", "application/json")
            .body(Body::from(body.to_owned()))
            .unwrap();
        let response = self.operators.clone().oneshot(request).await.unwrap();
        let status = response.status();
        assert_eq!(response.headers()["content-type"], "application/json", "{path}");
        (status, serde_json::from_str(&text(response).await).unwrap())
    }

    async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.ask(Method::GET, path, "").await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        answer
    }

    async fn post(&self, path: &str, body: &str) -> Value {
        let (status, answer) = self.ask(Method::POST, path, body).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        answer
    }
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// What is left of one limit, in an answer about a customer.
fn left<'a>(list: &'a Value, limit: &str) -> &'a Value {
    let mut rows = list.as_array().unwrap().iter();
    rows.find(|row| row["limit"] == limit).unwrap_or_else(|| panic!("{limit} in {list}"))
}

#[tokio::test]
async fn an_hour_later_support_sees_why_a_customer_was_refused() {
    let fixture = Fixture::new();
    assert_eq!(fixture.calls("ana@acme", 600).await, 250);
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(fixture.calls("ben@acme", 300).await, 250);
    fixture.clock.advance(HOUR);

    let acme = fixture.get("/organization/acme").await;
    assert_eq!((&acme["account"], &acme["user"]), (&json!("organization acme"), &Value::Null));
    let rows = acme["refusals"].as_array().unwrap();
    let met: Vec<_> = rows.iter().map(|row| (&row["user"], &row["limit"])).collect();
    // The last refusal comes first. ana met her own limit; ben his, and before that nothing: the
    // organization had eight calls left.
    assert_eq!(met, [(&json!("ben"), &json!("call-user")), (&json!("ana"), &json!("call-user"))]);
    let ana = &rows[1];
    assert_eq!((&ana["refusals"], &ana["at_least"]), (&json!(350), &json!(350)));
    assert_eq!((&ana["last_seconds_ago"], &ana["last_endpoint"]), (&json!(3601.0), &json!("call")));
    assert_eq!((&ana["why"], &ana["enforced"]), (&json!("limited"), &json!(true)));
    assert_eq!((&ana["principal"], &ana["of_each"]), (&json!("organization acme"), &json!("user")));
    // The date is an hour before now.
    let date = httpdate::parse_http_date(ana["last_at"].as_str().unwrap()).unwrap();
    let ago = SystemTime::now().duration_since(date).unwrap();
    assert!(HOUR <= ago && ago < HOUR * 2, "{ago:?}");
    // What is left now, of the organization and of its users that were refused.
    assert_eq!(left(&acme["left_now"], "call")["left"], 500);
    let users = acme["left_now_of_refused_users"].as_object().unwrap();
    assert_eq!(users.keys().collect::<Vec<_>>(), ["ana", "ben"]);
    assert_eq!(left(&users["ana"], "call-user")["left"], 250);

    // Of one user, with their own limit.
    let ana = fixture.get("/organization/acme?user=ana").await;
    assert_eq!(ana["refusals"], json!([rows[1]]));
    assert_eq!(left(&ana["left_now"], "call-user")["of"], 250);
    assert_eq!(left(&ana["left_now"], "call-concurrent")["of"], 20);
    assert_eq!(left(&ana["left_now"], "call-concurrent")["in_flight"], 0);

    let refused = fixture.get("/refused").await;
    let most: Vec<_> = refused["refused_most"].as_array().unwrap().iter().collect();
    assert_eq!(most, [&rows[1], &rows[0]]);
    assert_eq!(refused["blocked_and_still_sending"], json!([]));
}

#[tokio::test]
async fn a_change_of_a_customers_limits_answers_with_what_it_has_then() {
    let fixture = Fixture::new();
    assert_eq!(fixture.calls("ana@acme", 250).await, 250);
    assert_eq!(fixture.calls("ben@acme", 200).await, 200);

    let refunded = fixture.post("/organization/acme/call/refund", r#"{"requests": 100}"#).await;
    assert_eq!(left(&refunded["left_now"], "call")["left"], 150);
    let path = "/organization/acme/call/refund?user=ben";
    let refunded = fixture.post(path, r#"{"requests": 20}"#).await;
    assert_eq!(left(&refunded["left_now"], "call")["left"], 170);
    assert_eq!(left(&refunded["left_now"], "call-user")["left"], 70);

    let path = "/organization/acme/call/block?user=ana";
    let blocked = fixture.post(path, r#"{"seconds": 3600}"#).await;
    assert_eq!(left(&blocked["left_now"], "call-user")["blocked_for_seconds"], 3600.0);
    assert_eq!(left(&blocked["left_now"], "call")["blocked_for_seconds"], Value::Null);
    assert_eq!((fixture.calls("ana@acme", 3).await, fixture.calls("ben@acme", 1).await), (0, 1));
    let refused = fixture.get("/refused").await;
    assert_eq!(refused["refused_most"], json!([]));
    assert_eq!(refused["blocked_and_still_sending"][0]["refusals"], 3);
    let ana = fixture.get("/organization/acme?user=ana").await;
    assert_eq!(ana["refusals"][0]["why"], "blocked");

    let blocked = fixture.post("/organization/acme/call/block", r#"{"seconds": 60}"#).await;
    assert_eq!(left(&blocked["left_now"], "call")["blocked_for_seconds"], 60.0);
    let reset = fixture.post("/organization/acme/call/reset?user=ana", "").await;
    assert_eq!(left(&reset["left_now"], "call")["left"], 500);
    let own = left(&reset["left_now"], "call-user");
    assert_eq!((&own["left"], &own["blocked_for_seconds"]), (&json!(250), &Value::Null));

    let (status, forgotten) = fixture.ask(Method::DELETE, "/refused", "").await;
    let none = json!({ "refused_most": [], "blocked_and_still_sending": [] });
    assert_eq!((status, forgotten), (StatusCode::OK, none));
}

#[tokio::test]
async fn a_change_of_all_limits_answers_with_the_new_state() {
    let fixture = Fixture::new();
    let user = "call-user, 125 requests per minute for each user";
    let limits = fixture.post("/policy", r#"{"call_per_minute": 250}"#).await;
    assert!(limits["limits"].as_array().unwrap().contains(&json!(user)), "{limits}");
    assert_eq!(fixture.get("/policy").await, limits);

    let candidate = fixture.post("/candidate", r#"{"call_per_minute": 2}"#).await;
    let user = "call-user, 1 request per minute for each user";
    assert!(candidate["limits"].as_array().unwrap().contains(&json!(user)), "{candidate}");
    fixture.calls("ana@acme", 3).await;
    let candidate = fixture.get("/candidate").await;
    let calls = candidate["report"].as_array().unwrap();
    let calls = calls.iter().find(|row| row["endpoint"] == "call").unwrap();
    assert_eq!(calls["refused by the candidate only"], 2);
    let dropped = fixture.ask(Method::DELETE, "/candidate", "").await;
    assert_eq!(dropped, (StatusCode::OK, json!({ "limits": null, "report": [] })));

    let share = fixture.post("/enforcement", r#"{"percent": 25}"#).await;
    assert_eq!(share, json!({ "enforcement": "25 %", "percent": 25 }));
    assert_eq!(fixture.get("/enforcement").await, share);
}

#[tokio::test]
async fn what_is_wrong_is_said_in_json_and_changes_nothing() {
    let fixture = Fixture::new();
    let before = fixture.get("/organization/acme?user=ana").await;
    for (method, path, body, status, reason) in [
        ("POST", "/organization/acme/cal/reset", "", 404, r#"no endpoint "cal""#),
        ("POST", "/team/acme/call/reset", "", 404, "no such account"),
        ("GET", "/user/ana?user=ben", "", 404, "no such account"),
        ("GET", "/organization/acme?user=", "", 404, "no such account"),
        ("POST", "/organization/acme/call/reset?user=%20", "", 404, "no such account"),
        ("POST", "/organization/acme/call/block?usr=ana", r#"{"seconds": 9}"#, 400, "`usr`"),
        ("POST", "/organization/acme/call/block", r#"{"second": 9}"#, 422, "expected `seconds`"),
        ("POST", "/organization/acme/call/block", r#"{"seconds": 9"#, 400, "JSON"),
        ("POST", "/organization/acme/call/block", "", 400, "JSON"),
        ("POST", "/organization/acme/call/refund", r#"{"requests": -1}"#, 422, "requests"),
        ("POST", "/organization/acme/agent/block?user=ana", r#"{"seconds": 9}"#, 422, "no rate"),
        ("POST", "/policy", r#"{"call_per_minute": 0}"#, 422, "limit is 0"),
        ("POST", "/candidate", r#"{"call_per_minute": 0}"#, 422, "limit is 0"),
        ("POST", "/enforcement", r#"{"percent": 101}"#, 422, "from 0 to 100"),
        ("DELETE", "/policy", "", 405, "does not have that method"),
        ("GET", "/", "", 404, "no such route"),
    ] {
        let (is, answer) = fixture.ask(method.parse().unwrap(), path, body).await;
        let error = answer["error"].as_str().unwrap();
        assert!(is == status && error.contains(reason), "{method} {path}: {is} {error}");
    }
    assert_eq!(fixture.get("/organization/acme?user=ana").await, before);

    // ... with a list of what there is.
    let (_, unknown) = fixture.ask(Method::POST, "/organization/acme/cal/reset", "").await;
    assert_eq!(unknown["endpoints"], json!(["executions", "agent", "call", "default"]));
    let (_, unknown) = fixture.ask(Method::GET, "/team/acme", "").await;
    assert_eq!(unknown["accounts"].as_array().unwrap().len(), 3);
    let (_, unknown) = fixture.ask(Method::GET, "/", "").await;
    assert!(unknown["routes"].as_array().unwrap().len() > 5);

    // A body that is not announced as JSON, and a wrong token.
    for (token, content_type, status) in
        [("secret", "text/plain", 415), ("secre", "application/json", 401)]
    {
        let request = Request::post("/policy")
            .header("authorization", bearer(token))
            .header("content-type", content_type)
            .body(Body::from(r#"{"call_per_minute": 1}"#))
            .unwrap();
        let response = fixture.operators.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), status);
        let answer: Value = serde_json::from_str(&text(response).await).unwrap();
        assert!(answer["error"].is_string(), "{answer}");
    }
}

/// The commands for operators at the top of the example: method, path and body.
fn commands() -> Vec<(Method, String, String)> {
    let command = |line: &str| {
        let line = line.strip_prefix("//! operator ")?.trim_start_matches('\'');
        let path = line.strip_prefix("http://127.0.0.1:3001")?;
        let path = path.split([' ', '\'']).next()?.to_owned();
        let body = line.split(" -d '").nth(1).map(|body| body.trim_end_matches('\'').to_owned());
        let method = match line.split(" -X ").nth(1) {
            Some(method) => method.parse().unwrap(),
            None if body.is_some() => Method::POST,
            None => Method::GET,
        };
        Some((method, path, body.unwrap_or_default()))
    };
    include_str!("../../examples/operator/main.rs").lines().filter_map(command).collect()
}

#[tokio::test]
async fn every_command_of_the_example_answers_with_a_state() {
    let fixture = Fixture::new();
    let commands = commands();
    assert!(commands.len() > 12, "{commands:?}");
    for (method, path, body) in commands {
        let (status, answer) = fixture.ask(method, &path, &body).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        assert!(answer.as_object().is_some_and(|state| !state.is_empty()), "{path}: {answer}");
    }
}
