//! Which addresses are public: the only ones that an origin may have unless the operator allows more
//! (IANA special-purpose address registries, RFC 6890). Those of this machine are none of them: what listens there takes
//! who connects from here for a neighbour.

use rustix::io::Errno;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

/// Whether an origin may be at an address where the operator has not allowed more.
pub(crate) fn is_open(address: IpAddr) -> bool {
    is_public(address) && !is_own(address)
}

/// Whether an address is this machine's. Nothing is sent to find out.
fn is_own(address: IpAddr) -> bool {
    let address = address.to_canonical();
    // For documentation: nobody's.
    let (any, nobodys): (IpAddr, IpAddr) = match address {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into()),
        IpAddr::V6(_) => (
            Ipv6Addr::UNSPECIFIED.into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        ),
    };
    // Only one's own can be bound, unless the system is told otherwise (`ip_nonlocal_bind`, ip(7)).
    let can_bind = |address: IpAddr| UdpSocket::bind((address, 0)).is_ok();
    if can_bind(address) && !can_bind(nobodys) {
        return true;
    }
    // What is sent to an address of one's own comes from it, but for further ones of an interface.
    let sender = || -> io::Result<SocketAddr> {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((address, 9))?;
        socket.local_addr()
    };
    match sender() {
        Ok(sender) => sender.ip() == address,
        // It cannot be told now. Else there is no way to it, and nothing to fear.
        Err(error) => matches!(
            Errno::from_io_error(&error),
            Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
        ),
    }
}

/// Whether an address is globally reachable unicast, however it is wrapped (mapped, NAT64, 6to4).
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(a == 0
        || a == 10
        || a == 127
        || (a == 100 && (64..128).contains(&b))
        || (a == 169 && b == 254)
        || (a == 172 && (16..32).contains(&b))
        || (a == 192 && b == 168)
        || (a == 192 && b == 0 && (c == 0 || c == 2))
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19))
        || (a == 198 && b == 51 && c == 100)
        || (a == 203 && b == 0 && c == 113)
        || a >= 224)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let s = address.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    if s[..5] == [0; 5] && s[5] == 0xffff || s[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        return is_public_v4(v4(s[6], s[7]));
    }
    if s[0] == 0x2002 {
        return is_public_v4(v4(s[1], s[2]));
    }
    // Global unicast is 2000::/3, less Teredo and what is kept for protocols, documentation and benchmarks.
    (0x2000..0x4000).contains(&s[0])
        && !(s[0] == 0x2001 && (s[1] < 0x200 || s[1] == 0xdb8))
        && !(s[0] == 0x3fff && s[1] < 0x1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_machine_are_told_from_others() {
        for (address, own) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::ffff:127.0.0.1", true),
            ("93.184.216.34", false),
            ("::ffff:93.184.216.34", false),
            ("2606:2800:220:1:248:1893:25c8:1946", false),
        ] {
            assert_eq!(is_own(address.parse().expect(address)), own, "{address}");
        }
    }

    #[test]
    fn only_global_unicast_is_public() {
        for (address, public) in [
            ("93.184.216.34", true),
            ("100.63.255.255", true),
            ("172.32.0.1", true),
            ("2606:2800:220:1:248:1893:25c8:1946", true),
            ("::ffff:93.184.216.34", true),
            ("64:ff9b::5db8:d822", true),
            ("0.0.0.0", false),
            ("10.1.2.3", false),
            ("100.64.0.1", false),
            ("127.0.0.1", false),
            ("127.255.255.254", false),
            ("169.254.169.254", false),
            ("172.16.0.1", false),
            ("192.168.1.1", false),
            ("192.0.2.1", false),
            ("198.18.0.1", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::", false),
            ("::1", false),
            ("::127.0.0.1", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:169.254.169.254", false),
            ("64:ff9b::7f00:1", false),
            ("2002:7f00:1::", false),
            ("2001::1", false),
            ("2001:db8::1", false),
            ("fc00::1", false),
            ("fe80::1", false),
            ("fec0::1", false),
            ("ff02::1", false),
        ] {
            assert_eq!(is_public(address.parse().expect(address)), public, "{address}");
        }
    }
}
