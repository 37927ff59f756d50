//! How often a source address has presented a wrong secret lately.
//!
//! Only failures count, and one that has used them up is refused before its next guess is looked at; common rate
//! limiters count every call, so this is our own. Guesses that are looked at at once are as many as may still fail, so
//! that they cannot pass the limit together; others wait for how those come out.

use parking_lot::Mutex;
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const WINDOW: Duration = Duration::from_secs(60);
/// How many sources are remembered at most.
const SOURCES: usize = 100_000;

#[derive(Debug)]
pub(crate) struct FailedAttempts {
    limit: u32,
    sources: Mutex<HashMap<IpAddr, Arc<Minute>>>,
}

/// What a source may still try in a minute.
#[derive(Debug)]
struct Minute {
    since: Instant,
    /// One for each failure that is left; closed when none is.
    places: Arc<Semaphore>,
    failures: AtomicU32,
    /// Attempts that have not ended. Changed under the lock of the map.
    underway: AtomicU32,
}

impl Minute {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.since) >= WINDOW
    }
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

    /// Takes one of the attempts that this source has at `now`, once there is one that no other may use up; if there is
    /// none left, how long it must wait.
    pub(crate) async fn take(&self, address: IpAddr, now: Instant) -> Result<Attempt<'_>, Duration> {
        let source = source(address);
        let mut attempt = Attempt {
            attempts: self,
            source,
            minute: self.minute(source, now),
            place: None,
        };
        match attempt.minute.places.clone().acquire_owned().await {
            Ok(place) => {
                attempt.place = Some(place);
                Ok(attempt)
            }
            Err(_) => Err(WINDOW.saturating_sub(now.duration_since(attempt.minute.since))),
        }
    }

    fn minute(&self, source: IpAddr, now: Instant) -> Arc<Minute> {
        let mut sources = self.sources.lock();
        if sources.len() >= SOURCES {
            sources.retain(|_, minute| !minute.is_over(now));
            // A flood from more sources than that: forgetting some beats growing without bound.
            if sources.len() >= SOURCES {
                sources.clear();
            }
        }
        let new = || {
            Arc::new(Minute {
                since: now,
                places: Arc::new(Semaphore::new(self.limit as usize)),
                failures: AtomicU32::new(0),
                underway: AtomicU32::new(0),
            })
        };
        let minute = sources.entry(source).or_insert_with(new);
        if minute.is_over(now) {
            *minute = new();
        }
        minute.underway.fetch_add(1, Ordering::Relaxed);
        minute.clone()
    }

    /// Forgets a source that has failed at nothing, when its last attempt ends.
    fn forget(&self, source: IpAddr, minute: &Arc<Minute>) {
        let mut sources = self.sources.lock();
        let is_last = minute.underway.fetch_sub(1, Ordering::Relaxed) == 1;
        if is_last
            && minute.failures.load(Ordering::Relaxed) == 0
            && sources.get(&source).is_some_and(|known| Arc::ptr_eq(known, minute))
        {
            sources.remove(&source);
        }
    }
}

/// An attempt, which counts when it has failed. One that is given up counts for nothing: its answer is not told.
#[derive(Debug)]
pub(crate) struct Attempt<'a> {
    attempts: &'a FailedAttempts,
    source: IpAddr,
    /// The minute that it counts in.
    minute: Arc<Minute>,
    place: Option<OwnedSemaphorePermit>,
}

impl Attempt<'_> {
    /// The secret was wrong.
    pub(crate) fn failed(mut self) {
        if let Some(place) = self.place.take() {
            place.forget();
            if self.minute.failures.fetch_add(1, Ordering::Relaxed) + 1 >= self.attempts.limit {
                self.minute.places.close();
            }
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.attempts.forget(self.source, &self.minute);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn failures_of_a_source_count_for_a_minute() {
        let attempts = FailedAttempts::per_minute(2);
        let (a, b): (IpAddr, IpAddr) = ("2001:db8::1".parse().unwrap(), "2001:db8:0:1::1".parse().unwrap());
        let same_network = "2001:db8::2".parse().unwrap();
        let start = Instant::now();
        let fail = async |address, now| attempts.take(address, now).await.map(Attempt::failed);
        assert_eq!(fail(a, start).await, Ok(()));
        drop(attempts.take(a, start).await);
        let late = attempts.take(a, start).await.unwrap();
        // As long as it may fail, another must not.
        let mut waiting = Box::pin(attempts.take(same_network, start));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert_eq!(fail(b, start).await, Ok(()));
        late.failed();
        assert_eq!(waiting.await.map(Attempt::failed), Err(WINDOW));
        assert_eq!(fail(a, start + WINDOW / 2).await, Err(WINDOW / 2));
        assert_eq!(fail(a, start + WINDOW).await, Ok(()));
        // One of the minute before changes nothing in this one.
        let late = attempts.take(b, start).await.unwrap();
        assert_eq!(fail(b, start + WINDOW).await, Ok(()));
        late.failed();
        assert_eq!(fail(b, start + WINDOW).await, Ok(()));
        assert_eq!(fail(b, start + WINDOW).await, Err(WINDOW));
    }

    #[tokio::test]
    async fn an_attempt_that_was_right_or_is_given_up_leaves_nothing() {
        let attempts = FailedAttempts::per_minute(1);
        let (address, now) = ("192.0.2.1".parse().unwrap(), Instant::now());
        let right = attempts.take(address, now).await.unwrap();
        let mut given_up = Box::pin(attempts.take(address, now));
        assert!(given_up.as_mut().now_or_never().is_none());
        let waiting = attempts.take(address, now);
        drop(given_up);
        drop(right);
        let last = waiting.await.unwrap();
        assert_eq!(attempts.sources.lock().len(), 1);
        drop(last);
        assert!(attempts.sources.lock().is_empty());
    }
}
