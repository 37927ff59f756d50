//! HLS playlists as a live edge reads them (RFC 8216bis): what is listed, where in the text that stands, and how long
//! it is. The text is kept as it is; all else is ranges of it.

use super::{MAX_ENTRIES, Position};
use crate::{
    Error,
    hls::{Line, lines, pairs},
};
use serde::{Deserialize, Serialize};
use std::{ops::Range, sync::Arc, time::Duration};

/// The longest duration that is believed: a day, in seconds.
const MAX_SECONDS: f64 = 86_400.0;

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
    text: Arc<str>,
    /// Where the lines of the first segment begin.
    pub(super) body: usize,
    pub(super) list: Vec<Segment>,
    parts: Vec<Part>,
    /// What comes after the last complete segment; its URI and duration say nothing.
    pub(super) rest: Segment,
    media: Vec<Range<usize>>,
    hints: Vec<Range<usize>>,
    media_sequence: u64,
    /// `EXT-X-DISCONTINUITY-SEQUENCE`.
    pub(super) discontinuity_sequence: u64,
    target: Duration,
    /// `EXT-X-VERSION`.
    pub(super) version: Option<u64>,
    part_target: Option<Duration>,
    ended: bool,
    can_block: bool,
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
    parts: Range<usize>,
}

/// URI, byte range and duration of a segment or part.
pub(super) type Identity<'a> = (&'a str, Option<&'a str>, Duration);

/// A partial segment (RFC 8216bis §4.4.4.9).
#[derive(Debug, Clone)]
struct Part {
    uri: Range<usize>,
    byte_range: Option<Range<usize>>,
    duration: Duration,
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

/// Whose text is read: the limits are for what others wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    Stranger,
    Own,
}

/// A media playlist while it is read.
struct Reader {
    playlist: MediaPlaylist,
    /// What belongs to the segment whose URI is still to come.
    next: Segment,
    duration: Option<Duration>,
    in_body: bool,
    media_sequence: Option<u64>,
    discontinuity_sequence: Option<u64>,
    target: Option<Duration>,
}

impl MediaPlaylist {
    pub(super) fn read(text: Arc<str>, trust: Trust) -> Result<Self, Error> {
        let mut reader = Reader {
            playlist: Self {
                text: Arc::clone(&text),
                body: text.len(),
                list: Vec::new(),
                parts: Vec::new(),
                rest: Segment::default(),
                media: Vec::new(),
                hints: Vec::new(),
                media_sequence: 0,
                discontinuity_sequence: 0,
                target: Duration::ZERO,
                version: None,
                part_target: None,
                ended: false,
                can_block: false,
            },
            next: Segment::default(),
            duration: None,
            in_body: false,
            media_sequence: None,
            discontinuity_sequence: None,
            target: None,
        };
        match trust {
            Trust::Stranger => {
                for line in lines(&text)? {
                    reader.take(&line?)?;
                    if reader.playlist.media.len() + reader.playlist.hints.len() > MAX_ENTRIES {
                        return Err(Error::TooLong);
                    }
                }
            }
            Trust::Own => {
                let start = text.find("#EXTM3U").ok_or(Error::NoHeader)?;
                for line in crate::hls::lines_from(&text, start..text.len()) {
                    reader.take(&line)?;
                }
            }
        }
        reader.finish()
    }
}

impl Reader {
    fn take(&mut self, line: &Line<'_>) -> Result<(), Error> {
        let tag = line.tag();
        let text = Arc::clone(&self.playlist.text);
        let value = &text[line.value()];
        if is_of_playlist(tag) {
            self.take_of_playlist(tag, line, value)?;
            if !self.in_body {
                self.next.lines.start = line.begin + line.whole.len();
                self.playlist.body = self.next.lines.start;
            }
            return Ok(());
        }
        self.in_body |= is_of_segment(tag) || (!tag.is_empty() && !tag.starts_with('#'));
        match tag {
            "#EXTINF" => {
                let number = value.split(',').next().unwrap_or_default();
                self.duration = Some(seconds(number).ok_or(Error::Duration("EXTINF"))?);
            }
            "#EXT-X-BYTERANGE" => self.next.byte_range = Some(line.value()),
            "#EXT-X-DISCONTINUITY" => self.next.discontinuities += 1,
            "#EXT-X-MAP" => {
                let uri = uri_of(&text, line, "EXT-X-MAP")?;
                self.playlist.media.push(uri);
            }
            "#EXT-X-PART" => {
                let duration = attribute(&text, line, "DURATION").and_then(|range| seconds(&text[range]));
                let part = Part {
                    uri: uri_of(&text, line, "EXT-X-PART")?,
                    byte_range: attribute(&text, line, "BYTERANGE"),
                    duration: duration.ok_or(Error::Duration("EXT-X-PART"))?,
                };
                self.playlist.media.push(part.uri.clone());
                self.playlist.parts.push(part);
            }
            "#EXT-X-PRELOAD-HINT" => {
                let uri = uri_of(&text, line, "EXT-X-PRELOAD-HINT")?;
                self.playlist.hints.push(uri);
            }
            "#EXT-X-SKIP" => return Err(Error::Delta),
            tag if tag.is_empty() || tag.starts_with('#') => {}
            _ => {
                let end = line.begin + line.whole.len();
                let mut segment = std::mem::take(&mut self.next);
                segment.lines.end = end;
                segment.uri = line.begin..line.begin + line.content.len();
                segment.duration = self.duration.take().ok_or(Error::NoDuration)?;
                segment.parts.end = self.playlist.parts.len();
                self.playlist.media.push(segment.uri.clone());
                self.next.lines.start = end;
                self.next.parts.start = segment.parts.end;
                self.playlist.list.push(segment);
            }
        }
        Ok(())
    }

