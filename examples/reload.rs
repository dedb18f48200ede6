//! Limits from a file, which is read again when it changes, and on SIGHUP. The new policy is active
//! within two seconds, and units that were spent stay spent, in time. A mistake in the file is
//! printed, and the limits stay as they are.
//!
//! ```sh
//! cp examples/limits.toml /tmp/limits.toml
//! cargo run --example reload --features policy-file -- /tmp/limits.toml
//! # listening on http://127.0.0.1:3004
//! # /tmp/limits.toml is active
//! #   call: 60 requests per minute, 10 at once -> 300 requests per minute, 10 at once
//! # /tmp/limits.toml:13:9: quota of "call": limit is 0, ...; the old limits stay active
//! # /tmp/limits.toml is active
//! #   call: 300 requests per minute, 10 at once -> 60 requests per minute, 10 at once
//! # /tmp/limits.toml is active, with the same limits
//! ```
//!
//! What stands below the first line is printed by and by, while this is done in another terminal:
//!
//! ```sh
//! # 10 at once and then one a second.
//! curl -s -o /dev/null -w '%{http_code}\n' -X POST -H 'Authorization: Bearer ana@acme' \
//!     'http://127.0.0.1:3004/call?[1-20]' | sort | uniq -c
//! # 10 200
//! # 10 429
//!
//! # Raise the limit.
//! sed -i 's/^limit = 60$/limit = 300/' /tmp/limits.toml; sleep 3
//! curl -si -X POST -H 'Authorization: Bearer ana@acme' http://127.0.0.1:3004/call \
//!     | grep ratelimit-policy:
//! # ratelimit-policy: "call";q=10;w=2
//!
//! # Make a mistake: the limit stays 300.
//! sed -i 's/^limit = 300$/limit = 0/' /tmp/limits.toml; sleep 3
//! curl -si -X POST -H 'Authorization: Bearer ana@acme' http://127.0.0.1:3004/call \
//!     | grep ratelimit-policy:
//! # ratelimit-policy: "call";q=10;w=2
//!
//! # Replace the whole file, as editors do. (The file, its folder, and any folder above may also be
//! # links that are switched, as Kubernetes does with config maps.)
//! sed 's/^limit = 0$/limit = 60/' /tmp/limits.toml > /tmp/new.toml
//! mv /tmp/new.toml /tmp/limits.toml
//! sleep 3
//! curl -si -X POST -H 'Authorization: Bearer ana@acme' http://127.0.0.1:3004/call \
//!     | grep ratelimit-policy:
//! # ratelimit-policy: "call";q=10;w=10
//!
//! # Read the file again, whether it has changed or not.
//! kill -HUP "$(pidof reload)"
//! ```

use std::env;
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::header::AUTHORIZATION;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{get, post};
use bolna_rate_limit::policy::PolicyFileError;
use bolna_rate_limit::values::LimitName;
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Enforcement, Limiter, Policy};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{self, Receiver};
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval};

/// How often the file is looked at. Reading a small file takes some microseconds.
const EVERY: Duration = Duration::from_secs(1);

/// A file of limits, which is looked at now and then.
///
/// It polls instead of watching, because a watch would miss changes: an editor or a deployment
/// replaces the file, the file or a folder of its path may be a link that is switched, and some
/// network and container file systems report nothing.
pub(crate) struct LimitsFile {
    path: PathBuf,
    /// The content that was read last. `None` if the file could not be read.
    known: Option<Vec<u8>>,
    /// The content at the last look.
    seen: Option<Vec<u8>>,
}

impl LimitsFile {
    /// The file and its policy.
    pub(crate) fn open(path: impl Into<PathBuf>) -> Result<(Self, Policy), PolicyFileError> {
        let mut file = Self { path: path.into(), known: None, seen: None };
        let policy = file.read()?;
        Ok((file, policy))
    }

    /// Reads the file, whether it has changed or not.
    pub(crate) fn read(&mut self) -> Result<Policy, PolicyFileError> {
        // The content first: if it changes before the policy is read, the next look sees that.
        self.known = fs::read(&self.path).ok();
        self.seen.clone_from(&self.known);
        Policy::read(&self.path)
    }

