//! Which servers there are, and how to log in to them.

mod parse;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::Ipv6Addr;
use std::sync::Arc;

use super::error::RedisStoreError;
use super::secret::{Secret, scrub};

/// One server, the Sentinels that know it, or nodes of a cluster. Neither list is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Servers {
    One(Address),
    Sentinels(Sentinels),
    Cluster(Vec<Address>),
}

impl Servers {
    /// Reads `redis://`, `rediss://`, `unix://` and their like,
    /// `redis+sentinel://host,host/service/0` and `redis+cluster://host,host`.
    pub(super) fn parse(address: &str) -> Result<Self, RedisStoreError> {
        parse::servers(address)
    }

    /// Reads the addresses of Sentinels, one each.
    pub(super) fn sentinels(
        service: &str,
        addresses: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Self, RedisStoreError> {
        parse::sentinels(service, addresses)
    }

    /// Reads the addresses of nodes of a cluster, one each.
    pub(super) fn cluster(
        addresses: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Self, RedisStoreError> {
        parse::cluster(addresses)
    }

    /// Replaces the user, the password and the database of the servers, as far as they are given.
    /// Those of Sentinels stay as they are.
    pub(super) fn with(
        mut self,
        user: Option<&str>,
        password: Option<&str>,
        database: Option<u32>,
    ) -> Result<Self, RedisStoreError> {
        let logins: Vec<&mut Login> = match &mut self {
            Self::One(server) => vec![&mut server.login],
            Self::Sentinels(sentinels) => vec![&mut sentinels.login],
            Self::Cluster(nodes) => {
                if database.is_some_and(|number| number != 0) {
                    return Err(RedisStoreError::setting("a cluster", parse::ONE_DATABASE));
                }
                nodes.iter_mut().map(|node| &mut node.login).collect()
            }
        };
        for login in logins {
            if let Some(user) = user {
                login.user = secret(user);
            }
            if let Some(password) = password {
                login.password = secret(password);
            }
            if let Some(database) = database {
                login.database = i64::from(database);
            }
        }
        Ok(self)
    }
}

impl Servers {
    /// Whether any of the servers, or of the Sentinels, is reached over TLS.
    #[cfg(feature = "redis-tls")]
    pub(super) fn use_tls(&self) -> bool {
        match self {
            Self::One(server) => server.tls,
            Self::Sentinels(sentinels) => {
                sentinels.tls || sentinels.nodes.iter().any(|node| node.tls)
            }
            Self::Cluster(nodes) => nodes.iter().any(|node| node.tls),
        }
    }
}

/// The Sentinels to ask, the service to ask for, and how to connect to its primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sentinels {
    pub(super) service: String,
    /// The Sentinels, with a user of their own or none.
    pub(super) nodes: Vec<Address>,
    /// Whether the primary is reached over TLS.
    pub(super) tls: bool,
    /// How to log in to the primary.
    pub(super) login: Login,
}

impl Sentinels {
    /// The primary, which the Sentinel `node` says is there; `None` if that is no host.
    pub(super) fn primary(&self, node: &Address, host: &str, port: u16) -> Option<Address> {
        let place = Place::told(host, port)?;
        Some(Address::new(place, self.tls, self.login.clone()).scrubbed_by(&node.login))
    }
}

impl fmt::Display for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the primary {}", self.service)
    }
}

/// Where a server is, and how to log in to it. Only [its name](Self::name) is shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) place: Place,
    pub(super) tls: bool,
    pub(super) login: Login,
    /// The place as it is shown. If a server has named a secret as a host, the secret is hidden.
    name: Arc<str>,
}

impl Address {
    fn new(place: Place, tls: bool, login: Login) -> Self {
        Self { name: place.text().into(), place, tls, login }
    }

    fn scrubbed_by(self, teller: &Login) -> Self {
        let hide = |name: &str, login: &Login| scrub(name, None, login.password.as_ref());
        let name = hide(&hide(&self.name, teller), &self.login).into();
        Self { name, ..self }
    }

    /// The host and the port, or the path of the socket.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Another node of the same cluster, which this one says is there; `None` if that is no host.
    pub(super) fn at(&self, host: &str, port: u16) -> Option<Self> {
        let place = Place::told(host, port)?;
        Some(Self::new(place, self.tls, self.login.clone()).scrubbed_by(&self.login))
    }

    /// As [`at`](Self::at), from a text such as `host:port`. Without a host it is this node's own.
    pub(super) fn at_told(&self, told: &str) -> Option<Self> {
        let (host, port) = told.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = match &self.place {
            Place::Tcp { host: own, .. } if matches!(host, "" | "?") => own,
            _ => host,
        };
        self.at(host, port.parse().ok()?)
    }

    /// The same server with another user and password.
    pub(super) fn with_credentials(&self, user: Option<&str>, password: Option<&str>) -> Self {
        let login = Login {
            user: user.and_then(secret),
            password: password.and_then(secret),
            database: self.login.database,
        };
        Self { login, ..self.clone() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address")
            .field("name", &self.name)
            .field("tls", &self.tls)
            .field("login", &self.login)
            .finish_non_exhaustive()
    }
}

/// Where a server is. It is shown as the [name](Address::name) of an address.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Place {
    /// A name or an IP address, without brackets, and a port.
    Tcp { host: String, port: u16 },
    /// The path of a Unix socket.
    Socket(String),
}

impl Place {
    /// The place that a server tells.
    fn told(host: &str, port: u16) -> Option<Self> {
        (port != 0 && is_host(host)).then(|| Self::Tcp { host: host.to_owned(), port })
    }

    fn text(&self) -> String {
        match self {
            Self::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tcp { host, port } => format!("{host}:{port}"),
            Self::Socket(path) => path.clone(),
        }
    }
}

/// Whether it is an IP address without brackets, or a name in ASCII.
fn is_host(host: &str) -> bool {
    let is_name = |host: &str| {
        let is_in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        !host.is_empty() && host.bytes().all(is_in_name)
    };
    is_name(host) || host.parse::<Ipv6Addr>().is_ok()
}

/// The user, the password and the database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) user: Option<Secret>,
    pub(super) password: Option<Secret>,
    pub(super) database: i64,
}

impl Login {
    /// What a server said, in one line and without the user and the password.
    pub(super) fn scrub(&self, said: &str) -> String {
        scrub(said, self.user.as_ref(), self.password.as_ref())
    }
}

/// An empty user or password is none.
fn secret(text: &str) -> Option<Secret> {
    (!text.is_empty()).then(|| Secret::new(text))
}
