//! A session with a server: a connection that is logged in.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, FromRedisValue, RedisConnectionInfo, RedisError,
};
use tokio::time::Instant;

use super::address::Address;
use super::connect::Connecting;
use super::credentials::Credentials;
use super::error::{RedisStoreError, RedisStoreErrorKind as Kind};
use super::secret::Secret;
use super::stream;

/// The part of the client that reads from the socket and writes to it. It has to be polled for
/// anything to happen.
pub(super) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection that is logged in.
pub(super) struct Session {
    pub(super) commands: MultiplexedConnection,
    pub(super) driver: Driver,
    /// The server, with the login by which its errors are scrubbed.
    pub(super) server: Address,
    /// When to log in again, since the credentials expire.
    pub(super) login_at: Option<Instant>,
}

/// Why a command has no answer.
pub(super) enum Unanswered {
    Error(RedisError),
    Silent(Duration),
}

impl Session {
    /// Opens a connection and logs in, with the credentials of the callback if there is one.
    pub(super) async fn log_in(
        server: Address,
        settings: &Connecting,
    ) -> Result<Self, RedisStoreError> {
        let Some(provider) = &settings.credentials else {
            return Self::open(server, settings).await;
        };
        let failed = |said: &str| {
            let before = "the callback has returned no credentials: ";
            RedisStoreError::quoting(Kind::Credentials, &server, before, said, "")
        };
        match tokio::time::timeout(settings.timeout, provider.call()).await {
            Ok(Ok(credentials)) => {
                let user = credentials.user.as_deref();
                let server = server.with_credentials(user, Some(&credentials.password));
                let session = Self::open(server, settings).await?;
                Ok(Self { login_at: login_at(&credentials), ..session })
            }
            Ok(Err(error)) => Err(failed(&error.to_string())),
            Err(_) => Err(failed("it has not answered within the connect timeout")),
        }
    }

    /// Opens a connection and logs in.
    pub(super) async fn open(
        server: Address,
        settings: &Connecting,
    ) -> Result<Self, RedisStoreError> {
        let within = settings.timeout;
        let opening = async {
            let stream = stream::open(
                &server,
                #[cfg(feature = "redis-tls")]
                &settings.tls,
            )
            .await?;
            // Deadlines are kept here and by the worker, so the client needs none.
            let config = AsyncConnectionConfig::new().set_response_timeout(None);
            // Nothing is sent yet: if the client logged in, its error would not say what the
            // server said. Nor is the name of the client library sent, which is of no use to an
            // operator, and for which the user may lack the permission.
            let nothing = RedisConnectionInfo::default().set_skip_set_lib_name();
            let (commands, driver) =
                MultiplexedConnection::new_with_config(&nothing, stream, config).await?;
            Ok((commands, Box::pin(driver) as Driver))
        };
        let (commands, driver) = match tokio::time::timeout(within, opening).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => return Err(RedisStoreError::of(&server, "", &error)),
            Err(_) => return Err(RedisStoreError::silent(&server, within)),
        };
        let mut session = Self { commands, driver, server, login_at: None };
        session.introduce(within).await?;
        Ok(session)
    }

    /// Sends the user and the password, and chooses the database.
    async fn introduce(&mut self, within: Duration) -> Result<(), RedisStoreError> {
        let login = self.server.login.clone();
        if let Some(password) = &login.password {
            let auth = |user: Option<&str>| {
                let mut auth = redis::cmd("AUTH");
                auth.arg(user).arg(password.expose());
                auth
            };
            let user = login.user.as_ref().map(Secret::expose);
            let mut known = self.query::<()>(&auth(user), within).await;
            // Servers before Redis 6.0 know no users, so only the password is sent.
            if user.is_some() && known.as_ref().is_err_and(Unanswered::knows_no_users) {
                known = self.query(&auth(None), within).await;
            }
            known.map_err(|error| error.of(&self.server, "AUTH"))?;
        }
        if login.database != 0 {
            let mut select = redis::cmd("SELECT");
            select.arg(login.database);
            let selected = self.query::<()>(&select, within).await;
            selected.map_err(|error| error.of(&self.server, "SELECT"))?;
        }
        Ok(())
    }

    /// Sends a command and waits for its answer.
    pub(super) async fn query<T: FromRedisValue>(
        &mut self,
        cmd: &Cmd,
        within: Duration,
    ) -> Result<T, Unanswered> {
        let mut asked = Box::pin(cmd.query_async::<T>(&mut self.commands));
        let driver = &mut self.driver;
        let answered = poll_fn(|cx| {
            if let Poll::Ready(answer) = asked.as_mut().poll(cx) {
                return Poll::Ready(answer);
            }
            let ended = driver.as_mut().poll(cx).is_ready();
            match asked.as_mut().poll(cx) {
                Poll::Pending if ended => {
                    Poll::Ready(Err((ErrorKind::Io, "the connection was closed").into()))
                }
                answer => answer,
            }
        });
        match tokio::time::timeout(within, answered).await {
            Ok(answer) => answer.map_err(Unanswered::Error),
            Err(_) => Err(Unanswered::Silent(within)),
        }
    }
}

impl Unanswered {
    /// The error of the server, which was asked for that command.
    pub(super) fn of(self, server: &Address, asked: &'static str) -> RedisStoreError {
        match self {
            Self::Error(error) => RedisStoreError::of(server, asked, &error),
            Self::Silent(within) => RedisStoreError::silent(server, within),
        }
    }

    /// Whether the server knows passwords, but no users.
    fn knows_no_users(&self) -> bool {
        let Self::Error(error) = self else { return false };
        let said = error.detail().unwrap_or_default().to_lowercase();
        said.contains("wrong number of arguments for 'auth'")
    }

    /// Whether the connection broke.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self, Self::Error(error) if error.kind() == ErrorKind::Io)
    }
}

/// When to log in again: when four fifths of the time have passed. Not at once, since the callback
/// may return credentials that are about to expire, or have expired, again and again.
pub(super) fn login_at(credentials: &Credentials) -> Option<Instant> {
    let wait = (credentials.expires_after? / 5 * 4).max(Duration::from_secs(1));
    // Too late a time is never.
    Instant::now().checked_add(wait)
}
