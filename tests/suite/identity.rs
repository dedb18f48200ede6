//! Identity: the principal who is billed.

use bolna_rate_limit::layer::{Identify, OnUnidentified};
use bolna_rate_limit::values::{Id, Kind};
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Endpoint, Policy, Principal, Quota};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use tower::{Layer, ServiceExt};

use crate::support::{call_by, ok, one_call, organization, peeked, request, send, stopped_limiter};

fn user(id: &str) -> Principal {
    Principal::user(id).unwrap()
}

#[test]
fn the_organization_pays_or_else_the_user() {
    assert_eq!(Account::user("u").principal(), Some(&user("u")));
    assert_eq!(Account::user("u").in_organization("o").principal(), Some(&organization("o")));
    assert_ne!(user("x"), organization("x"));
}

#[test]
fn an_empty_id_is_no_identity() {
    assert_eq!(Account::user("").principal(), None);
    assert_eq!(Account::user("u").in_organization("").principal(), Some(&user("u")));
    assert_eq!(Account::user("").in_organization("o").principal(), Some(&organization("o")));
    assert_eq!(Account::user("").in_organization("").principal(), None);
    assert_eq!(Principal::organization(""), None);
    assert!(Id::new("").is_none());
}

/// Each character that Unicode counts as white space, and texts of several.
fn blank() -> Vec<String> {
    let spaces = ('\0'..=char::MAX).filter(|character| character.is_whitespace());
    let long = |length| "\u{2003}".repeat(length);
    let texts = ["  ", "\r\n\t ", " \u{a0}\u{3000}"].map(str::to_owned);
    spaces.map(String::from).chain(texts).chain([long(12), long(13), long(1000)]).collect()
}

#[test]
fn an_id_of_white_space_is_no_identity() {
    assert!(blank().len() > 25);
    for id in &blank() {
        assert_eq!(Id::new(id), None, "{id:?}");
        assert_eq!(Id::new(Some(id)), None);
        assert!(Id::try_from(&**id).is_err());
        let error = id.parse::<Id>().unwrap_err();
        assert!(error.to_string().contains("empty or white space"), "{error}");
        assert_eq!(Principal::organization(id), None);
        assert_eq!(Principal::user(Some(id)), None);
        assert_eq!(Principal::new(Kind::ADDRESS, id), None);
        assert_eq!(Account::user(id).principal(), None);
        assert_eq!(Account::user(id).in_organization(id), Account::user(""));
        assert_eq!(Account::user("u").in_organization(id), Account::user("u"));
        let of_organization = Account::user(id).in_organization("o");
        assert_eq!(of_organization.principal(), Some(&organization("o")));
        assert_eq!(of_organization.user_principal(), None);
    }
}

#[tokio::test]
async fn a_request_whose_ids_are_white_space_is_unidentified() {
    let by_header = BolnaRateLimitLayer::new()
        .identify(|head: &Parts| Principal::user(head.headers.get("user")?.to_str().ok()?));
    let by_extension = BolnaRateLimitLayer::new();
    for (user, status) in
        [(" ", StatusCode::UNAUTHORIZED), ("\t", StatusCode::UNAUTHORIZED), ("u", StatusCode::OK)]
    {
        let with_field = Request::post("/call").header("user", user).body(String::new()).unwrap();
        assert_eq!(send(&by_header, with_field).await.status(), status, "{user:?}");
        assert_eq!(send(&by_extension, call_by(user, " ")).await.status(), status, "{user:?}");
    }
}

/// Nothing is cut off, and what is invisible in other ways is no white space.
#[test]
fn ids_are_taken_as_they_are() {
    for id in ["\u{200b}", "\u{feff}", "\u{ad}", "\u{2060}", "\u{200d}", "\0", "\u{7f}", "."] {
        assert_eq!(Id::new(id).unwrap().as_str(), id);
    }
    assert_ne!(user("acme"), user(" acme"));
    assert_ne!(user("acme"), user("acme "));
    let long = format!("{}a", " ".repeat(100));
    assert_eq!(Id::new(&long).unwrap().as_str(), long);
}

#[test]
fn ids_of_any_length_and_content_are_told_apart() {
    let texts = [
        "a",
        "A",
        " a",
        "a ",
        "a\0",
        "a:b",
        "{a}",
        "caf\u{e9}",
        &"x".repeat(Id::INLINE),
        &"x".repeat(10_000),
    ];
    for (index, one) in texts.iter().enumerate() {
        assert_eq!(Id::new(one).unwrap().as_str(), *one);
        assert_eq!(Id::new(one), Id::new(one).clone());
        for other in &texts[index + 1..] {
            assert_ne!(Id::new(one), Id::new(other));
        }
    }
}

#[tokio::test]
async fn an_organization_and_a_user_with_one_id_do_not_share_a_bucket() {
    let (limiter, _clock) = stopped_limiter(one_call());
    let service = BolnaRateLimitLayer::with_limiter(limiter).layer(tower::service_fn(ok));
    let statuses =
        [call_by("7", ""), call_by("u", "7"), call_by("7", ""), call_by("v", "7")].map(|request| {
            let service = service.clone();
            async { service.oneshot(request).await.unwrap().status().as_u16() }
        });
    let mut seen = Vec::new();
    for status in statuses {
        seen.push(status.await);
    }
    assert_eq!(seen, [200, 200, 429, 429]);
}

