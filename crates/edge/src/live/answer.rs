//! What viewers get of live streams.

use super::{
    Broadcast, Live, Place,
    channel::{self, Channel},
    files::is_media,
    query::{LiveQuery, accepts_gzip},
    version::{self, Version},
};
use crate::{
    authorize::Authorized,
    body::Body,
    refusal::{Reason, Refusal},
    respond::{self, Representation, Source},
    site::{LivePath, Target},
};
use bytes::Bytes;
use edgeweir_manifest::{
    Kind,
    live::{self as playlist, Position},
};
use edgeweir_model::{LiveOrigin, ObjectKey};
use edgeweir_origin::ingest::{Content, LiveFile};
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, LOCATION, VARY},
};
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

/// For how long a file that a playlist has announced is waited for.
const ANNOUNCED: Duration = Duration::from_secs(10);

/// For how long players may keep a segment, in seconds: a window's time, as encoders of DASH reuse names.
const SEGMENT: HeaderValue = HeaderValue::from_static("max-age=60");

/// Texts shorter than this are sent as they are.
const WORTH_COMPRESSING: usize = 200;

/// What there is for a request.
pub(crate) enum Found {
    Served(Served),
    /// It must be waited for.
    Waiting(Waiting),
    /// A file of a pulled stream: the cache's, and the origin's.
    Cached,
    /// One that the origin has no more, as it began anew: the cache's alone.
    CachedOnly,
}

/// What a request is answered with.
pub(crate) enum Served {
    /// A playlist, and where it is when that is not where it was asked for: a relative reference.
    Playlist(Arc<Version>, Box<str>),
    File(LiveFile),
}

/// What a request waits for.
pub(crate) struct Waiting {
    broadcast: Arc<Broadcast>,
    wanted: Wanted,
}

enum Wanted {
    Playlist {
        place: Place,
        channel: Arc<Channel>,
        position: Option<Position>,
        location: Box<str>,
    },
    /// A playlist that the entry, which is not known yet, may list.
    Listed {
        place: Place,
        position: Option<Position>,
    },
    File {
        key: ObjectKey,
        label: Option<u32>,
    },
}

impl Live {
    /// What there is for an authorized request, without waiting.
    pub(crate) fn find(self: &Arc<Self>, authorized: &Authorized, now: Instant) -> Result<Found, Refusal> {
        let resolved = authorized.resolved();
        let Target::Live(stream, path) = &resolved.target else {
            return Ok(Found::Cached);
        };
        let found = || {
            let query = LiveQuery::parse(authorized.query())?;
            let broadcast = self.get(stream.id).ok_or(Reason::NotLive)?;
            match (path, &stream.origin) {
                (LivePath::Entry { prefix }, _) => {
                    let (place, channel) = broadcast.entry()?;
                    let location = format!("{prefix}{}", place.key.to_url_path());
                    playlist(broadcast, place, channel, query.position, location.into(), now)
                }
                (LivePath::File(key), LiveOrigin::Pull(_)) => pulled(broadcast, key, query, now),
                (LivePath::File(key), LiveOrigin::Ingest(_)) => self.pushed(broadcast, key, query, now),
            }
        };
        found().map_err(|reason| Refusal::at(reason, &resolved.site))
    }

    fn pushed(
        &self,
        broadcast: Arc<Broadcast>,
        key: &ObjectKey,
        query: LiveQuery,
        now: Instant,
    ) -> Result<Found, Reason> {
        let place = Place::plain(key.clone());
        if let Some(channel) = broadcast.channel(&place) {
            return playlist(broadcast, place, channel, query.position, Box::default(), now);
        }
        let window = self.ingest.find(broadcast.id).ok_or(Reason::NotLive)?;
        if let Some(file) = window.read(key, query.label) {
            return Ok(Found::Served(Served::File(file)));
        }
        if !broadcast.announces(key) {
            return Err(Reason::NotFound);
        }
        Ok(Found::Waiting(Waiting {
            broadcast,
            wanted: Wanted::File {
                key: key.clone(),
                label: query.label,
            },
        }))
    }

