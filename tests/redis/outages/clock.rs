//! A server whose clock is set.

use std::time::{Duration, Instant};

use bolna_rate_limit::store::RedisStore;
use bolna_rate_limit::{Account, Limiter, Policy, Quota};

use super::Build;
use crate::servers::{ClockAhead, Server, StandIn};

/// Units come back at this rate.
pub(crate) const A_SECOND: u32 = 200;

/// How many units a caller gets who takes all it can get, in the second after the server's clock is
/// set by so many microseconds, and in the two seconds after that.
pub(crate) async fn step(build: Build, micros: i64) -> [u32; 2] {
    let server = Server::start().await;
    let clock = ClockAhead::default();
    let stand_in = StandIn::to(&server, clock.rule());
    let store = build(&stand_in.url()).connect().await.unwrap();
    let quota = Quota::per_second(A_SECOND).burst(100);
    let policy = Policy::builder().default_quota(quota).build().unwrap();
    let limiter =
        Limiter::with_store(policy, store).expect("the store can do what the policy asks for");
    take_for(&limiter, Duration::from_secs(1)).await;
    clock.step(micros);
    let first = take_for(&limiter, Duration::from_secs(1)).await;
    [first, take_for(&limiter, Duration::from_secs(2)).await]
}

async fn take_for(limiter: &Limiter<RedisStore>, time: Duration) -> u32 {
    let (account, began, mut admitted) = (Account::user("drained"), Instant::now(), 0);
    while began.elapsed() < time {
        let ruling = limiter.check(&account, "/").unwrap().wait().await.unwrap();
        if ruling.is_admitted() {
            admitted += 1;
        } else {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    admitted
}
