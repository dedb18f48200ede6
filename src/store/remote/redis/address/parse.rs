//! Reads addresses. An error never repeats a part of an address but its scheme, because any part
//! may be a password that was written in the wrong place.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::{Address, Login, Place, Sentinels, Servers, is_host, secret};
use crate::store::remote::redis::error::RedisStoreError;
use crate::store::remote::redis::secret::Secret;

const PORT: u16 = 6379;
const PORT_OF_SENTINEL: u16 = 26379;

pub(super) const ONE_DATABASE: &str =
    "a cluster has database 0 only: leave the number of the database out";

pub(super) fn servers(address: &str) -> Result<Servers, RedisStoreError> {
    let (scheme, rest) = scheme_of(address).map_err(Fault::without_scheme)?;
    read(scheme, rest).map_err(|fault| fault.of(scheme))
}

pub(super) fn sentinels(
    service: &str,
    addresses: impl IntoIterator<Item = impl AsRef<str>>,
) -> Result<Servers, RedisStoreError> {
    if service.is_empty() {
        let detail = "the service that they watch is not named";
        return Err(RedisStoreError::setting("Sentinels", detail));
    }
    let nodes = each(addresses, PORT_OF_SENTINEL, "a Sentinel has no databases")?;
    let Some(first) = nodes.first() else {
        return Err(RedisStoreError::setting("Sentinels", "none is named"));
    };
    // The primary is reached as the Sentinels are, over TLS or not, but without their user.
    let (tls, login) = (first.tls, Login::default());
    Ok(Servers::Sentinels(Sentinels { service: service.to_owned(), nodes, tls, login }))
}

pub(super) fn cluster(
    addresses: impl IntoIterator<Item = impl AsRef<str>>,
) -> Result<Servers, RedisStoreError> {
    let nodes = each(addresses, PORT, ONE_DATABASE)?;
    if nodes.is_empty() {
        return Err(RedisStoreError::setting("a cluster", "no node of it is named"));
    }
    Ok(Servers::Cluster(nodes))
}

/// Reads addresses of one server each, which have no database.
fn each(
    addresses: impl IntoIterator<Item = impl AsRef<str>>,
    port: u16,
    no_database: &'static str,
) -> Result<Vec<Address>, RedisStoreError> {
    let mut nodes = Vec::new();
    for (index, address) in addresses.into_iter().enumerate() {
        let at = |fault: Fault| Fault { of_host: Some(index + 1), ..fault };
        let (scheme, rest) =
            scheme_of(address.as_ref()).map_err(|fault| at(fault).without_scheme())?;
        let node = match scheme.shape {
            Shape::One => one(scheme, rest, port).map_err(|fault| at(fault).of(scheme))?,
            _ => {
                let detail = "each server needs an address of its own, such as redis://host:port";
                return Err(at(detail.into()).of(scheme));
            }
        };
        if node.login.database != 0 {
            return Err(at(no_database.into()).of(scheme));
        }
        nodes.push(node);
    }
    Ok(nodes)
}

struct Scheme {
    name: &'static str,
    tls: bool,
    shape: Shape,
}

#[derive(Clone, Copy)]
enum Shape {
    One,
    Sentinels,
    Cluster,
    Socket,
}

const fn scheme(name: &'static str, tls: bool, shape: Shape) -> Scheme {
    Scheme { name, tls, shape }
}

static SCHEMES: [Scheme; 15] = [
    scheme("redis", false, Shape::One),
    scheme("rediss", true, Shape::One),
    scheme("valkey", false, Shape::One),
    scheme("valkeys", true, Shape::One),
    scheme("redis+sentinel", false, Shape::Sentinels),
    scheme("rediss+sentinel", true, Shape::Sentinels),
    scheme("valkey+sentinel", false, Shape::Sentinels),
    scheme("valkeys+sentinel", true, Shape::Sentinels),
    scheme("redis+cluster", false, Shape::Cluster),
    scheme("rediss+cluster", true, Shape::Cluster),
    scheme("valkey+cluster", false, Shape::Cluster),
    scheme("valkeys+cluster", true, Shape::Cluster),
    scheme("unix", false, Shape::Socket),
    scheme("redis+unix", false, Shape::Socket),
    scheme("valkey+unix", false, Shape::Socket),
];

/// What is wrong with an address. A constant text can't repeat a part of it.
#[derive(Clone, Copy)]
struct Fault {
    detail: &'static str,
    /// The number of the host that is meant, if there are several.
    of_host: Option<usize>,
}

impl From<&'static str> for Fault {
    fn from(detail: &'static str) -> Self {
        Self { detail, of_host: None }
    }
}

impl Fault {
    fn text(self) -> String {
        let Self { detail, of_host } = self;
        of_host.map_or_else(|| detail.to_owned(), |number| format!("{detail} (host {number})"))
    }

