//! Memory that records are read into. What held a large one is used again by the next: no memory has to be cleared for it,
//! and it is still near the core.

use bytes::Bytes;
use std::{
    cell::RefCell,
    ops::{Deref, DerefMut},
};

/// Fewer bytes than this are cleared faster than they are found again.
const LARGE: usize = 32 << 10;
/// Lengths are rounded up to this, so that more of them are alike.
const STEP: usize = 4 << 10;
/// What a thread keeps for its next reads, in buffers and in bytes.
const KEPT: usize = 8;
const KEPT_BYTES: usize = 4 << 20;

thread_local! {
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// So many bytes to be read into, whatever they are before.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    len: usize,
}

impl Buffer {
    pub(crate) fn new(len: usize) -> Self {
        if len < LARGE {
            return Self {
                bytes: vec![0; len],
                len,
            };
        }
        let rounded = len.next_multiple_of(STEP);
        let free = FREE.with_borrow_mut(|free| {
            let at = free.iter().rposition(|bytes| bytes.len() == rounded)?;
            Some(free.swap_remove(at))
        });
        Self {
            bytes: free.unwrap_or_else(|| vec![0; rounded]),
            len,
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if !(LARGE..=KEPT_BYTES).contains(&bytes.len()) {
            return;
        }
        // A thread that ends keeps nothing.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() == KEPT {
                free.swap_remove(0);
            }
            let held: usize = free.iter().map(Vec::len).sum();
            if held + bytes.len() <= KEPT_BYTES {
                free.push(bytes);
            }
        });
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Buffer> for Bytes {
    fn from(buffer: Buffer) -> Self {
        Self::from_owner(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_once_nobody_reads_it() {
        let mut buffer = Buffer::new(LARGE + 1);
        buffer.fill(7);
        let bytes = Bytes::from(buffer);
        let part = bytes.slice(3..);
        let address = bytes.as_ptr();
        drop(bytes);
        assert_ne!(Buffer::new(LARGE + 1).as_ptr(), address, "a part of it is still read");
        assert!(part.iter().all(|b| *b == 7));
        drop(part);
        // Any length that rounds to the same.
        let again = Buffer::new(LARGE + 2);
        assert_eq!((again.as_ptr(), again.len()), (address, LARGE + 2));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let many: Vec<_> = (0..2 * KEPT).map(|_| Buffer::new(LARGE)).collect();
        drop(many);
        assert!(FREE.with_borrow(Vec::len) <= KEPT);
        drop(Buffer::new(2 * KEPT_BYTES));
        let held: usize = FREE.with_borrow(|free| free.iter().map(Vec::len).sum());
        assert!(held <= KEPT_BYTES, "{held}");
        drop(Buffer::new(1));
        assert!(FREE.with_borrow(|free| free.iter().all(|bytes| bytes.len() >= LARGE)));
    }
}
