//! One run of an encoder among others: how its numbers become the published ones, and the text that is made of its
//! playlist and the tail of the runs before (RFC 8216bis §4.4.3.2, §4.4.3.3, §6.2.2).

use super::{
    MediaPlaylist,
    hls::Segment,
    read::{attribute, is_of_playlist, key_of},
    tail::{Entry, Piece, Role, State, Tail},
    uris::labelled,
};
use crate::hls::{Line, lines_from};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, ops::Range, time::Duration};

/// The labels of the URIs of one version.
pub(super) struct Names<'a>(pub(super) &'a BTreeMap<String, u32>);

impl Names<'_> {
    pub(super) fn label(&self, uri: &str) -> u32 {
        self.0.get(uri).copied().unwrap_or(1)
    }
}

/// A run, and what is still listed of those before.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Session {
    /// There was a run before.
    later: bool,
    /// The encoder's number of the first segment.
    first: u64,
    /// The number that it is published with.
    published: u64,
    /// The published discontinuity sequence number before the first segment that the last version of this run lists.
    discontinuities: u64,
    tail: Tail,
    /// How many segments were listed when this run began.
    size: usize,
    /// The target duration then.
    target: Duration,
    /// `EXT-X-VERSION` then.
    version: Option<u64>,
}

impl Session {
    pub(super) fn first(next: &MediaPlaylist) -> Self {
        Self {
            first: next.media_sequence(),
            published: next.media_sequence(),
            discontinuities: next.discontinuity_sequence,
            ..Self::default()
        }
    }

    /// Whether playlists are published as they are.
    pub(super) fn is_first(&self) -> bool {
        !self.later
    }

    /// The first segment of the list that is of this run. A list that grew at its front holds some before.
    fn start(&self, list: &MediaPlaylist) -> u64 {
        if self.later {
            list.media_sequence().max(self.first)
        } else {
            list.media_sequence()
        }
    }

    fn number(&self, msn: u64) -> u64 {
        self.published.saturating_add(msn.saturating_sub(self.first))
    }

    /// How many `EXT-X-DISCONTINUITY` are published for these segments of `list`.
    fn tags(&self, list: &MediaPlaylist, range: Range<u64>) -> u64 {
        let tags = |msn| match list.segment(msn) {
            _ if self.later && msn == self.first => 1,
            segment => segment.map_or(0, |segment| segment.discontinuities),
        };
        range.map(tags).sum()
    }

    /// `next` is a later version of the run that `last` is of.
    pub(super) fn go_on(&mut self, last: &MediaPlaylist, next: &MediaPlaylist) {
        if !self.later {
            self.discontinuities = next.discontinuity_sequence;
            return;
        }
        let (old, new) = (self.start(last), self.start(next));
        let from = old.max(new);
        let passed = if from <= last.end() {
            self.tags(last, old..from)
        } else {
            // Segments were missed. Each may have had a tag that only the encoder's count tells of.
            let end = last.end() + 1;
            let own = (old..end).filter_map(|msn| last.segment(msn));
            let own: u64 = own.map(|segment| segment.discontinuities).sum();
            let told = next.discontinuity_sequence.saturating_sub(last.discontinuity_sequence);
            self.tags(last, old..end) + told.saturating_sub(own).min(from - last.end())
        };
        let again = self.tags(next, new..from.min(next.end()));
        self.discontinuities = self.discontinuities.saturating_add(passed).saturating_sub(again);
        if next.media_sequence() > self.first {
            self.tail = Tail::default();
        } else {
            self.tail.keep(self.size.saturating_sub(next.segments()));
        }
    }

    /// A new run begins with `next`, after one that ended with `last`.
    pub(super) fn restart(&mut self, last: &MediaPlaylist, next: &MediaPlaylist, names: &Names<'_>) {
        let start = self.start(last);
        let entries = self.entries(last, names);
        self.size = self.tail.len() + entries.len();
        self.target = last.target_duration().max(if self.tail.is_empty() {
            Duration::ZERO
        } else {
            self.target
        });
        self.version = last.version.max(if self.tail.is_empty() { None } else { self.version });
        self.discontinuities = self.discontinuities.saturating_add(self.tags(last, start..last.end()));
        self.published = self.number(last.end());
        self.first = next.media_sequence();
        self.later = true;
        self.tail.extend(entries);
        self.tail.keep(self.size.saturating_sub(next.segments()));
    }

