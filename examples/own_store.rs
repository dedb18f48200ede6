//! A store of your own: buckets in a file, which survive a restart of the process. The file belongs
//! to [redb](https://docs.rs/redb), an embedded database.
//!
//! ```sh
//! # One caller may make 10 calls an hour, and makes 7.
//! rm -f /tmp/buckets.redb
//! cargo run --example own_store -- /tmp/buckets.redb
//! # 7 of 7 calls were admitted
//! # 3 of 10 are left
//!
//! # The second run goes on where the first one ended.
//! cargo run --example own_store -- /tmp/buckets.redb && rm /tmp/buckets.redb
//! # 3 of 7 calls were admitted
//! # 0 of 10 are left
//! ```

use std::env;
use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bolna_rate_limit::store::{
    Answer, BucketState, Capabilities, Charge, Checked, Command, Entry, Reply, Store, StoreError,
};
use bolna_rate_limit::{Account, Endpoint, Limiter, Policy, Quota, Ruling};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

/// The times of each bucket: when it is full, when its overdraft is repaid and when its block ends,
/// in nanoseconds since 1970.
const BUCKETS: TableDefinition<'_, &str, (u64, u64, u64)> = TableDefinition::new("buckets");

/// Keeps the buckets in a file, for one process.
#[derive(Clone)]
struct FileStore {
    database: Arc<Database>,
}

impl FileStore {
    fn open(path: &str) -> Result<Self, redb::Error> {
        let database = Database::create(path)?;
        let transaction = database.begin_write()?;
        transaction.open_table(BUCKETS)?;
        transaction.commit()?;
        Ok(Self { database: Arc::new(database) })
    }

    /// Changes the states of some buckets in one transaction.
    fn change<R>(
        &self,
        keys: &[String],
        change: impl FnOnce(&mut [BucketState]) -> R,
    ) -> Result<R, redb::Error> {
        let mut transaction = self.database.begin_write()?;
        // Kept in memory until the database is closed, so that a request does not wait for the
        // disk, which takes milliseconds. A crash of the process loses what was charged since the
        // start. A store for production commits with `Durability::Immediate` now and then.
        transaction.set_durability(Durability::None)?;
        let mut buckets = transaction.open_table(BUCKETS)?;
        let now = now();
        let mut states = Vec::new();
        for key in keys {
            let times = buckets.get(key.as_str())?.map(|kept| kept.value());
            states.push(times.map_or_else(BucketState::default, |times| state(times, now)));
        }
        let result = change(&mut states);
        for (key, state) in keys.iter().zip(states) {
            if state == BucketState::default() {
                buckets.remove(key.as_str())?;
            } else {
                let until = |left: Duration| now.saturating_add(nanos(left));
                let times =
                    (until(state.until_full()), until(state.overdraft()), until(state.blocked()));
                buckets.insert(key.as_str(), times)?;
            }
        }
        drop(buckets);
        transaction.commit()?;
        Ok(result)
    }

    /// Reads the states of some buckets.
    fn look(&self, keys: &[String]) -> Result<Vec<BucketState>, redb::Error> {
        let buckets = self.database.begin_read()?.open_table(BUCKETS)?;
        let now = now();
        let look = |key: &String| {
            let times = buckets.get(key.as_str())?.map(|kept| kept.value());
            Ok(times.map_or_else(BucketState::default, |times| state(times, now)))
        };
        keys.iter().map(look).collect()
    }
}

/// The state of a bucket at the time `now`, from the times that the file holds.
fn state((full, repaid, unblocked): (u64, u64, u64), now: u64) -> BucketState {
    let left = |until: u64| Duration::from_nanos(until.saturating_sub(now));
    BucketState::default()
        .full_after(left(full))
        .overdrawn(left(repaid))
        .blocked_for(left(unblocked))
}

/// The keys of a charge's buckets. No two buckets are displayed alike.
fn keys(charge: &Charge<'_>) -> Vec<String> {
    charge.buckets().map(|bucket| bucket.to_string()).collect()
}

impl Store for FileStore {
    type Check = Pin<Box<dyn Future<Output = Checked> + Send>>;

    fn check(&self, charge: Charge<'_>) -> Answer<Self::Check> {
        let (store, keys) = (self.clone(), keys(&charge));
        let (principal, user) = (charge.principal().clone(), charge.user().cloned());
        let entries: Vec<Entry> = charge.entries().to_vec();
        // The database blocks, so it must not be called on a thread that drives other requests.
        let check = tokio::task::spawn_blocking(move || {
            let charge = match &user {
                Some(user) => Charge::with_user(&principal, user, &entries),
                None => Charge::new(&principal, &entries),
            };
            let charge = charge.map_err(StoreError::of_request)?;
            store.change(&keys, |states| charge.apply(states)).map_err(StoreError::new)
        });
        Answer::Later(Box::pin(async { check.await.map_err(StoreError::new)? }))
    }

