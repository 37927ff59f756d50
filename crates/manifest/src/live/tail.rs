//! The last segments of runs that are over, as they were published, for as long as they stay listed; and the keys and
//! initialization sections in effect, which the segment that comes to be the first must say again (RFC 8216bis
//! §4.4.4.4, §4.4.4.5).

use super::session::push;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// How many keys may be in effect at once: there are three key formats or so.
const MAX_KEYS: usize = 16;

/// What a line is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Role {
    Discontinuity,
    /// A key of this `KEYFORMAT`.
    Key(String),
    /// `METHOD=NONE`.
    NoKey,
    Map,
    ByteRange,
    Part,
    Other,
}

/// A line as it is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Piece {
    text: String,
    role: Role,
    /// The URI in it, as the encoder wrote it, and its label.
    file: Option<(String, u32)>,
}

impl Piece {
    pub(super) fn line(text: &str, role: Role) -> Self {
        Self {
            text: text.to_owned(),
            role,
            file: None,
        }
    }

    pub(super) fn of_file(self, uri: &str, label: u32) -> Self {
        Self {
            file: Some((uri.to_owned(), label)),
            ..self
        }
    }

    /// Whether it names a segment, part or initialization section: what keys are in effect for.
    fn is_media(&self) -> bool {
        self.file.is_some() && !matches!(self.role, Role::Key(_))
    }
}

/// The lines of a segment, or of what comes after the last.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Entry(Vec<Piece>);

impl Entry {
    pub(super) fn push(&mut self, piece: Piece) {
        self.0.push(piece);
    }

    pub(super) fn begin_with(&mut self, pieces: Vec<Piece>) {
        self.0.splice(0..0, pieces);
    }

    /// Says where in its file it begins, which else hangs on the segment before (RFC 8216bis §4.4.4.2).
    pub(super) fn set_byte_range(&mut self, length: &str, offset: u64) {
        if let Some(piece) = self.0.iter_mut().find(|piece| piece.role == Role::ByteRange) {
            piece.text = format!("#EXT-X-BYTERANGE:{length}@{offset}");
        }
    }

    pub(super) fn write(&self, newline: &str, out: &mut String) {
        for piece in &self.0 {
            push(out, &piece.text, newline);
        }
    }

    fn discontinuities(&self) -> u64 {
        self.0.iter().filter(|piece| piece.role == Role::Discontinuity).count() as u64
    }
}

/// The keys and the initialization section in effect.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct State {
    keys: Vec<Piece>,
    map: Option<Piece>,
    /// Those that the section is encrypted with.
    map_keys: Vec<Piece>,
}

impl State {
    /// Goes past a segment.
    pub(super) fn take(&mut self, entry: &Entry) {
        for piece in &entry.0 {
            match &piece.role {
                Role::NoKey => self.keys.clear(),
                Role::Key(_) => {
                    self.keys.retain(|key| key.role != piece.role);
                    if self.keys.len() == MAX_KEYS {
                        self.keys.remove(0);
                    }
                    self.keys.push(piece.clone());
                }
                Role::Map => {
                    self.map = Some(piece.clone());
                    self.map_keys = self.keys.clone();
                }
                _ => {}
            }
        }
    }

    pub(super) fn has_map(&self) -> bool {
        self.map.is_some()
    }

    /// The lines that say it before `entry` at the begin of a playlist, so far as the entry does not itself.
    pub(super) fn opening(&self, entry: &Entry) -> Vec<Piece> {
        let first_file = entry.0.iter().find(|piece| piece.is_media());
        let own_map = first_file.is_some_and(|piece| piece.role == Role::Map);
        let Some(map) = self.map.as_ref().filter(|_| !own_map) else {
            return if self.outlives(entry) {
                self.keys.clone()
            } else {
                Vec::new()
            };
        };
        let mut lines = self.map_keys.clone();
        lines.push(map.clone());
        if self.map_keys != self.keys {
            if !self.map_keys.is_empty() {
                lines.push(Piece::line("#EXT-X-KEY:METHOD=NONE", Role::NoKey));
            }
            lines.extend_from_slice(&self.keys);
        }
        lines
    }

    /// Whether a key of it would still be in effect for something in `entry`.
    pub(super) fn outlives(&self, entry: &Entry) -> bool {
        let before_media = entry.0.iter().take_while(|piece| !piece.is_media());
        let replaced: Vec<_> = before_media.map(|piece| &piece.role).collect();
        let ended = replaced.contains(&&Role::NoKey);
        !ended && self.keys.iter().any(|key| !replaced.contains(&&key.role))
    }
}

/// Segments of earlier runs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Tail {
    /// What is in effect before the first of them.
    state: State,
    entries: VecDeque<Entry>,
}

impl Tail {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn extend(&mut self, entries: Vec<Entry>) {
        let parts_stand_alone = |entry: &Entry| {
            let parts = entry.0.iter().filter(|piece| piece.role == Role::Part);
            parts
                .clone()
                .all(|part| !part.text.contains("BYTERANGE=") || part.text.contains('@'))
        };
        for mut entry in entries {
            // Where a part begins hangs on the part before, which may be gone.
            if !parts_stand_alone(&entry) {
                entry.0.retain(|piece| piece.role != Role::Part);
            }
            self.entries.push_back(entry);
        }
    }

    /// Keeps the last `count`.
    pub(super) fn keep(&mut self, count: usize) {
        while self.entries.len() > count {
            if let Some(entry) = self.entries.pop_front() {
                self.state.take(&entry);
            }
        }
        if self.entries.is_empty() {
            self.state = State::default();
        }
    }

    /// What is in effect after the last of them.
    pub(super) fn end(&self) -> State {
        let mut state = self.state.clone();
        for entry in &self.entries {
            state.take(entry);
        }
        state
    }

    /// How many `EXT-X-DISCONTINUITY` it holds.
    pub(super) fn discontinuities(&self) -> u64 {
        self.entries.iter().map(Entry::discontinuities).sum()
    }

    fn pieces(&self, parts: bool) -> impl Iterator<Item = Piece> {
        let opening = self.entries.front().map(|first| self.state.opening(first));
        let own = self.entries.iter().flat_map(|entry| &entry.0);
        let own = own.filter(move |piece| parts || piece.role != Role::Part);
        opening.into_iter().flatten().chain(own.cloned())
    }

    /// Writes it, with the parts or without.
    pub(super) fn write(&self, parts: bool, newline: &str, out: &mut String) {
        for piece in self.pieces(parts) {
            push(out, &piece.text, newline);
        }
    }

    /// The files that it lists, and their labels.
    pub(super) fn files(&self, parts: bool) -> Vec<(String, u32)> {
        self.pieces(parts).filter_map(|piece| piece.file).collect()
    }
}
