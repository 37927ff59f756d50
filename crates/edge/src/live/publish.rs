//! The playlists of encoders: read, held against the last version, published and remembered. What cannot be read, or is of
//! a second encoder, replaces nothing.

use super::{
    Broadcast, Live, Place,
    channel::{Channel, Making},
    files::without_key,
    ingest::{PATIENCE, arrival, refused},
    version::Version,
};
use crate::{limits, refusal::Reason};
use bytes::Bytes;
use edgeweir_manifest::{
    Error as ManifestError, Kind,
    live::{self, Continuity, Follow, MediaPlaylist, Playlist},
};
use edgeweir_model::ObjectKey;
use edgeweir_origin::ingest::{Document, Window};
use serde::{Deserialize, Serialize};
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

/// How long an encoder of DASH is taken to be there after a manifest, at least and at most: what it says itself of when
/// the next one comes may be a day.
const MANIFEST: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10));

/// When a version is overdue, in intervals. An encoder that begins anew has its first segment whole later than that.
const OVERDUE: f64 = 1.1;

/// What of a channel outlives the process.
#[derive(Default, Serialize, Deserialize)]
struct Saved {
    continuity: Continuity,
    availability_start: Option<String>,
    run: u32,
}

/// A playlist that was read.
#[expect(
    clippy::large_enum_variant,
    reason = "one is made a version, and taken apart at once"
)]
enum Read {
    Manifest(live::Manifest),
    Playlist(Playlist),
}

impl Read {
    fn new(kind: Kind, path: &str, text: &str) -> Result<Self, ManifestError> {
        Ok(match kind {
            Kind::Dash => Self::Manifest(live::parse_manifest(text.as_bytes())?),
            Kind::Hls => {
                let playlist = live::parse(text.as_bytes())?;
                live::check_uris(path, &playlist)?;
                Self::Playlist(playlist)
            }
        })
    }
}

/// What comes of a playlist.
struct Made {
    version: Arc<Version>,
    document: Document,
    continuity: Continuity,
    availability_start: Option<String>,
    /// For how long the stream counts as live without another one.
    patience: Duration,
    /// It is the last.
    ended: bool,
}

/// Where a playlist that was pushed belongs.
struct Receiver<'a> {
    window: &'a Window,
    key: &'a ObjectKey,
    channel: &'a Channel,
    /// The playlist's path in the stream's folder.
    path: String,
    now: Instant,
}

impl Live {
    /// Takes a playlist; whether there was none of its name. It comes with the stream's key, which it may hold.
    pub(super) fn receive_playlist(
        &self,
        broadcast: &Broadcast,
        window: &Window,
        (key, stream_key): (&ObjectKey, &str),
        kind: Kind,
        text: Bytes,
    ) -> Result<bool, Reason> {
        let unreadable = |e: ManifestError| Reason::BadPlaylist(e.to_string());
        let (path, now) = (key.to_url_path(), Instant::now());
        let text = String::from_utf8(text.into()).map_err(|_| unreadable(ManifestError::Utf8))?;
        let mut local = |uri: &str| without_key(stream_key, &path, uri);
        let text = live::map_uris(kind, &text, &mut local).map_err(unreadable)?;
        if text.contains(stream_key) {
            let why = "it holds the stream key, which viewers must not learn; name files by relative URIs";
            return Err(Reason::BadPlaylist(why.to_owned()));
        }
        let read = Read::new(kind, &path, &text).map_err(unreadable)?;
        let place = Place::plain(key.clone());
        let channel = broadcast.pushed_channel(&place)?;
        let receiver = Receiver {
            window,
            key,
            channel: &channel,
            path,
            now,
        };
        let mut making = channel.making.lock();
        let is_new = channel.version().is_none();
        let mut made = match read {
            Read::Manifest(manifest) => receiver.manifest(&making, manifest, &text)?,
            Read::Playlist(Playlist::Multivariant(_)) => Made {
                document: Document {
                    body: text.as_str().into(),
                    keep: receiver.beside(&text),
                    ..Document::default()
                },
                version: Version::new(kind, text.into(), None, Duration::ZERO),
                continuity: Continuity::default(),
                availability_start: None,
                patience: PATIENCE,
                ended: false,
            },
            Read::Playlist(Playlist::Media(raw)) => receiver.media(&making, &raw)?,
        };
        let saved = Saved {
            continuity: made.continuity.clone(),
            availability_start: made.availability_start.clone(),
            run: channel.run.load(Ordering::Acquire),
        };
        made.document.state = serde_json::to_string(&saved).map_err(|_| Reason::Internal)?.into();
        window.publish(key, made.document).map_err(refused)?;
        channel.publish(made.version);
        making.continuity = made.continuity;
        making.availability_start = made.availability_start;
        making.accepted = Some(now);
        drop(making);
        // It may have been deleted meanwhile.
        let present = broadcast.channel(&place);
        if present.is_none_or(|present| !Arc::ptr_eq(&present, &channel)) {
            window.withdraw(key);
        }
        self.arrived(broadcast, now, made.patience.max(PATIENCE), made.ended);
        Ok(is_new)
    }

