//! A store whose type is chosen at run time.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use super::{
    Answer, Breaker, Capabilities, Charge, Checked, Command, DenialCache, LocalFallback,
    MemoryStore, Reply, Store, StoreError, StoreListener, StoreReport,
};
use crate::values::clock::Clock;

/// Any store, behind one type: for a program that chooses its store at run time, such as memory in
/// development and Redis in production.
///
/// An answer that the store gives at once costs one virtual call and no allocation. An answer that
/// comes later, and the reply to a command, are boxed. Clones share the store.
///
/// ```
/// use bolna_rate_limit::store::{AnyStore, MemoryStore};
/// use bolna_rate_limit::{BolnaRateLimitLayer, Limiter, Policy};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let store: AnyStore = match std::env::var("REDIS_URL") {
///     # #[cfg(feature = "redis")]
///     Ok(url) => bolna_rate_limit::store::RedisStore::connect(url).await?.into(),
///     _ => MemoryStore::new().into(),
/// };
/// let limiter = Limiter::with_store(Policy::default(), store)?;
/// let layer = BolnaRateLimitLayer::with_limiter(limiter);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct AnyStore(Arc<dyn Erased>);

impl AnyStore {
    /// Erases the type of `store`. The stores of this crate, and any store in an `Arc`, can be
    /// converted with `into()` as well.
    #[must_use]
    pub fn new(store: impl Store) -> Self {
        Self(Arc::new(store))
    }
}

/// The check of an [`AnyStore`].
type AnyCheck = Pin<Box<dyn Future<Output = Checked> + Send>>;

type AnyReply<'a> = Pin<Box<dyn Future<Output = Result<Reply, StoreError>> + Send + 'a>>;

/// What a [`Store`] can do, without types of its own.
trait Erased: Send + Sync {
    fn check(&self, charge: Charge<'_>) -> Answer<AnyCheck>;
    fn command<'a>(&'a self, command: Command<'a>) -> AnyReply<'a>;
    fn submit(&self, command: Command<'_>) -> Result<(), StoreError>;
    fn capabilities(&self) -> Capabilities;
    fn report(&self) -> StoreReport;
    fn subscribe(&self, listener: StoreListener);
}

impl<St: Store> Erased for St {
    fn check(&self, charge: Charge<'_>) -> Answer<AnyCheck> {
        match Store::check(self, charge) {
            Answer::Now(answer) => Answer::Now(answer),
            Answer::Later(check) => Answer::Later(Box::pin(check)),
        }
    }

    fn command<'a>(&'a self, command: Command<'a>) -> AnyReply<'a> {
        Box::pin(Store::command(self, command))
    }

    fn submit(&self, command: Command<'_>) -> Result<(), StoreError> {
        Store::submit(self, command)
    }

    fn capabilities(&self) -> Capabilities {
        Store::capabilities(self)
    }

    fn report(&self) -> StoreReport {
        Store::report(self)
    }

    fn subscribe(&self, listener: StoreListener) {
        Store::subscribe(self, listener);
    }
}

impl Store for AnyStore {
    type Check = AnyCheck;

    #[inline]
    fn check(&self, charge: Charge<'_>) -> Answer<Self::Check> {
        self.0.check(charge)
    }

    async fn command(&self, command: Command<'_>) -> Result<Reply, StoreError> {
        self.0.command(command).await
    }

    fn submit(&self, command: Command<'_>) -> Result<(), StoreError> {
        self.0.submit(command)
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn report(&self) -> StoreReport {
        self.0.report()
    }

    fn subscribe(&self, listener: StoreListener) {
        self.0.subscribe(listener);
    }
}

// One for each store: an implementation for all stores would be one for `AnyStore` as well, and
// `From` has that one already.
impl<C: Clock> From<MemoryStore<C>> for AnyStore {
    fn from(store: MemoryStore<C>) -> Self {
        Self::new(store)
    }
}

#[cfg(feature = "redis")]
impl From<super::RedisStore> for AnyStore {
    fn from(store: super::RedisStore) -> Self {
        Self::new(store)
    }
}

impl<St: Store, C: Clock> From<Breaker<St, C>> for AnyStore {
    fn from(store: Breaker<St, C>) -> Self {
        Self::new(store)
    }
}

impl<St: Store, C: Clock> From<LocalFallback<St, C>> for AnyStore {
    fn from(store: LocalFallback<St, C>) -> Self {
        Self::new(store)
    }
}

impl<St: Store, C: Clock> From<DenialCache<St, C>> for AnyStore {
    fn from(store: DenialCache<St, C>) -> Self {
        Self::new(store)
    }
}

impl<St: Store> From<Arc<St>> for AnyStore {
    fn from(store: Arc<St>) -> Self {
        Self(store)
    }
}

impl fmt::Debug for AnyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnyStore").finish_non_exhaustive()
    }
}
