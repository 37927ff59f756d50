//! Live streams at the edge: what encoders push and what is pulled from origins, as viewers get it.
//!
//! A stream is a set of playlists ([`Channel`]s) and the files that they list. Pushed files are in the stream's window
//! (`edgeweir_origin::ingest`); pulled ones go through the cache. Playlists of either are published here: each version
//! once, made to go on over restarts of the encoder, and waited for by however many viewers at no further cost.

mod answer;
mod channel;
mod files;
mod ingest;
mod publish;
mod pull;
mod query;
mod schedule;
mod version;

pub(crate) use answer::{Found, Waiting, respond};
pub(crate) use files::keep_longer;
pub(crate) use ingest::{ALLOW, Push, Pushing, drain};
pub(crate) use query::origin_query;

use crate::{
    authorize::Authorized,
    limits,
    metrics::LiveMetrics,
    refusal::Reason,
    site::{ENTRY, Target},
};
use channel::{Channel, Pulling};
use edgeweir_cache::Cache;
use edgeweir_manifest::{Error as ManifestError, Kind, live as playlist};
use edgeweir_model::{Arrival, Arrivals, LiveOrigin, LiveStream, ObjectKey, PullUrl, Snapshot, StreamId};
use edgeweir_origin::{
    Origins,
    ingest::{Ingest, Window},
};
use parking_lot::RwLock;
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// How long the window of a stream is kept after nothing comes any more.
const KEEP_ENDED: Duration = Duration::from_secs(10 * 60);

/// How often windows are looked through for what has expired.
const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// Every live stream.
#[derive(Debug)]
pub(crate) struct Live {
    ingest: Ingest,
    cache: Arc<Cache>,
    origins: Origins,
    arrivals: Arrivals,
    metrics: LiveMetrics,
    /// The edge is to stop: nobody is held any more.
    stopping: CancellationToken,
    broadcasts: RwLock<HashMap<StreamId, Arc<Broadcast>, foldhash::fast::RandomState>>,
}

/// Where something is in a stream: its path, and the query that its playlist names it with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    key: ObjectKey,
    query: Box<str>,
}

impl Place {
    fn plain(key: ObjectKey) -> Self {
        Self {
            key,
            query: Box::default(),
        }
    }

    /// Where a URI of the playlist at `path` leads, if that is in the stream's folder.
    fn of(path: &str, uri: &str) -> Option<Self> {
        let key = ObjectKey::from_path(&playlist::resolve(path, uri)?).ok()?;
        let query = uri.split('#').next()?.split_once('?').map_or("", |(_, query)| query);
        Some(Self {
            key,
            query: query.into(),
        })
    }
}

/// One live stream.
#[derive(Debug)]
pub(crate) struct Broadcast {
    id: StreamId,
    origin: LiveOrigin,
    /// The stream is no more.
    closed: CancellationToken,
    channels: RwLock<HashMap<Place, Arc<Channel>, foldhash::fast::RandomState>>,
    /// The last label that was given to what a pulled playlist lists.
    last_run: AtomicU32,
    /// Playlists that are arriving.
    receiving: AtomicU32,
}

impl Live {
    pub(crate) fn new(
        ingest: Ingest,
        cache: Arc<Cache>,
        origins: Origins,
        arrivals: Arrivals,
        metrics: LiveMetrics,
    ) -> Arc<Self> {
        Arc::new(Self {
            ingest,
            cache,
            origins,
            arrivals,
            metrics,
            stopping: CancellationToken::new(),
            broadcasts: RwLock::default(),
        })
    }

    /// Takes the streams of a snapshot. Those that are new are made ready, with what survived of them; those that are no
    /// more end for everybody.
    pub(crate) fn apply(&self, snapshot: &Snapshot) {
        let present: HashSet<StreamId> = snapshot.streams().iter().map(|s| s.id).collect();
        let mut broadcasts = self.broadcasts.write();
        broadcasts.retain(|id, broadcast| {
            let stays = present.contains(id);
            if !stays {
                broadcast.closed.cancel();
            }
            stays
        });
        for stream in snapshot.streams() {
            broadcasts
                .entry(stream.id)
                .or_insert_with(|| Arc::new(self.broadcast(stream)));
        }
        // Under the lock: what is made for a stream is made under it, too.
        self.ingest.retain(|id| present.contains(&id));
        self.arrivals.retain(|id| present.contains(&id));
    }

