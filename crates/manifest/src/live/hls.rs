//! HLS playlists as a live edge reads them (RFC 8216bis).

use super::Position;
use crate::Error;
use std::time::Duration;

/// A playlist of either kind.
#[derive(Debug, Clone)]
pub enum Playlist {
    /// Lists other playlists.
    Multivariant(Multivariant),
    /// Lists segments.
    Media(MediaPlaylist),
}

/// A multivariant playlist (RFC 8216bis §4.4.6).
#[derive(Debug, Clone)]
pub struct Multivariant {}

/// One version of a media playlist (RFC 8216bis §4.4.3).
#[derive(Debug, Clone)]
pub struct MediaPlaylist {}

/// Reads a playlist.
pub fn parse(_body: &[u8]) -> Result<Playlist, Error> {
    todo!()
}

impl Multivariant {
    /// The playlist, byte for byte.
    pub fn text(&self) -> &str {
        todo!()
    }
    /// The URIs of the variants, renditions and I-frame playlists, in the order of the text.
    pub fn uris(&self) -> impl Iterator<Item = &str> {
        std::iter::empty()
    }
}

impl MediaPlaylist {
    /// The playlist, byte for byte.
    pub fn text(&self) -> &str {
        todo!()
    }
    /// `EXT-X-TARGETDURATION`.
    pub fn target_duration(&self) -> Duration {
        todo!()
    }
    /// `PART-TARGET` of `EXT-X-PART-INF`.
    pub fn part_target(&self) -> Option<Duration> {
        todo!()
    }
    /// The media sequence number of the first segment.
    pub fn media_sequence(&self) -> u64 {
        todo!()
    }
    /// How many complete segments are listed.
    pub fn segments(&self) -> usize {
        todo!()
    }
    /// How much media is listed: the segments' durations and those of the parts after the last one.
    pub fn window(&self) -> Duration {
        todo!()
    }
    /// How long after this version the next one is due: the part target with parts, else the last segment's duration,
    /// else the target duration.
    pub fn update_interval(&self) -> Duration {
        todo!()
    }
    /// `EXT-X-ENDLIST` is there.
    pub fn has_ended(&self) -> bool {
        todo!()
    }
    /// `CAN-BLOCK-RELOAD=YES` of `EXT-X-SERVER-CONTROL`.
    pub fn can_block_reload(&self) -> bool {
        todo!()
    }
    /// The newest segment or part that is listed. `msn` is the number before the first one's when nothing is (0 if
    /// there is none before).
    pub fn position(&self) -> Position {
        todo!()
    }
    /// Whether `wanted` is in it, or past (RFC 8216bis §6.2.5.2). A part index past the last part of a complete
    /// segment is part 0 of the next segment.
    pub fn holds(&self, _wanted: Position) -> bool {
        todo!()
    }
    /// URIs of segments, `EXT-X-MAP` and `EXT-X-PART`, in the order of the text; repeated as they are there.
    pub fn media_uris(&self) -> impl Iterator<Item = &str> {
        std::iter::empty()
    }
    /// URIs of `EXT-X-PRELOAD-HINT`.
    pub fn hints(&self) -> impl Iterator<Item = &str> {
        std::iter::empty()
    }
}
