//! How the playlists of one encoder run after another become one that goes on (RFC 8216bis §6.2.1, §6.2.2): numbers
//! that never change, an `EXT-X-DISCONTINUITY` between, and the last segments of the run before as long as the new one
//! is short. A single run is published as it is.

use super::{
    MediaPlaylist,
    read::Trust,
    session::{Names, Session},
    uris::{labelled, replace},
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};

/// How a version of a media playlist follows what was published last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// Nothing was published yet.
    First,
    /// The same bytes as the last one.
    Same,
    /// A later version of the same run; the position does not go back.
    Continues,
    /// An earlier version of the same run, as a replica that lags has it, and not to be published then. From an
    /// encoder, which has no replicas, it is a new run that looks like the one before.
    Behind,
    /// Of another run of the encoder.
    Restarts,
}

/// What was published of one media playlist, so far as the next version depends on it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Continuity {
    /// As the encoder wrote it.
    last: Option<MediaPlaylist>,
    /// The labels of what it lists.
    labels: BTreeMap<String, u32>,
    session: Session,
    /// The next one is of another run.
    restart: bool,
}

/// A version as viewers get it.
#[derive(Debug, Clone)]
pub struct Published {
    /// The playlist.
    pub text: String,
    /// The playlist of `text`: numbers are the published ones.
    pub media: MediaPlaylist,
    /// What `text` lists, once each: URIs as the encoder wrote them, with their labels. Segments, `EXT-X-MAP`,
    /// `EXT-X-PART`, and keys beside them; of earlier runs too.
    pub listed: Vec<(String, u32)>,
}

impl Continuity {
    /// How `next`, as the encoder or origin wrote it, follows what was published last. Segments are the same when URI,
    /// byte range and duration are.
    pub fn follow(&self, next: &MediaPlaylist) -> Follow {
        let Some(last) = &self.last else {
            return Follow::First;
        };
        if self.restart {
            return Follow::Restarts;
        }
        if last.text() == next.text() {
            return Follow::Same;
        }
        let (begin, end) = (next.media_sequence(), next.end());
        if last.has_ended() {
            return Follow::Restarts;
        }
        if begin >= last.end() {
            let missed = begin - last.end();
            // Where so much is missing, the timestamps may be others too.
            let jumps = missed > last.segments() as u64;
            let known: HashSet<_> = listed(last).collect();
            if jumps || listed(next).any(|segment| known.contains(&segment)) {
                return Follow::Restarts;
            }
        } else {
            let overlap = begin.max(last.media_sequence())..end.min(last.end());
            if overlap.is_empty() || overlap.clone().any(|msn| last.identity(msn) != next.identity(msn)) {
                return Follow::Restarts;
            }
        }
        // Where one has no parts the two agree.
        let mut parts = last.parts_of(last.end()).zip(next.parts_of(last.end()));
        if parts.any(|(old, new)| old != new) {
            return Follow::Restarts;
        }
        let (old, new) = ((last.end(), last.begun()), (end, next.begun()));
        if new < old || new == old && begin < last.media_sequence() {
            return Follow::Behind;
        }
        Follow::Continues
    }

    /// The next version is of another run of the encoder, whatever it looks like.
    pub fn expect_restart(&mut self) {
        self.restart = self.last.is_some();
    }

    /// Makes the version to publish of `next`, and remembers it. `label` tells a URI's label when it is first listed:
    /// with 1 the URI is left alone, with n it gets [`LABEL`](super::LABEL)`=n` as a query parameter. What is listed
    /// keeps its label as long as it is.
    ///
    /// Whoever publishes what is [`Behind`](Follow::Behind) says that it is of another run.
    pub fn publish(&mut self, next: &MediaPlaylist, label: &mut dyn FnMut(&str) -> u32) -> Published {
        let follow = self.follow(next);
        match (&self.last, follow) {
            (None, _) => self.session = Session::first(next),
            (Some(last), Follow::Behind | Follow::Restarts) => {
                self.session.restart(last, next, &Names(&self.labels));
                self.labels.clear();
            }
            (Some(last), _) => self.session.go_on(last, next),
        }
        self.restart = false;
        let mut labels = BTreeMap::new();
        for uri in next.media_uris().chain(next.key_uris()) {
            if !labels.contains_key(uri) {
                let known = self.labels.get(uri).copied();
                labels.insert(uri.to_owned(), known.unwrap_or_else(|| label(uri)));
            }
        }
        self.labels = labels.clone();
        self.last = Some(next.clone());
        // A hint's label is not kept: the file is still to come.
        for uri in next.hints() {
            labels.entry(uri.to_owned()).or_insert_with(|| label(uri));
        }
        self.session.end_tail_without_map(next);
        let names = Names(&labels);
        let text = if self.session.is_first() {
            replace(next.text(), &next.uri_ranges(), &mut |uri| match names.label(uri) {
                1 => None,
                n => Some(labelled(uri, n).into_owned()),
            })
        } else {
            self.session.compose(next, &names)
        };
        let media = if text == next.text() {
            next.clone()
        } else {
            MediaPlaylist::read(text.as_str().into(), Trust::Own).expect("its lines were read before")
        };
        let mut listed = self.session.tail_files(next.part_target().is_some());
        let own = next.media_uris().chain(next.key_uris());
        listed.extend(own.map(|uri| (uri.to_owned(), names.label(uri))));
        let mut seen = HashSet::new();
        listed.retain(|file| seen.insert(file.clone()));
        Published { text, media, listed }
    }
}

/// What tells the segments of a playlist from others.
fn listed(playlist: &MediaPlaylist) -> impl Iterator<Item = (&str, Option<&str>)> {
    (playlist.media_sequence()..playlist.end())
        .filter_map(|msn| playlist.identity(msn))
        .map(|(uri, byte_range, _)| (uri, byte_range))
}
