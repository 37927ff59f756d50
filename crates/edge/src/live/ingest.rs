//! What encoders push: `PUT`, `POST` and `DELETE` of HLS and DASH below `/<stream_key>/` on the ingest host.
//!
//! Files go to the stream's window as they come. Playlists are read first, and published when they go on from the last
//! version, or begin anew when the encoder before is silent; a second encoder is told so (409). What cannot be read
//! replaces nothing.

use super::{Broadcast, Live, Place, channel::Channel, version::Version};
use crate::{
    accept::Accepted,
    body::Body,
    limits,
    refusal::{Reason, Refusal},
    site::Site,
};
use aws_lc_rs::digest;
use bytes::Bytes;
use edgeweir_manifest::{
    Error as ManifestError, Kind,
    live::{self, Continuity, Follow, MediaPlaylist, Playlist},
};
use edgeweir_model::{Arrival, IngestHost, LiveStream, ObjectKey, StreamKeyHash, StreamStatus};
use edgeweir_origin::{
    ingest::{Document, PushError, Window},
    media_type,
};
use http::{HeaderValue, Method, Response, StatusCode, header::CONTENT_LENGTH};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

/// What the ingest host takes, as `Allow` lists it.
pub(crate) const ALLOW: &str = "PUT, POST, DELETE, OPTIONS";

/// How long after its last sign of life an encoder counts as live at least.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long an encoder of DASH is taken to be there after a manifest, at least and at most: what it says itself of when
/// the next one comes may be a day.
const MANIFEST: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10));

/// When a version is overdue, in intervals. An encoder that begins anew has its first segment whole later than that.
const OVERDUE: f64 = 1.1;

/// How often it is noted that a file goes on arriving.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// A request by an encoder that knows the key of a stream. Made only by [`Push::authorize`].
pub(crate) struct Push {
    stream: Arc<LiveStream>,
    key: ObjectKey,
    method: Method,
    length: Option<u64>,
    body: Incoming,
}

impl Push {
    /// Lets an encoder in that shows a stream's key, or says why not. The key is hashed before it is looked up, so that
    /// the look-up's time tells nothing of it.
    pub(crate) fn authorize(
        request: Accepted,
        host: &IngestHost,
        site: &Arc<Site>,
    ) -> Result<Self, (Refusal, Incoming)> {
        let target = match request.method {
            Method::PUT | Method::POST | Method::DELETE => target(host, request.path()),
            _ => Err(Reason::Method(ALLOW.to_owned())),
        };
        match target {
            Err(reason) => Err((Refusal::at(reason, site), request.body)),
            Ok((stream, key)) => Ok(Self {
                stream,
                key,
                length: request
                    .headers
                    .get(CONTENT_LENGTH)
                    .and_then(|v| v.to_str().ok()?.parse().ok()),
                method: request.method,
                body: request.body,
            }),
        }
    }
}

fn target(host: &IngestHost, path: &str) -> Result<(Arc<LiveStream>, ObjectKey), Reason> {
    let path = path.strip_prefix('/').unwrap_or_default();
    let (key, file) = path.split_at(path.find('/').unwrap_or(path.len()));
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, key.as_bytes()).as_ref());
    let stream = host.stream(StreamKeyHash(hash)).ok_or(Reason::StreamKey)?;
    let file = ObjectKey::from_path(file).map_err(Reason::BadPath)?;
    if file.as_str().ends_with('/') {
        return Err(Reason::BadRequest("a file's name does not end with a slash"));
    }
    Ok((stream.clone(), file))
}

/// What of a channel outlives the process.
#[derive(Default, Serialize, Deserialize)]
struct Saved {
    continuity: Continuity,
    availability_start: Option<String>,
    run: u32,
}

/// One of the playlists that arrive of a stream, until this is dropped.
struct Receiving<'a>(&'a Broadcast);

