//! Reading a media playlist, line by line (RFC 8216bis §4): which lines are of which segment, and what is refused.

use super::{
    MAX_ENTRIES, MediaPlaylist,
    hls::{Part, Segment},
};
use crate::{
    Error,
    hls::{Line, lines, lines_from, pairs},
    splice::{Authority, Syntax, authority},
};
use std::{ops::Range, sync::Arc, time::Duration};

/// The longest duration that is believed: a day, in seconds.
const MAX_SECONDS: f64 = 86_400.0;

/// Whose text is read: the limits are for what others wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    Stranger,
    Own,
}

/// A media playlist while it is read.
struct Reader {
    playlist: MediaPlaylist,
    trust: Trust,
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
                keys: Vec::new(),
                media_sequence: 0,
                discontinuity_sequence: 0,
                target: Duration::ZERO,
                version: None,
                part_target: None,
                ended: false,
                can_block: false,
            },
            trust,
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
                    let playlist = &reader.playlist;
                    if playlist.media.len() + playlist.keys.len() + playlist.hints.len() > MAX_ENTRIES {
                        return Err(Error::TooLong);
                    }
                }
            }
            Trust::Own => {
                let start = text.find("#EXTM3U").ok_or(Error::NoHeader)?;
                for line in lines_from(&text, start..text.len()) {
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
            "#EXT-X-KEY" => self.playlist.keys.extend(key_of(&text, line)),
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
                once(&mut self.media_sequence, number(value, name, self.trust)?, name)?;
            }
            "#EXT-X-DISCONTINUITY-SEQUENCE" => {
                let name = "EXT-X-DISCONTINUITY-SEQUENCE";
                once(&mut self.discontinuity_sequence, number(value, name, self.trust)?, name)?;
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

/// Where the URI of a tag stands.
pub(super) fn uri_of(text: &str, line: &Line<'_>, tag: &'static str) -> Result<Range<usize>, Error> {
    let list = line.value();
    let pair = pairs(&text[list.clone()]).find(|pair| pair.name == "URI" && pair.quoted);
    let pair = pair.filter(|pair| !pair.value.is_empty()).ok_or(Error::NoUri(tag))?;
    Ok(list.start + pair.value.start..list.start + pair.value.end)
}

/// Where the URI of `EXT-X-KEY` stands, if it is relative.
pub(super) fn key_of(text: &str, line: &Line<'_>) -> Option<Range<usize>> {
    let uri = uri_of(text, line, "EXT-X-KEY").ok()?;
    let is_relative = authority(text, uri.clone(), Syntax::Plain) == Authority::Relative;
    is_relative.then_some(uri)
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

fn number(text: &str, tag: &'static str, trust: Trust) -> Result<u64, Error> {
    let text = text.trim();
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits);
    // What others begin with leaves room for what is added.
    let number = number.filter(|number: &u64| trust == Trust::Own || *number < 1 << 63);
    number.ok_or(Error::Number(tag))
}

fn once<T>(slot: &mut Option<T>, value: T, tag: &'static str) -> Result<(), Error> {
    if slot.replace(value).is_some() {
        return Err(Error::Twice(tag));
    }
    Ok(())
}
