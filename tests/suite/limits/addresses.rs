//! Requests without an account, limited by their address.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bolna_rate_limit::layer::{ClientAddress, LegacyReset, OnUnidentified};
use bolna_rate_limit::policy::PolicyBuilder;
use bolna_rate_limit::store::{Bucket, Charge, Command, Entry, MemoryStore, Store};
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::values::{Kind, Limit, LimitName, Outcome, Scope};
use bolna_rate_limit::{
    Account, BolnaRateLimitLayer, Endpoint, Enforcement, Limiter, Policy, Principal, Quota,
};
use http::{Request, StatusCode};
use serde_json::Value;

use crate::support::{call_by, send, stopped_limiter, text};

fn three_a_minute() -> PolicyBuilder {
    Policy::bolna().exempt(["/healthz"]).unidentified_quota(Quota::per_minute(3))
}

type Layer = BolnaRateLimitLayer<MemoryStore<ManualClock>>;

fn layer(policy: PolicyBuilder) -> (Layer, ManualClock) {
    let (limiter, clock) = stopped_limiter(policy.build().unwrap());
    let layer = BolnaRateLimitLayer::with_limiter(limiter).client_address(
        ClientAddress::of_peer(|head| head.extensions.get::<IpAddr>().copied()).x_forwarded_for(1),
    );
    (layer, clock)
}

fn from(peer: &str, forwarded: Option<&str>) -> Request<String> {
    let mut request = Request::post("/call").body(String::new()).unwrap();
    request.extensions_mut().insert::<IpAddr>(peer.parse().unwrap());
    if let Some(forwarded) = forwarded {
        request.headers_mut().insert("x-forwarded-for", forwarded.parse().unwrap());
    }
    request
}