impl<'a> Receiving<'a> {
    fn of(broadcast: &'a Broadcast) -> Result<Self, Reason> {
        let one = Self(broadcast);
        let others = broadcast.receiving.fetch_add(1, Ordering::Relaxed);
        if others >= limits::PLAYLISTS_AT_A_TIME {
            return Err(Reason::Limit("live.uploads", limits::PLAYLISTS_AT_A_TIME.into()));
        }
        Ok(one)
    }
}

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        self.0.receiving.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether an encoder that makes a version each `interval` has gone: the next one is overdue.
fn is_silent(since: Option<Instant>, interval: Duration, now: Instant) -> bool {
    since.is_none_or(|since| now.saturating_duration_since(since) >= interval.mul_f64(OVERDUE))
}

impl Live {
    /// Does what an encoder asks for, in a task of its own: many close their connection without a look at the answer.
    pub(crate) async fn push(self: &Arc<Self>, push: Push, site: &Arc<Site>) -> Result<Response<Body>, Refusal> {
        let live = self.clone();
        let done = tokio::spawn(async move { live.take(push).await }).await;
        let status = done.unwrap_or(Err(Reason::Internal));
        let status = status.map_err(|reason| Refusal::at(reason, site))?;
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = status;
        Ok(response)
    }

    async fn take(&self, mut push: Push) -> Result<StatusCode, Reason> {
        let done = match self.get(push.stream.id) {
            None => Err(Reason::StreamKey),
            Some(broadcast) if push.method == Method::DELETE => self.delete(&broadcast, &push.key),
            Some(broadcast) => self.receive(&broadcast, &mut push).await,
        };
        self.metrics.pushed(done.is_ok());
        // What is left when a file is refused or deleted.
        drain(push.body).await;
        done
    }

    fn delete(&self, broadcast: &Broadcast, key: &ObjectKey) -> Result<StatusCode, Reason> {
        let window = self.ingest.find(broadcast.id).ok_or(Reason::NotFound)?;
        let channel = broadcast.channels.write().remove(&Place::plain(key.clone()));
        if let Some(channel) = &channel {
            channel.withdraw();
        }
        let gone = if channel.is_some() {
            window.withdraw(key)
        } else {
            window.delete(key)
        };
        if gone {
            Ok(StatusCode::NO_CONTENT)
        } else {
            Err(Reason::NotFound)
        }
    }

    /// Takes a file.
    async fn receive(&self, broadcast: &Broadcast, push: &mut Push) -> Result<StatusCode, Reason> {
        let Push { key, length, body, .. } = push;
        let (length, taken) = (*length, |is_new| {
            if is_new {
                StatusCode::CREATED
            } else {
                StatusCode::NO_CONTENT
            }
        });
        let window = self.window(broadcast).ok_or(Reason::StreamKey)?;
        if let Some(kind) = Kind::of_key(key.as_str()) {
            let text = {
                let _one = Receiving::of(broadcast)?;
                let whole = tokio::time::timeout(limits::PLAYLIST_TIME, collected(body, length)).await;
                whole.map_err(|_| Reason::BadRequest("the playlist takes too long"))??
            };
            let is_new = self.receive_playlist(broadcast, &window, key, kind, text)?;
            return Ok(taken(is_new));
        }
        let is_new = window.read(key, None).is_none();
        let media_type = HeaderValue::from_static(media_type(key.as_str()));
        let mut upload = window.begin(key, media_type, length).map_err(refused)?;
        let mut noted = Instant::now();
        self.sign_of_life(broadcast, noted);
        while let Some(chunk) = next(body).await? {
            upload.push(chunk).map_err(refused)?;
            let now = Instant::now();
            if now - noted >= SIGN_OF_LIFE {
                noted = now;
                self.sign_of_life(broadcast, noted);
            }
        }
        upload.finish().map_err(refused)?;
        self.sign_of_life(broadcast, Instant::now());
        Ok(taken(is_new))
    }