    /// Reads the file if it has changed and is the same in two looks. While it is being written, it
    /// may be incomplete.
    pub(crate) fn look(&mut self) -> Option<Result<Policy, PolicyFileError>> {
        let content = fs::read(&self.path).ok();
        let is_settled = content == self.seen;
        self.seen = content;
        (is_settled && self.seen != self.known).then(|| self.read())
    }
}

/// Reads the file when it has changed, and at each hangup, and makes its policy the active one.
pub(crate) async fn reload(
    mut file: LimitsFile,
    limiter: Limiter,
    mut hangups: Receiver<()>,
) -> Result<(), JoinError> {
    let mut looks = interval(EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let hangup = tokio::select! {
            Some(()) = hangups.recv() => true,
            _ = looks.tick() => false,
        };
        let look = move || {
            let read = if hangup { Some(file.read()) } else { file.look() };
            (file, read)
        };
        let read;
        (file, read) = spawn_blocking(look).await?;
        match read {
            None => {}
            Some(Ok(policy)) => {
                let changes = changes(&limiter.policy(), &policy);
                match limiter.set_policy(policy) {
                    Ok(()) => println!("{} is active{changes}", file.path.display()),
                    Err(error) => eprintln!("{error}; the old limits stay active"),
                }
            }
            Some(Err(error)) => eprintln!("{error}; the old limits stay active"),
        }
    }
}

/// Receives each SIGHUP.
#[cfg(unix)]
fn hangups() -> io::Result<Receiver<()>> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut signals = signal(SignalKind::hangup())?;
    // If one is already waiting, it is enough.
    let (hangup, hangups) = mpsc::channel(1);
    tokio::spawn(async move {
        while signals.recv().await.is_some() {
            let _ = hangup.try_send(());
        }
    });
    Ok(hangups)
}

#[cfg(not(unix))]
fn hangups() -> io::Result<Receiver<()>> {
    Ok(mpsc::channel(1).1)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let path = env::args().nth(1).unwrap_or_else(|| "examples/limits.toml".to_owned());
    let hangups = hangups()?;
    let (file, policy) = LimitsFile::open(path).map_err(|error| error.to_string())?;
    let limiter = Limiter::new(policy);
    let reloading = tokio::spawn(reload(file, limiter.clone(), hangups));

    let app = Router::new()
        .route("/call", post("queued\n"))
        .route("/search", get("found\n"))
        .route("/healthz", get("ok\n"))
        .layer(BolnaRateLimitLayer::with_limiter(limiter))
        .layer(from_fn(authenticate));
    let listener =
        TcpListener::bind(env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:3004".to_owned()))
            .await?;
    println!("listening on http://{}", listener.local_addr()?);
    tokio::select! {
        served = axum::serve(listener, app) => served?,
        reloaded = reloading => reloaded??,
    }
    Ok(())
}

/// The differences between two policies, limit by limit.
fn changes(old: &Policy, new: &Policy) -> String {
    let names = |policy: &Policy| policy.limits().into_iter().map(|limit| limit.name());
    let added = names(new).filter(|name| old.quota_of(*name).is_none());
    let mut text = String::new();
    for name in names(old).chain(added) {
        let (before, after) = (limit(old, name), limit(new, name));
        if before != after {
            let _ = write!(text, "\n  {name}: {before} -> {after}");
        }
    }
    if text.is_empty() { ", with the same limits".to_owned() } else { text }
}

fn limit(policy: &Policy, name: LimitName) -> String {
    let Some((quota, enforcement)) = policy.quota_of(name).zip(policy.enforcement_of(name)) else {
        return "none".to_owned();
    };
    let mut text = format!("{quota}, {} at once", quota.burst());
    if let Some(cost @ 2..) = policy.cost_of(name) {
        let _ = write!(text, ", {cost} units a request");
    }
    if enforcement != Enforcement::FULL {
        let _ = write!(text, " ({enforcement})");
    }
    text
}

/// A DEMO: it believes any token, `Bearer <user>@<organization>`.
async fn authenticate(mut request: Request, next: Next) -> Response {
    let authorization = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if let Some((user, organization)) =
        authorization.and_then(|text| text.strip_prefix("Bearer ")?.split_once('@'))
    {
        let account = Account::user(user).in_organization(organization);
        request.extensions_mut().insert(account);
    }
    next.run(request).await
}
