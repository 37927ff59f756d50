//! Streams that are pulled: playlists are asked for when viewers do, and no more often than there can be new ones.
//!
//! What an origin serves goes through the same door as what an encoder pushes: it is read, its URIs are checked, and when
//! the origin starts over it is made to go on (RFC 8216bis §6.2.1). Segments go through the cache.

use super::{
    Broadcast, Live, Place,
    channel::{Channel, Making, Polling, Pulling},
    files::localized,
    version::Version,
};
use crate::{fetch, limits, refusal::Reason};
use bytes::Bytes;
use edgeweir_cache::unshared_value;
use edgeweir_manifest::{
    Error as ManifestError, Kind,
    live::{self, Follow, MediaPlaylist, Playlist, Position},
};
use edgeweir_model::{Arrival, PullUrl, StreamStatus};
use edgeweir_origin::{Error as OriginError, Request};
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, ETAG, IF_NONE_MATCH},
};
use http_body_util::{BodyExt, Limited};
use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

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

/// The longest interval for which an origin is let hold its answer: it must come before the time for its head is over.
const LONGEST_BLOCK: Duration = Duration::from_secs(4);

/// How many files of one version are fetched before somebody asks for them.
const AHEAD: usize = 8;

/// What a poll got.
enum Got {
    New(Bytes, Option<HeaderValue>),
    Unchanged,
}

