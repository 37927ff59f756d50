//! How often a request is sent again. One that failed may be, as long as few do: an origin that is down is not asked
//! twice as often as one that is not.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU32, Ordering},
};

/// What a retry costs; each request earns one.
const PRICE: u32 = 10;

/// What an origin's account holds at most: ten retries, after a hundred requests without one.
const MOST: u32 = 10 * PRICE;

const ACCOUNTS: usize = 256;

/// The accounts of all origins. Two that share one by their hash share its retries.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    accounts: Box<[AtomicU32]>,
    hasher: RandomState,
}

impl RetryBudget {
    pub(crate) fn new() -> Self {
        Self {
            accounts: (0..ACCOUNTS).map(|_| AtomicU32::new(MOST)).collect(),
            hasher: RandomState::new(),
        }
    }

    /// A request to an origin is made.
    pub(crate) fn earn(&self, origin: &str) {
        let earned = |balance: u32| (balance < MOST).then(|| balance + 1);
        // Full is as good as changed.
        let _ = self
            .account(origin)
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, earned);
    }

    /// Whether one may be made again; if so, it is paid for.
    pub(crate) fn pay(&self, origin: &str) -> bool {
        let paid = |balance: u32| balance.checked_sub(PRICE);
        self.account(origin)
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, paid)
            .is_ok()
    }

    fn account(&self, origin: &str) -> &AtomicU32 {
        &self.accounts[self.hasher.hash_one(origin) as usize % ACCOUNTS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_a_tenth_of_the_requests_is_made_again() {
        let budget = RetryBudget::new();
        let retries = (0..1000)
            .filter(|_| {
                budget.earn("a");
                budget.pay("a")
            })
            .count();
        // The ten that are there from the start, and a tenth.
        assert!((100..=111).contains(&retries), "{retries}");
    }
}
