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

/// How often a body is sent from the heap.
const FROM_HEAP: u32 = 16;

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

    /// Its bytes, to be sent over a connection as they are. What is often asked for so moves into pages, behind the answers.
    /// To be called within a Tokio runtime.
    pub fn bytes_to_send(&self) -> Bytes {
        if let Kind::Long(long) = &self.0
            && long.sent.load(Ordering::Relaxed) < FROM_HEAP
            && long.sent.fetch_add(1, Ordering::Relaxed) + 1 == FROM_HEAP
        {
            let long = long.clone();
            tokio::task::spawn_blocking(move || long.move_into_pages());
        }
        self.bytes()
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
        for _ in 1..FROM_HEAP {
            assert_eq!(held.bytes_to_send().as_ptr(), body.as_ptr());
        }
        for _ in 0..100 {
            assert_eq!(held.bytes().as_ptr(), body.as_ptr(), "to be encrypted: not counted");
        }
        let before = held.bytes_to_send();
        while !edgeweir_pages::are_sent(&held.bytes()) {
            tokio::task::yield_now().await;
        }
        assert_eq!((before, held.clone().bytes_to_send()), (body.clone(), body));
        assert_eq!(held.length(), 300_000);
    }

    #[tokio::test]
    async fn what_is_short_stays_where_it_is() {
        let body = Bytes::from(vec![1; 1000]);
        let held = Held::from(body.clone());
        for _ in 0..2 * FROM_HEAP {
            assert_eq!(held.bytes_to_send().as_ptr(), body.as_ptr());
        }
    }
}
