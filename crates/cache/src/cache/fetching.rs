//! Fetches, which all who ask for the same share, and what becomes of what they bring.

use super::Cache;
use crate::{
    entry::{Entry, Freshness, Now, Validators},
    fill::{
        BodyError, FetchError, FetchStatus, Fetched, FetchedResponse, Fill, FillBody, Progress, Reader, SharedStream,
    },
    key::{Key, KeyRef},
    leader::Leader,
    purges::{SurrogateKeys, Verdict},
    span::Ahead,
};
use http::HeaderMap;
use std::{future::Future, ops::Range, sync::Arc, time::Instant};
use tokio::sync::oneshot;

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
    /// A fetch that its caller is to lead, and what it may revalidate.
    Leads(Reader, Option<Arc<Entry>>),
    /// What a fetch that just ended has stored.
    Stored(Arc<Entry>),
    /// Fetches hold all they may.
    Full,
}

impl Cache {
    /// Fetches what a look-up did not find fresh. Of the callers that ask for one variant of a key at a time, one runs
    /// `fetch`, in a task of its own that outlives its caller; the others read from that fetch. When it fails or breaks
    /// before they have a byte of it, they share one more. What is stored by then is revalidated, and stands in where
    /// `stale-if-error` lets it: not what a look-up found, which may have been purged since. `asked` is the slice that
    /// `fetch` asks for, if it does, which may turn out to be all there is: see [`crate::first_slice`].
    pub async fn fetch<F, Fut>(
        self: &Arc<Self>,
        key: KeyRef<'_>,
        request: &HeaderMap,
        asked: Option<Range<u64>>,
        fetch: F,
    ) -> Result<Fetched, FetchError>
    where
        F: FnOnce(Option<Validators>) -> Fut + Send,
        Fut: Future<Output = Result<FetchedResponse, FetchError>> + Send + 'static,
    {
        let mut fetch = Some(fetch);
        let mut followed_a_failure = false;
        // What it is joined by once one of another variant is found under way.
        let mut variant = None;
        loop {
            let by = variant.as_ref().map_or(key, Key::borrow);
            let (reader, leads, stale) = match self.join(key, by, request) {
                Joined::Follows(reader) => (reader, false, None),
                Joined::Leads(reader, stale) => (reader, true, stale),
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
                // Before anything else is called: however that ends, the fetch does.
                let task = Leader {
                    cache: self.clone(),
                    fill: fill.clone(),
                    key: key.to_owned(),
                    stale,
                    asked: asked.clone(),
                };
                let response = fetch(task.stale.as_ref().map(|e| e.validators()));
                tokio::spawn(task.run(response, send));
            }
            let status = if leads {
                FetchStatus::Miss
            } else {
                FetchStatus::Collapsed
            };
            let mut progress = fill.head().await;
            if !leads {
                if variant.is_none() && progress.is_another_variant(&fill.request, request) {
                    variant = Some(key.variant(&progress.selecting(), request));
                    continue;
                }
                // A follower waits for a first byte, too: until then it can still turn to another fetch.
                progress = fill.first_byte().await;
            }
            return match progress {
                Progress::Waiting => unreachable!("the head was waited for"),
                Progress::Failed(_) if !leads && !followed_a_failure => {
                    followed_a_failure = true;
                    continue;
                }
                Progress::Failed(error) => Err(error),
                other if !leads && other.is_another_variant(&fill.request, request) => Ok(Fetched::Pass),
                // Confirmed for one request, and not to be shared any more.
                Progress::Entry(_, FetchStatus::Unkept) if !leads => Ok(Fetched::Pass),
                Progress::Entry(entry, how) => {
                    let how = match how {
                        FetchStatus::Miss => status,
                        FetchStatus::Revalidated if !leads => FetchStatus::Confirmed,
                        how => how,
                    };
                    let ahead = if leads { fill.take_ahead() } else { Ahead::default() };
                    Ok(Fetched::Entry(entry, how, ahead))
                }
                Progress::Streaming(streaming) => Ok(Fetched::Stream(SharedStream {
                    body: FillBody::new(reader, streaming.length),
                    age: streaming.age(Instant::now()),
                    length: streaming.length,
                    answered: streaming.answered,
                    stored: streaming.stored,
                    head: streaming.head,
                    status,
                })),
                Progress::InNoSlices => Ok(Fetched::InNoSlices),
                Progress::Unshared if leads => match own.expect("a leader listens").await {
                    Ok(response) => Ok(Fetched::Own(response)),
                    Err(_) => Err(Arc::new(BodyError::Broken("the fetch was given up".into()))),
                },
                Progress::Unshared => Ok(Fetched::Pass),
            };
        }
    }

    /// Ends a fetch: nobody joins it any more, and what it comes to is kept unless a purge came first.
    pub(crate) fn leave(&self, key: &Key, fill: &Arc<Fill>, outcome: Outcome<'_>) {
        let mut shard = self.shard(key.borrow()).lock();
        let superseded = shard.end(fill);
        if fill.is_doomed() {
            return;
        }
        match outcome {
            Outcome::Nothing => {}
            // It was purged or took long meanwhile, and somebody else has fetched what is right now.
            Outcome::Store(entry) | Outcome::Confirm(entry)
                if self
                    .find(key.borrow(), &fill.request)
                    .is_some_and(|stored| stored.born() > entry.born() || superseded && stored.came_after(entry)) => {}
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

    /// Finds the fetch under way for a key that is joined by this one, or begins one.
    fn join(&self, key: KeyRef<'_>, by: KeyRef<'_>, request: &HeaderMap) -> Joined {
        let mut shard = self.shard(key).lock();
        let (by, now) = (by.to_owned(), Now::now());
        let joinable = |fill: &&Arc<Fill>| fill.is_fresh(now.mono) && self.is_joinable(key, fill.born);
        if let Some(fill) = shard.fills.get(&by).filter(joinable) {
            return Joined::Follows(Reader::new(fill.clone()));
        }
        // Before what is stored is looked at: a purge in between is not to be older than what is confirmed of it.
        let born = self.purges.now();
        // One may have ended since the caller's look-up; what it came to was stored under this lock.
        let stored = self.find(key, request);
        if let Some(entry) = &stored
            && matches!(entry.freshness(now), Freshness::Fresh { .. })
        {
            return Joined::Stored(entry.clone());
        }
        let share = self.filling.share(key.site);
        if !share.has_room(0) {
            return Joined::Full;
        }
        let fill = Arc::new(Fill::new(by, request.clone(), born, share));
        shard.begin(fill.clone());
        Joined::Leads(Reader::new(fill), stored)
    }

    /// Whether somebody who comes now may read what a fetch brings that began then: no purge since may be of it, whatever
    /// surrogate keys it turns out to have.
    fn is_joinable(&self, key: KeyRef<'_>, born: u64) -> bool {
        born == self.purges.now() || self.verdict(key, born, &SurrogateKeys::any()) == Verdict::Kept
    }
}
