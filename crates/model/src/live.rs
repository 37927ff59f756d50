//! Live streams: where one comes from, and whether it is on the air.

use crate::{ObjectKey, OriginUrl, OriginUrlError, StreamId};
use std::{
    collections::HashMap,
    fmt,
    str::FromStr,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

/// The SHA-256 of a stream key: the only form in which one is kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamKeyHash(pub [u8; 32]);

impl fmt::Debug for StreamKeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamKeyHash(..)")
    }
}

/// Where a live stream comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LiveOrigin {
    /// An encoder pushes it here, with the stream key of this hash.
    Ingest(StreamKeyHash),
    /// It is pulled.
    Pull(Arc<PullUrl>),
}

/// Why a text is no URL that a live stream can be pulled from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PullUrlError {
    /// No URL of an origin.
    #[error(transparent)]
    Url(#[from] OriginUrlError),
    /// It ends in a slash, has no path, or one that is not that of an object.
    #[error("must end with the playlist's name, as in https://origin.example.com/live/playlist.m3u8")]
    Playlist,
}

/// The URL of the playlist or manifest that a live stream is pulled from, parted into its folder and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullUrl {
    /// The folder; everything that is pulled is in it.
    pub folder: OriginUrl,
    /// The name of the playlist or manifest in the folder.
    pub entry: ObjectKey,
}

impl FromStr for PullUrl {
    type Err = PullUrlError;

    fn from_str(s: &str) -> Result<Self, PullUrlError> {
        // A URL as a whole first, so that its errors are told as such.
        let _: OriginUrl = s.parse()?;
        let (folder, name) = s.rsplit_once('/').ok_or(PullUrlError::Playlist)?;
        let folder: OriginUrl = folder.parse().map_err(|_| PullUrlError::Playlist)?;
        let entry = ObjectKey::from_path(name).map_err(|_| PullUrlError::Playlist)?;
        Ok(Self { folder, entry })
    }
}

impl fmt::Display for PullUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.folder, self.entry.to_url_path())
    }
}

/// Whether a stream is on the air.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamStatus {
    /// Nothing has come yet.
    Idle,
    /// It arrives.
    Live,
    /// It has arrived, and does not any more.
    Ended,
}

impl StreamStatus {
    /// The name used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Live => "live",
            Self::Ended => "ended",
        }
    }
}

/// What came last of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// When.
    pub at: Instant,
    /// For how long after that it counts as live, when nothing more comes.
    pub patience: Duration,
    /// Whether it said that it was the last.
    pub ended: bool,
    /// What the stream is when nothing more comes in that time.
    pub after: StreamStatus,
}

impl Arrival {
    fn status(&self, now: Instant) -> StreamStatus {
        if self.ended {
            StreamStatus::Ended
        } else if now.saturating_duration_since(self.at) > self.patience {
            self.after
        } else {
            StreamStatus::Live
        }
    }
}

/// What has arrived of every stream on this node: the edge notes it, the control API tells it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Arrivals(Arc<RwLock<HashMap<StreamId, Arrival>>>);

impl Arrivals {
    /// Notes that something came.
    pub fn note(&self, stream: StreamId, arrival: Arrival) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(stream, arrival);
    }

    /// Notes that more comes, of a stream that something has come of already; whether it has.
    pub fn go_on(&self, stream: StreamId, now: Instant) -> bool {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let known = all.get_mut(&stream);
        let is_known = known.is_some();
        if let Some(arrival) = known {
            arrival.at = now;
            arrival.ended = false;
        }
        is_known
    }

    /// Notes that nothing more will come of a stream that something has come of.
    pub fn end(&self, stream: StreamId) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(arrival) = all.get_mut(&stream) {
            arrival.ended = true;
        }
    }

    /// Forgets the streams that are no more.
    pub fn retain(&self, keep: impl Fn(StreamId) -> bool) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|stream, _| keep(*stream));
    }

    /// A stream's status.
    pub fn status(&self, stream: StreamId, now: Instant) -> StreamStatus {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.get(&stream).map_or(StreamStatus::Idle, |a| a.status(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_url_is_a_folder_and_a_name() {
        for (given, folder, entry) in [
            (
                "https://o.example.com/live/a/index.m3u8",
                "https://o.example.com/live/a",
                "index.m3u8",
            ),
            (
                "http://o.example.com:8080/master.m3u8",
                "http://o.example.com:8080",
                "master.m3u8",
            ),
            ("http://[::1]/a%20b/c%20d.mpd", "http://[::1]/a%20b", "c d.mpd"),
        ] {
            let url: PullUrl = given.parse().unwrap();
            assert_eq!((url.folder.to_string().as_str(), url.entry.as_str()), (folder, entry));
            assert_eq!(url.to_string(), given);
        }
        for (bad, why) in [
            ("ftp://o.example.com/a.m3u8", OriginUrlError::Scheme.into()),
            ("https://o.example.com/a.m3u8?k=v", OriginUrlError::Query.into()),
            ("https://o.example.com/../a.m3u8", OriginUrlError::Path.into()),
            ("https://o.example.com/a/..", OriginUrlError::Path.into()),
            ("https://o.example.com", PullUrlError::Playlist),
            ("https://o.example.com/", PullUrlError::Playlist),
            ("https://o.example.com/live/", PullUrlError::Playlist),
            ("https://o.example.com/%2e%2e", PullUrlError::Playlist),
            ("https://o.example.com/a%2fb", PullUrlError::Playlist),
        ] {
            assert_eq!(bad.parse::<PullUrl>(), Err(why), "{bad}");
        }
    }

    #[test]
    fn a_stream_is_live_while_it_arrives() {
        let (arrivals, stream, now) = (Arrivals::default(), StreamId::random(), Instant::now());
        assert_eq!(arrivals.status(stream, now), StreamStatus::Idle);
        let mut arrival = Arrival {
            at: now,
            patience: Duration::from_secs(6),
            ended: false,
            after: StreamStatus::Ended,
        };
        arrivals.note(stream, arrival);
        assert_eq!(
            arrivals.status(stream, now + Duration::from_secs(6)),
            StreamStatus::Live
        );
        assert_eq!(
            arrivals.status(stream, now + Duration::from_secs(7)),
            StreamStatus::Ended
        );
        arrival.after = StreamStatus::Idle;
        arrivals.note(stream, arrival);
        assert_eq!(
            arrivals.status(stream, now + Duration::from_secs(7)),
            StreamStatus::Idle
        );
        arrivals.end(stream);
        assert_eq!(arrivals.status(stream, now), StreamStatus::Ended);
        assert!(arrivals.go_on(stream, now));
        assert_eq!(arrivals.status(stream, now), StreamStatus::Live);
        arrivals.retain(|_| false);
        assert!(!arrivals.go_on(stream, now));
        assert_eq!(arrivals.status(stream, now), StreamStatus::Idle);
    }
}
