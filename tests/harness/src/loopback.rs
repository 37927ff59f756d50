//! Addresses of this process's own, for programs that must be told a port before they bind it.
//!
//! All of 127.0.0.0/8 is this machine, and a process has its id to itself: so an address made of it is nobody else's, and
//! a port on it stays free until the test uses it, also between a stop and a start. Outgoing connections come from
//! 127.0.0.1 and take none of its ports.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    sync::atomic::{AtomicU16, Ordering},
};

/// This process's address in 127.0.0.0/8.
pub fn own_ip() -> IpAddr {
    // Process ids have 22 bits at most; .1 and up keeps clear of 127.0.0.1.
    let [_, a, b, c] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 | a, b, c).into()
}

/// An address and port that nobody uses, and that is not handed out twice.
pub fn own_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(10_000);
    loop {
        let address = SocketAddr::new(own_ip(), NEXT.fetch_add(1, Ordering::Relaxed));
        // Another container on this network may number its processes alike.
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}