    fn of(self, scheme: &Scheme) -> RedisStoreError {
        let (name, text) = (scheme.name, self.text());
        let example = match scheme.shape {
            Shape::One => "user:password@host:6379/0",
            Shape::Sentinels => "user:password@host:26379,host:26379/service/0",
            Shape::Cluster => "user:password@host:6379,host:6379",
            Shape::Socket => "/path/of/socket?user=...&pass=...&db=0",
        };
        let detail = format!("{text}. It should be like {name}://{example}");
        RedisStoreError::setting(format!("the server named {name}://..."), detail)
    }

    fn without_scheme(self) -> RedisStoreError {
        let detail = format!(
            "{}. It has to begin with redis://, rediss://, redis+sentinel://, redis+cluster:// \
             or unix://, for example redis://user:password@host:6379/0",
            self.text()
        );
        RedisStoreError::setting("the server of an address", detail)
    }
}

/// Splits an address into its scheme and what follows.
fn scheme_of(address: &str) -> Result<(&'static Scheme, &str), Fault> {
    // An address that is read from a file often ends with a line break.
    let address = address.trim();
    let (name, rest) = address.split_once("://").ok_or("it has no scheme such as redis://")?;
    let scheme = SCHEMES.iter().find(|scheme| scheme.name.eq_ignore_ascii_case(name));
    Ok((scheme.ok_or("its scheme is not known")?, rest))
}

fn read(scheme: &Scheme, rest: &str) -> Result<Servers, Fault> {
    match scheme.shape {
        Shape::Socket => socket(rest).map(Servers::One),
        Shape::One => one(scheme, rest, PORT).map(Servers::One),
        Shape::Sentinels => {
            let Parts { mut login, hosts, path } = parts(scheme, rest)?;
            let (service, number) = path.split_once('/').unwrap_or((path, ""));
            let service = decoded(service).ok_or("its service is not valid UTF-8")?;
            if service.is_empty() {
                return Err(
                    "it does not name the service that the Sentinels watch: add /<service>".into(),
                );
            }
            if service.chars().any(char::is_control) {
                return Err("its service holds a control character".into());
            }
            login.database = database(number)?;
            // The user is the primary's, not the Sentinels'.
            let nodes = list(scheme, hosts, PORT_OF_SENTINEL, &Login::default())?;
            Ok(Servers::Sentinels(Sentinels { service, nodes, tls: scheme.tls, login }))
        }
        Shape::Cluster => {
            let Parts { login, hosts, path } = parts(scheme, rest)?;
            if database(path)? != 0 {
                return Err(ONE_DATABASE.into());
            }
            list(scheme, hosts, PORT, &login).map(Servers::Cluster)
        }
    }
}

fn one(scheme: &Scheme, rest: &str, default_port: u16) -> Result<Address, Fault> {
    let Parts { mut login, hosts, path } = parts(scheme, rest)?;
    if hosts.contains(',') {
        return Err("several hosts need redis+sentinel:// or redis+cluster://".into());
    }
    login.database = database(path)?;
    Ok(Address::new(place(hosts, default_port)?, scheme.tls, login))
}

fn list(
    scheme: &Scheme,
    hosts: &str,
    default_port: u16,
    login: &Login,
) -> Result<Vec<Address>, Fault> {
    let is_one = !hosts.contains(',');
    let read = |(index, host)| match place(host, default_port) {
        Ok(place) => Ok(Address::new(place, scheme.tls, login.clone())),
        Err(detail) => Err(Fault { detail, of_host: (!is_one).then_some(index + 1) }),
    };
    hosts.split(',').enumerate().map(read).collect()
}

struct Parts<'a> {
    login: Login,
    hosts: &'a str,
    /// Without its first slash.
    path: &'a str,
}

/// Reads `user:password@hosts/path?parameters`.
fn parts<'a>(scheme: &Scheme, rest: &'a str) -> Result<Parts<'a>, Fault> {
    if scheme.tls && cfg!(not(feature = "redis-tls")) {
        return Err("this was built without the feature redis-tls".into());
    }
    no_control_characters(rest)?;
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if tail.contains('@') {
        return Err(
            "in the user and the password, / has to be written %2F, ? has to be %3F and # \
                    has to be %23; after the host, @ has to be written %40"
                .into(),
        );
    }
    let (path, query) = split_tail(tail)?;
    for (name, value) in pairs(query) {
        match name.as_str() {
            "protocol" => protocol(value.as_deref())?,
            "user" | "username" | "pass" | "password" => {
                return Err("user and password belong before the host, not among the parameters \
                            after the ?"
                    .into());
            }
            "db" | "database" => {
                return Err("the number of the database belongs after the host, not among the \
                            parameters after the ?"
                    .into());
            }
            _ => {}
        }
    }
    let (credentials, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    if credentials.contains('@') {
        return Err("there is one user for all hosts, and @ in the user and the password has to \
                    be written %40"
            .into());
    }
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let login = Login {
        user: credential(user, "its user is not valid UTF-8")?,
        password: credential(password, "its password is not valid UTF-8")?,
        database: 0,
    };
    Ok(Parts { login, hosts, path: path.strip_prefix('/').unwrap_or(path) })
}

