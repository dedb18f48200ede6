//! Limits from a file, which is read again when it changes, and on SIGHUP. The new policy is active
//! at once, and units that were spent stay spent, in time. A mistake in the file is printed, and
//! the limits stay as they are.
//!
//! ```text
//! cargo run --example reload --features policy-file -- examples/limits.toml
//! ```
//!
//! Then, in another terminal:
//!
//! ```text
//! # traffic until you stop it: 10 at once and then one a second are answered 200, the rest 429
//! while sleep 0.1; do
//!     curl -s -o /dev/null -w '%{http_code} ' -X POST -H 'Authorization: Bearer ana@acme' \
//!         http://127.0.0.1:3004/call
//! done
//! ```
//!
//! And in a third one:
//!
//! ```text
//! # raise the limit, and see
//! # `call: 60 requests per minute, 10 at once -> 300 requests per minute, 10 at once`
//! sed -i 's/^limit = 60$/limit = 300/' examples/limits.toml
//!
//! # make a mistake, and see
//! # `examples/limits.toml:13:9: quota of endpoint "call": limit is 0, which ...`;
//! # the limit stays 300
//! sed -i 's/^limit = 300$/limit = 0/' examples/limits.toml
//!
//! # replace the whole file, as editors and Kubernetes do
//! sed 's/^limit = 0$/limit = 60/' examples/limits.toml > /tmp/limits.toml \
//!     && mv /tmp/limits.toml examples/limits.toml
//!
//! # read the file again, whether it has changed or not
//! kill -HUP "$(pidof reload)"
//! ```

use std::env;
use std::error::Error;
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::header::AUTHORIZATION;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{get, post};
use bolna_rate_limit::values::LimitName;
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Enforcement, Limiter, Policy};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::sleep;

/// How long to wait, after a change, for the writer to finish.
const SETTLED: Duration = Duration::from_millis(200);

/// Reads the file each time that it may have changed, and makes its policy the active one.
async fn reload(path: PathBuf, limiter: Limiter, mut wakes: Receiver<()>) -> Result<(), JoinError> {
    while wakes.recv().await.is_some() {
        // One change causes several events, and the first of them comes before the last byte is
        // written.
        sleep(SETTLED).await;
        while wakes.try_recv().is_ok() {}

        let read = path.clone();
        match spawn_blocking(move || Policy::read(read)).await? {
            Ok(policy) => {
                let changes = changes(&limiter.policy(), &policy);
                match limiter.set_policy(policy) {
                    Ok(()) => println!("{} is active{changes}", path.display()),
                    Err(error) => eprintln!("{error}; the old limits stay active"),
                }
            }
            Err(error) => eprintln!("{error}; the old limits stay active"),
        }
    }
    Ok(())
}

/// Wakes the reloader when the file changes, for as long as the watcher lives.
fn watch(path: &Path, wake: Sender<()>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // Reading the file is an event too, and so is our own reading. If a wake-up is already
        // waiting, it is enough.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            let _ = wake.try_send(());
        }
    })?;
    // Watch the folder, because a file that is replaced is another file. In a Kubernetes config map
    // the file is a link to a link, and the latter is replaced, under another name. So every change
    // in the folder counts.
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// Wakes the reloader on SIGHUP.
#[cfg(unix)]
fn on_hangup(wake: Sender<()>) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut hangups = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            let _ = wake.try_send(());
        }
    });
    Ok(())
}

#[cfg(not(unix))]
fn on_hangup(_: Sender<()>) -> io::Result<()> {
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let path =
        PathBuf::from(env::args().nth(1).unwrap_or_else(|| "examples/limits.toml".to_owned()));
    // Watch the file before reading it, so that no change is missed in between.
    let (wake, wakes) = mpsc::channel(1);
    on_hangup(wake.clone())?;
    let _watcher = watch(&path, wake)?;
    let limiter = Limiter::new(Policy::read(&path).map_err(|error| error.to_string())?);
    let reloading = tokio::spawn(reload(path, limiter.clone(), wakes));

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
