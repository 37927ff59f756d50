//! Where a server listens.

use crate::{Failure, config::Address, tell};
use std::net::{SocketAddr, UdpSocket};
use tokio::net::TcpListener;

/// What to do about a port that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ports {
    /// Fail.
    AsConfigured,
    /// Take another.
    OrFree,
}

pub(crate) async fn bind(name: &str, address: Address, ports: Ports) -> Result<Option<TcpListener>, Failure> {
    let Some(address) = address.0 else { return Ok(None) };
    let listener = match TcpListener::bind(address).await {
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse && ports == Ports::OrFree => {
            tell(&format_args!("{address} is in use; {name} takes a free port"));
            TcpListener::bind(SocketAddr::new(address.ip(), 0)).await
        }
        other => other,
    };
    listener
        .map(Some)
        .map_err(|e| Failure::because(&format!("listen.{name} {address}"), &e))
}

/// How often a free port of TCP is tried that is taken of UDP.
const FREE_PORTS: u32 = 16;

/// Binds the TLS listener, and the socket of HTTP/3 on the same port.
pub(crate) async fn bind_tls(
    mut address: Address,
    h3: bool,
    ports: Ports,
) -> Result<(Option<TcpListener>, Option<UdpSocket>), Failure> {
    let any_port = |address: Address| address.0.filter(|a| a.port() == 0 || ports == Ports::OrFree);
    for tries in 1.. {
        let listener = bind("https", address, ports).await?;
        let at = listener.as_ref().and_then(|l| l.local_addr().ok()).filter(|_| h3);
        let Some(at) = at else { return Ok((listener, None)) };
        match UdpSocket::bind(at) {
            Ok(socket) => return Ok((listener, Some(socket))),
            Err(e) => match any_port(address) {
                Some(asked) if e.kind() == std::io::ErrorKind::AddrInUse && tries < FREE_PORTS => {
                    address = Address(Some(SocketAddr::new(asked.ip(), 0)));
                }
                _ => return Err(Failure::because(&format!("listen.h3 {at} (UDP)"), &e)),
            },
        }
    }
    unreachable!("the last try returns")
}

pub(crate) fn address(listener: Option<&TcpListener>) -> Option<SocketAddr> {
    listener.and_then(|l| l.local_addr().ok())
}