    /// Takes a playlist; whether there was none of its name.
    fn receive_playlist(
        &self,
        broadcast: &Broadcast,
        window: &Arc<Window>,
        key: &ObjectKey,
        kind: Kind,
        text: Bytes,
    ) -> Result<bool, Reason> {
        let place = Place::plain(key.clone());
        let unreadable = |e: ManifestError| Reason::BadPlaylist(e.to_string());
        let path = key.to_url_path();
        let now = Instant::now();
        // What is read is made sure of before anything changes.
        let read = match kind {
            Kind::Dash => Read::Manifest(live::parse_manifest(&text).map_err(unreadable)?),
            Kind::Hls => {
                let playlist = live::parse(&text).map_err(unreadable)?;
                live::check_uris(&path, &playlist).map_err(unreadable)?;
                Read::Playlist(playlist)
            }
        };
        let channel = {
            let mut channels = broadcast.channels.write();
            if broadcast.closed.is_cancelled() {
                return Err(Reason::StreamKey);
            }
            if channels.len() >= limits::LIVE_PLAYLISTS && !channels.contains_key(&place) {
                return Err(Reason::Limit("live.playlists", limits::LIVE_PLAYLISTS as u64));
            }
            channels.entry(place).or_insert_with(|| Channel::new(false)).clone()
        };
        let mut making = channel.making.lock();
        let text = String::from_utf8(text.into()).map_err(|_| unreadable(ManifestError::Utf8))?;
        let leads_to = |uri: &str| ObjectKey::from_path(&live::resolve(&path, uri)?).ok();
        let last = channel.version();
        let mut document = Document::default();
        let (version, patience, ended) = match read {
            Read::Manifest(manifest) => {
                let (least, most) = MANIFEST;
                let interval = manifest.minimum_update_period.unwrap_or(least).clamp(least, most);
                if manifest.starts_over(making.availability_start.as_deref()) {
                    if !is_silent(making.accepted, interval, now) {
                        return Err(Reason::PublisherConflict);
                    }
                    // Its first files come before its first manifest.
                    let run = window.begin_session(making.accepted.unwrap_or(now));
                    channel.run.store(run, Ordering::Release);
                }
                making.availability_start = manifest.availability_start.or(making.availability_start.take());
                document.keep = manifest
                    .initializations
                    .iter()
                    .filter_map(|uri| leads_to(uri))
                    .collect();
                let buffer = manifest.time_shift_buffer.unwrap_or_default();
                document.lasts = buffer + manifest.max_segment_duration.unwrap_or_default() * 2;
                let run = channel.run.load(Ordering::Acquire);
                let text = super::labelled(&text, run).map_err(unreadable)?;
                document.body = text.into();
                (
                    Version::new(kind, Bytes::from(document.body.to_string()), None, buffer),
                    interval * 3,
                    !manifest.dynamic,
                )
            }
            Read::Playlist(Playlist::Multivariant(_)) => {
                document.body = text.as_str().into();
                (Version::new(kind, text.into(), None, Duration::ZERO), PATIENCE, false)
            }
            Read::Playlist(Playlist::Media(raw)) => {
                match making.continuity.follow(&raw) {
                    Follow::Same | Follow::First | Follow::Continues => {}
                    Follow::Behind | Follow::Restarts => {
                        let last = last.as_ref().and_then(|v| v.media.as_ref());
                        let due = last.filter(|m| !m.has_ended()).map(MediaPlaylist::update_interval);
                        if due.is_some_and(|due| !is_silent(making.accepted, due, now)) {
                            return Err(Reason::PublisherConflict);
                        }
                        window.begin_session(now);
                    }
                }
                let session = window.session();
                // What is announced is still to come, whatever there is of its name.
                let is_hint = |uri: &str| raw.hints().any(|hint| hint == uri);
                let mut label = |uri: &str| {
                    let there = leads_to(uri).filter(|_| !is_hint(uri));
                    there.and_then(|key| window.pin(&key)).unwrap_or(session)
                };
                let published = making.continuity.publish(&raw, &mut label);
                let listed = published.listed.iter();
                document.listed = listed
                    .filter_map(|(uri, label)| Some((leads_to(uri)?, *label)))
                    .collect();
                document.body = published.text.as_str().into();
                let version = Version::new(kind, published.text.into(), Some(published.media), raw.window());
                (version, raw.target_duration() * 3, raw.has_ended())
            }
        };
        making.accepted = Some(now);
        let saved = Saved {
            continuity: making.continuity.clone(),
            availability_start: making.availability_start.clone(),
            run: channel.run.load(Ordering::Acquire),
        };
        document.state = serde_json::to_string(&saved).map_err(|_| Reason::Internal)?.into();
        window.publish(key, document).map_err(refused)?;
        channel.publish(version);
        drop(making);
        // It may have been deleted meanwhile.
        let place = Place::plain(key.clone());
        if broadcast
            .channel(&place)
            .is_none_or(|present| !Arc::ptr_eq(&present, &channel))
        {
            window.withdraw(key);
        }
        self.arrived(broadcast, now, patience.max(PATIENCE), ended);
        Ok(last.is_none())
    }

