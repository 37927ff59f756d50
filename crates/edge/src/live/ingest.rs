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
    upload::Upload,
};
use aws_lc_rs::digest;
use bytes::Bytes;
use edgeweir_manifest::{
    Kind,
    live::{self, Continuity, Follow, MediaPlaylist, Playlist},
};
use edgeweir_model::{Arrival, IngestHost, LiveStream, ObjectKey, StreamKeyHash, StreamStatus};
use edgeweir_origin::{
    ingest::{Document, PushError, Window},
    media_type,
};
use http::{HeaderValue, Method, Response, StatusCode, header::CONTENT_LENGTH};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// What the ingest host takes, as `Allow` lists it.
const ALLOW: &str = "PUT, POST, DELETE, OPTIONS";

/// How long after its last sign of life an encoder counts as live at least.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long an encoder of DASH that says nothing of it is taken to be there after a manifest.
const MANIFEST: Duration = Duration::from_secs(2);

/// A request by an encoder that knows the key of a stream. Made only by [`Push::authorize`].
pub(crate) struct Push {
    stream: Arc<LiveStream>,
    key: ObjectKey,
    method: Method,
    length: Option<u64>,
    body: Upload,
}

impl Push {
    /// Lets an encoder in that shows a stream's key, or says why not. The key is hashed before it is looked up, so that
    /// the look-up's time tells nothing of it.
    pub(crate) fn authorize(
        request: Accepted,
        host: &IngestHost,
        site: &Arc<Site>,
    ) -> Result<Self, (Refusal, Upload)> {
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
        let window = self.ingest.window(broadcast.id);
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
        let window = self.ingest.window(broadcast.id);
        if let Some(kind) = Kind::of_key(key.as_str()) {
            let text = collected(body, length).await?;
            let is_new = self.receive_playlist(broadcast, &window, key, kind, text)?;
            return Ok(taken(is_new));
        }
        let is_new = window.read(key, None).is_none();
        let media_type = HeaderValue::from_static(media_type(key.as_str()));
        let mut upload = window.begin(key, media_type, length).map_err(refused)?;
        self.note(broadcast, Instant::now());
        while let Some(chunk) = next(body).await? {
            upload.push(chunk).map_err(refused)?;
        }
        upload.finish().map_err(refused)?;
        self.note(broadcast, Instant::now());
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
        let unreadable = |e: edgeweir_manifest::Error| Reason::BadPlaylist(e.to_string());
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
        let is_new = channel.version().is_none();
        let mut making = channel.making.lock();
        let text = String::from_utf8(text.into()).map_err(|_| unreadable(edgeweir_manifest::Error::Utf8))?;
        let mut document = Document {
            body: text.clone(),
            state: String::new(),
            listed: Vec::new(),
            keep: Vec::new(),
        };
        let leads_to = |uri: &str| ObjectKey::from_path(&live::resolve(&path, uri)?).ok();
        // An encoder that is there sends the next version before this.
        let is_silent = |since: Option<Instant>, interval: Duration| since.is_none_or(|at| now - at >= interval);
        let last = channel.version();
        let (version, patience, ended) = match read {
            Read::Manifest(manifest) => {
                let starts_over =
                    making.availability_start.is_some() && making.availability_start != manifest.availability_start;
                let interval = manifest.minimum_update_period.unwrap_or(MANIFEST).max(MANIFEST);
                if starts_over && !is_silent(making.accepted, interval) {
                    return Err(Reason::PublisherConflict);
                }
                making.availability_start = manifest.availability_start;
                document.keep = manifest
                    .initializations
                    .iter()
                    .filter_map(|uri| leads_to(uri))
                    .collect();
                let window = manifest.time_shift_buffer.unwrap_or_default();
                (
                    Version::new(kind, text.into(), None, window),
                    interval,
                    !manifest.dynamic,
                )
            }
            Read::Playlist(Playlist::Multivariant(_)) => {
                (Version::new(kind, text.into(), None, Duration::ZERO), PATIENCE, false)
            }
            Read::Playlist(Playlist::Media(raw)) => {
                match making.continuity.follow(&raw) {
                    Follow::Same | Follow::First | Follow::Continues => {}
                    Follow::Behind | Follow::Restarts => {
                        let last = last.as_ref().and_then(|v| v.media.as_ref());
                        let due = last.filter(|m| !m.has_ended()).map(MediaPlaylist::update_interval);
                        if due.is_some_and(|due| !is_silent(making.accepted, due)) {
                            return Err(Reason::PublisherConflict);
                        }
                        window.begin_session();
                    }
                }
                let session = window.session();
                let mut label = |uri: &str| leads_to(uri).and_then(|key| window.pin(&key)).unwrap_or(session);
                let published = making.continuity.publish(&raw, &mut label);
                let listed = published.listed.iter();
                document.listed = listed
                    .filter_map(|(uri, label)| Some((leads_to(uri)?, *label)))
                    .collect();
                document.body = published.text;
                let version = Version::new(kind, document.body.clone().into(), Some(published.media), raw.window());
                (version, raw.target_duration() * 3, raw.has_ended())
            }
        };
        making.accepted = Some(now);
        let saved = Saved {
            continuity: making.continuity.clone(),
            availability_start: making.availability_start.clone(),
        };
        document.state = serde_json::to_string(&saved).map_err(|_| Reason::Internal)?;
        window.publish(key, document).map_err(refused)?;
        channel.publish(version);
        drop(making);
        self.arrived(broadcast, now, patience.max(PATIENCE), ended);
        Ok(is_new)
    }

    /// Notes a sign of life. It does not make a stream live that has said it ended.
    fn note(&self, broadcast: &Broadcast, now: Instant) {
        self.arrived(broadcast, now, PATIENCE, false);
    }

    fn arrived(&self, broadcast: &Broadcast, at: Instant, patience: Duration, ended: bool) {
        let arrival = Arrival {
            at,
            patience,
            ended,
            after: StreamStatus::Ended,
        };
        self.arrivals.note(broadcast.id, arrival);
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
            {
                let mut making = channel.making.lock();
                making.continuity = saved.continuity;
                making.availability_start = saved.availability_start;
            }
            let lasts = media.as_ref().map_or(Duration::ZERO, MediaPlaylist::window);
            channel.publish(Version::new(kind, document.body.into(), media, lasts));
            broadcast.channels.write().insert(Place::plain(key), channel);
            // Until its encoder comes back.
            self.arrived(broadcast, Instant::now(), PATIENCE, true);
        }
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
async fn next(body: &mut Upload) -> Result<Option<Bytes>, Reason> {
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
async fn collected(body: &mut Upload, length: Option<u64>) -> Result<Bytes, Reason> {
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
pub(crate) async fn drain(mut body: Upload) {
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
