//! HLS playlists as a live edge sees them (RFC 8216bis): what is listed, where in the text that stands, and how long
//! it is. The text is kept as it is; all else is ranges of it.

use super::{
    MAX_ENTRIES, Position,
    read::{Trust, attribute, uri_of},
};
use crate::{Error, hls::lines};
use serde::{Deserialize, Serialize};
use std::{ops::Range, sync::Arc, time::Duration};

/// A playlist of either kind.
#[derive(Debug, Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "one is made a version, and taken apart at once"
)]
pub enum Playlist {
    /// Lists other playlists.
    Multivariant(Multivariant),
    /// Lists segments.
    Media(MediaPlaylist),
}

/// A multivariant playlist (RFC 8216bis §4.4.6).
#[derive(Debug, Clone)]
pub struct Multivariant {
    text: Arc<str>,
    uris: Vec<Range<usize>>,
}

/// One version of a media playlist (RFC 8216bis §4.4.3).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct MediaPlaylist {
    pub(super) text: Arc<str>,
    /// Where the lines of the first segment begin.
    pub(super) body: usize,
    pub(super) list: Vec<Segment>,
    pub(super) parts: Vec<Part>,
    /// What comes after the last complete segment; its URI and duration say nothing.
    pub(super) rest: Segment,
    pub(super) media: Vec<Range<usize>>,
    pub(super) hints: Vec<Range<usize>>,
    pub(super) keys: Vec<Range<usize>>,
    pub(super) media_sequence: u64,
    /// `EXT-X-DISCONTINUITY-SEQUENCE`.
    pub(super) discontinuity_sequence: u64,
    pub(super) target: Duration,
    /// `EXT-X-VERSION`.
    pub(super) version: Option<u64>,
    pub(super) part_target: Option<Duration>,
    pub(super) ended: bool,
    pub(super) can_block: bool,
}

/// A segment, by where it stands in the text.
#[derive(Debug, Clone, Default)]
pub(super) struct Segment {
    /// All its lines.
    pub(super) lines: Range<usize>,
    pub(super) uri: Range<usize>,
    /// The value of `EXT-X-BYTERANGE`.
    pub(super) byte_range: Option<Range<usize>>,
    pub(super) duration: Duration,
    /// How many `EXT-X-DISCONTINUITY` are before it and after the segment before.
    pub(super) discontinuities: u64,
    /// Its parts, by index.
    pub(super) parts: Range<usize>,
}

/// URI, byte range and duration of a segment or part.
pub(super) type Identity<'a> = (&'a str, Option<&'a str>, Duration);

/// A partial segment (RFC 8216bis §4.4.4.9).
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) uri: Range<usize>,
    pub(super) byte_range: Option<Range<usize>>,
    pub(super) duration: Duration,
}

/// Reads a playlist.
pub fn parse(body: &[u8]) -> Result<Playlist, Error> {
    let text = std::str::from_utf8(body).map_err(|_| Error::Utf8)?;
    let (mut variants, mut segments) = (false, false);
    for line in lines(text)? {
        match line?.tag() {
            "#EXT-X-STREAM-INF" | "#EXT-X-I-FRAME-STREAM-INF" | "#EXT-X-IMAGE-STREAM-INF" | "#EXT-X-MEDIA" => {
                variants = true;
            }
            "#EXTINF" | "#EXT-X-TARGETDURATION" | "#EXT-X-MEDIA-SEQUENCE" | "#EXT-X-PART" => segments = true,
            _ => {}
        }
    }
    match (variants, segments) {
        (true, true) => Err(Error::Mixed),
        (true, false) => Multivariant::read(text.into()).map(Playlist::Multivariant),
        (false, _) => MediaPlaylist::read(text.into(), Trust::Stranger).map(Playlist::Media),
    }
}

impl Multivariant {
    fn read(text: Arc<str>) -> Result<Self, Error> {
        let mut uris = Vec::new();
        for line in lines(&text)? {
            let line = line?;
            let uri = match line.tag() {
                "#EXT-X-I-FRAME-STREAM-INF" => Some(uri_of(&text, &line, "EXT-X-I-FRAME-STREAM-INF")?),
                "#EXT-X-IMAGE-STREAM-INF" => Some(uri_of(&text, &line, "EXT-X-IMAGE-STREAM-INF")?),
                // Closed captions, and what is in the variants already, have no URI (RFC 8216bis §4.4.6.1).
                "#EXT-X-MEDIA" => attribute(&text, &line, "URI"),
                tag if !tag.is_empty() && !tag.starts_with('#') => Some(line.begin..line.begin + line.content.len()),
                _ => None,
            };
            uris.extend(uri);
            if uris.len() > MAX_ENTRIES {
                return Err(Error::TooLong);
            }
        }
        Ok(Self { text, uris })
    }

    /// The playlist, byte for byte.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The URIs of the variants, renditions and I-frame playlists, in the order of the text.
    pub fn uris(&self) -> impl Iterator<Item = &str> {
        self.uris.iter().map(|range| &self.text[range.clone()])
    }
}

impl MediaPlaylist {
    /// The playlist, byte for byte.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// `EXT-X-TARGETDURATION`.
    pub fn target_duration(&self) -> Duration {
        self.target
    }

    /// `PART-TARGET` of `EXT-X-PART-INF`.
    pub fn part_target(&self) -> Option<Duration> {
        self.part_target
    }

