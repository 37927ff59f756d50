//! Streams that are pulled: playlists are asked for when viewers do, and no more often than there can be new ones.
//!
//! What an origin serves goes through the same door as what an encoder pushes: it is read, its URIs are checked, and when
//! the origin starts over it is made to go on (RFC 8216bis §6.2.1). Segments go through the cache.

use super::{
    Broadcast, Live, Place,
    answer::LiveQuery,
    channel::{Channel, Making},
    version::Version,
};
use crate::{limits, refusal::Reason};
use bytes::Bytes;
use edgeweir_cache::policy::Directives;
use edgeweir_manifest::{
    Kind,
    live::{self, Follow, MediaPlaylist, Playlist, Position},
};
use edgeweir_model::{Arrival, OriginUrl, PullUrl, StreamStatus};
use edgeweir_origin::{Error as OriginError, Request};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, ETAG, EXPIRES, IF_NONE_MATCH},
};
use http_body_util::{BodyExt, Limited};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// How long a multivariant playlist is taken as it is.
const MULTIVARIANT: Duration = Duration::from_secs(5);

/// For how long a playlist that does not change, and lists nothing that plays, stands in for a failing origin.
const LEAST_WINDOW: Duration = Duration::from_secs(30);

/// How often a manifest is asked for that changes without saying how often.
const MANIFEST: Duration = Duration::from_secs(2);

/// The same for what does not change any more.
const FINAL: Duration = Duration::from_secs(60);

/// How long after its last version, in target durations, a stream that nobody watches counts as live.
const LIVE: u32 = 3;

/// What a poll got.
enum Got {
    New(Bytes, Option<HeaderValue>),
    Unchanged,
}

impl Live {
    /// Sees to it that somebody asks for a playlist.
    pub(super) fn poll(self: &Arc<Self>, broadcast: &Arc<Broadcast>, place: &Place, channel: &Arc<Channel>) {
        if channel.begin_polling() {
            let poller = Poller {
                live: self.clone(),
                broadcast: broadcast.clone(),
                place: place.clone(),
                channel: channel.clone(),
            };
            tokio::spawn(poller.run());
        }
    }
}

/// The one task that asks for a playlist while somebody waits for it.
struct Poller {
    live: Arc<Live>,
    broadcast: Arc<Broadcast>,
    place: Place,
    channel: Arc<Channel>,
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.channel.end_polling();
    }
}

impl Poller {
    async fn run(self) {
        let Some(url) = self.broadcast.pull() else { return };
        loop {
            let due = self.channel.making.lock().schedule.due();
            tokio::select! {
                biased;
                () = self.broadcast.closed.cancelled() => return,
                // Between the last who waited and the next, nobody asks.
                () = self.channel.deserted() => return,
                () = tokio::time::sleep_until(due.into()) => {}
            }
            let got = self.ask(&url).await;
            let now = Instant::now();
            let taken = match got {
                Ok(Got::New(body, etag)) => self.take(&url, &body, etag, now),
                Ok(Got::Unchanged) => {
                    self.channel.making.lock().schedule.unchanged(now);
                    Ok(())
                }
                Err(reason) => Err(reason),
            };
            let mut making = self.channel.making.lock();
            let failure = taken.err();
            self.live.metrics.polled(failure.is_none());
            if let Some(reason) = &failure {
                making.schedule.failed(now);
                self.fail(reason, now);
            }
            let due = making.schedule.due();
            drop(making);
            self.channel.polled(due, failure);
        }
    }

