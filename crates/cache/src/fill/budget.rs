//! How much fetches may hold: all of them together, and those of one site, so that a site whose origin is slow leaves others
//! room.

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

/// Of this many parts of the bound, one is for others.
const OTHERS_ONE_IN: u64 = 4;

/// What all fetches may hold, and do.
#[derive(Debug)]
pub(crate) struct Budget {
    bound: u64,
    held: AtomicU64,
    /// Shares in use.
    sites: Mutex<HashMap<i64, Weak<Share>, RandomState>>,
}

/// What the fetches of one site hold.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    site: i64,
    held: AtomicU64,
}

impl Budget {
    /// Room for so many bytes.
    pub(crate) fn of(bound: u64) -> Arc<Self> {
        Arc::new(Self {
            bound,
            held: AtomicU64::new(0),
            sites: Mutex::default(),
        })
    }

    /// The share of a site.
    pub(crate) fn share(self: &Arc<Self>, site: i64) -> Arc<Share> {
        let mut sites = self.sites.lock();
        let known = sites.entry(site).or_default();
        if let Some(share) = known.upgrade() {
            return share;
        }
        let share = Arc::new(Share {
            budget: self.clone(),
            site,
            held: AtomicU64::new(0),
        });
        *known = Arc::downgrade(&share);
        share
    }

    /// Bytes that all fetches hold.
    #[cfg(test)]
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::SeqCst)
    }
}

impl Share {
    /// Whether the site's fetches may hold so many bytes more.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        let bound = self.budget.bound;
        let has = |held: &AtomicU64, bound: u64| held.load(Ordering::Relaxed).saturating_add(bytes) <= bound;
        has(&self.budget.held, bound) && has(&self.held, bound - bound / OTHERS_ONE_IN)
    }

    pub(crate) fn add(&self, bytes: u64) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        self.budget.held.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn free(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        self.budget.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut sites = self.budget.sites.lock();
        // Another one may have taken its place.
        if sites.get(&self.site).is_some_and(|share| share.strong_count() == 0) {
            sites.remove(&self.site);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_leaves_others_a_part() {
        let budget = Budget::of(100);
        let (one, other) = (budget.share(1), budget.share(2));
        assert!(one.has_room(75) && !one.has_room(76));
        one.add(75);
        assert!(!budget.share(1).has_room(1) && other.has_room(25) && !other.has_room(26));
        other.add(25);
        assert!(!other.has_room(1) && other.has_room(0));
        one.free(75);
        assert!(one.has_room(75) && other.has_room(50) && !other.has_room(51));
        other.free(25);
        drop((one, other));
        assert!(budget.sites.lock().is_empty() && budget.held() == 0);
    }
}