    /// The window of a stream that encoders push to; `None` when it is no more.
    fn window(&self, broadcast: &Broadcast) -> Option<Arc<Window>> {
        let broadcasts = self.broadcasts.read();
        broadcasts
            .contains_key(&broadcast.id)
            .then(|| self.ingest.window(broadcast.id))
    }

    /// Notes what came of a stream, unless it is no more.
    fn note(&self, broadcast: &Broadcast, arrival: Arrival) {
        let broadcasts = self.broadcasts.read();
        if broadcasts.contains_key(&broadcast.id) {
            self.arrivals.note(broadcast.id, arrival);
        }
    }

    fn broadcast(&self, stream: &LiveStream) -> Broadcast {
        let broadcast = Broadcast {
            id: stream.id,
            origin: stream.origin.clone(),
            closed: CancellationToken::new(),
            channels: RwLock::default(),
            last_run: AtomicU32::new(1),
            receiving: AtomicU32::new(0),
        };
        match &stream.origin {
            LiveOrigin::Pull(url) => {
                let entry = Place::plain(url.entry.clone());
                broadcast.channels.write().insert(entry, Channel::new(true));
            }
            LiveOrigin::Ingest(_) => self.restore(&broadcast),
        }
        broadcast
    }

    fn get(&self, id: StreamId) -> Option<Arc<Broadcast>> {
        self.broadcasts.read().get(&id).cloned()
    }

    /// Ends what is held, once `shutdown` has come.
    pub(crate) async fn release(self: Arc<Self>, shutdown: CancellationToken) {
        shutdown.cancelled().await;
        self.stopping.cancel();
    }

    /// Waits until the stream that is asked for is no more; for ever if it is none.
    pub(crate) fn gone(&self, authorized: &Authorized) -> impl Future<Output = ()> + use<> {
        let broadcast = match &authorized.resolved().target {
            Target::Live(stream, _) => self.get(stream.id),
            Target::Object(..) => None,
        };
        async move {
            match broadcast {
                Some(broadcast) => broadcast.closed.cancelled().await,
                None => std::future::pending().await,
            }
        }
    }

    /// Looks after the windows until `shutdown`; then until all that was pushed is on disk.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut tick = tokio::time::interval(HOUSEKEEPING);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = tick.tick() => self.clean(Instant::now()),
            }
        }
        self.ingest.flush().await;
    }

    fn clean(&self, now: Instant) {
        self.ingest.expire(now);
        let broadcasts: Vec<_> = self.broadcasts.read().values().cloned().collect();
        for broadcast in broadcasts {
            let Some(window) = self.ingest.find(broadcast.id) else {
                broadcast.forget_unwatched(KEEP_ENDED);
                continue;
            };
            let last = window.last_arrival();
            if !window.is_uploading() && last.is_some_and(|at| now.saturating_duration_since(at) > KEEP_ENDED) {
                for (_, channel) in broadcast.channels.write().drain() {
                    channel.withdraw();
                }
                window.clear();
            }
        }
    }
}

impl Broadcast {
    fn pull(&self) -> Option<Arc<PullUrl>> {
        match &self.origin {
            LiveOrigin::Pull(url) => Some(url.clone()),
            LiveOrigin::Ingest(_) => None,
        }
    }

    /// A label that nothing has had.
    fn next_run(&self) -> u32 {
        self.last_run.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Whether what has this label is there still: a pulled playlist's present run has it.
    fn is_present(&self, label: u32) -> bool {
        let channels = self.channels.read();
        let mut runs = channels
            .values()
            .map(|c| c.run.load(Ordering::Acquire))
            .filter(|run| *run > 0)
            .peekable();
        if runs.peek().is_none() {
            // Nothing is known of the stream yet.
            return label == 1;
        }
        runs.any(|run| run == label)
    }

    /// Lets go of what was pulled and nobody has asked for in so long, but for how it goes on.
    fn forget_unwatched(&self, lasts: Duration) {
        let channels = self.channels.read();
        let idle: Vec<_> = channels.values().filter(|c| c.is_idle(lasts)).cloned().collect();
        // Whoever makes a multivariant playlist takes this lock while it holds the channel's.
        drop(channels);
        for channel in idle {
            channel.withdraw();
            channel.making.lock().pulling = Pulling::default();
        }
    }

    fn channel(&self, place: &Place) -> Option<Arc<Channel>> {
        self.channels.read().get(place).cloned()
    }

    /// The playlists that a pulled multivariant playlist lists, and itself: there are no others.
    fn lists<'a>(&self, path: &str, uris: impl Iterator<Item = &'a str>) {
        let places = uris.filter_map(|uri| Place::of(path, uri));
        let mut listed: HashSet<Place> = places.take(limits::LIVE_PLAYLISTS).collect();
        if let Some(url) = self.pull() {
            listed.insert(Place::plain(url.entry.clone()));
        }
        let mut channels = self.channels.write();
        channels.retain(|place, _| listed.contains(place));
        for place in listed {
            channels.entry(place).or_insert_with(|| Channel::new(true));
        }
    }