    async fn ask(&self, url: &PullUrl) -> Result<Got, Reason> {
        let mut query = self.place.query.to_string();
        let mut headers = HeaderMap::new();
        // A token cannot be put into one that is compressed.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        {
            let making = self.channel.making.lock();
            match next_of(&making) {
                // The origin holds the answer until there is a new version: no need to guess when.
                Some(next) => {
                    let directives = match next.part {
                        Some(part) => format!("_HLS_msn={}&_HLS_part={part}", next.msn),
                        None => format!("_HLS_msn={}", next.msn),
                    };
                    if !query.is_empty() {
                        query.push('&');
                    }
                    query.push_str(&directives);
                }
                None => {
                    if let Some(etag) = &making.etag {
                        headers.insert(IF_NONE_MATCH, etag.clone());
                    }
                }
            }
        }
        let request = Request {
            method: Method::GET,
            key: self.place.key.clone(),
            query,
            headers,
            body: None,
        };
        let response = self.live.origins.fetch_from(&url.folder, request).await;
        let response = response.map_err(|e| Reason::of_origin(&e))?;
        match response.status {
            StatusCode::OK => {}
            StatusCode::NOT_MODIFIED => return Ok(Got::Unchanged),
            StatusCode::NOT_FOUND | StatusCode::GONE => return Err(Reason::NotLive),
            _ => return Err(Reason::OriginBroken),
        }
        if response.headers.contains_key(CONTENT_ENCODING) {
            return Err(Reason::OriginEncoded);
        }
        let etag = response.headers.get(ETAG).cloned();
        let body = Limited::new(response.body, limits::LIVE_PLAYLIST_BYTES).collect().await;
        let body = body.map_err(|e| match e.downcast_ref::<OriginError>() {
            Some(e) => Reason::of_origin(e),
            None => Reason::OriginPlaylist("is too large".to_owned()),
        })?;
        Ok(Got::New(body.to_bytes(), etag))
    }

    /// Publishes what came, unless it is what is there already.
    fn take(&self, url: &PullUrl, body: &[u8], etag: Option<HeaderValue>, now: Instant) -> Result<(), Reason> {
        let broken = |e: edgeweir_manifest::Error| Reason::OriginPlaylist(e.to_string());
        let text = std::str::from_utf8(body).map_err(|_| broken(edgeweir_manifest::Error::Utf8))?;
        let kind = Kind::of_text(text);
        let path = self.place.key.to_url_path();
        let mut local = |uri: &str| localized(&url.folder, &path, uri);
        let text = live::map_uris(kind, text, &mut local).map_err(broken)?;
        let mut making = self.channel.making.lock();
        let version = match kind {
            Kind::Dash => {
                let manifest = live::parse_manifest(text.as_bytes()).map_err(broken)?;
                let (interval, window) = if manifest.dynamic {
                    let often = manifest.minimum_update_period.unwrap_or(MANIFEST);
                    (often.max(MANIFEST / 4), manifest.time_shift_buffer.unwrap_or_default())
                } else {
                    (FINAL, FINAL)
                };
                if self.is_published(text.as_bytes()) {
                    making.schedule.unchanged(now);
                } else {
                    making.schedule.changed(now, interval);
                    self.note(interval, !manifest.dynamic, now);
                }
                Version::new(kind, text.into(), None, window.max(LEAST_WINDOW))
            }
            Kind::Hls => match live::parse(text.as_bytes()).map_err(broken)? {
                playlist @ Playlist::Multivariant(_) => {
                    live::check_uris(&path, &playlist).map_err(broken)?;
                    making.schedule.changed(now, MULTIVARIANT);
                    self.note(MULTIVARIANT, false, now);
                    let Playlist::Multivariant(multivariant) = playlist else {
                        unreachable!("matched")
                    };
                    self.broadcast.lists(&path, multivariant.uris());
                    Version::new(kind, text.into(), None, LEAST_WINDOW)
                }
                playlist @ Playlist::Media(_) => {
                    live::check_uris(&path, &playlist).map_err(broken)?;
                    let Playlist::Media(raw) = playlist else {
                        unreachable!("matched")
                    };
                    making.etag = etag;
                    let Some(version) = self.media(&mut making, raw, now) else {
                        return Ok(());
                    };
                    version
                }
            },
        };
        drop(making);
        self.channel.publish(version);
        Ok(())
    }

    /// The version that a media playlist makes; `None` when it is no new one.
    fn media(&self, making: &mut Making, raw: MediaPlaylist, now: Instant) -> Option<Arc<Version>> {
        let interval = raw.update_interval();
        match making.continuity.follow(&raw) {
            Follow::Same => {
                making.schedule.unchanged(now);
                making.behind = None;
                return None;
            }
            // A replica of the origin that lags. One that goes on doing so has started over with the same names.
            Follow::Behind => {
                let since = *making.behind.get_or_insert(now);
                if now - since < raw.target_duration() * 2 {
                    making.schedule.unchanged(now);
                    return None;
                }
                self.broadcast.begin_session();
            }
            Follow::Restarts => self.broadcast.begin_session(),
            Follow::First | Follow::Continues => {}
        }
        making.behind = None;
        let session = self.broadcast.session();
        let published = making.continuity.publish(&raw, &mut |_| session);
        making
            .schedule
            .changed(now, if raw.has_ended() { FINAL } else { interval });
        self.note(raw.target_duration(), raw.has_ended(), now);
        let window = published.media.window().max(raw.target_duration() * 3);
        making.raw = Some(raw);
        Some(Version::new(
            Kind::Hls,
            published.text.into(),
            Some(published.media),
            window,
        ))
    }

    fn is_published(&self, text: &[u8]) -> bool {
        self.channel.version().is_some_and(|v| **v.body() == *text)
    }

    fn note(&self, interval: Duration, ended: bool, now: Instant) {
        let arrival = Arrival {
            at: now,
            patience: (interval * LIVE).max(Duration::from_secs(10)),
            ended,
            // Nobody may be watching.
            after: StreamStatus::Idle,
        };
        self.live.arrivals.note(self.broadcast.id, arrival);
    }

    /// An origin that fails for longer than what is published lasts has ended its stream.
    fn fail(&self, reason: &Reason, now: Instant) {
        let version = self.channel.version();
        tracing::warn!(stream = %self.broadcast.id, %reason, "a pulled playlist cannot be got");
        if version.is_some_and(|v| now.saturating_duration_since(v.at) > v.window) {
            self.live.arrivals.end(self.broadcast.id);
        }
    }
}

