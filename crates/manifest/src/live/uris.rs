//! Where the URIs of a stream's playlists lead (RFC 3986 §5.2).

use super::Playlist;
use crate::{Error, Kind};

/// The path from the stream's folder that `uri` leads to in the playlist at `playlist`, which is a path from that
/// folder too. Percent-encoding is left as it is; query and fragment are dropped. `None` when it does not lead to a
/// file in the folder: it climbs out, is an absolute path, has a scheme or a host, is empty, or holds a variable.
pub fn resolve(_playlist: &str, _uri: &str) -> Option<String> {
    todo!()
}

/// A copy of `text` with the URIs replaced for which `map` returns something; everything else is kept byte for byte.
pub fn map_uris(_kind: Kind, _text: &str, _map: &mut dyn FnMut(&str) -> Option<String>) -> Result<String, Error> {
    todo!()
}

/// Refuses a playlist of which a segment, initialization section, part, or variant climbs out of the stream's folder
/// or has a scheme that is not fetched. URIs of http(s) on other hosts pass, and those of keys.
pub fn check_uris(_playlist_path: &str, _playlist: &Playlist) -> Result<(), Error> {
    todo!()
}
