//! How much memory what is made of stored responses may take. What is attached to an entry is at most what the cache counts
//! for it, but for a fixed amount that all entries have together.

use http::HeaderMap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What the cache counts for what is attached to each stored response, in bytes: fields and heads for two threads.
pub const ATTACHED_BYTES: u64 = 8 << 10;

/// What all entries have beyond that, in bytes: most is attached to the few that are asked for on every thread.
const BEYOND: usize = 16 << 20;

/// The most that is attached in one piece, in bytes.
const LARGEST: usize = ATTACHED_BYTES as usize;

/// What is taken of [`BEYOND`].
static BEYOND_TAKEN: AtomicUsize = AtomicUsize::new(0);

/// What an entry's attachment takes. It is given back when the entry goes, and not before.
#[derive(Debug, Default)]
pub(super) struct Room {
    counted: AtomicUsize,
    beyond: AtomicUsize,
}

impl Room {
    /// Takes so many bytes of what is counted for the entry, if there are as many.
    pub(super) fn take(&self, bytes: usize) -> bool {
        add(&self.counted, bytes, ATTACHED_BYTES as usize)
    }

    /// The same, or else of what there is for all entries.
    pub(super) fn take_any(&self, bytes: usize) -> bool {
        if self.take(bytes) {
            return true;
        }
        let taken = bytes <= LARGEST && add(&BEYOND_TAKEN, bytes, BEYOND);
        if taken {
            self.beyond.fetch_add(bytes, Ordering::Relaxed);
        }
        taken
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        BEYOND_TAKEN.fetch_sub(*self.beyond.get_mut(), Ordering::Relaxed);
    }
}

fn add(to: &AtomicUsize, bytes: usize, most: usize) -> bool {
    let sum = |taken: usize| taken.checked_add(bytes).filter(|sum| *sum <= most);
    to.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum).is_ok()
}

/// What header fields take, in bytes, the map's and the allocator's part in round figures. Their names are the entry's.
pub(super) fn memory(fields: &HeaderMap) -> usize {
    let further = fields.len() - fields.keys_len();
    let values: usize = fields.values().map(|value| value.len() + 48).sum();
    size_of::<HeaderMap>() + 6 * fields.capacity() + 104 * fields.keys_len() + 112 * further + values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_what_is_counted_and_a_fixed_amount_together() {
        let counted = ATTACHED_BYTES as usize;
        let rooms: Vec<_> = (0..5000).map(|_| Room::default()).collect();
        let mut taken = 0;
        for room in &rooms {
            assert!(!room.take_any(counted + 1), "no piece is as large");
            assert!(room.take(counted) && !room.take(1));
            while room.take_any(1000) {
                taken += 1000;
            }
        }
        assert!(taken <= BEYOND && taken > BEYOND / 2, "{taken}");
        drop(rooms);
        let room = Room::default();
        assert!(room.take(counted) && room.take_any(1000), "it is given back");
    }
}