/// For how long the cache keeps a file of a pulled stream whose origin does not forbid it, in seconds. What a playlist has
/// listed does not change (RFC 8216 §6.2.1), whatever the origin says of all that it serves.
const SEGMENT: u64 = 3600;

/// What the cache is told of a file that was pulled. One that is not there may be in a moment.
pub(crate) fn keep_longer(status: StatusCode, headers: &mut HeaderMap) {
    let directives = Directives::of(headers).unwrap_or_default();
    if directives.no_store || directives.private {
        return;
    }
    let seconds = match status {
        StatusCode::OK => directives.lifetime.unwrap_or(0).max(SEGMENT),
        StatusCode::NOT_FOUND | StatusCode::GONE => 1,
        _ => return,
    };
    headers.remove(EXPIRES);
    headers.remove(CDN_CACHE_CONTROL);
    let value = HeaderValue::from_str(&format!("max-age={seconds}")).expect("ASCII");
    headers.insert(CACHE_CONTROL, value);
}

/// The query without what is the edge's own.
pub(crate) fn origin_query(query: &str) -> String {
    LiveQuery::parse(query).map(|query| query.rest).unwrap_or_default()
}

/// What an origin that blocks reloads is asked to wait for: what comes after its last version.
fn next_of(making: &Making) -> Option<Position> {
    let raw = making
        .raw
        .as_ref()
        .filter(|raw| raw.can_block_reload() && !raw.has_ended())?;
    let last = raw.position();
    Some(match (raw.part_target(), last.part) {
        (Some(_), Some(part)) => Position {
            msn: last.msn,
            part: Some(part + 1),
        },
        (Some(_), None) => Position {
            msn: last.msn + 1,
            part: Some(0),
        },
        (None, _) => Position {
            msn: last.msn + 1,
            part: None,
        },
    })
}

/// An absolute reference into the folder as a relative one, so that what it leads to is fetched through here.
fn localized(folder: &OriginUrl, playlist: &str, uri: &str) -> Option<String> {
    let path = match uri.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
            let same = scheme.eq_ignore_ascii_case(if folder.is_https() { "https" } else { "http" });
            let own = folder.authority();
            let with_port = format!("{own}:{}", folder.port());
            (same && (authority.eq_ignore_ascii_case(&own) || authority.eq_ignore_ascii_case(&with_port)))
                .then_some(path)?
        }
        None if uri.starts_with("//") => return None,
        None => uri,
    };
    let inside = path.strip_prefix(folder.prefix())?.strip_prefix('/')?;
    let up = "../".repeat(playlist.matches('/').count());
    // A first segment with a colon would read as a scheme (RFC 3986 §4.2).
    let here = if up.is_empty() { "./" } else { "" };
    Some(format!("{up}{here}{inside}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_references_into_the_folder_become_relative() {
        let folder: OriginUrl = "http://o.example.com/live/a".parse().unwrap();
        for (playlist, uri, expected) in [
            ("p.m3u8", "http://o.example.com/live/a/s.ts?x=1", Some("./s.ts?x=1")),
            ("p.m3u8", "HTTP://O.example.com:80/live/a/s.ts", Some("./s.ts")),
            ("v/0/p.m3u8", "/live/a/v/0/s.ts", Some("../../v/0/s.ts")),
            ("p.m3u8", "/live/ab/s.ts", None),
            ("p.m3u8", "/other/s.ts", None),
            ("p.m3u8", "https://o.example.com/live/a/s.ts", None),
            ("p.m3u8", "http://o.example.com:8080/live/a/s.ts", None),
            ("p.m3u8", "http://other.example.com/live/a/s.ts", None),
            ("p.m3u8", "//o.example.com/live/a/s.ts", None),
            ("p.m3u8", "s.ts", None),
            ("p.m3u8", "live/a/s.ts", None),
        ] {
            assert_eq!(localized(&folder, playlist, uri).as_deref(), expected, "{uri}");
        }
    }
}