/// Reads `/path/of/socket?user=...&pass=...&db=...`.
fn socket(rest: &str) -> Result<Address, Fault> {
    if cfg!(not(unix)) {
        return Err("there are no Unix sockets on this platform".into());
    }
    no_control_characters(rest)?;
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if !matches!(authority, "" | "localhost") {
        return Err("the path of the socket has to follow the // at once, with a / of its own; \
                    user and password belong among the parameters after the ?"
            .into());
    }
    let (path, query) = split_tail(tail)?;
    // Someone may have written `user:password@` before the path.
    if path.split_once(':').is_some_and(|(_, rest)| rest.contains('@')) {
        return Err("user and password belong among the parameters after the ?; if the path has \
                    a : and a @, write the @ as %40"
            .into());
    }
    let path = decoded(path).ok_or("the path of the socket is not valid UTF-8")?;
    if path.trim_matches('/').is_empty() {
        return Err("it has no path".into());
    }
    if path.chars().any(char::is_control) {
        return Err("the path of the socket holds a control character".into());
    }
    let mut login = Login::default();
    for (name, value) in pairs(query) {
        match (name.as_str(), value) {
            ("user", Some(user)) => login.user = secret(&user),
            ("pass", Some(password)) => login.password = secret(&password),
            ("db", Some(number)) => login.database = database(&number)?,
            ("protocol", value) => protocol(value.as_deref())?,
            // The rest of a password that holds a & looks like a parameter.
            _ => {
                return Err("a socket has the parameters user, pass and db, which are valid \
                            UTF-8; in their values & has to be written %26"
                    .into());
            }
        }
    }
    Ok(Address::new(Place::Socket(path), false, login))
}

fn no_control_characters(rest: &str) -> Result<(), Fault> {
    if rest.chars().any(char::is_control) {
        return Err("it holds a line break or another control character".into());
    }
    Ok(())
}

/// Splits what follows the hosts into the path and the parameters.
fn split_tail(tail: &str) -> Result<(&str, &str), Fault> {
    let (tail, fragment) = tail.split_once('#').unwrap_or((tail, ""));
    match fragment {
        "" => Ok(tail.split_once('?').unwrap_or((tail, ""))),
        "insecure" => {
            Err("#insecure is not supported, because it lets anyone pose as the server: \
                           set the root certificates of the server instead \
                           (RedisStoreBuilder::root_certificates)"
                .into())
        }
        _ => Err("it has a part after a #, which has no meaning: # in the user, the password or \
                  a parameter has to be written %23"
            .into()),
    }
}

/// The parameters, as names and values. A value that is not valid UTF-8 is `None`.
fn pairs(query: &str) -> impl Iterator<Item = (String, Option<String>)> + '_ {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let text = |text: &str| decoded(&text.replace('+', " "));
        (text(name).unwrap_or_default(), text(value))
    })
}

/// The store speaks version 2 of the protocol, whatever this parameter says.
fn protocol(version: Option<&str>) -> Result<(), Fault> {
    match version {
        Some("2" | "3" | "resp2" | "resp3") => Ok(()),
        _ => Err("the protocol has to be resp2 or resp3".into()),
    }
}

fn credential(written: &str, invalid: &'static str) -> Result<Option<Secret>, Fault> {
    Ok(secret(&decoded(written).ok_or(invalid)?))
}

fn decoded(written: &str) -> Option<String> {
    percent_decode_str(written).decode_utf8().ok().map(Cow::into_owned)
}

/// Reads the number of a database. Slashes around it have no meaning.
fn database(number: &str) -> Result<i64, Fault> {
    let number = number.trim_matches('/');
    if number.is_empty() {
        return Ok(0);
    }
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    match number.parse::<u32>() {
        Ok(number) if is_number => Ok(i64::from(number)),
        _ => Err("its database is not a number such as 0".into()),
    }
}

/// Reads `host`, `host:port` or `[IPv6 address]:port`.
fn place(text: &str, default_port: u16) -> Result<Place, &'static str> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("its IPv6 address lacks the closing ]")?;
        if !host.contains(':') || !is_host(host) {
            return Err("what is in [] is not an IPv6 address");
        }
        match rest.strip_prefix(':') {
            Some(port) => (host, port),
            None if rest.is_empty() => (host, ""),
            None => return Err("only :port may follow the IPv6 address in []"),
        }
    } else {
        let (host, port) = text.split_once(':').unwrap_or((text, ""));
        if port.contains(':') {
            return Err("it has several : in its host: an IPv6 address has to be in []");
        }
        (host, port)
    };
    if host.is_empty() {
        return Err("it has no host");
    }
    if !is_host(host) {
        return Err("its host is not a name of letters, digits, - . and _, nor an IP address");
    }
    if matches!(host, "0.0.0.0" | "::") {
        return Err("its host is a wildcard, to which no one can connect: name the server's own \
                    address");
    }
    let number = if port.bytes().all(|byte| byte.is_ascii_digit()) { port } else { "?" };
    match number {
        "" => Ok(default_port),
        number => match number.parse() {
            Ok(0) | Err(_) => Err("its port is not a number from 1 to 65535"),
            Ok(port) => Ok(port),
        },
    }
    .map(|port| Place::Tcp { host: host.to_owned(), port })
}
