//! Live playlists: what an edge has to know of an HLS media playlist (RFC 8216bis) and of a DASH manifest (ISO/IEC
//! 23009-1) that change while they are played, and how playlists of one encoder run after another become one that
//! goes on (RFC 8216bis §6.2.1). Pure; every line that is not understood is kept.

mod continuity;
mod dash;
mod hls;
mod position;
mod read;
mod session;
mod tail;
mod uris;

pub use continuity::{Continuity, Follow, Published};
pub use dash::{Manifest, parse_manifest};
pub use hls::{MediaPlaylist, Multivariant, Playlist, parse};
pub use position::Position;
pub use uris::{beside, check_uris, labelled, map_uris, resolve};

/// The query parameter that tells apart files of the same name pushed by different runs of an encoder.
pub const LABEL: &str = "_ew_v";

/// How many segments and parts a live playlist may list.
pub const MAX_ENTRIES: usize = 20_000;

#[cfg(test)]
mod tests;