    /// Takes back what survived of a pushed stream's playlists. The caller holds the lock of all streams.
    pub(super) fn restore(&self, broadcast: &Broadcast) {
        let Some(window) = self.ingest.find(broadcast.id) else {
            return;
        };
        for (key, document) in window.documents() {
            let Some(kind) = Kind::of_key(key.as_str()) else {
                continue;
            };
            let media = match Read::new(kind, &key.to_url_path(), &document.body) {
                Ok(Read::Playlist(Playlist::Media(media))) => Some(media),
                Ok(_) => None,
                Err(_) => continue,
            };
            let saved: Saved = serde_json::from_str(&document.state).unwrap_or_default();
            let channel = Channel::new(false);
            channel.run.store(saved.run, Ordering::Release);
            {
                let mut making = channel.making.lock();
                making.continuity = saved.continuity;
                making.availability_start = saved.availability_start;
                making.restored = Some(Instant::now());
            }
            let lasts = media.as_ref().map_or(Duration::ZERO, MediaPlaylist::window);
            channel.publish(Version::new(kind, Bytes::from(document.body.to_string()), media, lasts));
            broadcast.channels.write().insert(Place::plain(key), channel);
            // Until its encoder comes back.
            self.arrivals
                .note(broadcast.id, arrival(Instant::now(), PATIENCE, true));
        }
    }
}

impl Broadcast {
    /// The channel of a playlist that is pushed, made when there is none.
    fn pushed_channel(&self, place: &Place) -> Result<Arc<Channel>, Reason> {
        let mut channels = self.channels.write();
        if self.closed.is_cancelled() {
            return Err(Reason::StreamKey);
        }
        if channels.len() >= limits::LIVE_PLAYLISTS && !channels.contains_key(place) {
            return Err(Reason::Limit("live.playlists", limits::LIVE_PLAYLISTS as u64));
        }
        let channel = channels.entry(place.clone()).or_insert_with(|| Channel::new(false));
        Ok(channel.clone())
    }
}

impl Receiver<'_> {
    fn leads_to(&self, uri: &str) -> Option<ObjectKey> {
        ObjectKey::from_path(&live::resolve(&self.path, uri)?).ok()
    }

    /// What a playlist needs beside what it lists.
    fn beside(&self, text: &str) -> Arc<[ObjectKey]> {
        let uris = live::beside(text).unwrap_or_default();
        uris.into_iter().filter_map(|uri| self.leads_to(uri)).collect()
    }

    fn manifest(&self, making: &Making, manifest: live::Manifest, text: &str) -> Result<Made, Reason> {
        let (least, most) = MANIFEST;
        let interval = manifest.minimum_update_period.unwrap_or(least).clamp(least, most);
        if manifest.starts_over(making.availability_start.as_deref()) {
            if !is_silent(making.accepted, interval, self.now) {
                return Err(Reason::PublisherConflict);
            }
            // Its first files come before its first manifest.
            let began = making.accepted.or(making.restored).unwrap_or(self.now);
            let run = self.window.begin_session(self.key, began);
            self.channel.run.store(run, Ordering::Release);
        }
        let run = self.channel.run.load(Ordering::Acquire);
        let text = super::labelled(text, run).map_err(|e| Reason::BadPlaylist(e.to_string()))?;
        let buffer = manifest.time_shift_buffer.unwrap_or_default();
        let needed = manifest.initializations.iter();
        Ok(Made {
            document: Document {
                body: text.as_str().into(),
                keep: needed.filter_map(|uri| self.leads_to(uri)).collect(),
                lasts: buffer + manifest.max_segment_duration.unwrap_or_default() * 2,
                ..Document::default()
            },
            version: Version::new(Kind::Dash, text.into(), None, buffer),
            continuity: Continuity::default(),
            availability_start: manifest.availability_start.or(making.availability_start.clone()),
            patience: interval * 3,
            ended: !manifest.dynamic,
        })
    }

    fn media(&self, making: &Making, raw: &MediaPlaylist) -> Result<Made, Reason> {
        match making.continuity.follow(raw) {
            Follow::Same | Follow::Continues => {}
            Follow::First => self.channel.run.store(self.window.session(), Ordering::Release),
            Follow::Behind | Follow::Restarts => {
                let last = self.channel.version();
                let last = last.as_ref().and_then(|v| v.media.as_ref());
                let due = last.filter(|m| !m.has_ended()).map(MediaPlaylist::update_interval);
                if due.is_some_and(|due| !is_silent(making.accepted, due, self.now)) {
                    return Err(Reason::PublisherConflict);
                }
                let run = self.window.begin_session(self.key, self.now);
                self.channel.run.store(run, Ordering::Release);
            }
        }
        let session = self.channel.run.load(Ordering::Acquire);
        // What is announced is still to come, whatever there is of its name.
        let is_hint = |uri: &str| raw.hints().any(|hint| hint == uri);
        let mut label = |uri: &str| {
            let there = self.leads_to(uri).filter(|_| !is_hint(uri));
            there.and_then(|key| self.window.pin(&key, session)).unwrap_or(session)
        };
        let mut continuity = making.continuity.clone();
        let published = continuity.publish(raw, &mut label);
        let listed = published.listed.iter();
        Ok(Made {
            document: Document {
                body: published.text.as_str().into(),
                listed: listed
                    .filter_map(|(uri, label)| Some((self.leads_to(uri)?, *label)))
                    .collect(),
                keep: self.beside(&published.text),
                ..Document::default()
            },
            version: Version::new(Kind::Hls, published.text.into(), Some(published.media), raw.window()),
            continuity,
            availability_start: None,
            patience: raw.target_duration() * 3,
            ended: raw.has_ended(),
        })
    }
}

/// Whether an encoder that makes a version each `interval` has gone: the next one is overdue.
fn is_silent(since: Option<Instant>, interval: Duration, now: Instant) -> bool {
    since.is_none_or(|since| now.saturating_duration_since(since) >= interval.mul_f64(OVERDUE))
}
