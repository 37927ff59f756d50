//! The slices of large objects, as they are fetched and found.

use super::{Cache, Shard};
use crate::{
    disk::{Found, GivenUp, Record},
    entry::{Entry, Now},
    fill::{FetchError, FetchedResponse, Fill, Reader, Share},
    held::Held,
    key::{Key, KeyRef},
    leader::PASS_LARGE,
    record,
    slices::{SliceError, Slices},
    span::{Ahead, Span},
    tier::OnDisk,
};
use bytes::Bytes;
use http::HeaderMap;
use std::{ops::Range, sync::Arc, time::Instant};

/// What a slice is read from.
pub(crate) enum Begun {
    /// Memory.
    Stored(Held),
    /// The disk, which must be waited for: see [`Cache::read_slice`].
    OnDisk(OnDisk, Key),
    /// The fetch of another.
    Follows(Reader),
    /// A fetch that the caller is to run, of this slice and perhaps those that follow it.
    Leads(Span, Ahead),
    /// Fetches hold all they may.
    Full,
}

impl Cache {
    /// Finds a slice, or begins a fetch of it and of those that follow, as far as they are neither stored nor under way;
    /// `most` slices at most. `tier` says whether it is looked for on disk.
    pub(crate) fn begin(
        self: &Arc<Self>,
        object: &Key,
        slices: &Arc<Slices>,
        first: u64,
        most: u64,
        tier: bool,
    ) -> Begun {
        let first_key = object.borrow().slice(slices.id, first);
        if let Some(bytes) = self.stored.slice(&first_key) {
            return Begun::Stored(bytes);
        }
        let on_disk = if tier {
            self.on_disk(first_key.borrow())
        } else {
            Found::Absent
        };
        match on_disk {
            Found::Absent => {}
            Found::Ready(records) => {
                if let Some(bytes) = self.restore_slice(&first_key, &records) {
                    return Begun::Stored(bytes);
                }
            }
            Found::Wait(wait) => return Begun::OnDisk(OnDisk(wait), first_key),
        }
        let mut shard = self.shard(object.borrow()).lock();
        if let Some(fill) = shard.fills.get(&first_key) {
            return Begun::Follows(Reader::new(fill.clone()));
        }
        // Its fetch may have ended in between.
        if let Some(bytes) = self.stored.slice(&first_key) {
            return Begun::Stored(bytes);
        }
        let share = self.filling.share(object.site);
        let room = |count: &u64| share.has_room(count * slices.size);
        let Some(most) = [most, 1].into_iter().find(room) else {
            return Begun::Full;
        };
        let (span, ahead) = self.begin_in(&mut shard, &share, object, slices, first..first + most);
        Begun::Leads(span, ahead)
    }

    /// The same for what a response turned out to be, of which it brings this slice and those after it.
    pub(crate) fn begin_with(
        self: &Arc<Self>,
        object: &Key,
        slices: &Arc<Slices>,
        first: u64,
        most: u64,
    ) -> (Span, Ahead) {
        let share = self.filling.share(object.site);
        let most = if share.has_room(most * slices.size) { most } else { 1 };
        let mut shard = self.shard(object.borrow()).lock();
        self.begin_in(&mut shard, &share, object, slices, first..first + most)
    }

    /// A slice that must be waited for; `None` if it proves not to be there.
    pub(crate) async fn read_slice(&self, key: &Key, on_disk: OnDisk) -> Result<Option<Held>, GivenUp> {
        Ok(self.restore_slice(key, &on_disk.0.records().await?))
    }

    /// Whether an object was found of late to be kept in no slices: see [`crate::Fetched::InNoSlices`]. To ask for a slice of
    /// it would be in vain.
    pub fn is_in_no_slices(&self, key: KeyRef<'_>, now: Now) -> bool {
        self.stored.is_in_no_slices(key, now.mono)
    }

    pub(crate) fn note_in_no_slices(&self, key: &Key, until: Instant) {
        self.stored.note_in_no_slices(key, until);
    }