    /// What a request waited for.
    pub(crate) async fn wait(self: &Arc<Self>, waiting: Waiting) -> Result<Served, Reason> {
        tokio::select! {
            biased;
            served = self.waited(waiting) => served,
            () = self.stopping.cancelled() => Err(Reason::NotYetAvailable),
        }
    }

    async fn waited(self: &Arc<Self>, waiting: Waiting) -> Result<Served, Reason> {
        let Waiting { broadcast, wanted } = waiting;
        let _held = self.metrics.held();
        let playlist = async |place: Place, channel: Arc<Channel>, position, location| {
            let poll = || self.poll(&broadcast, &place, &channel);
            let version = channel.wait(position, poll, broadcast.closed.cancelled()).await?;
            Ok(Served::Playlist(version, location))
        };
        match wanted {
            Wanted::Playlist {
                place,
                channel,
                position,
                location,
            } => playlist(place, channel, position, location).await,
            Wanted::Listed { place, position } => {
                let (entry, channel) = broadcast.entry()?;
                playlist(entry, channel, None, Box::default()).await?;
                let channel = broadcast.channel(&place).ok_or(Reason::NotFound)?;
                playlist(place, channel, position, Box::default()).await
            }
            Wanted::File { key, label } => {
                let window = self.ingest.find(broadcast.id).ok_or(Reason::NotLive)?;
                // It ends with the stream.
                let waited = tokio::time::timeout(ANNOUNCED, window.wait(&key, label)).await;
                waited.ok().flatten().map(Served::File).ok_or(Reason::NotFound)
            }
        }
    }
}

fn pulled(broadcast: Arc<Broadcast>, key: &ObjectKey, query: LiveQuery, now: Instant) -> Result<Found, Reason> {
    let place = Place {
        key: key.clone(),
        query: query.rest.into(),
    };
    if let Some(channel) = broadcast.channel(&place) {
        return playlist(broadcast, place, channel, query.position, Box::default(), now);
    }
    if Kind::of_key(key.as_str()).is_some() {
        // Only what the entry lists is a playlist of the stream.
        return if broadcast.entry()?.1.version().is_some() {
            Err(Reason::NotFound)
        } else {
            let position = query.position;
            Ok(Found::Waiting(Waiting {
                broadcast,
                wanted: Wanted::Listed { place, position },
            }))
        };
    }
    match query.label.unwrap_or(1) {
        label if broadcast.is_present(label) => Ok(Found::Cached),
        label if label > broadcast.last_run.load(Ordering::Acquire) => Err(Reason::NotFound),
        // Whoever began anew has others of these names.
        _ if is_media(key) => Ok(Found::CachedOnly),
        // Keys are not kept as long as what they open, and not all of them are the run's.
        _ => Ok(Found::Cached),
    }
}

fn playlist(
    broadcast: Arc<Broadcast>,
    place: Place,
    channel: Arc<Channel>,
    position: Option<Position>,
    location: Box<str>,
    now: Instant,
) -> Result<Found, Reason> {
    Ok(match channel.ready(position, now)? {
        channel::Ready::Version(version) => Found::Served(Served::Playlist(version, location)),
        channel::Ready::Wait => Found::Waiting(Waiting {
            broadcast,
            wanted: Wanted::Playlist {
                place,
                channel,
                position,
                location,
            },
        }),
    })
}

impl Broadcast {
    /// Whether a playlist has a preload hint for it.
    fn announces(&self, key: &ObjectKey) -> bool {
        self.channels.read().iter().any(|(place, channel)| {
            let Some(version) = channel.version() else { return false };
            let path = place.key.to_url_path();
            version.media.as_ref().is_some_and(|media| {
                let mut hints = media.hints().filter_map(|uri| playlist::resolve(&path, uri));
                hints.any(|hint| ObjectKey::from_path(&hint).is_ok_and(|hint| hint == *key))
            })
        })
    }
}

