//! The addresses of servers, as an operator writes them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use redis::{ConnectionInfo, IntoConnectionInfo};

use super::error::{RedisStoreError, RedisStoreErrorKind as Kind};
use super::sentinel::Sentinels;

/// One server, the Sentinels that know it, or nodes of a cluster. Neither list is empty.
#[derive(Clone)]
pub(super) enum Servers {
    One(ConnectionInfo),
    Sentinels(Sentinels),
    #[cfg(feature = "redis-cluster")]
    Cluster(Vec<ConnectionInfo>),
}

impl Servers {
    /// Changes the address of every server, and that of every Sentinel.
    pub(super) fn try_map(
        self,
        server: impl Fn(ConnectionInfo) -> Result<ConnectionInfo, RedisStoreError>,
        sentinel: impl Fn(ConnectionInfo) -> Result<ConnectionInfo, RedisStoreError>,
    ) -> Result<Self, RedisStoreError> {
        Ok(match self {
            Self::One(info) => Self::One(server(info)?),
            Self::Sentinels(Sentinels { service, nodes, server: primary }) => {
                Self::Sentinels(Sentinels {
                    service,
                    nodes: nodes.into_iter().map(sentinel).collect::<Result<_, _>>()?,
                    server: server(primary)?,
                })
            }
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(nodes) => {
                Self::Cluster(nodes.into_iter().map(server).collect::<Result<_, _>>()?)
            }
        })
    }
}

/// How the store finds the address of a server, each time it connects.
#[derive(Clone)]
pub(super) enum Route {
    Fixed(Box<ConnectionInfo>),
    Sentinels(Arc<Sentinels>),
}

impl Route {
    pub(super) async fn find(&self, within: Duration) -> Result<ConnectionInfo, RedisStoreError> {
        match self {
            Self::Fixed(info) => Ok((**info).clone()),
            Self::Sentinels(sentinels) => sentinels.primary(within).await,
        }
    }

    /// The address that the route leads to now, if it is not that of `server`. Different numbers
    /// ask different Sentinels first.
    pub(super) async fn leads_elsewhere(
        &self,
        server: &str,
        number: usize,
        within: Duration,
    ) -> Option<String> {
        match self {
            Self::Fixed(_) => None,
            Self::Sentinels(sentinels) => sentinels.successor_of(server, number, within).await,
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(info) => info.addr().fmt(f),
            Self::Sentinels(sentinels) => write!(f, "the primary {}", sentinels.service),
        }
    }
}

/// Reads `redis://`, `rediss://` and their like, `redis+sentinel://host,host/service/database` and
/// `redis+cluster://host,host`, with an `s` after `redis` for TLS.
pub(super) fn parse(url: &str) -> Result<Servers, RedisStoreError> {
    let (scheme, rest) =
        url.split_once("://").ok_or_else(|| wrong(url, "it has no scheme such as redis://"))?;
    let (base, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
    match kind {
        "sentinel" => {
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            let (service, database) = path.split_once('/').unwrap_or((path, ""));
            let service = percent_decode_str(service).decode_utf8_lossy();
            if service.is_empty() {
                return Err(wrong(
                    url,
                    "it does not name the service that the Sentinels watch: add /<service>",
                ));
            }
            if path.contains('@') {
                return Err(wrong(url, "a / in the user or the password has to be written %2F"));
            }
            let (credentials, hosts) = split(url, authority)?;
            let nodes =
                hosts.split(',').map(|host| node(&format!("{base}://{}", with_port(host, 26379))));
            let at = if credentials.is_empty() { "" } else { "@" };
            // The host is a placeholder: the Sentinels name the real one.
            let server = node(&format!("{base}://{credentials}{at}localhost/{database}"))?;
            Ok(Servers::Sentinels(Sentinels {
                service: service.into_owned(),
                nodes: nodes.collect::<Result<_, _>>()?,
                server,
            }))
        }
        "cluster" => {
            let authority = rest.trim_end_matches('/');
            let (credentials, hosts) = split(url, authority)?;
            let at = if credentials.is_empty() { "" } else { "@" };
            cluster(hosts.split(',').map(|host| format!("{base}://{credentials}{at}{host}")))
        }
        _ => node(url).map(Servers::One),
    }
}

/// Splits `user:password@hosts` into the user with the password, and the hosts.
fn split<'a>(url: &str, authority: &'a str) -> Result<(&'a str, &'a str), RedisStoreError> {
    match authority.rsplit_once('@') {
        Some((credentials, _)) if credentials.contains('@') => Err(wrong(
            url,
            "there is one user for all hosts, and a @ in the user or the password has to be \
             written %40",
        )),
        Some(parts) => Ok(parts),
        None => Ok(("", authority)),
    }
}