    /// Whether a slice is stored, in memory or on disk.
    pub(crate) fn holds_slice(&self, key: &Key) -> bool {
        self.stored.slice(key).is_some() || self.tier.as_ref().is_some_and(|tier| tier.holds_slice(key.borrow()))
    }

    /// Ends the fetch of a slice, which is whole with this end.
    pub(crate) fn keep_slice(&self, fill: &Arc<Fill>, last: &Bytes, persists: bool) {
        let entry = Entry::of_slice(fill.whole(last), fill.born, persists);
        let key = &fill.key;
        let mut shard = self.shard(key.borrow()).lock();
        shard.end(fill);
        if !fill.is_doomed() {
            if let Some(tier) = &self.tier {
                tier.put(key.borrow(), &entry);
            }
            self.stored.insert_slice(key, entry);
        }
    }

    /// Ends the fetch of a slice, of which nothing is kept.
    pub(crate) fn drop_slice(&self, fill: &Arc<Fill>) {
        self.shard(fill.key.borrow()).lock().end(fill);
    }

    /// The answer to a request for these bytes of an object in slices, if it is one.
    pub(crate) fn checked(
        &self,
        key: &Key,
        slices: &Slices,
        asked: &Range<u64>,
        response: FetchedResponse,
    ) -> Result<FetchedResponse, FetchError> {
        match slices.check(&response, asked) {
            Ok(()) => Ok(response),
            Err(reason) => {
                self.lose(key, slices, reason);
                Err(Arc::new(reason))
            }
        }
    }

    /// Takes a slice that was read from disk into memory.
    fn restore_slice(&self, key: &Key, records: &[Record]) -> Option<Held> {
        let (held, born) = records.iter().find_map(|r| record::slice(key.borrow(), r))?;
        if self.stored.is_to_take() {
            let slice = Entry::of_slice(held.clone(), born, true);
            self.stored.insert_slice(key, slice);
        }
        Some(held)
    }

    fn begin_in(
        self: &Arc<Self>,
        shard: &mut Shard,
        share: &Arc<Share>,
        object: &Key,
        slices: &Arc<Slices>,
        wanted: Range<u64>,
    ) -> (Span, Ahead) {
        let mut span = Span {
            cache: self.clone(),
            key: object.clone(),
            slices: slices.clone(),
            first: wanted.start,
            fills: [].into(),
        };
        let (mut ahead, born) = (Ahead::default(), self.purges.now());
        for slice in wanted.start..slices.count().min(wanted.end) {
            let key = object.borrow().slice(slices.id, slice);
            if slice > wanted.start && (shard.fills.contains_key(&key) || self.holds_slice(&key)) {
                break;
            }
            let fill = Arc::new(Fill::new(key.clone(), HeaderMap::new(), born, share.clone()));
            // From now on: whoever begins another one is to know of it.
            let range = slices.range(slice);
            fill.reserve(range.end - range.start);
            ahead.0.push_back((slice, Reader::new(fill.clone())));
            span.fills.push_back(fill.clone());
            shard.fills.insert(key, fill);
        }
        (span, ahead)
    }

    /// Forgets an object whose slices cannot be had any more.
    fn lose(&self, key: &Key, slices: &Slices, reason: SliceError) {
        if reason == SliceError::Failing {
            return;
        }
        let mut shard = self.shard(key.borrow()).lock();
        match (self.stored.sliced(key, slices), &self.tier) {
            (Some(entry), _) => self.remove(key, &entry),
            // Its head was read from disk alone.
            (None, Some(tier)) if !self.stored.any(key.borrow(), |_| true) => tier.forget(key.borrow()),
            // Somebody else has fetched what is right now.
            (None, _) => return,
        }
        if reason == SliceError::NoRanges {
            self.stored.pass(&mut shard.index, key, Instant::now() + PASS_LARGE);
        }
    }
}

#[cfg(test)]
mod tests;