    /// The media sequence number of the first segment.
    pub fn media_sequence(&self) -> u64 {
        self.media_sequence
    }

    /// The media sequence number of the first segment that is not complete yet.
    pub(super) fn end(&self) -> u64 {
        self.media_sequence.saturating_add(self.list.len() as u64)
    }

    /// How many complete segments are listed.
    pub fn segments(&self) -> usize {
        self.list.len()
    }

    /// How much media is listed: the segments' durations and those of the parts after the last one.
    pub fn window(&self) -> Duration {
        let segments = self.list.iter().map(|segment| segment.duration);
        let parts = self.parts[self.rest.parts.clone()].iter().map(|part| part.duration);
        segments.chain(parts).sum()
    }

    /// How long after this version the next one is due: the part target with parts, else the last segment's duration,
    /// else the target duration.
    pub fn update_interval(&self) -> Duration {
        let last = self.list.last().map(|segment| segment.duration);
        self.part_target
            .or(last.filter(|duration| !duration.is_zero()))
            .unwrap_or(self.target)
    }

    /// `EXT-X-ENDLIST` is there.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// `CAN-BLOCK-RELOAD=YES` of `EXT-X-SERVER-CONTROL`.
    pub fn can_block_reload(&self) -> bool {
        self.can_block
    }

    /// The newest segment or part that is listed. When none is, the segment before the first one that would be, and
    /// of number 0 if there is no such number: ask [`holds`](Self::holds) whether something is there.
    pub fn position(&self) -> Position {
        match self.rest.parts.len() as u64 {
            0 => Position {
                msn: self.end().saturating_sub(1),
                part: None,
            },
            parts => Position {
                msn: self.end(),
                part: Some(parts - 1),
            },
        }
    }

    /// Whether `wanted` is in it, or past (RFC 8216bis §6.2.5.2). A part index past the last part of a complete
    /// segment is part 0 of the next segment. A complete segment whose parts are not listed any more holds any part.
    pub fn holds(&self, wanted: Position) -> bool {
        let Some(at) = wanted.msn.checked_sub(self.media_sequence) else {
            return true;
        };
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let (Some(segment), Some(part)) = (self.list.get(at), wanted.part) else {
            let begun = self.rest.parts.len() as u64;
            return at < self.list.len() || at == self.list.len() && wanted.part.is_some_and(|part| part < begun);
        };
        let parts = segment.parts.len() as u64;
        parts == 0 || part < parts || at + 1 < self.list.len() || !self.rest.parts.is_empty()
    }

    /// URIs of segments, `EXT-X-MAP` and `EXT-X-PART`, in the order of the text; repeated as they are there.
    pub fn media_uris(&self) -> impl Iterator<Item = &str> {
        self.media.iter().map(|range| &self.text[range.clone()])
    }

    /// URIs of `EXT-X-PRELOAD-HINT`.
    pub fn hints(&self) -> impl Iterator<Item = &str> {
        self.hints.iter().map(|range| &self.text[range.clone()])
    }

    /// URIs of `EXT-X-KEY` that are relative, in the order of the text: keys beside the media, which are the stream's as
    /// that is. Others are of other servers, or nobody fetches them over HTTP.
    pub fn key_uris(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|range| &self.text[range.clone()])
    }

    /// Where the URIs of [`media_uris`](Self::media_uris), [`key_uris`](Self::key_uris) and [`hints`](Self::hints) stand,
    /// in the order of the text.
    pub(super) fn uri_ranges(&self) -> Vec<Range<usize>> {
        let mut ranges = [&self.media[..], &self.keys[..], &self.hints[..]].concat();
        ranges.sort_unstable_by_key(|range| range.start);
        ranges
    }

    /// The segment of this number, the unfinished one included.
    pub(super) fn segment(&self, msn: u64) -> Option<&Segment> {
        let at = usize::try_from(msn.checked_sub(self.media_sequence)?).ok()?;
        let rest = Some(&self.rest).filter(|_| at == self.list.len());
        self.list.get(at).or(rest)
    }

    /// What tells the segment of this number from others; `None` when it is not listed as complete.
    pub(super) fn identity(&self, msn: u64) -> Option<Identity<'_>> {
        let segment = self.segment(msn).filter(|_| msn < self.end())?;
        let byte_range = segment.byte_range.clone().map(|range| &self.text[range]);
        Some((&self.text[segment.uri.clone()], byte_range, segment.duration))
    }

    /// What tells the parts of the segment of this number from others.
    pub(super) fn parts_of(&self, msn: u64) -> impl Iterator<Item = Identity<'_>> {
        let parts = self.segment(msn).map_or(0..0, |segment| segment.parts.clone());
        self.parts[parts].iter().map(|part| {
            let byte_range = part.byte_range.clone().map(|range| &self.text[range]);
            (&self.text[part.uri.clone()], byte_range, part.duration)
        })
    }

    /// Whether parts of a further segment, or hints of them, are listed.
    pub(super) fn goes_on(&self) -> bool {
        !self.rest.parts.is_empty() || !self.hints.is_empty()
    }

    /// How many parts of the unfinished segment are listed.
    pub(super) fn begun(&self) -> usize {
        self.rest.parts.len()
    }
}

impl From<MediaPlaylist> for String {
    fn from(playlist: MediaPlaylist) -> Self {
        playlist.text.as_ref().into()
    }
}

impl TryFrom<String> for MediaPlaylist {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        Self::read(text.into(), Trust::Own)
    }
}