#[derive(Clone)]
struct Claims {
    tenant: &'static str,
    plan: Option<Policy>,
}

fn claimed(tenant: &'static str, plan: Option<Policy>) -> Request<String> {
    let mut request = Request::post("/call").body(String::new()).unwrap();
    request.extensions_mut().insert(Claims { tenant, plan });
    request
}

#[tokio::test]
async fn a_closure_finds_the_payer_in_a_type_of_the_users_own() {
    let (limiter, _clock) = stopped_limiter(one_call());
    let layer = BolnaRateLimitLayer::with_limiter(limiter)
        .identify(|head| Principal::organization(head.extensions.get::<Claims>()?.tenant));
    let service = layer.layer(tower::service_fn(ok));
    for (request, status) in [
        (claimed("a", None), StatusCode::OK),
        (claimed("a", None), StatusCode::TOO_MANY_REQUESTS),
        (claimed("b", None), StatusCode::OK),
        (claimed("", None), StatusCode::UNAUTHORIZED),
        // This layer looks for claims, not for an account.
        (call_by("u", "o"), StatusCode::UNAUTHORIZED),
    ] {
        assert_eq!(service.clone().oneshot(request).await.unwrap().status(), status);
    }
}

struct ByClaims;

impl Identify for ByClaims {
    fn account(&self, head: &Parts) -> Option<Account> {
        let claims = head.extensions.get::<Claims>()?;
        let account = Account::from(Principal::organization(claims.tenant)?);
        Some(match &claims.plan {
            Some(plan) => account.with_policy(plan.clone()),
            None => account,
        })
    }
}

#[tokio::test]
async fn a_callers_own_limits_take_the_place_of_the_limiters() {
    let (limiter, _clock) = stopped_limiter(one_call());
    let plan =
        Policy::bolna().quota("call", Quota::per_minute(3)).exempt(["/free"]).build().unwrap();

    let by_claims = BolnaRateLimitLayer::with_limiter(limiter.clone())
        .identify_with(ByClaims)
        .layer(tower::service_fn(ok));
    for status in [200, 200, 200, 429] {
        let request = claimed("big", Some(plan.clone()));
        assert_eq!(by_claims.clone().oneshot(request).await.unwrap().status(), status);
    }
    assert_eq!(by_claims.clone().oneshot(claimed("small", None)).await.unwrap().status(), 200);
    assert_eq!(by_claims.oneshot(claimed("small", None)).await.unwrap().status(), 429);

    let by_account =
        BolnaRateLimitLayer::with_limiter(limiter.clone()).layer(tower::service_fn(ok));
    for (path, status) in
        [("/call", 200), ("/call", 200), ("/call", 200), ("/call", 429), ("/free", 200)]
    {
        let mut request = Request::post(path).body(String::new()).unwrap();
        request.extensions_mut().insert(Account::user("enterprise").with_policy(plan.clone()));
        assert_eq!(by_account.clone().oneshot(request).await.unwrap().status(), status);
    }
    // When the account leaves the plan, the units spent on it are still spent.
    let mut request = Request::post("/call").body(String::new()).unwrap();
    request.extensions_mut().insert(Account::user("enterprise"));
    assert_eq!(by_account.oneshot(request).await.unwrap().status(), 429);
}

#[tokio::test]
async fn strangers_go_on_only_if_the_operator_says_so() {
    let policy = Policy::bolna().exempt(["/healthz"]).build().unwrap();
    let (limiter, _clock) = stopped_limiter(policy);
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone());
    let stranger = |path: &str| Request::get(path).body(String::new()).unwrap();

    let strict = layer.clone().layer(tower::service_fn(ok));
    assert_eq!(strict.clone().oneshot(stranger("/user/me")).await.unwrap().status(), 401);
    assert_eq!(strict.oneshot(stranger("/healthz")).await.unwrap().status(), 200);

    let open = layer.on_unidentified(OnUnidentified::Admit).layer(tower::service_fn(ok));
    for _ in 0..2000 {
        let response: Response<_> = open.clone().oneshot(stranger("/user/me")).await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.headers().is_empty());
    }
    assert!(limiter.store().is_empty());
}

#[tokio::test]
async fn an_exempt_path_is_not_counted() {
    let policy =
        Policy::bolna().exempt(["/healthz"]).default_quota(Quota::per_minute(1)).build().unwrap();
    let (limiter, _clock) = stopped_limiter(policy);
    let service = BolnaRateLimitLayer::with_limiter(limiter.clone()).layer(tower::service_fn(ok));
    for _ in 0..3 {
        let response = service
            .clone()
            .oneshot(request(http::Method::GET, "/healthz", "u", "o"))
            .await
            .unwrap();
        assert_eq!((response.status(), response.headers().len()), (StatusCode::OK, 0));
    }
    let untouched = peeked(&limiter, &organization("o"), Endpoint::DEFAULT).await;
    assert_eq!(untouched.remaining(), 1);
}