impl Live {
    /// Sees to it that somebody asks for a playlist. Whoever calls this waits for it already.
    pub(super) fn poll(self: &Arc<Self>, broadcast: &Arc<Broadcast>, place: &Place, channel: &Arc<Channel>) {
        if !channel.is_polled() {
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

impl Poller {
    async fn run(self) {
        let Some(url) = self.broadcast.pull() else { return };
        while let Some(right) = self.channel.begin_polling() {
            self.while_wanted(&url, &right).await;
            drop(right);
            // Somebody may have come since nobody waited, and have seen that there was a task.
            if self.channel.is_deserted() || self.broadcast.closed.is_cancelled() {
                return;
            }
        }
    }

    async fn while_wanted(&self, url: &PullUrl, _: &Polling<'_>) {
        loop {
            let due = self.channel.making.lock().pulling.schedule.due();
            tokio::select! {
                biased;
                () = self.broadcast.closed.cancelled() => return,
                // Between the last who waited and the next, nobody asks.
                () = self.channel.deserted() => return,
                () = tokio::time::sleep_until(due.into()) => {}
            }
            let got = tokio::select! {
                biased;
                () = self.broadcast.closed.cancelled() => return,
                got = self.ask(url) => got,
            };
            let now = Instant::now();
            let mut making = self.channel.making.lock();
            let taken = match got {
                Ok(Got::New(body, etag)) => self.take(&mut making, url, &body, etag, now),
                Ok(Got::Unchanged) => {
                    making.pulling.schedule.unchanged(now);
                    Ok(None)
                }
                Err(reason) => Err(reason),
            };
            self.live.metrics.polled(taken.is_ok());
            making.pulling.answered = taken.is_ok();
            if let Err(reason) = &taken {
                making.pulling.schedule.failed(now);
                self.fail(reason, making.pulling.schedule.fails_again());
            }
            let due = making.pulling.schedule.due();
            drop(making);
            self.channel.polled(taken, now, due);
        }
    }

    async fn ask(&self, url: &PullUrl) -> Result<Got, Reason> {
        let mut query = self.place.query.to_string();
        let mut headers = HeaderMap::new();
        // A token cannot be put into one that is compressed.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        {
            let making = self.channel.making.lock();
            match next_of(&making.pulling) {
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
                    if let Some(etag) = &making.pulling.etag {
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
            interim: None,
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
        let etag = response.headers.get(ETAG).map(unshared_value);
        let body = Limited::new(response.body, limits::LIVE_PLAYLIST_BYTES).collect().await;
        let body = body.map_err(|e| match e.downcast_ref::<OriginError>() {
            Some(e) => Reason::of_origin(e),
            None => Reason::OriginPlaylist("is too large".to_owned()),
        })?;
        Ok(Got::New(body.to_bytes(), etag))
    }

    /// The version that what came makes; `None` when it is what is there already.
    fn take(
        &self,
        making: &mut Making,
        url: &PullUrl,
        body: &[u8],
        etag: Option<HeaderValue>,
        now: Instant,
    ) -> Result<Option<Arc<Version>>, Reason> {
        let text = std::str::from_utf8(body).map_err(|_| broken(ManifestError::Utf8))?;
        let kind = Kind::of_text(text);
        let path = self.place.key.to_url_path();
        let mut local = |uri: &str| localized(&url.folder, &path, uri);
        let text = live::map_uris(kind, text, &mut local).map_err(broken)?;
        let version = match kind {
            Kind::Dash => self.manifest(making, &text, now)?,
            Kind::Hls => {
                let playlist = live::parse(text.as_bytes()).map_err(broken)?;
                live::check_uris(&path, &playlist).map_err(broken)?;
                match playlist {
                    Playlist::Multivariant(multivariant) => {
                        making.pulling.schedule.rests(now, MULTIVARIANT);
                        // There is one such playlist: what another lists is nothing of the stream.
                        if self.broadcast.pull().is_some_and(|url| url.entry == self.place.key) {
                            self.broadcast.lists(&path, multivariant.uris());
                        }
                        let is_new = !self.is_published(text.as_bytes());
                        is_new.then(|| Version::new(kind, text.into(), None, LEAST_WINDOW))
                    }
                    Playlist::Media(raw) => self.media(making, raw, now),
                }
            }
        };
        making.pulling.etag = etag;
        Ok(version)
    }

    /// The version that a manifest makes. What a packager that has begun anew writes gets another label.
    fn manifest(&self, making: &mut Making, text: &str, now: Instant) -> Result<Option<Arc<Version>>, Reason> {
        let manifest = live::parse_manifest(text.as_bytes()).map_err(broken)?;
        let (interval, window) = if manifest.dynamic {
            let often = manifest.minimum_update_period.unwrap_or(MANIFEST);
            let often = often.clamp(MANIFEST / 4, FINAL);
            (often, manifest.time_shift_buffer.unwrap_or_default())
        } else {
            (FINAL, FINAL)
        };
        if self.channel.run.load(Ordering::Acquire) == 0 {
            self.channel.run.store(1, Ordering::Release);
        }
        if manifest.starts_over(making.availability_start.as_deref()) {
            self.begin_run();
        }
        making.availability_start = manifest.availability_start.or(making.availability_start.take());
        let run = self.channel.run.load(Ordering::Acquire);
        let text = super::labelled(text, run).map_err(broken)?;
        let (is_new, schedule) = (!self.is_published(text.as_bytes()), &mut making.pulling.schedule);
        match (manifest.dynamic, is_new) {
            (false, _) => schedule.rests(now, FINAL),
            (true, true) => schedule.changed(now, interval),
            (true, false) => schedule.unchanged(now),
        }
        if !is_new {
            return Ok(None);
        }
        self.note(interval, !manifest.dynamic, now);
        Ok(Some(Version::new(
            Kind::Dash,
            text.into(),
            None,
            window.max(LEAST_WINDOW),
        )))
    }

    /// The version that a media playlist makes; `None` when it is no new one.
    fn media(&self, making: &mut Making, raw: MediaPlaylist, now: Instant) -> Option<Arc<Version>> {
        let interval = raw.update_interval();
        let pulling = &mut making.pulling;
        match making.continuity.follow(&raw) {
            Follow::Same if self.channel.version().is_some() => {
                pulling.schedule.unchanged(now);
                pulling.behind = None;
                return None;
            }
            // A replica of the origin that lags. One that goes on doing so has started over with the same names.
            Follow::Behind => {
                let since = *pulling.behind.get_or_insert(now);
                if now - since < raw.target_duration() * 2 {
                    pulling.schedule.unchanged(now);
                    return None;
                }
                self.begin_run();
            }
            Follow::Restarts => self.begin_run(),
            Follow::First => self.channel.run.store(1, Ordering::Release),
            Follow::Same | Follow::Continues => {}
        }
        pulling.behind = None;
        let run = self.channel.run.load(Ordering::Acquire);
        let published = making.continuity.publish(&raw, &mut |_| run);
        pulling
            .schedule
            .changed(now, if raw.has_ended() { FINAL } else { interval });
        self.note(raw.target_duration(), raw.has_ended(), now);
        self.fetch_ahead(&published.media);
        let window = published.media.window().max(raw.target_duration() * 3);
        pulling.raw = Some(raw);
        Some(Version::new(
            Kind::Hls,
            published.text.into(),
            Some(published.media),
            window,
        ))
    }

    /// Fetches what a playlist lists that the last one did not: whoever gets the playlist can then play it, whatever
    /// becomes of the origin. Somebody waits for it, or nobody would have asked; what was there before is fetched when it is
    /// wanted.
    fn fetch_ahead(&self, media: &MediaPlaylist) {
        let (Some(last), Some(url)) = (self.channel.version(), self.broadcast.pull()) else {
            return;
        };
        if self.channel.is_deserted() {
            return;
        }
        let known: HashSet<&str> = last.media.iter().flat_map(MediaPlaylist::media_uris).collect();
        let path = self.place.key.to_url_path();
        let new: HashSet<&str> = media.media_uris().filter(|uri| !known.contains(uri)).collect();
        for place in new.into_iter().filter_map(|uri| Place::of(&path, uri)).take(AHEAD) {
            let (cache, origins) = (self.live.cache.clone(), self.live.origins.clone());
            let file = (place.key, place.query.into_string());
            tokio::spawn(fetch::ahead(cache, origins, self.broadcast.id, url.clone(), file));
        }
    }

    /// From now on what the playlist lists has another label.
    fn begin_run(&self) {
        self.channel.run.store(self.broadcast.next_run(), Ordering::Release);
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
        self.live.note(&self.broadcast, arrival);
    }

    /// An origin that fails for longer than what is published lasts has ended its stream.
    fn fail(&self, reason: &Reason, again: bool) {
        if !again {
            tracing::warn!(stream = %self.broadcast.id, %reason, "a pulled playlist cannot be got");
        }
        if self.channel.version().is_some() && !self.channel.stands_in() {
            self.live.arrivals.end(self.broadcast.id);
        }
    }
}

/// What viewers and the log are told of an origin's playlist: not its URIs, which may hold a signature of the origin's.
fn broken(error: ManifestError) -> Reason {
    Reason::OriginPlaylist(match error {
        ManifestError::Uri(_) => "it has a URI that leads out of the stream's folder or is not fetched".to_owned(),
        other => other.to_string(),
    })
}

/// What an origin that blocks reloads is asked to wait for: what comes after its last version. One that has failed is
/// asked for what it has: it may have begun anew, with lower numbers.
fn next_of(pulling: &Pulling) -> Option<Position> {
    let raw = pulling
        .raw
        .as_ref()
        .filter(|raw| raw.can_block_reload() && !raw.has_ended())?;
    if !pulling.answered || raw.update_interval() > LONGEST_BLOCK {
        return None;
    }
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
