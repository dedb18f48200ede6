//! The network address of the client of a request, and how addresses are grouped.

mod forwarded;
mod into_address;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use http::request::Parts;

use self::forwarded::Field;
use super::Identify;
use crate::policy::Account;
use crate::values::{Kind, Principal};

pub use into_address::IntoAddress;

/// How to find the network address of the client of a request, for limits by address.
///
/// The address is that of the connection's peer, or behind proxies one that they write into a
/// header field. Without a proxy, with axum and its `into_make_service_with_connect_info`:
///
/// ```
/// use std::net::SocketAddr;
///
/// use axum::extract::ConnectInfo;
/// use bolna_rate_limit::layer::ClientAddress;
///
/// let address = ClientAddress::of_peer(|head| {
///     head.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0)
/// });
/// ```
///
/// With hyper alone, insert the address from `accept` into the extensions of each request of the
/// connection:
///
/// ```
/// use std::net::SocketAddr;
///
/// use bolna_rate_limit::layer::ClientAddress;
///
/// let address = ClientAddress::of_peer(|head| head.extensions.get::<SocketAddr>().copied());
/// ```
///
/// # Behind proxies
/// A proxy appends the address of its own peer to [`X-Forwarded-For`](Self::x_forwarded_for) or
/// [`Forwarded`](Self::forwarded), at the right. For example, a service behind two proxies receives
///
/// ```text
/// X-Forwarded-For: 203.0.113.9, 192.0.2.7, 198.51.100.2
/// ```
///
/// * The inner proxy appended `198.51.100.2`, the address of the outer proxy.
/// * The outer proxy appended `192.0.2.7`, the address of the client.
/// * The client itself wrote `203.0.113.9`. It can write anything.
///
/// So the left-most address is never the one to limit by: a client that writes another one into
/// each request would have no limit. Only what trusted proxies append can be relied on, and that is
/// at the right. `nth` counts from there: it is the number of trusted proxies that append to the
/// field, 2 in the example. It must be exact:
///
/// * If it is too small, the address is that of a proxy, so all clients behind it share one limit.
/// * If it is too large, the address is one that the client wrote. A client can choose it, and so
///   has no limit, or spends the units of another client.
///
/// Also make sure of these two:
///
/// * The proxies really set this field. If they pass on the client's field unchanged, the client
///   chooses its address. Many set `X-Forwarded-For` only, so [`forwarded`](Self::forwarded) would
///   read what the client wrote.
/// * Clients can't reach the service except through the proxies.
///
/// Sources: RFC 7239, section 8.1, says that any node on the way can change the field, the client
/// included. The method is the *trusted proxy count* of [MDN].
///
/// [MDN]: https://developer.mozilla.org/en-US/docs/Web/HTTP/Reference/Headers/X-Forwarded-For#selecting_an_ip_address
///
/// ```
/// use std::net::SocketAddr;
///
/// use bolna_rate_limit::layer::ClientAddress;
///
/// // One load balancer, which appends to `X-Forwarded-For`.
/// let address = ClientAddress::of_peer(|head| head.extensions.get::<SocketAddr>().copied())
///     .x_forwarded_for(1);
/// ```
///
/// # How the field is read
/// * All lines of the field count as one list, in their order (RFC 9110, section 5.3). Empty
///   members are ignored (section 5.6.1.2), up to 32 of them.
/// * The list is read from the right, and only as far as the `nth` member. What is to the left of
///   it never matters, whatever its form or length.
/// * The address may have a port, which is ignored: `192.0.2.7:4711`, `[2001:db8::1]:4711`. IPv6
///   addresses may be with or without brackets. A zone, as in `fe80::1%eth0`, is ignored.
/// * If there are fewer members, or the `nth` is not an address but for example `unknown` or a
///   hidden name, the address is that of the peer.
///
/// # How addresses are grouped
/// Each IPv4 address is a principal of the kind [`Kind::ADDRESS`], with an id such as `192.0.2.7`.
/// An IPv6 address that holds an IPv4 address, such as `::ffff:192.0.2.7`, is the same as that
/// (RFC 4291, section 2.5.5.2).
///
/// IPv6 addresses with the same [prefix](Self::ipv6_prefix) are one principal, with an id such as
/// `2001:db8:1:2::/64`, in the form of RFC 5952.
///
/// All requests without any address are one principal, with the id `unknown`. So they are limited
/// together, and a request never escapes a limit because its address was not found.
#[derive(Clone)]
#[must_use = "it does nothing by itself"]
pub struct ClientAddress {
    peer: Arc<FindPeer>,
    /// The field that proxies append to, and which of its members counts, from the right.
    forwarded: Option<(Field, usize)>,
    ipv6_prefix: u8,
}

type FindPeer = dyn Fn(&Parts) -> Option<IpAddr> + Send + Sync;

impl ClientAddress {
    /// The address of the peer: of what is at the other end of the connection. A closure finds it
    /// in the request's head, usually in the extensions.
    ///
    /// The closure returns an address, with or without a port, or an `Option` of one: see
    /// [`IntoAddress`]. All requests for which it returns `None` are limited together. It runs on
    /// the request path and must not block.
    ///
    /// Behind a proxy this is the address of the proxy. Add
    /// [`x_forwarded_for`](Self::x_forwarded_for) or [`forwarded`](Self::forwarded) then.
    ///
    /// ```
    /// use std::net::SocketAddr;
    ///
    /// use bolna_rate_limit::layer::ClientAddress;
    ///
    /// let address = ClientAddress::of_peer(|head| head.extensions.get::<SocketAddr>().copied());
    /// ```
    pub fn of_peer<F, A>(find: F) -> Self
    where
        F: Fn(&Parts) -> A + Send + Sync + 'static,
        A: IntoAddress,
    {
        Self {
            peer: Arc::new(move |head| find(head).into_address()),
            forwarded: None,
            ipv6_prefix: 64,
        }
    }

