//! A body that is held in memory: on the heap, and, once it has often been sent without TLS, in pages that the kernel sends
//! from as they lie ([`edgeweir_pages`]).
//!
//! To put it there takes as long as to send it a dozen times, and saves a third of each time after that.

use bytes::Bytes;
use parking_lot::RwLock;
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};
use tokio::sync::Semaphore;

/// How often a body is sent from the heap.
const FROM_HEAP: u32 = 16;

/// Few bodies move at a time, and others may later: each is in memory twice meanwhile, and takes a thread's time.
static MOVES: Semaphore = Semaphore::const_new(4);

/// A body in memory. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Held(Kind);

#[derive(Debug, Clone)]
enum Kind {
    /// Always on the heap.
    Short(Bytes),
    Long(Arc<Long>),
}

#[derive(Debug)]
struct Long {
    length: usize,
    bytes: RwLock<Bytes>,
    sent: AtomicU32,
}

impl From<Bytes> for Held {
    fn from(bytes: Bytes) -> Self {
        Self(if edgeweir_pages::LENGTHS.contains(&bytes.len()) {
            Kind::Long(Arc::new(Long {
                length: bytes.len(),
                bytes: RwLock::new(bytes),
                sent: AtomicU32::new(0),
            }))
        } else {
            Kind::Short(bytes)
        })
    }
}

impl Held {
    /// Its length in bytes.
    pub fn length(&self) -> usize {
        match &self.0 {
            Kind::Short(bytes) => bytes.len(),
            Kind::Long(long) => long.length,
        }
    }

    /// Its bytes.
    pub fn bytes(&self) -> Bytes {
        match &self.0 {
            Kind::Short(bytes) => bytes.clone(),
            Kind::Long(long) => long.bytes.read().clone(),
        }
    }

    /// Notes that so many bytes of it are sent over a connection as they are. What is often sent as a whole moves into pages,
    /// behind the answers. To be called within a Tokio runtime.
    pub fn sent(&self, bytes: usize) {
        if let Kind::Long(long) = &self.0
            && bytes == long.length
            && long.sent.load(Ordering::Relaxed) < FROM_HEAP
            && long.sent.fetch_add(1, Ordering::Relaxed) + 1 == FROM_HEAP
        {
            let Ok(moving) = MOVES.try_acquire() else {
                long.sent.store(0, Ordering::Relaxed);
                return;
            };
            let long = Arc::downgrade(long);
            tokio::task::spawn_blocking(move || {
                // It may have left the cache by now.
                if let Some(long) = long.upgrade() {
                    long.move_into_pages();
                }
                drop(moving);
            });
        }
    }
}

impl Long {
    fn move_into_pages(&self) {
        let on_heap = self.bytes.read().clone();
        if let Some(in_pages) = edgeweir_pages::copy(&on_heap) {
            *self.bytes.write() = in_pages;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_often_sent_moves_into_pages() {
        let body: Bytes = (0..300_000_u32).map(|i| (i % 251) as u8).collect();
        let held = Held::from(body.clone());
        for _ in 0..100 {
            held.sent(299_999);
        }
        for _ in 1..FROM_HEAP {
            held.sent(300_000);
        }
        tokio::task::yield_now().await;
        let before = held.bytes();
        assert_eq!(
            before.as_ptr(),
            body.as_ptr(),
            "not sent often enough yet; parts do not count"
        );
        held.sent(300_000);
        while edgeweir_pages::InPages::find(&held.bytes()).is_none() {
            tokio::task::yield_now().await;
        }
        assert!(before == body && held.clone().bytes() == body && held.length() == 300_000);
    }

    #[test]
    fn what_is_short_stays_where_it_is() {
        let body = Bytes::from(vec![1; 1000]);
        let held = Held::from(body.clone());
        for _ in 0..2 * FROM_HEAP {
            // Without a runtime, in which to move it.
            held.sent(1000);
        }
        assert_eq!(held.bytes().as_ptr(), body.as_ptr());
    }
}