    /// Lets the tail go where the run has no initialization section and the tail has: a section holds until the next
    /// (RFC 8216bis §4.4.4.5), and nothing says that there is none.
    pub(super) fn end_tail_without_map(&mut self, next: &MediaPlaylist) {
        let Some(opening) = next.list.first().or(Some(&next.rest).filter(|_| next.goes_on())) else {
            return;
        };
        let has_map = lines_from(next.text(), opening.lines.clone()).any(|line| line.tag() == "#EXT-X-MAP");
        if !self.tail.is_empty() && !has_map && self.tail.end().has_map() {
            self.tail = Tail::default();
        }
    }

    /// What the tail lists.
    pub(super) fn tail_files(&self, parts: bool) -> Vec<(String, u32)> {
        self.tail.files(parts)
    }

    /// The text to publish of `next`, of a run that is not the first.
    pub(super) fn compose(&self, next: &MediaPlaylist, names: &Names<'_>) -> String {
        let newline = newline(next);
        let mut out = String::with_capacity(next.text().len() * 2);
        self.header(next, newline, &mut out);
        self.tail.write(next.part_target().is_some(), newline, &mut out);
        for entry in self.entries(next, names) {
            entry.write(newline, &mut out);
        }
        self.rest(next, names).write(newline, &mut out);
        if next.has_ended() {
            out.push_str("#EXT-X-ENDLIST");
            out.push_str(newline);
        }
        out
    }

    fn header(&self, next: &MediaPlaylist, newline: &str, out: &mut String) {
        let with_tail = !self.tail.is_empty();
        let sequence = if with_tail {
            self.published.saturating_sub(self.tail.len() as u64)
        } else {
            self.number(self.start(next))
        };
        let discontinuities = self.discontinuities.saturating_sub(self.tail.discontinuities());
        let version = self
            .version
            .filter(|version| with_tail && Some(*version) > next.version);
        let mut missing = [
            ("#EXT-X-VERSION", version.map(|version| version.to_string())),
            ("#EXT-X-MEDIA-SEQUENCE", Some(sequence.to_string())),
            (
                "#EXT-X-DISCONTINUITY-SEQUENCE",
                Some(discontinuities.to_string()).filter(|_| discontinuities > 0 || next.discontinuity_sequence > 0),
            ),
        ];
        let mut target = None;
        if with_tail && self.target > next.target_duration() {
            let whole = self.target.as_secs() + u64::from(self.target.subsec_nanos() > 0);
            target = Some(whole.to_string());
        }
        let own = lines_from(next.text(), 0..next.body);
        let scattered = lines_from(next.text(), next.body..next.text().len()).filter(|line| is_of_playlist(line.tag()));
        for line in own.chain(scattered) {
            let tag = line.tag();
            let instead = match tag {
                "#EXT-X-ENDLIST" | "#EXT-X-PLAYLIST-TYPE" => continue,
                "#EXT-X-TARGETDURATION" => target.clone(),
                _ => missing
                    .iter_mut()
                    .find(|(name, _)| *name == tag)
                    .and_then(|(_, value)| value.take()),
            };
            match instead {
                Some(value) => push(out, &format!("{tag}:{value}"), newline),
                None => push(out, line.whole, newline),
            }
        }
        for (tag, value) in missing {
            if let Some(value) = value {
                push(out, &format!("{tag}:{value}"), newline);
            }
        }
    }

