//! Who is billed: what an account is made from, and whose policy counts.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bolna_rate_limit::store::MemoryStore;
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::values::{Id, Kind};
use bolna_rate_limit::{
    Account, BolnaRateLimitLayer, Endpoint, Enforcement, Limiter, Policy, Principal, Quota,
};
use http::Request;
use proptest::prelude::*;

use crate::observers::Witness;
use crate::support::{call_by, now, one_call, peeked, percent, send, stopped_limiter};

/// Displays as two pieces, as many types do.
struct Uuid(u64, u64);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:018x}", self.0)?;
        write!(f, "{:018x}", self.1)
    }
}

#[test]
fn ids_are_texts_numbers_uuids_and_options_of_them() {
    let user = |account: &Account| account.principal().unwrap().id().as_str().to_owned();
    assert_eq!(user(&Account::user("u-17")), "u-17");
    assert_eq!(user(&Account::user(String::from("u-17"))), "u-17");
    assert_eq!(user(&Account::user(17_u64)), "17");
    assert_eq!(user(&Account::user(-17_i32)), "-17");
    assert_eq!(user(&Account::user(Uuid(1, 2))), "000000000000000001000000000000000002");
    assert_eq!(user(&Account::user(Some("u-17"))), "u-17");
    assert_eq!(user(&Account::user(Some(17))), "17");
    assert_eq!(Account::user(None::<String>).principal(), None);
    assert_eq!(Account::user("").principal(), None);

    let in_organization = Account::user(17).in_organization(Some(4));
    assert_eq!(in_organization.principal(), Principal::organization("4").as_ref());
    let alone = Account::user(17).in_organization(None::<u64>);
    assert_eq!(alone.principal(), Principal::user("17").as_ref());
    assert_eq!(Account::user(17).in_organization(""), alone);
}

#[test]
fn an_account_keeps_the_user_and_the_organization() {
    let account = Account::user("u").in_organization("o");
    assert_eq!(account.principal(), Principal::organization("o").as_ref());
    assert_eq!(account.user_principal(), Principal::user("u"));
    let moved = account.in_organization("p");
    assert_eq!(moved.principal(), Principal::organization("p").as_ref());
    assert_eq!(moved.user_principal(), Principal::user("u"));
    assert_eq!(Account::user("u").user_principal(), Principal::user("u"));
    let of_organization = Account::user("").in_organization("o");
    assert_eq!(of_organization.principal(), Principal::organization("o").as_ref());
    assert_eq!(of_organization.user_principal(), None);
}

proptest! {
    #[test]
    fn an_id_is_the_text_that_displays(
        text in prop_oneof![any::<String>(), "\\s*[a \u{3000}]{0,3}"],
        pieces in 1..9_usize,
    ) {
        struct InPieces<'a>(&'a str, usize);

        impl fmt::Display for InPieces<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let chars: Vec<_> = self.0.chars().collect();
                chars.chunks(self.1).try_for_each(|piece| {
                    f.write_str(&piece.iter().collect::<String>())
                })
            }
        }

        let id = Id::new(InPieces(&text, pieces));
        prop_assert_eq!(id.as_ref().map(Id::as_str), (!text.trim().is_empty()).then_some(&*text));
        prop_assert_eq!(&id, &Id::new(&text));
        prop_assert_eq!(text.parse::<Id>().ok(), id);
    }
}

/// The kinds of principals are data: a service may bill what it likes.
#[tokio::test]
async fn principals_of_every_kind_have_buckets_of_their_own() {
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let of = |kind, id: &str| Principal::new(kind, id).unwrap();
    let key = Kind::new("api_key").unwrap();
    let long = "x".repeat(100);
    let principals = [
        of(Kind::USER, "127.0.0.1"),
        of(Kind::ORGANIZATION, "127.0.0.1"),
        Principal::new(Kind::ADDRESS, address).unwrap(),
        of(key, "127.0.0.1"),
        of(key, "127.0.0.2"),
        of(key, &long),
        of(Kind::ADDRESS, &long),
        of(Kind::USER, &format!("{}127.0.0.1", '\u{2}')),
    ];
    let (limiter, clock) = stopped_limiter(one_call());
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone());
    let call = async |principal: &Principal| {
        let mut request = Request::post("/call").body(String::new()).unwrap();
        request.extensions_mut().insert(Account::from(principal));
        send(&layer, request).await.status().as_u16()
    };
    for principal in &principals {
        assert_eq!(call(principal).await, 200, "{principal}");
    }
    for principal in &principals {
        assert_eq!(call(principal).await, 429, "{principal}");
        assert_eq!(call(principal).await, 429, "{principal}, which is remembered");
    }
    assert_eq!(limiter.store().len(), principals.len());
    limiter.reset(&principals[3], Endpoint::CALL).await.unwrap();
    assert_eq!(call(&principals[3]).await, 200);
    limiter.block(&principals[2], Endpoint::CALL, Duration::from_secs(60)).await.unwrap();
    clock.advance(Duration::from_secs(20));
    assert_eq!(call(&principals[2]).await, 429, "it is blocked");
    for principal in principals.iter().filter(|one| **one != principals[2]) {
        assert_eq!(call(principal).await, 200, "{principal}");
    }
}

