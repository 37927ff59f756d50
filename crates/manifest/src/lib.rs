//! Playlists of HLS (RFC 8216bis) and DASH (ISO/IEC 23009-1): where a token has to be put in, found once, and the
//! putting in, done for every answer; and what an edge has to know of live ones ([`live`]). Pure.
//!
//! The text is never parsed into a model and written again, which would lose what the model does not know: the token
//! is spliced into the bytes. A URI to another site never gets it; where that cannot be told, it does not either.

mod dash;
mod hls;
pub mod live;
mod splice;

pub use splice::Splices;

/// The longest playlist line or attribute that is read, in bytes.
pub(crate) const MAX_LINE: usize = 64 << 10;

/// What kind of playlist an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `.m3u8`
    Hls,
    /// `.mpd`
    Dash,
}

impl Kind {
    /// By the extension of the object's key, never by what a response claims: a path such as `x.m3u8/y.css` is no
    /// playlist.
    pub fn of_key(key: &str) -> Option<Self> {
        let (_, extension) = key.rsplit('/').next()?.rsplit_once('.')?;
        if extension.eq_ignore_ascii_case("m3u8") {
            Some(Self::Hls)
        } else if extension.eq_ignore_ascii_case("mpd") {
            Some(Self::Dash)
        } else {
            None
        }
    }

    /// By the text itself, where the name may be any: what does not begin with an angle bracket is no XML.
    pub fn of_text(text: &str) -> Self {
        if text.trim_start_matches('\u{feff}').trim_start().starts_with('<') {
            Self::Dash
        } else {
            Self::Hls
        }
    }
}

/// Why a playlist cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not UTF-8.
    #[error("the playlist is not UTF-8")]
    Utf8,
    /// An HLS playlist that does not begin with `#EXTM3U`.
    #[error("the playlist does not begin with #EXTM3U")]
    NoHeader,
    /// A text without the element of a manifest of DASH.
    #[error("the manifest has no MPD element")]
    NoManifest,
    /// A line over the limit.
    #[error("the playlist has a line of over 64 KiB")]
    LongLine,
    /// XML that is not well-formed.
    #[error("the manifest is not well-formed XML")]
    Xml,
    /// A document type declaration, which a manifest has no use for.
    #[error("the manifest has a document type declaration")]
    Doctype,
    /// A manifest whose elements are nested too deeply.
    #[error("the manifest is nested more than 64 deep")]
    TooDeep,
    /// A URL or an identifier of a manifest over the limit.
    #[error("the manifest has a URL of over 4 KiB")]
    LongUrl,
    /// More URIs than a token is put into.
    #[error("the playlist has more than 100,000 URIs")]
    TooMany,
    /// A base that comes after what it is the base of, which no valid manifest has.
    #[error("the manifest has a BaseURL after the elements that it is for")]
    LateBase,
    /// A live playlist that lists more than [`live::MAX_ENTRIES`].
    #[error("the playlist lists more than 20,000 segments, parts or playlists")]
    TooLong,
    /// A playlist of segments and of playlists at once.
    #[error("the playlist has tags of both a multivariant and a media playlist")]
    Mixed,
    /// A media playlist without a target duration.
    #[error("the media playlist has no EXT-X-TARGETDURATION")]
    NoTarget,
    /// A duration that is missing, no decimal number, negative, or longer than a day.
    #[error("{0} has no duration of at most a day")]
    Duration(&'static str),
    /// A segment without `EXTINF`.
    #[error("a segment has no EXTINF")]
    NoDuration,
    /// A number that is none, or does not leave room to count on from.
    #[error("{0} is no number below 2^63")]
    Number(&'static str),
    /// A tag that may be there once.
    #[error("{0} is there twice")]
    Twice(&'static str),
    /// A playlist delta update, of which the segments are not known.
    #[error("the playlist leaves segments out (EXT-X-SKIP)")]
    Delta,
    /// A tag that lacks its URI.
    #[error("{0} has no URI")]
    NoUri(&'static str),
    /// A URI that leaves the stream's folder, or that nobody is to fetch: its first 100 characters.
    #[error("the playlist has a URI that leads out of the stream: {0}")]
    Uri(String),
}

impl Error {
    /// Whether it is something else than a playlist, whatever it is called.
    pub fn is_no_playlist(&self) -> bool {
        matches!(self, Self::NoHeader | Self::NoManifest)
    }
}

/// Finds the places of a playlist where a token has to be put in.
pub fn scan(kind: Kind, body: &[u8]) -> Result<Splices, Error> {
    // First whether it is one at all, whatever else is wrong with it.
    let (mark, none) = match kind {
        Kind::Hls => (&b"#EXTM3U"[..], Error::NoHeader),
        Kind::Dash => (&b"MPD"[..], Error::NoManifest),
    };
    if !body.windows(mark.len()).any(|text| text == mark) {
        return Err(none);
    }
    let text = std::str::from_utf8(body).map_err(|_| Error::Utf8)?;
    match kind {
        Kind::Hls => hls::scan(text),
        Kind::Dash => dash::scan(text),
    }
}