    /// The segments of `list` that are of this run, as they are published.
    fn entries(&self, list: &MediaPlaylist, names: &Names<'_>) -> Vec<Entry> {
        let start = self.start(list);
        let mut entries = Vec::with_capacity(list.segments());
        let mut hidden = State::default();
        // Where the segment before ends in its file.
        let mut reached: Option<(&str, u64)> = None;
        for (segment, msn) in list.list.iter().zip(list.media_sequence()..) {
            let mut entry = self.entry(list, segment, msn, names);
            let uri = &list.text()[segment.uri.clone()];
            let range = segment.byte_range.clone().map(|range| &list.text()[range]);
            reached = range.and_then(|range| {
                let (length, offset) = range.split_once('@').map_or((range, None), |(l, o)| (l, Some(o)));
                let before = reached.filter(|(file, _)| *file == uri).map(|(_, end)| end);
                let offset: u64 = match offset {
                    Some(offset) => offset.trim().parse().ok()?,
                    None => before?,
                };
                entry.set_byte_range(length.trim(), offset);
                Some((uri, offset.checked_add(length.trim().parse().ok()?)?))
            });
            if msn < start {
                hidden.take(&entry);
                continue;
            }
            if msn == start {
                entry.begin_with(hidden.opening(&entry));
            }
            entries.push(entry);
        }
        entries
    }

    /// What comes after the last segment.
    fn rest(&self, list: &MediaPlaylist, names: &Names<'_>) -> Entry {
        self.entry(list, &list.rest, list.end(), names)
    }

    fn entry(&self, list: &MediaPlaylist, segment: &Segment, msn: u64, names: &Names<'_>) -> Entry {
        let begins = self.later && msn == self.first;
        let mut entry = Entry::default();
        for line in lines_from(list.text(), segment.lines.clone()) {
            let tag = line.tag();
            let role = match tag {
                "#EXT-X-RENDITION-REPORT" => continue,
                "#EXT-X-DISCONTINUITY" if begins => continue,
                _ if is_of_playlist(tag) => continue,
                "#EXT-X-DISCONTINUITY" => Role::Discontinuity,
                "#EXT-X-KEY" => key(list.text(), &line),
                "#EXT-X-MAP" => Role::Map,
                "#EXT-X-BYTERANGE" => Role::ByteRange,
                "#EXT-X-PART" => Role::Part,
                _ => Role::Other,
            };
            entry.push(piece(list, &line, role, names));
        }
        if begins && (!segment.uri.is_empty() || list.goes_on()) {
            let mut joint = vec![Piece::line("#EXT-X-DISCONTINUITY", Role::Discontinuity)];
            if self.tail.end().outlives(&entry) {
                joint.push(Piece::line("#EXT-X-KEY:METHOD=NONE", Role::NoKey));
            }
            entry.begin_with(joint);
        }
        entry
    }
}

fn key(text: &str, line: &Line<'_>) -> Role {
    let value = |name| attribute(text, line, name).map(|range| &text[range]);
    if value("METHOD") == Some("NONE") {
        return Role::NoKey;
    }
    // RFC 8216bis §4.4.4.4.
    Role::Key(value("KEYFORMAT").unwrap_or("identity").to_owned())
}

/// A line with its URI, if that is of media or a key beside it, labelled.
fn piece(list: &MediaPlaylist, line: &Line<'_>, role: Role, names: &Names<'_>) -> Piece {
    let uri = match (&role, line.tag()) {
        (Role::Key(_), _) => key_of(list.text(), line),
        (Role::Map | Role::Part, _) | (_, "#EXT-X-PRELOAD-HINT") => attribute(list.text(), line, "URI"),
        (_, tag) if !tag.is_empty() && !tag.starts_with('#') => Some(line.begin..line.begin + line.content.len()),
        _ => None,
    };
    let Some(uri) = uri else {
        return Piece::line(line.whole, role);
    };
    let name = &list.text()[uri.clone()];
    let label = names.label(name);
    let (before, after) = (
        &line.whole[..uri.start - line.begin],
        &line.whole[uri.end - line.begin..],
    );
    let text = format!("{before}{}{after}", labelled(name, label));
    Piece::line(&text, role).of_file(name, label)
}

/// How the lines of a playlist end.
fn newline(list: &MediaPlaylist) -> &'static str {
    let first = list.text().split_inclusive('\n').next().unwrap_or_default();
    if first.ends_with("\r\n") { "\r\n" } else { "\n" }
}

/// Adds a line, with an end.
pub(super) fn push(out: &mut String, line: &str, newline: &str) {
    out.push_str(line);
    if !line.ends_with('\n') {
        out.push_str(newline);
    }
}
