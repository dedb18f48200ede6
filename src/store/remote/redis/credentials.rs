//! Credentials that change.

use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;

/// A user and a password, for servers whose passwords change: see
/// [`RedisStoreBuilder::credentials`](super::RedisStoreBuilder::credentials).
///
/// ```
/// use std::time::Duration;
/// use bolna_rate_limit::store::Credentials;
///
/// # let token = "secret";
/// let credentials =
///     Credentials::new(token).user("limiter").expires_after(Duration::from_secs(900));
/// ```
#[derive(Clone)]
pub struct Credentials {
    pub(super) user: Option<Arc<str>>,
    pub(super) password: Arc<str>,
    pub(super) expires_after: Option<Duration>,
}

impl Credentials {
    /// A password, without a user.
    #[must_use]
    pub fn new(password: impl Into<Arc<str>>) -> Self {
        Self { user: None, password: password.into(), expires_after: None }
    }

    /// Sets the ACL user.
    #[must_use]
    pub fn user(self, name: impl Into<Arc<str>>) -> Self {
        Self { user: Some(name.into()), ..self }
    }

    /// Sets for how long a connection may go on with these credentials. When four fifths of that
    /// time have passed, but at least a second, the callback is asked again, and the connection
    /// logs in with what it returns. By default a connection keeps its credentials until it breaks.
    #[must_use]
    pub fn expires_after(self, time: Duration) -> Self {
        Self { expires_after: Some(time), ..self }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the user nor the password.
        f.debug_struct("Credentials")
            .field("expires_after", &self.expires_after)
            .finish_non_exhaustive()
    }
}

type Asked =
    Pin<Box<dyn Future<Output = Result<Credentials, Box<dyn Error + Send + Sync>>> + Send>>;

/// The callback that is asked for credentials.
#[derive(Clone)]
pub(super) struct Provider(Arc<dyn Fn() -> Asked + Send + Sync>);

impl Provider {
    pub(super) fn new<F, E>(ask: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Credentials, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        // If the callback panics, it has failed: the task that connects must go on.
        let panicked = |_| "it has panicked";
        Self(Arc::new(move || {
            let asked = catch_unwind(AssertUnwindSafe(&ask));
            Box::pin(async move {
                let asked = AssertUnwindSafe(asked.map_err(panicked)?);
                asked.catch_unwind().await.map_err(panicked)?.map_err(Into::into)
            })
        }))
    }

    pub(super) fn call(&self) -> Asked {
        (self.0)()
    }
}
