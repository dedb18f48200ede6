//! The requests, the callers they come from, and the limit that all competitors are given.

use std::convert::Infallible;
use std::fmt;
use std::future::{Ready, ready};
use std::str;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Request, Response};
use bolna_rate_limit::Account;

pub type Call = Request<Body>;

const PATH: &str = "/v2/agent/5bc97541-e320-4d95-a3a5-242cfe45621d";

/// The service that is limited.
pub fn inner(_: Call) -> Ready<Result<Response<Body>, Infallible>> {
    let mut response = Response::new(Body::empty());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    ready(Ok(response))
}

/// `limit` requests per `period`, and `burst` at once.
#[derive(Clone, Copy)]
pub struct Limit {
    pub limit: u32,
    pub period: Duration,
    pub burst: u32,
}

impl Limit {
    pub fn per_second(limit: u32, burst: u32) -> Self {
        Self { limit, period: Duration::from_secs(1), burst }
    }

    pub fn per_hour(limit: u32, burst: u32) -> Self {
        Self { limit, period: Duration::from_secs(3600), burst }
    }

    /// The time in which one unit comes back.
    pub fn interval(self) -> Duration {
        self.period / self.limit
    }
}

/// The caller's id, as the peers' key: 36 bytes that cost nothing to copy, so that nobody pays for
/// a `String` whose interface does not ask for one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; 36]);

impl Key {
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("an id is ASCII")
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// As text: axum-governor formats the keys of refused requests.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Who calls. Each is known as a [`Key`] to the peers, and as an [`Account`] to bolna-rate-limit.
pub struct Callers(Vec<(Key, Account)>);

impl Callers {
    pub fn new(number: usize) -> Self {
        Self((0..number as u64).map(caller).collect())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// A call from that caller. All competitors get the same request, with what each of them reads
    /// in it.
    pub fn call(&self, caller: usize) -> Call {
        let (key, account) = &self.0[caller];
        let mut request = Request::get(PATH).body(Body::empty()).expect("the path is valid");
        request.extensions_mut().insert(*key);
        request.extensions_mut().insert(account.clone());
        request
    }

    /// All callers in an order of the thread's own.
    pub fn shuffled(&self, thread: usize) -> Vec<usize> {
        let mut order: Vec<_> = (0..self.len()).collect();
        for last in (1..order.len()).rev() {
            let random = scramble((thread as u64) << 32 | last as u64);
            order.swap(last, (random % (last as u64 + 1)) as usize);
        }
        order
    }
}

/// An id in the form of a UUID.
fn caller(number: u64) -> (Key, Account) {
    let (high, low) = (scramble(number), scramble(!number));
    let id = format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    );
    let key = Key(id.as_bytes().try_into().expect("36 bytes"));
    (key, Account::user("u").in_organization(id))
}

/// Spreads numbers over all 64 bits, always in the same way: every run has the same callers in the
/// same order.
fn scramble(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    for _ in 0..3 {
        bits = (bits ^ bits >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    }
    bits ^ bits >> 32
}
