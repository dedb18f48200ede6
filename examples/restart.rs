//! Limits in this process that survive a restart. On SIGTERM or Ctrl-C the server answers the
//! requests that it has, and writes what each bucket owes to a file. The next process reads it.
//!
//! ```sh
//! SNAPSHOT=/tmp/limits.snapshot cargo run --example restart
//! # restored 0 buckets
//! # listening on http://127.0.0.1:3000
//! # saved 1 buckets
//! ```
//!
//! `SNAPSHOT` (default `limits.snapshot`) and `LISTEN` (default `127.0.0.1:3000`) set another file
//! and address. Then, in another terminal:
//!
//! ```sh
//! # 510 at once: 429 for the last of them.
//! curl -s -o /dev/null -w '%{http_code}\n' -X POST -H 'Authorization: Bearer ana@acme' \
//!     'http://127.0.0.1:3000/call?[1-510]' | sort | uniq -c
//! # ~500 200
//! # ...
//! ```
//!
//! Stop the server with Ctrl-C, and start it again:
//!
//! ```sh
//! SNAPSHOT=/tmp/limits.snapshot cargo run --example restart
//! # restored 1 buckets
//! # listening on http://127.0.0.1:3000
//! ```
//!
//! Only the units of the time that has passed have come back, one every 120 ms. After a start
//! without the file 499 would be left:
//!
//! ```sh
//! curl -si -X POST -H 'Authorization: Bearer ana@acme' http://127.0.0.1:3000/call \
//!     | grep ratelimit:
//! # ratelimit: "call";r=...;t=...
//! ```

use std::error::Error;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
#[cfg(unix)]
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{env, io};

use axum::Router;
use axum::extract::Request;
use axum::http::header::AUTHORIZATION;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::post;
use bolna_rate_limit::store::{MemoryStore, Snapshot};
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Limiter, Policy};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::sleep;

/// How long requests are waited for at the end.
const GRACE: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let path = env::var("SNAPSHOT").unwrap_or_else(|_| "limits.snapshot".to_owned());
    let listen = env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:3000".to_owned());
    serve(&listen, Path::new(&path)).await
}

pub(crate) async fn serve(listen: &str, path: &Path) -> Result<(), Box<dyn Error>> {
    // First of all: ids that are made before have fingerprints of another key, and each request
    // would take a little longer.
    let limiter = Limiter::with_store(Policy::default(), restored_store(path)?)?;
    // A file that can't be written is a mistake that should be seen now, and not at the end.
    save(&limiter.store().snapshot(), path)?;
    let app = Router::new()
        .route("/call", post("queued\n"))
        .layer(BolnaRateLimitLayer::with_limiter(limiter.clone()))
        .layer(from_fn(authenticate));

    // Before the server can be reached: a signal that comes earlier would end it without a file.
    let signal = signal()?;
    let listener = TcpListener::bind(listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let stopping = Arc::new(Notify::new());
    let is_stopping = Arc::clone(&stopping);
    let server = axum::serve(listener, app).with_graceful_shutdown(async move {
        signal.await;
        is_stopping.notify_one();
    });
    tokio::select! {
        served = server.into_future() => served?,
        // A client that never ends its request must not keep the snapshot from being saved.
        () = async { stopping.notified().await; sleep(GRACE).await } => {}
    }

    // A process that is killed does not get here: if that matters, save a snapshot every minute,
    // too.
    save(&limiter.store().snapshot(), path)?;
    println!("saved {} buckets", limiter.store().len());
    Ok(())
}

/// A store with what the last process has left, or an empty one.
fn restored_store(path: &Path) -> io::Result<MemoryStore> {
    let mut store = MemoryStore::new();
    match restore(&mut store, path) {
        Ok(()) => println!("restored {} buckets", store.len()),
        // Full buckets for all callers are better than no service. The store is as it was. The file
        // is kept, since a later release may have written it.
        Err(error) => {
            eprintln!("nothing is restored from {}: {error}", path.display());
            fs::rename(path, beside(path, ".unread"))?;
        }
    }
    Ok(store)
}

fn restore(store: &mut MemoryStore, path: &Path) -> Result<(), Box<dyn Error>> {
    let bytes = match fs::read(path) {
        // The first start.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        bytes => bytes?,
    };
    Ok(store.restore(&Snapshot::from_bytes(bytes)?)?)
}

/// Writes a snapshot so that the file is always a whole one, and so that only the user of this
/// process can read it: there is a key in it.
fn save(snapshot: &Snapshot, path: &Path) -> io::Result<()> {
    let new = beside(path, ".new");
    // A file that was left there may have other permissions.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    options.mode(0o600);
    let mut file = options.open(&new)?;
    file.write_all(snapshot.as_bytes())?;
    // Before the file takes the place of the former one, its contents have to be on the disk.
    file.sync_all()?;
    fs::rename(new, path)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

/// Waits for SIGTERM or Ctrl-C. Both are caught from the call on, not only from the first poll on.
#[cfg(unix)]
fn signal() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

/// Waits for Ctrl-C.
#[cfg(windows)]
fn signal() -> io::Result<impl Future<Output = ()>> {
    let mut interrupted = tokio::signal::windows::ctrl_c()?;
    Ok(async move {
        interrupted.recv().await;
    })
}

/// A DEMO: it believes any token, `<user>@<organization>`. In your application, look the API key up
/// and insert the account that the key belongs to.
async fn authenticate(mut request: Request, next: Next) -> Response {
    let token = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let named = token.and_then(|token| token.strip_prefix("Bearer ")?.split_once('@'));
    if let Some((user, organization)) = named {
        let account = Account::user(user).in_organization(organization);
        request.extensions_mut().insert(account);
    }
    next.run(request).await
}
