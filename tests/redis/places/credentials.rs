//! Passwords that change: tokens of a cloud's identity service, leases of Vault.

use std::error::Error;
use std::future::pending;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bolna_rate_limit::store::{Credentials, RedisStoreErrorKind as Kind, StoreEvent};

use super::assert_exact;
use crate::servers::{Password, Server, StandIn, until, when};
use crate::support::{Events, Replica, organization, slow, store};

type Given = Result<Credentials, Box<dyn Error + Send + Sync>>;

/// Where the application gets its credentials.
#[derive(Clone, Debug, Default)]
struct Vault {
    password: Arc<Mutex<Option<&'static str>>>,
    asked: Arc<Mutex<usize>>,
    lifetime: Option<Duration>,
    panics: Arc<AtomicBool>,
}

impl Vault {
    fn with(password: &'static str) -> Self {
        let vault = Self::default();
        vault.change_to(password);
        vault
    }

    fn change_to(&self, password: &'static str) {
        *self.password.lock().unwrap() = Some(password);
    }

    /// The callback for the builder.
    fn ask(&self) -> impl Fn() -> Pin<Box<dyn Future<Output = Given> + Send>> + use<> {
        let vault = self.clone();
        move || {
            let vault = vault.clone();
            Box::pin(async move {
                tokio::task::yield_now().await;
                *vault.asked.lock().unwrap() += 1;
                assert!(!vault.panics.load(Ordering::SeqCst), "the callback panics");
                let password = vault.password.lock().unwrap().ok_or("the vault is sealed")?;
                let credentials = Credentials::new(password).user("limiter");
                Ok(match vault.lifetime {
                    Some(lifetime) => credentials.expires_after(lifetime),
                    None => credentials,
                })
            })
        }
    }

    fn asked(&self) -> usize {
        *self.asked.lock().unwrap()
    }
}

async fn until_last(events: &Events, is_it: impl Fn(&StoreEvent) -> bool) {
    until("it is told", async || {
        let all = events.all();
        when(all.last().is_some_and(&is_it), all)
    })
    .await;
}

/// The commands with credentials that the stand-in has received.
fn given(stand_in: &StandIn) -> Vec<String> {
    let heard = stand_in.heard();
    let auths = heard.iter().filter(|command| command.is("AUTH") || command.is("HELLO"));
    auths.map(|command| command.words().join(" ")).filter(|words| words.contains("AUTH")).collect()
}

#[tokio::test]
async fn each_connection_uses_the_password_that_is_valid_when_it_is_made() {
    let (server, password, vault) =
        (Server::start().await, Password::new("first"), Vault::with("first"));
    let stand_in = StandIn::to(&server, password.rule());
    let replica = assert_exact(store(stand_in.url()).credentials(vault.ask())).await;
    let asked = vault.asked();

    password.change_to("second");
    vault.change_to("second");
    stand_in.cut();
    until_last(&replica.events, |event| matches!(event, StoreEvent::Regained { .. })).await;
    assert!(vault.asked() > asked);
    assert!(given(&stand_in).last().unwrap().ends_with("limiter second"), "{:?}", given(&stand_in));
    assert!(!replica.check(&organization("acme")).await.is_allowed());
}

#[tokio::test]
async fn an_old_password_is_reported_and_a_new_one_is_used_without_a_restart() {
    let (server, password, vault) =
        (Server::start().await, Password::new("first"), Vault::with("first"));
    let stand_in = StandIn::to(&server, password.rule());
    let replica = assert_exact(store(stand_in.url()).credentials(vault.ask())).await;

    password.change_to("second");
    stand_in.cut();
    until_last(&replica.events, |event| {
        matches!(
            event,
            StoreEvent::Lost { kind: "wrong_password", .. }
                | StoreEvent::StillLost { kind: "wrong_password", .. }
        )
    })
    .await;
    vault.change_to("second");
    until_last(&replica.events, |event| matches!(event, StoreEvent::Regained { .. })).await;
}

