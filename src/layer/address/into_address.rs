//! The addresses that a closure can return.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Types that a closure for [`of_peer`](super::ClientAddress::of_peer) can return: an [`IpAddr`], a
/// [`SocketAddr`], the types of either for IPv4 and IPv6 alone, or an `Option` of any of these.
/// Ports and zones are ignored.
///
/// ```
/// use std::net::{Ipv4Addr, SocketAddr};
///
/// use bolna_rate_limit::layer::IntoAddress;
///
/// let peer: SocketAddr = "192.0.2.7:4711".parse()?;
/// assert_eq!(peer.into_address(), Some(Ipv4Addr::new(192, 0, 2, 7).into()));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be turned into a network address",
    label = "the closure returns this",
    note = "it must return an `IpAddr`, a `SocketAddr`, one of their variants for IPv4 and IPv6, \
            or an `Option` of these: values, so an address in the extensions is `.copied()`"
)]
pub trait IntoAddress {
    /// The address, or `None` if there is none.
    fn into_address(self) -> Option<IpAddr>;
}

impl IntoAddress for IpAddr {
    fn into_address(self) -> Option<IpAddr> {
        Some(self)
    }
}

impl IntoAddress for Ipv4Addr {
    fn into_address(self) -> Option<IpAddr> {
        Some(self.into())
    }
}

impl IntoAddress for Ipv6Addr {
    fn into_address(self) -> Option<IpAddr> {
        Some(self.into())
    }
}

impl IntoAddress for SocketAddr {
    fn into_address(self) -> Option<IpAddr> {
        Some(self.ip())
    }
}

impl IntoAddress for SocketAddrV4 {
    fn into_address(self) -> Option<IpAddr> {
        Some((*self.ip()).into())
    }
}

impl IntoAddress for SocketAddrV6 {
    fn into_address(self) -> Option<IpAddr> {
        Some((*self.ip()).into())
    }
}

impl<A: IntoAddress> IntoAddress for Option<A> {
    fn into_address(self) -> Option<IpAddr> {
        self?.into_address()
    }
}