    fn take_of_playlist(&mut self, tag: &str, line: &Line<'_>, value: &str) -> Result<(), Error> {
        match tag {
            "#EXT-X-TARGETDURATION" => {
                let target = seconds(value).filter(|target| !target.is_zero());
                let target = target.ok_or(Error::Duration("EXT-X-TARGETDURATION"))?;
                once(&mut self.target, target, "EXT-X-TARGETDURATION")?;
            }
            "#EXT-X-MEDIA-SEQUENCE" => {
                let name = "EXT-X-MEDIA-SEQUENCE";
                once(&mut self.media_sequence, number(value, name)?, name)?;
            }
            "#EXT-X-DISCONTINUITY-SEQUENCE" => {
                let name = "EXT-X-DISCONTINUITY-SEQUENCE";
                once(&mut self.discontinuity_sequence, number(value, name)?, name)?;
            }
            "#EXT-X-VERSION" => self.playlist.version = value.trim().parse().ok(),
            "#EXT-X-PART-INF" => {
                let text = &self.playlist.text;
                let target = attribute(text, line, "PART-TARGET").and_then(|range| seconds(&text[range]));
                let target = target.filter(|target| !target.is_zero());
                self.playlist.part_target = Some(target.ok_or(Error::Duration("EXT-X-PART-INF"))?);
            }
            "#EXT-X-SERVER-CONTROL" => {
                let text = &self.playlist.text;
                self.playlist.can_block =
                    attribute(text, line, "CAN-BLOCK-RELOAD").is_some_and(|range| &text[range] == "YES");
            }
            "#EXT-X-ENDLIST" => self.playlist.ended = true,
            _ => {}
        }
        Ok(())
    }

    fn finish(self) -> Result<MediaPlaylist, Error> {
        let mut playlist = self.playlist;
        playlist.target = self.target.ok_or(Error::NoTarget)?;
        playlist.media_sequence = self.media_sequence.unwrap_or(0);
        playlist.discontinuity_sequence = self.discontinuity_sequence.unwrap_or(0);
        playlist.rest = self.next;
        playlist.rest.lines.end = playlist.text.len();
        playlist.rest.parts.end = playlist.parts.len();
        Ok(playlist)
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

    /// Where the URIs of [`media_uris`](Self::media_uris) and [`hints`](Self::hints) stand, in the order of the text.
    pub(super) fn uri_ranges(&self) -> Vec<Range<usize>> {
        let mut ranges = [&self.media[..], &self.hints[..]].concat();
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

/// Whether a tag is about the playlist as a whole (RFC 8216bis §4.4.1 to §4.4.3).
pub(super) fn is_of_playlist(tag: &str) -> bool {
    matches!(
        tag,
        "#EXTM3U"
            | "#EXT-X-VERSION"
            | "#EXT-X-TARGETDURATION"
            | "#EXT-X-MEDIA-SEQUENCE"
            | "#EXT-X-DISCONTINUITY-SEQUENCE"
            | "#EXT-X-PLAYLIST-TYPE"
            | "#EXT-X-I-FRAMES-ONLY"
            | "#EXT-X-PART-INF"
            | "#EXT-X-SERVER-CONTROL"
            | "#EXT-X-INDEPENDENT-SEGMENTS"
            | "#EXT-X-START"
            | "#EXT-X-DEFINE"
            | "#EXT-X-ALLOW-CACHE"
            | "#EXT-X-ENDLIST"
    )
}

/// Whether a tag is about a segment or what comes after the last (RFC 8216bis §4.4.4, §4.4.5).
fn is_of_segment(tag: &str) -> bool {
    matches!(
        tag,
        "#EXTINF"
            | "#EXT-X-BYTERANGE"
            | "#EXT-X-DISCONTINUITY"
            | "#EXT-X-KEY"
            | "#EXT-X-MAP"
            | "#EXT-X-PROGRAM-DATE-TIME"
            | "#EXT-X-GAP"
            | "#EXT-X-BITRATE"
            | "#EXT-X-PART"
            | "#EXT-X-DATERANGE"
            | "#EXT-X-SKIP"
            | "#EXT-X-PRELOAD-HINT"
            | "#EXT-X-RENDITION-REPORT"
    )
}

/// Where the value of a tag's attribute stands.
pub(super) fn attribute(text: &str, line: &Line<'_>, name: &str) -> Option<Range<usize>> {
    let list = line.value();
    let pair = pairs(&text[list.clone()]).find(|pair| pair.name == name)?;
    Some(list.start + pair.value.start..list.start + pair.value.end)
}

fn uri_of(text: &str, line: &Line<'_>, tag: &'static str) -> Result<Range<usize>, Error> {
    let list = line.value();
    let pair = pairs(&text[list.clone()]).find(|pair| pair.name == "URI" && pair.quoted);
    let pair = pair.filter(|pair| !pair.value.is_empty()).ok_or(Error::NoUri(tag))?;
    Ok(list.start + pair.value.start..list.start + pair.value.end)
}

/// A decimal-floating-point (RFC 8216bis §4.2): digits and a point, no sign and no exponent.
fn seconds(text: &str) -> Option<Duration> {
    let text = text.trim();
    if !text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    let seconds: f64 = text.parse().ok()?;
    (seconds <= MAX_SECONDS).then(|| Duration::from_secs_f64(seconds))
}

fn number(text: &str, tag: &'static str) -> Result<u64, Error> {
    let text = text.trim();
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse().ok().filter(|number: &u64| digits && *number < 1 << 63);
    number.ok_or(Error::Number(tag))
}

fn once<T>(slot: &mut Option<T>, value: T, tag: &'static str) -> Result<(), Error> {
    if slot.replace(value).is_some() {
        return Err(Error::Twice(tag));
    }
    Ok(())
}
