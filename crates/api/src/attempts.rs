//! How often a source address has presented a wrong secret lately.
//!
//! Only failures count, and one that has used them up is refused before its next guess is looked at; common rate
//! limiters count every call, so this is our own.

use parking_lot::Mutex;
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

const WINDOW: Duration = Duration::from_secs(60);
/// How many sources are remembered at most.
const SOURCES: usize = 100_000;

#[derive(Debug)]
pub(crate) struct FailedAttempts {
    limit: u32,
    sources: Mutex<HashMap<IpAddr, (Instant, u32)>>,
}

/// One IPv6 user has a /64 (RFC 6177).
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (!0 << 64))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl FailedAttempts {
    pub(crate) fn per_minute(limit: u32) -> Self {
        Self {
            limit,
            sources: Mutex::default(),
        }
    }

    /// Whether this source may try at `now`; if not, how long it must wait.
    pub(crate) fn check(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        match self.sources.lock().get(&source(address)) {
            Some((since, count)) if *count >= self.limit => match (*since + WINDOW).checked_duration_since(now) {
                Some(left) if !left.is_zero() => Err(left),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Notes a failure at `now`.
    pub(crate) fn failed(&self, address: IpAddr, now: Instant) {
        let over = |since: Instant| now.duration_since(since) >= WINDOW;
        let mut sources = self.sources.lock();
        if sources.len() >= SOURCES {
            sources.retain(|_, (since, _)| !over(*since));
            // A flood from more sources than that: forgetting some beats growing without bound.
            if sources.len() >= SOURCES {
                sources.clear();
            }
        }
        let entry = sources.entry(source(address)).or_insert((now, 0));
        if over(entry.0) {
            *entry = (now, 0);
        }
        entry.1 += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_a_source_count_for_a_minute() {
        let attempts = FailedAttempts::per_minute(2);
        let (a, b): (IpAddr, IpAddr) = ("2001:db8::1".parse().unwrap(), "2001:db8:0:1::1".parse().unwrap());
        let start = Instant::now();
        for _ in 0..2 {
            assert_eq!(attempts.check(a, start), Ok(()));
            attempts.failed(a, start);
        }
        let same_network = "2001:db8::2".parse().unwrap();
        assert_eq!(attempts.check(same_network, start), Err(WINDOW));
        assert_eq!(attempts.check(b, start), Ok(()));
        assert_eq!(attempts.check(a, start + WINDOW), Ok(()));
        attempts.failed(a, start + WINDOW);
        assert_eq!(attempts.check(a, start + WINDOW), Ok(()));
    }
}
