//! Fetches, which all who ask for the same share, and what becomes of what they bring.

use super::Cache;
use crate::{
    entry::{Entry, Freshness, Now, Validators},
    fill::{
        BodyError, FetchError, FetchStatus, Fetched, FetchedResponse, Fill, FillBody, Progress, Reader, ResponseHead,
        SharedStream,
    },
    key::{Key, KeyRef},
    leader::Leader,
    policy,
    purges::{SurrogateKeys, Verdict},
    span::Ahead,
};
use http::HeaderMap;
use std::{
    future::Future,
    ops::Range,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};
use tokio::sync::oneshot;

/// What fetches may hold at least, all together, in bytes; else a quarter of the memory for stored responses.
const MIN_FILLING: u64 = 64 << 20;

/// What the end of a fetch does to what is stored.
pub(crate) enum Outcome<'a> {
    /// Nothing.
    Nothing,
    /// This is stored.
    Store(&'a Arc<Entry>),
    /// This is stored in place of what it confirms, whose content it has.
    Confirm(&'a Arc<Entry>),
    /// The key's answers are not shared until then, and what was stored is not the object any more.
    Pass {
        until: Instant,
        instead_of: Option<&'a Arc<Entry>>,
    },
}

/// What a request that was not found fresh comes to.
enum Joined {
    /// A fetch of another's.
    Follows(Reader),
    /// A fetch that its caller is to lead.
    Leads(Reader),
    /// What a fetch that just ended has stored.
    Stored(Arc<Entry>),
    /// Fetches hold all they may.
    Full,
}

impl Cache {
    /// Fetches what a look-up did not find fresh. Of the callers that ask for one key at a time, one runs `fetch`, in a
    /// task of its own that outlives its caller; the others read from that fetch. When it fails or breaks before they
    /// have a byte of it, they share one more. `stale` is revalidated, and stands in where `stale-if-error` lets it.
    pub async fn fetch<F, Fut>(
        self: &Arc<Self>,
        key: KeyRef<'_>,
        request: &HeaderMap,
        stale: Option<Arc<Entry>>,
        fetch: F,
    ) -> Result<Fetched, FetchError>
    where
        F: FnOnce(Option<Validators>) -> Fut + Send,
        Fut: Future<Output = Result<FetchedResponse, FetchError>> + Send + 'static,
    {
        self.fetch_from(key, request, stale, None, fetch).await
    }

    /// The same where `fetch` asks for a slice, which may turn out to be all there is: see [`crate::first_slice`].
    pub async fn fetch_from<F, Fut>(
        self: &Arc<Self>,
        key: KeyRef<'_>,
        request: &HeaderMap,
        stale: Option<Arc<Entry>>,
        asked: Option<Range<u64>>,
        fetch: F,
    ) -> Result<Fetched, FetchError>
    where
        F: FnOnce(Option<Validators>) -> Fut + Send,
        Fut: Future<Output = Result<FetchedResponse, FetchError>> + Send + 'static,
    {
        let mut fetch = Some(fetch);
        let mut followed_a_failure = false;
        loop {
            let (reader, leads) = match self.join(key, request) {
                Joined::Follows(reader) => (reader, false),
                Joined::Leads(reader) => (reader, true),
                Joined::Stored(entry) => {
                    return Ok(Fetched::Entry(entry, FetchStatus::Stored, Ahead::default()));
                }
                Joined::Full => return Ok(Fetched::Pass),
            };
            let fill = &reader.fill;
            let mut own = None;
            if leads {
                let fetch = fetch.take().expect("a caller leads once: what it led is final");
                let (send, receive) = oneshot::channel();
                own = Some(receive);
                let response = fetch(stale.as_ref().map(|e| e.validators()));
                let task = Leader {
                    cache: self.clone(),
                    fill: fill.clone(),
                    key: key.to_owned(),
                    stale: stale.clone(),
                    asked: asked.clone(),
                };
                tokio::spawn(task.run(response, send));
            }
            let status = if leads {
                FetchStatus::Miss
            } else {
                FetchStatus::Collapsed
            };
            // A follower waits for a first byte, too: until then it can still turn to another fetch.
            let progress = if leads {
                fill.head().await
            } else {
                fill.first_byte().await
            };
            return match progress {
                Progress::Waiting => unreachable!("the head was waited for"),
                Progress::Failed(_) if !leads && !followed_a_failure => {
                    followed_a_failure = true;
                    continue;
                }
                Progress::Failed(error) => Err(error),
                Progress::Entry(entry, how) if leads || entry.matches(request) => {
                    let how = match how {
                        FetchStatus::Miss => status,
                        FetchStatus::Revalidated if !leads => FetchStatus::Confirmed,
                        how => how,
                    };
                    let ahead = if leads { fill.take_ahead() } else { Ahead::default() };
                    Ok(Fetched::Entry(entry, how, ahead))
                }
                Progress::Streaming {
                    head,
                    length,
                    answered,
                    stored,
                } if leads || same_variant(&head, &fill.request, request) => Ok(Fetched::Stream(SharedStream {
                    head,
                    body: FillBody::new(reader, length),
                    length,
                    status,
                    answered,
                    stored,
                })),
                Progress::Unshared if leads => match own.expect("a leader listens").await {
                    Ok(response) => Ok(Fetched::Own(response)),
                    Err(_) => Err(Arc::new(BodyError::Broken("the fetch was given up".into()))),
                },
                Progress::Entry(..) | Progress::Streaming { .. } | Progress::Unshared => Ok(Fetched::Pass),
            };
        }
    }

    /// Whether fetches may hold so many bytes more.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        let bound = (self.config.memory_bytes / 4).max(MIN_FILLING);
        self.filling.load(Ordering::Relaxed).saturating_add(bytes) <= bound
    }

    /// Ends a fetch: nobody joins it any more, and what it comes to is kept unless a purge came first.
    pub(crate) fn leave(&self, key: &Key, fill: &Arc<Fill>, outcome: Outcome<'_>) {
        let mut shard = self.shard(key.borrow()).lock();
        shard.end(key, fill);
        if fill.is_doomed() {
            return;
        }
        match outcome {
            Outcome::Nothing => {}
            // It was purged meanwhile, and somebody else has fetched what is right now.
            Outcome::Store(entry) | Outcome::Confirm(entry)
                if self
                    .find(key.borrow(), &fill.request)
                    .is_some_and(|stored| stored.born() > entry.born()) => {}
            Outcome::Store(entry) => self.store(&mut shard, key, entry.clone()),
            Outcome::Confirm(entry) => self.confirm(&mut shard, key, entry.clone()),
            Outcome::Pass { until, instead_of } => {
                if let Some(entry) = instead_of {
                    self.remove(key, entry);
                }
                self.stored.pass(&mut shard.index, key, until);
            }
        }
    }

    /// Finds the fetch under way for a key, or begins one.
    fn join(&self, key: KeyRef<'_>, request: &HeaderMap) -> Joined {
        let mut shard = self.shard(key).lock();
        let owned = key.to_owned();
        if let Some(fill) = shard.fills.get(&owned).filter(|fill| self.is_joinable(key, fill.born)) {
            return Joined::Follows(Reader::new(fill.clone()));
        }
        // One may have ended since the caller's look-up; what it came to was stored under this lock.
        let stored = self.find(key, request);
        if let Some(entry) = stored.filter(|e| matches!(e.freshness(Now::now()), Freshness::Fresh { .. })) {
            return Joined::Stored(entry);
        }
        if !self.has_room(0) {
            return Joined::Full;
        }
        let fill = Arc::new(Fill::new(request.clone(), self.purges.now(), self.filling.clone()));
        shard.fills.insert(owned, fill.clone());
        Joined::Leads(Reader::new(fill))
    }

    /// Whether somebody who comes now may read what a fetch brings that began then: no purge since may be of it, whatever
    /// surrogate keys it turns out to have.
    fn is_joinable(&self, key: KeyRef<'_>, born: u64) -> bool {
        born == self.purges.now() || self.verdict(key, born, &SurrogateKeys::any()) == Verdict::Kept
    }
}

fn same_variant(head: &ResponseHead, leader: &HeaderMap, follower: &HeaderMap) -> bool {
    let names = policy::vary_names(&head.headers).unwrap_or_default();
    names
        .iter()
        .all(|name| policy::vary_value(leader, name) == policy::vary_value(follower, name))
}