    /// Notes that a file arrives: what is waited for a next playlist stays as it is.
    fn sign_of_life(&self, broadcast: &Broadcast, now: Instant) {
        if !self.arrivals.go_on(broadcast.id, now) {
            self.arrived(broadcast, now, PATIENCE, false);
        }
    }

    fn arrived(&self, broadcast: &Broadcast, at: Instant, patience: Duration, ended: bool) {
        self.note(broadcast, arrival(at, patience, ended));
    }

    /// Takes back what survived of a pushed stream's playlists.
    pub(super) fn restore(&self, broadcast: &Broadcast) {
        let Some(window) = self.ingest.find(broadcast.id) else {
            return;
        };
        for (key, document) in window.documents() {
            let Some(kind) = Kind::of_key(key.as_str()) else {
                continue;
            };
            let media = match kind {
                Kind::Dash => None,
                Kind::Hls => match live::parse(document.body.as_bytes()) {
                    Ok(Playlist::Media(media)) => Some(media),
                    Ok(Playlist::Multivariant(_)) => None,
                    Err(_) => continue,
                },
            };
            let saved: Saved = serde_json::from_str(&document.state).unwrap_or_default();
            let channel = Channel::new(false);
            channel.run.store(saved.run, Ordering::Release);
            {
                let mut making = channel.making.lock();
                making.continuity = saved.continuity;
                making.availability_start = saved.availability_start;
            }
            let lasts = media.as_ref().map_or(Duration::ZERO, MediaPlaylist::window);
            channel.publish(Version::new(kind, Bytes::from(document.body.to_string()), media, lasts));
            broadcast.channels.write().insert(Place::plain(key), channel);
            // Until its encoder comes back. The caller holds the lock of all streams.
            self.arrivals
                .note(broadcast.id, arrival(Instant::now(), PATIENCE, true));
        }
    }
}

fn arrival(at: Instant, patience: Duration, ended: bool) -> Arrival {
    Arrival {
        at,
        patience,
        ended,
        after: StreamStatus::Ended,
    }
}

enum Read {
    Manifest(live::Manifest),
    Playlist(Playlist),
}

fn refused(error: PushError) -> Reason {
    match error {
        PushError::Limit { name, limit } => Reason::Limit(name, limit),
        PushError::Busy => Reason::PublisherConflict,
        PushError::Length => Reason::BadRequest("the body is not as long as its Content-Length"),
        PushError::Closed => Reason::StreamKey,
    }
}

/// The next part of a body; an encoder that stands still for too long has gone.
async fn next(body: &mut Incoming) -> Result<Option<Bytes>, Reason> {
    loop {
        let frame = tokio::time::timeout(limits::PUSH_IDLE, body.frame()).await;
        match frame.map_err(|_| Reason::BadRequest("the body stands still"))? {
            None => return Ok(None),
            Some(Err(_)) => return Err(Reason::BadRequest("the body breaks off")),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// A playlist as it came, whole.
async fn collected(body: &mut Incoming, length: Option<u64>) -> Result<Bytes, Reason> {
    let most = limits::LIVE_PLAYLIST_BYTES;
    let too_large = Reason::Limit("live.playlist", most as u64);
    if length.is_some_and(|length| length > most as u64) {
        return Err(too_large);
    }
    let mut text = Vec::new();
    while let Some(chunk) = next(body).await? {
        if text.len() + chunk.len() > most {
            return Err(too_large);
        }
        text.extend_from_slice(&chunk);
    }
    Ok(text.into())
}

/// Reads on for a while, so that a client which sends before it reads comes to read the answer.
pub(crate) async fn drain(mut body: Incoming) {
    let read = async {
        let mut left = limits::DRAINED_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            let read = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(read) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    let _ = tokio::time::timeout(limits::DRAIN_TIME, read).await;
}