    /// Where players begin: the pushed `playlist.m3u8`, else the multivariant playlist, else the only media playlist, else
    /// the only manifest; for a stream that is pulled, its URL.
    fn entry(&self) -> Result<(Place, Arc<Channel>), Reason> {
        let channels = self.channels.read();
        let found = |place: &Place| channels.get(place).map(|channel| (place.clone(), channel.clone()));
        if let Some(url) = self.pull() {
            return found(&Place::plain(url.entry.clone())).ok_or(Reason::NotLive);
        }
        let named = ObjectKey::new(ENTRY)
            .ok()
            .map(Place::plain)
            .and_then(|place| found(&place));
        if let Some((place, channel)) = named.filter(|(_, channel)| channel.version().is_some()) {
            return Ok((place, channel));
        }
        let mut by_rank: [Vec<&Place>; 3] = Default::default();
        for (place, channel) in channels.iter() {
            match channel.version() {
                Some(v) if v.kind == Kind::Hls && v.media.is_none() => by_rank[0].push(place),
                Some(v) if v.kind == Kind::Hls => by_rank[1].push(place),
                Some(_) => by_rank[2].push(place),
                None => {}
            }
        }
        let [multivariant, media, manifests] = by_rank;
        // Which of several is meant cannot be told; of multivariant playlists the outermost is.
        let outermost = multivariant
            .into_iter()
            .min_by_key(|p| (p.key.as_str().matches('/').count(), p.key.as_str()));
        let only = [media, manifests].into_iter().find(|places| places.len() == 1);
        let place = outermost.or_else(|| only.and_then(|places| places.first().copied()));
        place.and_then(found).ok_or(Reason::NotLive)
    }
}

/// A manifest of DASH whose files have this label: each run of a packager uses the same names. Folders, which have a slash
/// at the end, have none.
fn labelled(text: &str, label: u32) -> Result<String, ManifestError> {
    let is_file = |uri: &str| label > 1 && !uri.ends_with('/');
    let mut map = |uri: &str| is_file(uri).then(|| playlist::labelled(uri, label).into_owned());
    playlist::map_uris(Kind::Dash, text, &mut map)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_playlist_that_is_made_holds_up_no_others_while_it_is_to_be_forgotten() {
        let broadcast = Broadcast {
            id: StreamId::random(),
            origin: LiveOrigin::Pull(Arc::new("https://origin.example.com/live/p.m3u8".parse().unwrap())),
            closed: CancellationToken::new(),
            channels: RwLock::default(),
            last_run: AtomicU32::new(1),
            receiving: AtomicU32::new(0),
        };
        broadcast.lists("p.m3u8", std::iter::empty());
        let channel = broadcast.entry().unwrap().1;
        let version = version::Version::new(Kind::Hls, "#EXTM3U\n".into(), None, Duration::ZERO);
        channel.polled(Ok(Some(version)), Instant::now(), Instant::now());
        std::thread::scope(|scope| {
            let making = channel.making.lock();
            scope.spawn(|| broadcast.forget_unwatched(Duration::ZERO));
            // It is waiting for what is made, or about to.
            while channel.version().is_some() {
                std::thread::yield_now();
            }
            let free = broadcast.channels.try_write_for(Duration::from_secs(5));
            drop(making);
            assert!(
                free.is_some(),
                "whoever makes a multivariant playlist lists others then"
            );
        });
    }
}