    /// Blocks the thread for some microseconds, which is no harm for an operator's rare commands. A
    /// program that settles or refunds for every request should use `spawn_blocking` here too.
    async fn command(&self, command: Command<'_>) -> Result<Reply, StoreError> {
        let done = match command {
            Command::Peek(charge) => {
                let mut states = self.look(&keys(&charge)).map_err(StoreError::new)?;
                return Ok(Reply::Decisions(charge.peek(&mut states)));
            }
            Command::Refund(charge) => self.change(&keys(&charge), |states| charge.refund(states)),
            Command::Settle(charge) => self.change(&keys(&charge), |states| charge.settle(states)),
            Command::Reset(bucket) => {
                self.change(&[bucket.to_string()], |states| states.fill_with(Default::default))
            }
            Command::Block { bucket, period, .. } => self.change(&[bucket.to_string()], |states| {
                for state in states {
                    *state = state.blocked_for(period);
                }
            }),
            unknown => return Err(StoreError::unsupported(&unknown)),
        };
        done.map(|()| Reply::Done).map_err(StoreError::new)
    }

    /// All that `Charge::apply` can do.
    fn capabilities(&self) -> Capabilities {
        let mut all = Capabilities::default();
        all.entries = Charge::MAX_ENTRIES;
        (all.costs, all.shadow, all.settle) = (true, true, true);
        (all.users, all.everyone) = (true, true);
        all
    }
}

fn now() -> u64 {
    nanos(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn limiter(path: &str) -> Result<Limiter<FileStore>, Box<dyn Error>> {
    let policy = Policy::bolna().quota("call", Quota::per_hour(10)).build()?;
    Ok(Limiter::with_store(policy, FileStore::open(path)?)?)
}

/// How many of that many calls are admitted.
async fn call(limiter: &Limiter<FileStore>, calls: u32) -> Result<u32, Box<dyn Error>> {
    let caller = Account::user("u-17").in_organization("org-4");
    let mut admitted = 0;
    for _ in 0..calls {
        if let Some(check) = limiter.check(&caller, "/call") {
            admitted += u32::from(check.await?.is_admitted());
        }
    }
    Ok(admitted)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let path = env::args().nth(1).ok_or("usage: own_store FILE")?;
    let limiter = limiter(&path)?;
    let admitted = call(&limiter, 7).await?;
    println!("{admitted} of 7 calls were admitted");
    let caller = Account::user("u-17").in_organization("org-4");
    let looked = limiter.peek(caller, Endpoint::CALL).await?;
    if let Some(left) = looked.as_ref().and_then(Ruling::decision) {
        println!("{} of 10 are left", left.remaining());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct File(std::path::PathBuf);

    impl File {
        fn new(name: &str) -> Self {
            let name = format!("own-store-{name}-{}.redb", std::process::id());
            Self(env::temp_dir().join(name))
        }

        fn path(&self) -> &str {
            self.0.to_str().expect("the name is plain")
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[tokio::test]
    async fn what_was_spent_stays_spent_after_a_restart() -> Result<(), Box<dyn Error>> {
        let file = File::new("restart");
        assert_eq!(call(&limiter(file.path())?, 7).await?, 7);
        assert_eq!(call(&limiter(file.path())?, 7).await?, 3);
        Ok(())
    }

    #[tokio::test]
    async fn operators_can_look_refund_reset_and_block() -> Result<(), Box<dyn Error>> {
        let file = File::new("operators");
        let (limiter, who) =
            (limiter(file.path())?, Account::user("u-17").in_organization("org-4"));
        let left = async || {
            let looked = limiter.peek(&who, Endpoint::CALL).await;
            looked.map(|looked| looked.and_then(|ruling| Some(ruling.decision()?.remaining())))
        };
        assert_eq!(call(&limiter, 20).await?, 10);
        limiter.refund(&who, Endpoint::CALL, 4).await?;
        assert_eq!(left().await?, Some(4));
        limiter.block(&who, Endpoint::CALL, Duration::from_secs(3600)).await?;
        assert_eq!(call(&limiter, 1).await?, 0);
        limiter.reset(&who, Endpoint::CALL).await?;
        assert_eq!(left().await?, Some(10));
        Ok(())
    }
}
