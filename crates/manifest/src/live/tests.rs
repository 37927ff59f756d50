//! Tests of live playlists, by what they are about.

use super::{MediaPlaylist, Playlist, parse};

mod continuity;
mod manifest;
mod playlists;
mod restarts;
mod runs;
mod uris;

fn media(text: &str) -> MediaPlaylist {
    match parse(text.as_bytes()) {
        Ok(Playlist::Media(playlist)) => playlist,
        other => panic!("{other:?}: {text}"),
    }
}
