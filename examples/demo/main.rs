//! A demonstration to look at: an API with Bolna's limits, an attacker that hammers it, a customer
//! that paces itself, and a page that shows live what happens to both.
//!
//! ```sh
//! cargo run --example demo --features client
//! # the API is at http://127.0.0.1:3001/
//! # listening on http://127.0.0.1:3000/
//! ```
//!
//! Then open the last address, <http://127.0.0.1:3000/> unless that port is taken or `LISTEN` names
//! another address. The page has buttons to stop the attacker, to let the limiter only watch
//! (shadow) instead of refusing, and to change the limit of calls while requests run. Its counts
//! and buckets come from the limiter: an observer, `Limiter::usage` and `Limiter::peek`.
//!
//! You can call the API yourself, at the address that the example prints. The page shows it:
//!
//! ```sh
//! curl -i -X POST -H 'Authorization: Bearer you' http://127.0.0.1:3001/call
//! # HTTP/1.1 200 OK
//! # ...
//! ```
//!
//! | file | what is in it |
//! |---|---|
//! | `api.rs` | the API behind the limiter: what your application would have |
//! | `traffic.rs` | the attacker, and the customer with the client of this crate |
//! | `tally.rs` | the observer, and what the page shows of the last minute |
//! | `page.rs` | the page, its numbers as JSON, and its buttons |

mod api;
mod page;
mod tally;
mod traffic;

use std::env;
use std::error::Error;
use std::io::ErrorKind;
use std::sync::Arc;

use bolna_rate_limit::Limiter;
use tokio::net::TcpListener;

use tally::Tally;
use traffic::Traffic;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let limiter = Limiter::new(api::policy(api::CALLS_A_MINUTE)?);
    let tally = Arc::new(Tally::default());
    limiter.observe(Arc::clone(&tally));

    let listen = env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:3000".to_owned());
    let page = listener(&listen).await?;
    let api = listener("127.0.0.1:3001").await?;
    let (page_address, api_address) = (page.local_addr()?, api.local_addr()?);

    let traffic = Traffic::start(api_address, &tally)?;
    tokio::spawn(tally::sample(Arc::clone(&tally)));
    let demo = page::Demo { limiter: limiter.clone(), tally, traffic, api: api_address };
    println!("the API is at http://{api_address}/");
    println!("listening on http://{page_address}/");
    tokio::try_join!(async { axum::serve(api, api::router(limiter)).await }, async {
        axum::serve(page, page::router(demo)).await
    })?;
    Ok(())
}

/// Listens there, or on a free port if another program has that one.
async fn listener(address: &str) -> Result<TcpListener, String> {
    let error = match TcpListener::bind(address).await {
        Ok(listener) => return Ok(listener),
        Err(error) => error,
    };
    if let (ErrorKind::AddrInUse, Some((host, _))) = (error.kind(), address.rsplit_once(':')) {
        if let Ok(listener) = TcpListener::bind(format!("{host}:0")).await {
            return Ok(listener);
        }
    }
    Err(format!(
        "can't listen on {address:?}: {error}; \
         name an address of this machine and a port, such as 127.0.0.1:3000"
    ))
}
