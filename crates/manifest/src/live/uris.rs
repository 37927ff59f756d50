//! Where the URIs of a stream's playlists lead (RFC 3986 §5.2), and writing others in their place.

use super::{LABEL, Playlist};
use crate::{
    Error, Kind, dash, hls,
    splice::{Authority, Syntax, authority},
};
use quick_xml::escape::{escape, unescape};
use std::{borrow::Cow, ops::Range};

/// The path from the stream's folder that `uri` leads to in the playlist at `playlist`, which is a path from that
/// folder too. Percent-encoding is left as it is; query and fragment are dropped. `None` when it does not lead to a
/// file in the folder: it climbs out, is an absolute path, has a scheme or a host, is empty, holds a variable
/// (`EXT-X-DEFINE`), or what servers and players read in different ways.
pub fn resolve(playlist: &str, uri: &str) -> Option<String> {
    if authority(uri, 0..uri.len(), Syntax::Plain) != Authority::Relative || uri.contains("{$") {
        return None;
    }
    let path = &uri[..uri.find(['?', '#']).unwrap_or(uri.len())];
    let folder = playlist.rsplit_once('/').map(|(folder, _)| folder);
    let mut segments: Vec<&str> = folder.map(|folder| folder.split('/').collect()).unwrap_or_default();
    let (folders, file) = path.rsplit_once('/').map_or((None, path), |(f, file)| (Some(f), file));
    for segment in folders.iter().flat_map(|folders| folders.split('/')) {
        match dots(segment) {
            _ if segment.is_empty() || hides_a_slash(segment) => return None,
            1 => {}
            2 => {
                segments.pop()?;
            }
            _ => segments.push(segment),
        }
    }
    if file.is_empty() || dots(file) != 0 || hides_a_slash(file) {
        return None;
    }
    segments.push(file);
    Some(segments.join("/"))
}

/// 1 for `.`, 2 for `..`, 0 for all else. An encoded dot is a dot, as it is to browsers (URL Standard, "double-dot URL
/// path segment").
fn dots(segment: &str) -> usize {
    let mut rest = segment;
    let mut dots = 0;
    while !rest.is_empty() {
        let encoded = rest.get(..3).is_some_and(|three| three.eq_ignore_ascii_case("%2e"));
        match rest.strip_prefix('.') {
            Some(after) => rest = after,
            None if encoded => rest = &rest[3..],
            None => return 0,
        }
        dots += 1;
    }
    if dots > 2 { 0 } else { dots }
}

/// Whether decoding it makes a slash, a backslash or a NUL of it.
fn hides_a_slash(segment: &str) -> bool {
    segment.split('%').skip(1).any(|rest| {
        let code = rest.get(..2).unwrap_or_default();
        ["2f", "5c", "00"]
            .iter()
            .any(|hidden| code.eq_ignore_ascii_case(hidden))
    })
}

/// A copy of `text` with the URIs replaced for which `map` returns something; everything else is kept byte for byte.
/// They are given in the order of the text, all that a player may fetch: those of playlists, segments, keys, base URLs
/// and so on. URLs of a manifest are given, and returned, without XML's escapes.
pub fn map_uris(kind: Kind, text: &str, map: &mut dyn FnMut(&str) -> Option<String>) -> Result<String, Error> {
    let ranges = match kind {
        Kind::Hls => hls::uris(text)?,
        Kind::Dash => dash::uris(text)?,
    };
    Ok(replace(text, &ranges, &mut |uri| match kind {
        Kind::Hls => map(uri),
        Kind::Dash => map(&unescape(uri).ok()?).map(|mapped| escape(mapped).into_owned()),
    }))
}

/// The URIs of a playlist of HLS that lead to files beside what it lists: those of `EXT-X-SESSION-KEY`,
/// `EXT-X-SESSION-DATA`, `EXT-X-CONTENT-STEERING` and `EXT-X-DATERANGE`, in the order of the text.
pub fn beside(text: &str) -> Result<Vec<&str>, Error> {
    let ranges = hls::beside(text)?;
    Ok(ranges.into_iter().map(|range| &text[range]).collect())
}

/// A copy of `text` with what `map` returns in the place of the text at `ranges`, which are in order.
pub(super) fn replace(text: &str, ranges: &[Range<usize>], map: &mut dyn FnMut(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len() + ranges.len() * 8);
    let mut copied = 0;
    for range in ranges {
        if let Some(mapped) = map(&text[range.clone()]) {
            out.push_str(&text[copied..range.start]);
            out.push_str(&mapped);
            copied = range.end;
        }
    }
    out.push_str(&text[copied..]);
    out
}

/// A URI with its label: the first of its name has none.
pub fn labelled(uri: &str, label: u32) -> Cow<'_, str> {
    if label <= 1 {
        return uri.into();
    }
    let (before, fragment) = uri.split_at(uri.find('#').unwrap_or(uri.len()));
    let separator = if before.contains('?') { '&' } else { '?' };
    format!("{before}{separator}{LABEL}={label}{fragment}").into()
}

/// Refuses a playlist of which a segment, initialization section, part, hint, or variant leaves the stream's folder or
/// has a scheme that is not fetched. `playlist_path` is the playlist's path from that folder. URIs of http(s) on other
/// hosts pass, and those of keys whatever they are.
pub fn check_uris(playlist_path: &str, playlist: &Playlist) -> Result<(), Error> {
    let check = |uri: &str| {
        let passes = match authority(uri, 0..uri.len(), Syntax::Plain) {
            Authority::Relative => resolve(playlist_path, uri).is_some(),
            Authority::Host(host) => !host.is_empty(),
            Authority::Other => false,
        };
        if passes {
            Ok(())
        } else {
            Err(Error::Uri(uri.chars().take(100).collect()))
        }
    };
    match playlist {
        Playlist::Multivariant(playlist) => playlist.uris().try_for_each(check),
        Playlist::Media(playlist) => playlist.media_uris().chain(playlist.hints()).try_for_each(check),
    }
}