#[cfg(feature = "redis-cluster")]
pub(super) fn cluster(
    urls: impl IntoIterator<Item = impl AsRef<str>>,
) -> Result<Servers, RedisStoreError> {
    let nodes: Vec<_> = urls.into_iter().map(|url| node(url.as_ref())).collect::<Result<_, _>>()?;
    if nodes.is_empty() {
        return Err(RedisStoreError::new(Kind::Setting, "a cluster", "no node of it is named"));
    }
    Ok(Servers::Cluster(nodes))
}

#[cfg(not(feature = "redis-cluster"))]
fn cluster(_: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Servers, RedisStoreError> {
    Err(RedisStoreError::new(
        Kind::Setting,
        "a cluster",
        "this was built without the feature redis-cluster",
    ))
}

pub(super) fn sentinels(
    service: &str,
    urls: impl IntoIterator<Item = impl AsRef<str>>,
) -> Result<Servers, RedisStoreError> {
    if service.is_empty() {
        return Err(RedisStoreError::new(
            Kind::Setting,
            "Sentinels",
            "the service that they watch is not named",
        ));
    }
    let nodes: Vec<_> = urls
        .into_iter()
        .map(|url| node(&with_port(url.as_ref(), 26379)))
        .collect::<Result<_, _>>()?;
    let Some(first) = nodes.first() else {
        return Err(RedisStoreError::new(Kind::Setting, "Sentinels", "none is named"));
    };
    // The primary is reached as the Sentinels are, over TLS or not, but without their user.
    let server = ("localhost", 0_u16)
        .into_connection_info()
        .map_err(|error| RedisStoreError::of(service, error))?;
    let server = ours(server.set_addr(first.addr().clone()));
    Ok(Servers::Sentinels(Sentinels { service: service.to_owned(), nodes, server }))
}

/// One server's address. The text of an error does not repeat the URL, which may hold a password.
pub(super) fn node(url: &str) -> Result<ConnectionInfo, RedisStoreError> {
    if cfg!(not(feature = "redis-tls"))
        && (url.starts_with("rediss://") || url.starts_with("valkeys://"))
    {
        return Err(wrong(url, "this was built without the feature redis-tls"));
    }
    if !url.contains("://") {
        return Err(wrong(url, "it has no scheme such as redis://"));
    }
    let info = url.into_connection_info().map_err(|error| {
        // The client's own texts; none of them repeats the address.
        wrong(url, &format!("{error}. It should be like redis://user:password@host:port/database"))
    })?;
    Ok(ours(info))
}

fn ours(info: ConnectionInfo) -> ConnectionInfo {
    // Do not send the name of the client library: it is of no use to an operator, and the user may
    // lack the permission.
    let settings = info.redis_settings().clone().set_skip_set_lib_name();
    // Nagle's algorithm would delay a call until the server has acknowledged the calls before it.
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    info.set_redis_settings(settings).set_tcp_settings(tcp)
}

/// The error of a wrong address. Its text has the address without user, password and query.
fn wrong(url: &str, detail: &str) -> RedisStoreError {
    let (scheme, rest) = url.split_at(url.find("://").map_or(0, |at| at + 3));
    let is_socket = url.split(':').next().is_some_and(|scheme| scheme.ends_with("unix"));
    // Only the address of a Unix socket has user and password in its query.
    let rest = if is_socket { rest } else { rest.rsplit('@').next().unwrap_or(rest) };
    let rest = rest.split(['?', '#']).next().unwrap_or(rest);
    let hosts = rest.split('/').next().unwrap_or(rest);
    // A port that is not a number may be a password, if the host was left out.
    let told = match hosts.split(',').find_map(|host| port(host).filter(|port| !is_number(port))) {
        Some(port) => format!("{}...", rest.split_once(port).map_or("", |(before, _)| before)),
        None => rest.to_owned(),
    };
    RedisStoreError::new(Kind::Setting, &format!("the server named {scheme}{told}"), detail)
}

/// The port: the text after the host and its colon.
fn port(host: &str) -> Option<&str> {
    let name = if host.starts_with('[') { host.find(']').unwrap_or(0) } else { 0 };
    host[name..].split_once(':').map(|(_, port)| port)
}

fn is_number(port: &str) -> bool {
    port.bytes().all(|byte| byte.is_ascii_digit())
}

/// Adds the port `number` to an address without one, where the default of Redis would be wrong.
fn with_port(address: &str, number: u16) -> String {
    let start = address.find("://").map_or(0, |at| at + 3);
    let end = address[start..].find(['/', '?', '#']).map_or(address.len(), |at| start + at);
    let (server, path) = address.split_at(end);
    let host = server[start..].rsplit('@').next().unwrap_or(server);
    if host.is_empty() || port(host).is_some() {
        address.to_owned()
    } else {
        format!("{server}:{number}{path}")
    }
}