/// The answer. `waited` tells how the cache took part.
pub(crate) fn respond(authorized: &Authorized, served: Served, waited: bool) -> Result<Response<Body>, Refusal> {
    let is_pulled = matches!(&authorized.resolved().target, Target::Live(stream, _) if matches!(stream.origin, LiveOrigin::Pull(_)));
    let status = HeaderValue::from_static(if waited && is_pulled {
        "edgeweir; fwd=stale; collapsed"
    } else {
        "edgeweir; hit"
    });
    let representation = match served {
        Served::Playlist(version, location) => {
            // Its relative URIs are relative to its own folder.
            let prefix = &location[..location.rfind('/').map_or(0, |at| at + 1)];
            if version.kind == Kind::Dash && !prefix.is_empty() {
                return elsewhere(authorized, &location);
            }
            of_playlist(authorized, &version, prefix)
        }
        Served::File(file) => of_file(authorized, file),
    };
    respond::finished(authorized, representation, status)
}

/// Where a manifest is: its URLs have bases of several levels, which are right in its own place alone.
fn elsewhere(authorized: &Authorized, location: &str) -> Result<Response<Body>, Refusal> {
    let token = authorized
        .token()
        .map_or_else(String::new, |token| format!("?auth={token}"));
    let resolved = authorized.resolved();
    let refuse = |_| Refusal::at(Reason::Internal, &resolved.site);
    let location = HeaderValue::from_str(&format!("{location}{token}")).map_err(refuse)?;
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    response.headers_mut().insert(LOCATION, location);
    response.headers_mut().insert(CACHE_CONTROL, respond::PRIVATE);
    resolved.site.cors.apply(response.headers_mut());
    Ok(response)
}

fn of_playlist(authorized: &Authorized, version: &Version, prefix: &str) -> Representation {
    let request = &authorized.resolved().request;
    let form = version.form(prefix);
    let compresses = form.body.len() >= WORTH_COMPRESSING && accepts_gzip(&request.headers);
    // The token is in the text, so that what is made for one viewer is nobody else's.
    let token = authorized.token().zip(form.splices.as_ref());
    let body = match token {
        Some((token, splices)) => {
            let text = splices.render(&form.body, token, &request.host);
            if compresses {
                version::gzip(&text).into()
            } else {
                Bytes::from(text)
            }
        }
        None if compresses => form.compressed().clone(),
        None => form.body.clone(),
    };
    let mut headers = HeaderMap::new();
    let media_type = match version.kind {
        Kind::Hls => "application/vnd.apple.mpegurl",
        Kind::Dash => "application/dash+xml",
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    if compresses {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    headers.insert(VARY, HeaderValue::from_name(ACCEPT_ENCODING));
    headers.insert(
        CACHE_CONTROL,
        if authorized.is_signed() {
            respond::PRIVATE
        } else {
            lifetime(version)
        },
    );
    Representation {
        status: StatusCode::OK,
        headers,
        length: Some(body.len() as u64),
        source: Source::Bytes(body),
    }
}

/// For how long others may keep a playlist: half of its target duration at most (RFC 8216bis §6.2.1), in whole seconds;
/// one with parts not at all.
fn lifetime(version: &Version) -> HeaderValue {
    let seconds = match &version.media {
        Some(media) if media.part_target().is_some() => 0,
        Some(media) => media.target_duration().as_secs() / 2,
        None => 1,
    };
    match seconds {
        0 => HeaderValue::from_static("no-cache"),
        seconds => HeaderValue::from_str(&format!("max-age={seconds}")).expect("ASCII"),
    }
}

fn of_file(authorized: &Authorized, file: LiveFile) -> Representation {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, file.media_type);
    headers.insert(CACHE_CONTROL, SEGMENT);
    let (source, length) = match file.content {
        Content::Whole(bytes) => {
            headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
            if let Some(etag) = file.etag {
                headers.insert(ETAG, etag);
            }
            let length = bytes.len() as u64;
            (Source::Bytes(bytes), Some(length))
        }
        Content::Arriving(body) => (Source::Final(Body::Arriving(body)), None),
    };
    if authorized.is_signed() {
        respond::make_private(&mut headers, Duration::ZERO);
    }
    Representation {
        status: StatusCode::OK,
        headers,
        source,
        length,
    }
}