#[tokio::test]
async fn credentials_are_renewed_before_they_expire() {
    let (server, password) = (Server::start().await, Password::new("first"));
    let vault = Vault { lifetime: Some(Duration::from_secs(1)), ..Vault::with("first") };
    let stand_in = StandIn::to(&server, password.rule());
    let replica = assert_exact(store(stand_in.url()).credentials(vault.ask())).await;
    let asked = vault.asked();
    until("they are renewed", async || when(vault.asked() > asked + 1, vault.asked())).await;
    // Requests are decided as before, without an event.
    assert!(!replica.check(&organization("acme")).await.is_allowed());
    assert_eq!(replica.events.all(), []);
}

#[tokio::test]
async fn a_callback_that_returns_no_credentials_is_reported() {
    let server = Server::start().await;
    let vault = Vault::default();
    let builder = || store(server.url()).credentials(vault.ask());
    let error = builder().connect().await.unwrap_err();
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    assert!(format!("{error}: {cause}").contains("credentials"), "{error}: {cause}");
    assert!(format!("{error}: {cause}").contains("the vault is sealed"), "{error}: {cause}");

    let make = ["ACL", "SETUSER", "limiter", "on", ">secret", "~*", "+@all"];
    server.command::<()>(&make).await.unwrap();
    let replica = Replica::connect(builder().start_degraded(), slow(10)).await;
    until_last(&replica.events, |event| matches!(event, StoreEvent::Lost { .. })).await;
    vault.change_to("secret");
    until_last(&replica.events, |event| matches!(event, StoreEvent::Regained { .. })).await;
    assert_eq!(replica.check(&organization("acme")).await.remaining(), 9);
}

#[tokio::test]
async fn a_callback_that_does_not_return_ends_with_the_connect_timeout() {
    let server = Server::start().await;
    let error = store(server.url())
        .connect_timeout(Duration::from_millis(200))
        .credentials(pending::<Given>)
        .connect()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("credentials"), "{error}");
    assert_ne!(error.kind(), Kind::Setting);
}

#[tokio::test]
async fn a_callback_that_panics_has_failed() {
    let (server, password, vault) =
        (Server::start().await, Password::new("first"), Vault::with("first"));
    let stand_in = StandIn::to(&server, password.rule());
    let vault = Vault { lifetime: Some(Duration::from_secs(1)), ..vault };
    let replica = assert_exact(store(stand_in.url()).credentials(vault.ask())).await;

    vault.panics.store(true, Ordering::SeqCst);
    let asked = vault.asked();
    until("it is asked again", async || when(vault.asked() > asked + 1, vault.asked())).await;
    // The connection goes on with its old credentials.
    assert_eq!(replica.check(&organization("acme")).await.quota().burst(), 500);

    stand_in.cut();
    until_last(&replica.events, |event| matches!(event, StoreEvent::StillLost { .. })).await;
    vault.panics.store(false, Ordering::SeqCst);
    until_last(&replica.events, |event| matches!(event, StoreEvent::Regained { .. })).await;
    assert_eq!(replica.check(&organization("acme")).await.quota().burst(), 500);
}

#[tokio::test]
async fn credentials_of_any_lifetime_are_used_and_not_asked_for_all_the_time() {
    let (server, password) = (Server::start().await, Password::new("first"));
    let stand_in = StandIn::to(&server, password.rule());
    for lifetime in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
        let vault = Vault { lifetime: Some(lifetime), ..Vault::with("first") };
        let replica =
            Replica::connect(store(stand_in.url()).credentials(vault.ask()), slow(10)).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(vault.asked() <= 3, "{lifetime:?}: {}", vault.asked());
        assert_eq!(replica.events.all(), []);
    }
}

#[tokio::test]
async fn no_text_shows_the_credentials() {
    let credentials = Credentials::new("hemlig").user("limiter");
    assert!(!format!("{credentials:?} {credentials:#?}").contains("hemlig"));
    let server = Server::start().await;
    let builder = store(server.url()).credentials(Vault::with("hemlig").ask());
    assert!(!format!("{builder:?}").contains("hemlig"));
    let error = builder.connect().await.unwrap_err();
    assert_eq!(error.kind(), Kind::WrongPassword);
    assert!(!format!("{error} {error:?} {:?}", error.source()).contains("hemlig"));
}
