//! A server on loopback with one limiter: `tower_governor`, actix-governor, or this crate's own.
//!
//! `KIND` says which, `PORT` where. `LIMIT` requests are admitted in `WINDOW_MS`, with a burst of
//! `BURST`. It ends when its standard input does.

mod actix;
mod bolna;
mod tower;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use std::{io, process, thread};

use foreign::option;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// The rate and the burst of the limiter.
struct Rate {
    limit: u32,
    window: Duration,
    burst: u32,
}

impl Rate {
    /// The time in which one unit comes back.
    fn interval(&self) -> Duration {
        self.window / self.limit
    }
}

fn main() -> Result<(), Error> {
    thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        process::exit(0);
    });
    let limit = option("LIMIT", 1)?;
    let rate = Rate {
        limit,
        window: Duration::from_millis(option("WINDOW_MS", 1000)?),
        burst: option("BURST", limit)?,
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, option("PORT", 0)?));
    match option("KIND", String::new())?.as_str() {
        "tower_governor" => tower::serve(address, &rate, false),
        "tower_governor-headers" => tower::serve(address, &rate, true),
        "actix-governor" => actix::serve(address, &rate, false),
        "actix-governor-headers" => actix::serve(address, &rate, true),
        "bolna" => bolna::serve(address, &rate),
        kind => Err(format!("KIND is {kind:?}: there is no such limiter").into()),
    }
}

/// The runtime of a server whose requests need little.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
