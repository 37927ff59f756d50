//! What a connection adds to its requests, and what goes on there: whether its client is waited for in vain is decided from
//! that, alike for every version of HTTP.

use crate::{authorize::Shown, limits};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    task::Poll,
};

/// What a request's connection adds to it, and what is going on there.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The server name of the handshake, lower-case; `None` on a plain connection.
    pub(crate) sni: Option<Arc<str>>,
    /// The tokens that came.
    pub(crate) shown: Shown,
    /// Bytes that were written since this was last asked.
    written: AtomicU64,
    /// Bytes that were read since then.
    read: AtomicU64,
    /// Whether a request came since then, or something was waited for that is not the client's to do.
    asked: AtomicBool,
    /// What the server waits for that is not the client's to do: answers that are being got, and content of requests, which
    /// is watched by itself.
    answering: AtomicU32,
    /// Requests whose content is passed on.
    uploads: AtomicU32,
    /// By how many more requests were futile than made good for.
    futile: AtomicU32,
}

/// How a request of HTTP/2 or HTTP/3 went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Its answer was had, or is broken by no fault of the client's.
    Answered,
    /// It was malformed, or taken back before its answer was had.
    Futile,
}

impl Outcome {
    /// Of one that was taken back when its client had taken so many bytes of content. A player that seeks takes back what
    /// it reads on from, and has had what it asked for.
    pub(crate) fn taken_back(taken: u64) -> Self {
        if taken < limits::WORTH_BYTES {
            Self::Futile
        } else {
            Self::Answered
        }
    }
}

impl Connection {
    pub(crate) fn new(sni: Option<Arc<str>>) -> Arc<Self> {
        Arc::new(Self {
            sni,
            shown: Shown::default(),
            written: AtomicU64::new(0),
            read: AtomicU64::new(0),
            asked: AtomicBool::new(false),
            answering: AtomicU32::new(0),
            uploads: AtomicU32::new(0),
            futile: AtomicU32::new(0),
        })
    }

    /// Notes bytes that were written.
    pub(crate) fn wrote(&self, bytes: usize) {
        add(&self.written, bytes);
    }

    /// Notes bytes that were read.
    pub(crate) fn read(&self, bytes: usize) {
        add(&self.read, bytes);
    }

    /// Notes that a request came.
    pub(crate) fn asked(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    /// Notes how a request went.
    pub(crate) fn ended(&self, outcome: Outcome) {
        match outcome {
            // Nearly always there is nothing to make good for.
            Outcome::Answered if self.futile.load(Ordering::Relaxed) == 0 => {}
            Outcome::Answered => {
                let less = |futile: u32| futile.checked_sub(1);
                let _ = self.futile.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
            }
            Outcome::Futile => drop(self.futile.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// Whether too many requests were futile: to make them and take them back costs the client less than the server
    /// (CVE-2023-44487).
    pub(crate) fn is_futile(&self) -> bool {
        self.futile.load(Ordering::Relaxed) > limits::FUTILE_REQUESTS
    }

    /// Whether, since the last call, no request came, and the client was waited for and moved fewer than `least` bytes.
    ///
    /// A frame that HTTP/2 answers by itself is no shorter than its answer, so that the bytes read, taken from the bytes
    /// written, leave what answers to requests are made of.
    pub(crate) fn is_idle(&self, least: u64) -> bool {
        let asked = self.asked.swap(false, Ordering::Relaxed);
        let (written, read) = (
            self.written.swap(0, Ordering::Relaxed),
            self.read.swap(0, Ordering::Relaxed),
        );
        let waited_for = self.answering.load(Ordering::Relaxed) == 0;
        !asked && waited_for && written.saturating_sub(read) < least
    }

    /// Notes that something is waited for which is not the client's to do, until the value is dropped.
    pub(crate) fn answering(self: &Arc<Self>) -> UnderWay {
        self.answering.fetch_add(1, Ordering::Relaxed);
        UnderWay(self.clone())
    }

    /// The same for content of a request.
    pub(crate) fn uploading(self: &Arc<Self>) -> Uploading {
        self.uploads.fetch_add(1, Ordering::Relaxed);
        Uploading(self.answering())
    }

    /// The same for what is polled, as long as it is pending.
    pub(crate) fn waits<T>(self: &Arc<Self>, polled: Poll<T>, under_way: &mut Option<UnderWay>) -> Poll<T> {
        if polled.is_pending() {
            under_way.get_or_insert_with(|| self.answering());
        } else {
            *under_way = None;
        }
        polled
    }
}

/// Adds where one task writes, so that no other addition gets lost.
fn add(counter: &AtomicU64, bytes: usize) {
    let before = counter.load(Ordering::Relaxed);
    counter.store(before + bytes as u64, Ordering::Relaxed);
}

/// Content of a request that is passed on. While it is waited for, its connection is not.
#[derive(Debug)]
pub(crate) struct Uploading(UnderWay);

impl Uploading {
    /// How many there are on its connection.
    pub(crate) fn count(&self) -> u32 {
        self.0.0.uploads.load(Ordering::Relaxed)
    }
}

impl Drop for Uploading {
    fn drop(&mut self) {
        self.0.0.uploads.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Something for which a client is not to blame, while it is under way.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<Connection>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        // Nor is it to blame for the time that this took.
        self.0.asked();
        self.0.answering.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_make_good_for_requests_that_are_taken_back() {
        let connection = Connection::new(None);
        let ended = |outcome, times| (0..times).for_each(|_| connection.ended(outcome));
        // They are not saved up.
        ended(Outcome::Answered, 1000);
        ended(Outcome::Futile, limits::FUTILE_REQUESTS);
        assert!(!connection.is_futile());
        ended(Outcome::Answered, 10);
        ended(Outcome::Futile, 10);
        assert!(!connection.is_futile());
        ended(Outcome::Futile, 1);
        assert!(connection.is_futile());
    }

    #[test]
    fn a_request_that_brought_something_is_not_futile() {
        assert_eq!(Outcome::taken_back(0), Outcome::Futile);
        assert_eq!(Outcome::taken_back(limits::WORTH_BYTES - 1), Outcome::Futile);
        assert_eq!(Outcome::taken_back(limits::WORTH_BYTES), Outcome::Answered);
    }

    #[test]
    fn content_of_requests_is_counted_while_it_is_passed_on() {
        let connection = Connection::new(None);
        let (first, second) = (connection.uploading(), connection.uploading());
        assert_eq!(first.count(), 2);
        drop(second);
        assert_eq!(first.count(), 1);
        assert!(!connection.is_idle(1024), "it is watched by itself");
    }

    #[test]
    fn a_connection_is_idle_when_its_client_is_waited_for_in_vain() {
        let connection = Connection::new(None);
        let is_idle = |read, written, asked: bool| {
            connection.read(read);
            connection.wrote(written);
            if asked {
                connection.asked();
            }
            connection.is_idle(1024)
        };
        assert!(is_idle(0, 0, false), "nothing");
        assert!(!is_idle(100, 100, true), "a request");
        assert!(!is_idle(100, 1124, false), "an answer");
        assert!(is_idle(17_000, 17_000, false), "pings");
        assert!(is_idle(5000, 0, false), "a head that does not end");
        let answering = connection.answering();
        assert!(!is_idle(0, 0, false), "an origin that takes its time");
        drop(answering);
        assert!(!is_idle(0, 0, false), "an origin that took its time");
        assert!(is_idle(0, 0, false), "nothing again");
    }
}