    /// Takes the `nth` address from the right of `X-Forwarded-For`. The right-most is 1, and 0 is
    /// treated as 1.
    ///
    /// `nth` must be the number of trusted proxies that append to this field: see
    /// [above](Self#behind-proxies) what goes wrong otherwise. Replaces
    /// [`forwarded`](Self::forwarded).
    ///
    /// ```
    /// use std::net::SocketAddr;
    ///
    /// use bolna_rate_limit::layer::ClientAddress;
    ///
    /// // A content delivery network in front of a load balancer, and both append.
    /// let address = ClientAddress::of_peer(|head| head.extensions.get::<SocketAddr>().copied())
    ///     .x_forwarded_for(2);
    /// ```
    pub fn x_forwarded_for(self, nth: usize) -> Self {
        Self { forwarded: Some((Field::XForwardedFor, nth.max(1))), ..self }
    }

    /// Takes the `nth` address from the right of `Forwarded` (RFC 7239): the `for` parameter of its
    /// `nth` element. The right-most is 1, and 0 is treated as 1.
    ///
    /// `nth` must be the number of trusted proxies that append to this field: see
    /// [above](Self#behind-proxies) what goes wrong otherwise. Replaces
    /// [`x_forwarded_for`](Self::x_forwarded_for).
    ///
    /// If one of the `nth` right-most elements is malformed, then the address is that of the peer.
    /// Examples are a quoted string that does not end, and two `for` parameters in one element.
    ///
    /// ```
    /// use std::net::SocketAddr;
    ///
    /// use bolna_rate_limit::layer::ClientAddress;
    ///
    /// // One proxy, which appends for example `for="[2001:db8::7]:4711";proto=https`.
    /// let address = ClientAddress::of_peer(|head| head.extensions.get::<SocketAddr>().copied())
    ///     .forwarded(1);
    /// ```
    pub fn forwarded(self, nth: usize) -> Self {
        Self { forwarded: Some((Field::Forwarded, nth.max(1))), ..self }
    }

    /// Sets how many leading bits of IPv6 addresses count: 1 to 128, and other values are clamped.
    /// Defaults to 64. Addresses that differ only in the other bits are limited together. IPv4
    /// addresses are not affected.
    ///
    /// A network usually has a prefix of 64 bits (RFC 4291, section 2.5.4), and each of its hosts
    /// can use any number of addresses with that prefix (RFC 8981). So with more than 64 bits, one
    /// client can have any number of limits. A site often gets a prefix of 56 or 48 bits (RFC
    /// 6177), and so has 256 or 65,536 limits at 64 bits.
    ///
    /// ```
    /// use std::net::SocketAddr;
    ///
    /// use bolna_rate_limit::layer::ClientAddress;
    ///
    /// // One limit for each site.
    /// let address = ClientAddress::of_peer(|head| head.extensions.get::<SocketAddr>().copied())
    ///     .ipv6_prefix(48);
    /// ```
    pub fn ipv6_prefix(self, bits: u8) -> Self {
        Self { ipv6_prefix: bits.clamp(1, 128), ..self }
    }

    /// The principal that is charged for the request if it is unidentified.
    pub(super) fn principal(&self, head: &Parts) -> Principal {
        let forwarded =
            self.forwarded.and_then(|(field, nth)| field.nth_from_right(&head.headers, nth));
        match forwarded.or_else(|| (self.peer)(head)).map(|address| address.to_canonical()) {
            Some(IpAddr::V4(address)) => principal(address),
            Some(IpAddr::V6(address)) => match self.ipv6_prefix {
                128 => principal(address),
                bits => principal(format_args!("{}/{bits}", prefix(address, bits))),
            },
            None => principal("unknown"),
        }
    }
}

/// Each address is billed by itself, as an account is, so that each limit of an account applies to
/// it. No request is unidentified then. All requests of which no address is found are billed
/// together, which is reported as [BRL011](crate::observe::Advice::AddressUnknown).
///
/// Their buckets count as those of accounts do. To bound the memory that a client with very many
/// addresses can fill, set [`max_buckets`](crate::store::MemoryStore::max_buckets).
///
/// ```
/// use std::net::SocketAddr;
///
/// use bolna_rate_limit::layer::ClientAddress;
/// use bolna_rate_limit::{BolnaRateLimitLayer, Policy, Quota};
///
/// // Ten searches a minute of each address, and 100 of all other requests.
/// let policy = Policy::builder()
///     .endpoint("search", Quota::per_minute(10), ["/search"])
///     .default_quota(Quota::per_minute(100))
///     .build()?;
/// let address = ClientAddress::of_peer(|head| head.extensions.get::<SocketAddr>().copied());
/// let layer = BolnaRateLimitLayer::with_policy(policy).identify_with(address);
/// # Ok::<(), bolna_rate_limit::PolicyError>(())
/// ```
impl Identify for ClientAddress {
    fn account(&self, head: &Parts) -> Option<Account> {
        Some(self.principal(head).into())
    }
}

impl fmt::Debug for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAddress")
            .field("forwarded", &self.forwarded)
            .field("ipv6_prefix", &self.ipv6_prefix)
            .finish_non_exhaustive()
    }
}

/// The address without the bits after the first `bits`, which are 1 to 128.
fn prefix(address: Ipv6Addr, bits: u8) -> Ipv6Addr {
    (u128::from(address) & (u128::MAX << (128 - bits))).into()
}

fn principal(id: impl fmt::Display) -> Principal {
    Principal::new(Kind::ADDRESS, id).expect("the id is not empty")
}