#[test]
fn kinds_have_names_and_shares_of_their_own() {
    assert_eq!(Kind::new("user"), Ok(Kind::USER));
    assert_eq!("address".parse(), Ok(Kind::ADDRESS));
    assert!(Kind::new("no spaces").is_err() && Kind::new("").is_err());
    let key = Kind::new("api_key").unwrap();
    assert_eq!(Principal::new(key, 7).unwrap().to_string(), "api_key 7");
    // The same ids are in other places of a share.
    let place = |kind, id: u32| {
        let principal = Principal::new(kind, id).unwrap();
        (0..=100).find(|number| percent(*number).applies_to(&principal))
    };
    let differs = (0..100).filter(|id| place(key, *id) != place(Kind::USER, *id)).count();
    assert!(differs > 80, "{differs}");
}

/// Without Tower, too, the account's own policy counts.
#[tokio::test]
async fn a_check_goes_by_the_accounts_own_policy() {
    let plan = Policy::bolna().quota("call", Quota::per_hour(5)).exempt(["/free"]).build().unwrap();
    let account = Account::user("u").with_policy(plan);
    let (limiter, _clock) = stopped_limiter(one_call());
    let witness = Witness::of(&limiter);
    let left = peeked(&limiter, account.clone(), Endpoint::CALL).await;
    assert_eq!(left.remaining(), 5);
    for sent in 0..7 {
        let ruling = limiter.check_now(&account, "/call").unwrap();
        assert_eq!(ruling.is_admitted(), sent < 5);
        assert_eq!(ruling.decision().unwrap().quota().burst(), 5);
        assert_eq!(witness.one().decision.as_ref(), ruling.decision());
    }
    let ruling = limiter.check(&account, "/call").unwrap().wait().await.unwrap();
    assert!(!ruling.is_admitted());
    assert_eq!(limiter.check_now(&account, "/free"), None, "exempt in the plan");
    assert!(limiter.check(&account, "/free").is_none());
    // Others go by the active policy.
    let other = Account::user("v");
    let admitted = (0..3).filter(|_| limiter.check_now(&other, "/call").unwrap().is_admitted());
    assert_eq!(admitted.count(), 1);
    assert!(limiter.check_now(&other, "/free").is_some());
}

#[test]
fn a_check_of_an_account_without_a_principal_is_refused_and_costs_nothing() {
    let (limiter, _clock) = stopped_limiter(Policy::bolna().exempt(["/free"]).build().unwrap());
    let witness = Witness::of(&limiter);
    let nobody = Account::user("");
    let ruling = limiter.check_now(&nobody, "/call").unwrap();
    assert!(!ruling.is_admitted() && ruling.decision().is_none() && ruling.endpoint().is_none());
    assert_eq!(witness.one().outcome, "unidentified");
    assert_eq!(limiter.check_now(&nobody, "/free"), None);
    assert!(now(limiter.usage(&nobody)).is_err());
    assert_eq!(limiter.store().len(), 0);
}

/// With Tower or without, a request is decided and reported alike.
#[tokio::test]
async fn tower_and_checks_go_the_same_way() {
    let (limiter, _clock) = stopped_limiter(one_call());
    let witness = Witness::of(&limiter);
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone());
    let account = Account::user("u").in_organization("o");
    limiter.set_candidate(Policy::default()).unwrap();
    for enforcement in [Enforcement::FULL, Enforcement::SHADOW] {
        limiter.set_enforcement(enforcement);
        let mut reports = Vec::new();
        for by_tower in [true, false] {
            limiter.reset(&account, Endpoint::CALL).await.unwrap();
            for _ in 0..2 {
                let admitted = if by_tower {
                    send(&layer, call_by("u", "o")).await.status() == 200
                } else {
                    limiter.check_now(&account, "/call").unwrap().is_admitted()
                };
                let mut told = witness.one();
                assert_eq!(told.admitted, admitted);
                // The candidate's bucket is not reset.
                assert!(told.candidate.take().is_some());
                reports.push(told);
            }
        }
        assert_eq!(reports[..2], reports[2..]);
    }
}

/// Both names are there: the one in its module, and the one at the root.
#[test]
fn a_clock_for_tests_is_made_like_any_value() {
    let clock = ManualClock::new();
    let _: ManualClock = clock;
    let limiter = Limiter::with_store(one_call(), MemoryStore::with_clock(clock.clone())).unwrap();
    let account = Account::user("u");
    let admitted = || limiter.check_now(&account, "/call").unwrap().is_admitted();
    assert!(admitted() && !admitted());
    clock.advance(Duration::from_secs(10));
    assert!(admitted());
}

#[tokio::test]
async fn a_mistake_in_a_question_is_told_as_such() {
    let limiter = Limiter::default();
    let error = limiter.refund(Account::user("u"), "cal".parse().unwrap(), 1).await.unwrap_err();
    assert_eq!(error.kind(), "no_endpoint");
    assert_eq!(
        error.to_string(),
        "the policy has no endpoint cal; it has executions, agent, call, default"
    );
    let error = limiter.usage(Account::user("")).await.unwrap_err();
    assert_eq!(error.kind(), "no_principal");
    let reason = "the account has no principal to bill: it names no user and no organization (an \
                  id that is empty or white space does not count)";
    assert_eq!(error.to_string(), reason);
}
