//! Who is let onto a full disk: keys that were put before, not long ago. A scan of objects that nobody asks for again
//! displaces nothing then.
//!
//! Two Bloom filters, one filling and one full; as the first is full it takes the other's place (TinyLFU's doorkeeper,
//! with ageing by halves). About one stranger in a hundred is taken for a friend.

/// Bits for each key: with seven probes, 0.8 % are taken for seen that were not.
const BITS_A_KEY: usize = 10;
const PROBES: u64 = 7;

/// The two filters.
#[derive(Debug)]
pub(crate) struct Doorkeeper {
    filling: Box<[u64]>,
    full: Box<[u64]>,
    keys: usize,
    capacity: usize,
}

impl Doorkeeper {
    /// Remembers at least the last `capacity` keys, and at most twice as many. 2.5 bytes a key.
    pub(crate) fn new(capacity: usize) -> Self {
        let words = (capacity * BITS_A_KEY).div_ceil(64).next_power_of_two();
        Self {
            filling: vec![0; words].into(),
            full: vec![0; words].into(),
            keys: 0,
            capacity,
        }
    }

    /// Whether `key` was seen of late; it is from now on.
    pub(crate) fn seen(&mut self, key: u128) -> bool {
        let recently = touch(&mut self.filling, key);
        if recently {
            return true;
        }
        let before = holds(&self.full, key);
        self.keys += 1;
        if self.keys >= self.capacity {
            std::mem::swap(&mut self.filling, &mut self.full);
            self.filling.fill(0);
            self.keys = 0;
        }
        before
    }
}

/// The bits of a key: word and mask.
fn bits(key: u128, words: usize) -> impl Iterator<Item = (usize, u64)> {
    let (low, high) = (key as u64, (key >> 64) as u64);
    let first = (low ^ high.rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let step = (high ^ low.rotate_left(31)).wrapping_mul(0xd1b5_4a32_d192_ed03) | 1;
    (0..PROBES).map(move |probe| {
        let mixed = first.wrapping_add(step.wrapping_mul(probe));
        let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0x9fb2_1c65_1e98_df25);
        let bit = (mixed >> 20) as usize & (words * 64 - 1);
        (bit / 64, 1 << (bit % 64))
    })
}

fn holds(filter: &[u64], key: u128) -> bool {
    bits(key, filter.len()).all(|(word, mask)| filter[word] & mask != 0)
}

/// Sets the bits of a key, and tells whether all of them were set.
fn touch(filter: &mut [u64], key: u128) -> bool {
    let mut all = true;
    for (word, mask) in bits(key, filter.len()) {
        all &= filter[word] & mask != 0;
        filter[word] |= mask;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_few_and_the_last_ones_are_remembered() {
        for spread in [1, 0x9e37_79b9_7f4a_7c15_u128 << 64 | 0xd1b5_4a32_d192_ed03] {
            let key = |n: u128| n.wrapping_mul(spread);
            let mut door = Doorkeeper::new(1000);
            let strangers = (0..100_000).filter(|n| door.seen(key(*n))).count();
            assert!(strangers < 3000, "{strangers} of 100,000 were taken for seen");
            for n in 99_000..100_000 {
                assert!(door.seen(key(n)), "{n} was forgotten");
            }
        }
    }

    #[test]
    fn a_key_is_forgotten_in_time() {
        let mut door = Doorkeeper::new(1000);
        assert!(!door.seen(1 << 100));
        assert!(door.seen(1 << 100));
        for n in 0..2100 {
            door.seen(n);
        }
        assert!(!door.seen(1 << 100));
    }
}
