//! How often a source address has presented a wrong secret lately.
//!
//! Only failures count, and one that has used them up is refused before its next guess is looked at; common rate
//! limiters count every call, so this is our own. A guess counts from before it is looked at until it proves right, so
//! that guesses made at once cannot pass the limit together.

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

    /// Takes one of the attempts that this source has at `now`; if there is none left, how long it must wait.
    pub(crate) fn take(&self, address: IpAddr, now: Instant) -> Result<Attempt, Duration> {
        let over = |since: Instant| now.duration_since(since) >= WINDOW;
        let mut sources = self.sources.lock();
        if sources.len() >= SOURCES {
            sources.retain(|_, (since, _)| !over(*since));
            // A flood from more sources than that: forgetting some beats growing without bound.
            if sources.len() >= SOURCES {
                sources.clear();
            }
        }
        let source = source(address);
        let (since, count) = sources.entry(source).or_insert((now, 0));
        if over(*since) {
            (*since, *count) = (now, 0);
        }
        if *count >= self.limit {
            return Err(WINDOW.saturating_sub(now.duration_since(*since)));
        }
        *count += 1;
        Ok(Attempt { source, since: *since })
    }

    /// Gives an attempt back that was none at guessing.
    pub(crate) fn give_back(&self, attempt: Attempt) {
        let mut sources = self.sources.lock();
        if let Some((since, count)) = sources.get_mut(&attempt.source)
            && *since == attempt.since
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                sources.remove(&attempt.source);
            }
        }
    }
}

/// An attempt that counts as a failure unless it is given back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    source: IpAddr,
    /// The minute that it counts in.
    since: Instant,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_a_source_count_for_a_minute() {
        let attempts = FailedAttempts::per_minute(2);
        let (a, b): (IpAddr, IpAddr) = ("2001:db8::1".parse().unwrap(), "2001:db8:0:1::1".parse().unwrap());
        let start = Instant::now();
        let right = attempts.take(a, start).unwrap();
        attempts.take(a, start).unwrap();
        let same_network = "2001:db8::2".parse().unwrap();
        assert_eq!(attempts.take(same_network, start), Err(WINDOW));
        attempts.give_back(right);
        let late = attempts.take(a, start).unwrap();
        assert_eq!(attempts.take(a, start), Err(WINDOW));
        assert!(attempts.take(b, start).is_ok());
        assert!(attempts.take(a, start + WINDOW).is_ok());
        // One of the minute before changes nothing in this one.
        attempts.give_back(late);
        assert!(attempts.take(a, start + WINDOW).is_ok());
        assert!(attempts.take(a, start + WINDOW).is_err());
    }
}