#[tokio::test]
async fn keys_cannot_be_guessed_faster_than_the_limit_of_an_address() {
    let (layer, clock) = layer(three_a_minute());
    for _ in 0..3 {
        let refused = send(&layer, from("192.0.2.1", None)).await;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(refused.headers().get("ratelimit"), None);
    }
    let refused = send(&layer, from("192.0.2.1", None)).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()["retry-after"], "20");
    assert_eq!(refused.headers()["ratelimit"], "\"unidentified\";r=0;t=20");
    assert_eq!(refused.headers()["ratelimit-policy"], "\"unidentified\";q=3;w=60");
    assert!(text(refused).await.contains(
        "The quota of 3 requests per minute for each address, unidentified, is used up."
    ));
    // Others are not concerned: another address, those with an account, exempt paths.
    let other = send(&layer, from("192.0.2.2", None)).await;
    assert_eq!(other.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(send(&layer, call_by("u-1", "o-1")).await.status(), StatusCode::OK);
    let mut health = from("192.0.2.1", None);
    *health.uri_mut() = "/healthz".parse().unwrap();
    assert_eq!(send(&layer, health).await.status(), StatusCode::OK);
    clock.advance(Duration::from_secs(20));
    let again = send(&layer, from("192.0.2.1", None)).await;
    assert_eq!(again.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_refusal_of_a_blocked_address_speaks_of_the_address() {
    let (layer, _) = layer(three_a_minute());
    let address = Principal::new(Kind::ADDRESS, "192.0.2.1").unwrap();
    let bucket = Bucket::of_address(&address, LimitName::new("unidentified").unwrap());
    let block = Command::block(bucket, Duration::from_secs(60));
    layer.limiter().store().command(block).await.unwrap();
    // As usual, and with older fields, whose refusals are written in another place.
    let older = layer.clone().legacy_headers(LegacyReset::DeltaSeconds);
    for layer in [layer, older] {
        let refused = send(&layer, from("192.0.2.1", None)).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused.headers()["retry-after"], "60");
        let body: Value = serde_json::from_str(&text(refused).await).unwrap();
        assert_eq!(
            [&body["detail"], &body["message"]],
            [
                "Requests without an account from this address are blocked for now, whatever is \
                 left of the quota. Wait 60 seconds.",
                "Requests without an account from this address are blocked",
            ]
        );
        assert_eq!(body.get("violated-policies"), None);
        let other = send(&layer, from("192.0.2.2", None)).await;
        assert_eq!(other.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(send(&layer, call_by("u-1", "o-1")).await.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn anonymous_callers_can_be_admitted_up_to_the_limit_of_their_address() {
    let (layer, _) = layer(three_a_minute());
    let layer = layer.on_unidentified(OnUnidentified::Admit);
    for remaining in [2, 1, 0] {
        let admitted = send(&layer, from("192.0.2.1", None)).await;
        assert_eq!(admitted.status(), StatusCode::OK);
        let field = admitted.headers()["ratelimit"].to_str().unwrap().to_owned();
        assert!(field.starts_with(&format!("\"unidentified\";r={remaining};")), "{field}");
    }
    let refused = send(&layer, from("192.0.2.1", None)).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn shadow_mode_turns_off_the_429_and_never_the_401() {
    let (limited, _) = layer(three_a_minute());
    let (shadow, admitting) = (
        limited.clone().enforcement(Enforcement::SHADOW),
        limited.enforcement(Enforcement::SHADOW).on_unidentified(OnUnidentified::Admit),
    );
    for _ in 0..5 {
        let refused = send(&shadow, from("192.0.2.1", None)).await;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
        let admitted = send(&admitting, from("192.0.2.1", None)).await;
        assert_eq!(
            (admitted.status(), admitted.headers().get("ratelimit")),
            (StatusCode::OK, None)
        );
    }
}

#[tokio::test]
async fn a_client_cannot_choose_its_address_by_what_it_sends_through_a_proxy() {
    let (layer, _) = layer(three_a_minute());
    let mut statuses = Vec::new();
    for spoofed in 0..4 {
        let field = format!("203.0.113.{spoofed}, 198.51.100.7");
        statuses.push(send(&layer, from("10.0.0.1", Some(&field))).await.status());
    }
    assert_eq!(statuses[..3], [StatusCode::UNAUTHORIZED; 3]);
    assert_eq!(statuses[3], StatusCode::TOO_MANY_REQUESTS);
    // If the field can't be read, the peer counts, which is the proxy here.
    for _ in 0..3 {
        let refused = send(&layer, from("10.0.0.1", Some("unknown"))).await;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    }
    let refused = send(&layer, from("10.0.0.1", Some("also, unknown"))).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn every_endpoint_can_be_limited_by_address() {
    let policy = Policy::builder()
        .endpoint("search", Quota::per_minute(2), ["/search"])
        .default_quota(Quota::per_minute(3))
        .build()
        .unwrap();
    let (limiter, _) = stopped_limiter(policy);
    let layer = BolnaRateLimitLayer::with_limiter(limiter).identify_with(
        ClientAddress::of_peer(|head| head.extensions.get::<IpAddr>().copied()).x_forwarded_for(1),
    );
    let get = async |path: &str, peer: &str, forwarded: Option<&str>| {
        let mut request = from(peer, forwarded);
        *request.uri_mut() = path.parse().unwrap();
        send(&layer, request).await
    };
    assert_eq!(get("/search", "192.0.2.1", None).await.status(), StatusCode::OK);
    let second = get("/search", "10.0.0.1", Some("198.51.100.9, 192.0.2.1")).await;
    assert_eq!(second.headers()["ratelimit"], "\"search\";r=0;t=30");
    let third = get("/search", "192.0.2.1", None).await;
    assert_eq!(third.status(), StatusCode::TOO_MANY_REQUESTS);
    // Another endpoint and another address have buckets of their own.
    let other = get("/about", "192.0.2.1", None).await;
    assert_eq!(other.headers()["ratelimit"], "\"default\";r=2;t=40");
    assert_eq!(get("/search", "192.0.2.2", None).await.status(), StatusCode::OK);
    // IPv6 addresses of one network are billed together.
    for (peer, status) in [("2001:db8::1", 200), ("2001:db8::2", 200), ("2001:db8::3", 429)] {
        assert_eq!(get("/search", peer, None).await.status(), status, "{peer}");
    }
}

#[tokio::test]
async fn one_network_is_one_client() {
    let (layer, _) = layer(three_a_minute());
    for host in 0..3 {
        send(&layer, from(&format!("2001:db8:1:2::{host}"), None)).await;
    }
    let same = send(&layer, from("2001:db8:1:2:ffff::1", None)).await;
    assert_eq!(same.status(), StatusCode::TOO_MANY_REQUESTS);
    let other = send(&layer, from("2001:db8:1:3::1", None)).await;
    assert_eq!(other.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn without_a_known_address_all_unidentified_requests_share_one_bucket() {
    let layer = BolnaRateLimitLayer::with_policy(three_a_minute().build().unwrap());
    for _ in 0..3 {
        let refused = send(&layer, from("192.0.2.1", None)).await;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    }
    let refused = send(&layer, from("192.0.2.2", None)).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn an_unknown_address_is_reported_once() {
    let (limiter, _) = stopped_limiter(three_a_minute().build().unwrap());
    let events = Arc::new(Mutex::new(Vec::new()));
    limiter.on_event({
        let events = Arc::clone(&events);
        move |event| events.lock().unwrap().push(event.to_string())
    });
    let by_peer = || ClientAddress::of_peer(|head| head.extensions.get::<IpAddr>().copied());
    let knowing = BolnaRateLimitLayer::with_limiter(limiter.clone()).client_address(by_peer());
    send(&knowing, from("192.0.2.1", None)).await;
    assert_eq!(events.lock().unwrap().len(), 0);
    // The closure finds nothing, or there is none.
    let mut nowhere = from("192.0.2.1", None);
    nowhere.extensions_mut().clear();
    send(&knowing, nowhere).await;
    send(&BolnaRateLimitLayer::with_limiter(limiter), from("192.0.2.1", None)).await;
    let events = events.lock().unwrap();
    assert_eq!(events.len(), 1);
    assert!(
        events[0].starts_with("BRL011: no address of a request that is limited by its address")
    );
}

#[tokio::test]
async fn an_unknown_address_that_is_billed_is_reported_too() {
    let (limiter, _) = stopped_limiter(Policy::default());
    let events = Arc::new(Mutex::new(Vec::new()));
    limiter.on_event({
        let events = Arc::clone(&events);
        move |event| events.lock().unwrap().push(event.to_string())
    });
    let layer = BolnaRateLimitLayer::with_limiter(limiter)
        .identify_with(ClientAddress::of_peer(|head| head.extensions.get::<IpAddr>().copied()));
    send(&layer, from("192.0.2.1", None)).await;
    assert_eq!(*events.lock().unwrap(), [""; 0]);
    let mut nowhere = from("192.0.2.1", None);
    nowhere.extensions_mut().clear();
    send(&layer, nowhere).await;
    let events = events.lock().unwrap();
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(events[0].starts_with("BRL011: "), "{events:?}");
}

#[test]
fn checks_without_http_are_not_limited_by_address() {
    let (limiter, _) = stopped_limiter(three_a_minute().build().unwrap());
    let without_ids = Account::user("");
    for _ in 0..5 {
        let ruling = limiter.check_now(&without_ids, "/call").unwrap();
        assert_eq!((ruling.outcome(), ruling.is_admitted()), (Outcome::Unidentified, false));
        let ruling = limiter.check_endpoint_now(&without_ids, Endpoint::CALL, 1).unwrap();
        assert_eq!((ruling.outcome(), ruling.is_admitted()), (Outcome::Unidentified, false));
    }
    let unknown = Endpoint::new("nowhere").unwrap();
    assert_eq!(limiter.check_endpoint_now(&without_ids, unknown, 1), None);
}

#[test]
fn the_memory_of_addresses_is_bounded_and_apart_from_that_of_accounts() {
    let clock = ManualClock::default();
    let store = MemoryStore::with_clock(clock.clone()).max_buckets(10).max_addresses(1_000);
    let limiter = Limiter::with_store(three_a_minute().build().unwrap(), store).unwrap();
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone())
        .client_address(ClientAddress::of_peer(|head| head.extensions.get::<IpAddr>().copied()));
    let status_of = |host: u32| {
        let peer = IpAddr::from(host.to_be_bytes());
        let response = tokio_test::block_on(send(&layer, from(&peer.to_string(), None)));
        response.status()
    };
    for host in 0..1_000 {
        assert_eq!(status_of(host), StatusCode::UNAUTHORIZED);
    }
    // Further addresses share a bucket, so a flood of them is refused, ...
    let refused =
        (1_000..2_000).filter(|host| status_of(*host) == StatusCode::TOO_MANY_REQUESTS).count();
    assert_eq!(refused, 997);
    assert_eq!(limiter.report().store.addresses, 1_000);
    assert_eq!(limiter.report().store.shared, 1_000);
    // ... and accounts have their own places.
    let ruling = limiter.check_now(&Account::user("u-1"), "/call").unwrap();
    assert!(ruling.is_admitted());
    assert_eq!(limiter.report().store.buckets, 1);
    assert_eq!(limiter.store().len(), 1_001);
    // Those that have become full again make room.
    clock.advance(Duration::from_secs(120));
    limiter.store().shrink();
    assert_eq!(limiter.store().len(), 0);
    assert_eq!(status_of(5_000), StatusCode::UNAUTHORIZED);
}

#[test]
fn observers_see_the_address_and_what_its_limit_says() {
    use bolna_rate_limit::observe::{Observation, Observer};

    #[derive(Default)]
    struct Seen(Mutex<Vec<(Option<String>, Outcome)>>);

    impl Observer for Seen {
        fn on_decision(&self, observation: &Observation<'_>) {
            let principal = observation.principal.map(ToString::to_string);
            self.0.lock().unwrap().push((principal, observation.ruling.outcome()));
        }
    }

    let (layer, _) = layer(three_a_minute());
    let seen = Arc::new(Seen::default());
    layer.limiter().observe(Arc::clone(&seen));
    for _ in 0..4 {
        tokio_test::block_on(send(&layer, from("192.0.2.1", None)));
    }
    let address = Some("address 192.0.2.1".to_owned());
    let mut expected = vec![(address.clone(), Outcome::Unidentified); 3];
    expected.push((address, Outcome::Limited));
    assert_eq!(*seen.0.lock().unwrap(), expected);
}

#[test]
fn while_the_policy_changes_each_request_is_limited_by_its_own_address_or_not_at_all() {
    let with = Policy::bolna().unidentified_quota(Quota::per_day(1)).build().unwrap();
    let (limiter, _) = stopped_limiter(Policy::default());
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone())
        .client_address(ClientAddress::of_peer(|head| head.extensions.get::<IpAddr>().copied()));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                limiter.set_policy(with.clone()).unwrap();
                limiter.set_policy(Policy::default()).unwrap();
            }
        });
        let statuses: Vec<_> = (1..=3_000_u32)
            .map(|host| {
                let peer = IpAddr::from(host.to_be_bytes());
                tokio_test::block_on(send(&layer, from(&peer.to_string(), None))).status()
            })
            .collect();
        over.store(true, Ordering::Relaxed);
        // Each is the first of its address.
        assert!(statuses.iter().all(|status| *status == StatusCode::UNAUTHORIZED));
    });
}

#[test]
fn the_memory_of_many_addresses_is_freed_by_512_requests_and_by_each_a_part() {
    // A large cap of addresses beside a small one of accounts, and the other way round.
    for (buckets, addresses) in
        [(usize::MAX, 200_000), (10, 200_000), (usize::MAX, 65_536), (usize::MAX, 300_000)]
    {
        let clock = ManualClock::default();
        let store = MemoryStore::with_clock(clock.clone());
        let store = store.max_buckets(buckets).max_addresses(addresses);
        let quota = Quota::per_minute(1).build().unwrap();
        let entry = Entry::of(Limit::new(Endpoint::CALL, quota).with_scope(Scope::Address));
        for host in 0..u32::try_from(addresses).unwrap() {
            let address = Principal::new(Kind::ADDRESS, host).unwrap();
            let _ = store.check(Charge::of_one(&address, &entry)).now().unwrap();
        }
        assert_eq!(store.len(), addresses);
        // They are full after a minute, and then eight requests come each second.
        clock.advance(Duration::from_secs(60));
        let other = Principal::user("other").unwrap();
        let call = Entry::new(Endpoint::CALL, quota);
        let mut left = addresses;
        for _ in 0..512 {
            let _ = store.check(Charge::of_one(&other, &call)).now().unwrap();
            let now = store.len() - 1;
            assert!(left - now < 4_000, "{} were dropped at once", left - now);
            left = now;
            clock.advance(Duration::from_millis(125));
        }
        assert_eq!(left, 0);
    }
}

#[test]
fn a_charge_can_not_mix_addresses_and_accounts() {
    let principal = Principal::user("u-1").unwrap();
    let quota = Quota::per_minute(3).build().unwrap();
    let of_address = Limit::new(Endpoint::CALL, quota).with_scope(Scope::Address);
    let entries = [Entry::new(Endpoint::AGENT, quota), Entry::of(of_address)];
    let error = Charge::new(&principal, &entries).unwrap_err();
    assert!(error.to_string().starts_with("limit call: a charge must not have some"), "{error}");
}

#[tokio::test]
async fn a_layers_cost_applies_to_addresses_too() {
    let (layer, _) = layer(Policy::bolna().unidentified_quota(Quota::per_minute(10)));
    let layer = layer.cost(LimitName::new("unidentified").unwrap(), |_| 5);
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(send(&layer, from("192.0.2.1", None)).await.status().as_u16());
    }
    assert_eq!(statuses, [401, 401, 429]);
}
