//! What encoders push: `PUT`, `POST` and `DELETE` of HLS and DASH below `/<stream_key>/` on the ingest host.
//!
//! Files go to the stream's window as they come. Playlists are read first, and published when they go on from the last
//! version, or begin anew when the encoder before is silent; a second encoder is told so (409). What cannot be read
//! replaces nothing.

use super::{Broadcast, Live, Place};
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
use edgeweir_manifest::Kind;
use edgeweir_model::{Arrival, IngestHost, LiveStream, ObjectKey, StreamKeyHash, StreamStatus};
use edgeweir_origin::{ingest::PushError, media_type};
use http::{HeaderValue, Method, Response, StatusCode, header::CONTENT_LENGTH};
use http_body_util::BodyExt;
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

/// What the ingest host takes, as `Allow` lists it.
pub(crate) const ALLOW: &str = "PUT, POST, DELETE, OPTIONS";

/// How long after its last sign of life an encoder counts as live at least.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// How often it is noted that a file goes on arriving.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// A request by an encoder that knows the key of a stream. Made only by [`Push::authorize`].
pub(crate) struct Push {
    stream: Arc<LiveStream>,
    /// What the encoder has shown, which nothing that is published may hold.
    stream_key: Box<str>,
    key: ObjectKey,
    method: Method,
    length: Option<u64>,
    body: Upload,
}

impl Push {
    /// Lets an encoder in that shows a stream's key, or says why not. The key is hashed before it is looked up, so that
    /// the look-up's time tells nothing of it.
    pub(crate) fn authorize(request: Accepted, host: &IngestHost, site: &Arc<Site>) -> Result<Self, (Refusal, Upload)> {
        let target = match request.method {
            Method::PUT | Method::POST | Method::DELETE => target(host, request.path()),
            _ => Err(Reason::Method(ALLOW.to_owned())),
        };
        match target {
            Err(reason) => Err((Refusal::at(reason, site), request.body)),
            Ok((stream, stream_key, key)) => Ok(Self {
                stream,
                stream_key: stream_key.into(),
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

/// A push that is under way, whatever becomes of this.
pub(crate) struct Pushing(JoinHandle<Result<StatusCode, Reason>>);

impl Pushing {
    /// Its answer.
    pub(crate) async fn answer(self, site: &Arc<Site>) -> Result<Response<Body>, Refusal> {
        let status = self.0.await.unwrap_or(Err(Reason::Internal));
        let status = status.map_err(|reason| Refusal::at(reason, site))?;
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = status;
        Ok(response)
    }
}

/// The stream, its key and the file that a path names.
fn target<'a>(host: &IngestHost, path: &'a str) -> Result<(Arc<LiveStream>, &'a str, ObjectKey), Reason> {
    let path = path.strip_prefix('/').unwrap_or_default();
    let (key, file) = path.split_at(path.find('/').unwrap_or(path.len()));
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, key.as_bytes()).as_ref());
    let stream = host.stream(StreamKeyHash(hash)).ok_or(Reason::StreamKey)?;
    let file = ObjectKey::from_path(file).map_err(Reason::BadPath)?;
    if file.as_str().ends_with('/') {
        return Err(Reason::BadRequest("a file's name does not end with a slash"));
    }
    Ok((stream.clone(), key, file))
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

impl Live {
    /// Does what an encoder asks for, from now on and in a task of its own: many close their connection without a look at
    /// the answer, which would end it, or keep it from its begin.
    pub(crate) fn push(self: &Arc<Self>, push: Push) -> Pushing {
        let live = self.clone();
        Pushing(tokio::spawn(async move { live.take(push).await }))
    }

    async fn take(&self, mut push: Push) -> Result<StatusCode, Reason> {
        let done = match self.get(push.stream.id) {
            None => Err(Reason::StreamKey),
            Some(broadcast) if push.method == Method::DELETE => self.delete(&broadcast, &push.key),
            Some(broadcast) => match self.receive(&broadcast, &mut push).await {
                Ok(true) => Ok(StatusCode::CREATED),
                Ok(false) => Ok(StatusCode::NO_CONTENT),
                Err(reason) => Err(reason),
            },
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

    /// Takes a file; whether there was none of its name.
    async fn receive(&self, broadcast: &Broadcast, push: &mut Push) -> Result<bool, Reason> {
        let Push {
            stream_key,
            key,
            length,
            body,
            ..
        } = push;
        let length = *length;
        let window = self.window(broadcast).ok_or(Reason::StreamKey)?;
        if let Some(kind) = Kind::of_key(key.as_str()) {
            let text = {
                let _one = Receiving::of(broadcast)?;
                let whole = tokio::time::timeout(limits::PLAYLIST_TIME, collected(body, length)).await;
                whole.map_err(|_| Reason::BadRequest("the playlist takes too long"))??
            };
            return self.receive_playlist(broadcast, &window, (key, stream_key), kind, text);
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
        Ok(is_new)
    }

    /// Notes that a file arrives: what is waited for a next playlist stays as it is.
    fn sign_of_life(&self, broadcast: &Broadcast, now: Instant) {
        if !self.arrivals.go_on(broadcast.id, now) {
            self.arrived(broadcast, now, PATIENCE, false);
        }
    }

    pub(super) fn arrived(&self, broadcast: &Broadcast, at: Instant, patience: Duration, ended: bool) {
        self.note(broadcast, arrival(at, patience, ended));
    }
}

pub(super) fn arrival(at: Instant, patience: Duration, ended: bool) -> Arrival {
    Arrival {
        at,
        patience,
        ended,
        after: StreamStatus::Ended,
    }
}

pub(super) fn refused(error: PushError) -> Reason {
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
