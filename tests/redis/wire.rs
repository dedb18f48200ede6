//! A client can't tell which store charges.

use std::time::Duration;

use bolna_rate_limit::layer::LegacyReset;
use bolna_rate_limit::store::Store;
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Limiter, Policy, Quota};
use http::{Method, Request};
use http_body_util::BodyExt;
use tower::{ServiceBuilder, ServiceExt};

use crate::servers::Server;
use crate::support::{Replica, ok, once_an_hour, slow};

/// The statuses, header fields and bodies of a caller's requests.
async fn responses<St: Store>(limiter: Limiter<St>) -> Vec<String> {
    let layer =
        BolnaRateLimitLayer::with_limiter(limiter).legacy_headers(LegacyReset::DeltaSeconds);
    let service = ServiceBuilder::new().layer(layer).service_fn(ok::<String>);
    let plan = Policy::bolna().quota("call", once_an_hour(100)).build().unwrap();
    let acme = Account::user("ana").in_organization("acme");
    let on_plan = acme.clone().with_policy(plan);
    let mut sent = Vec::new();
    for (number, (method, path, account)) in [
        (Method::POST, "/call", Some(&acme)),
        (Method::POST, "/call", Some(&acme)),
        (Method::POST, "/call", Some(&acme)),
        (Method::HEAD, "/call", Some(&acme)),
        (Method::POST, "/call", Some(&on_plan)),
        (Method::POST, "/call", Some(&acme)),
        (Method::GET, "/v2/agent/7", Some(&acme)),
        (Method::GET, "/v2/agent/7/executions", Some(&acme)),
        (Method::GET, "/v2/agent/7/executions", Some(&acme)),
        (Method::GET, "/healthz", Some(&acme)),
        (Method::GET, "/user/me", None),
    ]
    .into_iter()
    .enumerate()
    {
        let mut request = Request::builder().method(method).uri(path).body(String::new()).unwrap();
        if let Some(account) = account {
            request.extensions_mut().insert(account.clone());
        }
        let (parts, body) = service.clone().oneshot(request).await.unwrap().into_parts();
        let mut fields: Vec<_> = parts
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        fields.sort();
        let body = body.collect().await.unwrap().to_bytes();
        sent.push(format!(
            "{number}: {}\n{}\n{}",
            parts.status,
            fields.join("\n"),
            String::from_utf8_lossy(&body)
        ));
    }
    sent
}

#[tokio::test]
async fn responses_are_those_of_the_store_in_this_process() {
    let server = Server::start().await;
    let policy = Policy::bolna()
        .quota("call", once_an_hour(2))
        // One unit comes back every 514,285,714.28... us.
        .quota("executions", Quota::per(7, Duration::from_secs(3600)).burst(3))
        .exempt(["/healthz"])
        .build()
        .unwrap();
    let replica = Replica::on(&server, slow(1)).await;
    replica.limiter.set_policy(policy.clone()).expect("the store can do what the policy asks for");
    let here = responses(Limiter::new(policy)).await;
    let there = responses(replica.limiter.clone()).await;
    assert_eq!(here.len(), there.len());
    for (here, there) in here.iter().zip(&there) {
        assert_eq!(here, there);
    }
    let of = |text| there.iter().filter(|response| response.contains(text)).count();
    assert_eq!((of(": 200 "), of(": 429 "), of(": 401 ")), (7, 3, 1));
    assert!(there[0].contains(r#"ratelimit: "call";r=1;t=3600"#), "{}", there[0]);
    assert!(there[2].contains("retry-after: 3600"), "{}", there[2]);
}
