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
        match tokio::time::timeout(settings.timeout, provider.ask()).await {
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
            let login = login(&server);
            let (commands, driver) =
                MultiplexedConnection::new_with_config(&login, stream, config).await?;
            Ok((commands, Box::pin(driver) as Driver))
        };
        match tokio::time::timeout(within, opening).await {
            Ok(Ok((commands, driver))) => Ok(Self { commands, driver, server, login_at: None }),
            Ok(Err(error)) => Err(RedisStoreError::of(&server, "", &error)),
            Err(_) => Err(RedisStoreError::silent(&server, within)),
        }
    }

    /// Sends a command and waits for its answer.
    pub(super) async fn ask<T: FromRedisValue>(
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

    /// Whether the connection broke.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self, Self::Error(error) if error.kind() == ErrorKind::Io)
    }
}

/// When to log in again: when four fifths of the time have passed.
pub(super) fn login_at(credentials: &Credentials) -> Option<Instant> {
    credentials.expires_after.map(|time| Instant::now() + time * 4 / 5)
}

fn login(server: &Address) -> RedisConnectionInfo {
    // Do not send the name of the client library: it is of no use to an operator, and the user may
    // lack the permission.
    let mut login =
        RedisConnectionInfo::default().set_db(server.login.database).set_skip_set_lib_name();
    if let Some(user) = &server.login.user {
        login = login.set_username(user.expose());
    }
    if let Some(password) = &server.login.password {
        login = login.set_password(password.expose());
    }
    login
}
