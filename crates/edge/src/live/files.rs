//! The files of a stream: which references lead to them, and for how long those that are pulled are kept. Pure.

use crate::respond::{CDN_CACHE_CONTROL, SURROGATE_CONTROL};
use edgeweir_cache::policy::Directives;
use edgeweir_model::{ObjectKey, OriginUrl};
use edgeweir_origin::media_type;
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, EXPIRES},
};

/// For how long the cache keeps a file of a pulled stream whose origin does not forbid it, in seconds. What a playlist has
/// listed does not change (RFC 8216 §6.2.1), whatever the origin says of all that it serves.
const SEGMENT: u64 = 3600;

/// What the cache is told of a file that was pulled. One that is not there may be in a moment.
pub(crate) fn keep_longer(key: &ObjectKey, status: StatusCode, headers: &mut HeaderMap) {
    let directives = Directives::of(headers).unwrap_or_default();
    if directives.no_store || directives.private {
        return;
    }
    let seconds = match status {
        StatusCode::OK if is_media(key) => directives.lifetime.unwrap_or(0).max(SEGMENT),
        StatusCode::NOT_FOUND | StatusCode::GONE => 0,
        _ => return,
    };
    for outranks in [EXPIRES, CDN_CACHE_CONTROL, SURROGATE_CONTROL] {
        headers.remove(outranks);
    }
    let value = HeaderValue::from_str(&format!("max-age={seconds}")).expect("ASCII");
    headers.insert(CACHE_CONTROL, value);
}

/// Whether a file is a segment or part, not a key or a clock, by its name.
pub(super) fn is_media(key: &ObjectKey) -> bool {
    let media_type = media_type(key.as_str());
    ["video/", "audio/", "text/vtt"]
        .iter()
        .any(|of| media_type.starts_with(of))
}

/// An absolute reference into the folder as a relative one, so that what it leads to is fetched through here.
pub(super) fn localized(folder: &OriginUrl, playlist: &str, uri: &str) -> Option<String> {
    let path = match uri.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
            let same = scheme.eq_ignore_ascii_case(if folder.is_https() { "https" } else { "http" });
            let own = folder.authority();
            let with_port = format!("{own}:{}", folder.port());
            (same && (authority.eq_ignore_ascii_case(&own) || authority.eq_ignore_ascii_case(&with_port)))
                .then_some(path)?
        }
        None if uri.starts_with("//") => return None,
        None => uri,
    };
    let inside = path.strip_prefix(folder.prefix())?.strip_prefix('/')?;
    Some(relative(playlist, inside))
}

/// A reference into the folder that is pushed to as a relative one: its path begins with the stream's key, which no
/// viewer may learn. Encoders write the URL that they push to, by whatever name they reach this server.
pub(super) fn without_key(stream_key: &str, playlist: &str, uri: &str) -> Option<String> {
    let after_authority = |rest: &'_ str| rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let path = match uri.split_once("://") {
        Some((scheme, rest)) if ["http", "https"].iter().any(|web| scheme.eq_ignore_ascii_case(web)) => {
            &rest[after_authority(rest)..]
        }
        _ => match uri.strip_prefix("//") {
            Some(rest) => &rest[after_authority(rest)..],
            None => uri,
        },
    };
    let inside = path.strip_prefix('/')?.strip_prefix(stream_key)?.strip_prefix('/')?;
    Some(relative(playlist, inside))
}

/// The reference in a playlist to what is at `inside` of the folder that the playlist is in.
fn relative(playlist: &str, inside: &str) -> String {
    let up = "../".repeat(playlist.matches('/').count());
    // A first segment with a colon would read as a scheme (RFC 3986 §4.2).
    let here = if up.is_empty() { "./" } else { "" };
    format!("{up}{here}{inside}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_kept_for_an_hour_whatever_field_says_otherwise() {
        let key = ObjectKey::new("v0/s.ts").expect("a key");
        for (name, value, status, lifetime) in [
            ("cache-control", "max-age=5", StatusCode::OK, Some(SEGMENT)),
            ("cache-control", "max-age=7200", StatusCode::OK, Some(7200)),
            ("cdn-cache-control", "max-age=5", StatusCode::OK, Some(SEGMENT)),
            ("surrogate-control", "max-age=5", StatusCode::OK, Some(SEGMENT)),
            ("surrogate-control", "max-age=60", StatusCode::NOT_FOUND, Some(0)),
            ("surrogate-control", "no-store", StatusCode::OK, None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            keep_longer(&key, status, &mut headers);
            let kept = Directives::of(&headers).and_then(|directives| directives.lifetime);
            assert_eq!(kept, lifetime, "{name}: {value}");
        }
    }

    #[test]
    fn absolute_references_into_the_folder_become_relative() {
        let folder: OriginUrl = "http://o.example.com/live/a".parse().unwrap();
        for (playlist, uri, expected) in [
            ("p.m3u8", "http://o.example.com/live/a/s.ts?x=1", Some("./s.ts?x=1")),
            ("p.m3u8", "HTTP://O.example.com:80/live/a/s.ts", Some("./s.ts")),
            ("v/0/p.m3u8", "/live/a/v/0/s.ts", Some("../../v/0/s.ts")),
            ("p.m3u8", "/live/ab/s.ts", None),
            ("p.m3u8", "/other/s.ts", None),
            ("p.m3u8", "https://o.example.com/live/a/s.ts", None),
            ("p.m3u8", "http://o.example.com:8080/live/a/s.ts", None),
            ("p.m3u8", "http://other.example.com/live/a/s.ts", None),
            ("p.m3u8", "//o.example.com/live/a/s.ts", None),
            ("p.m3u8", "s.ts", None),
            ("p.m3u8", "live/a/s.ts", None),
        ] {
            assert_eq!(localized(&folder, playlist, uri).as_deref(), expected, "{uri}");
        }
    }

    #[test]
    fn references_that_hold_the_stream_key_become_relative() {
        for (playlist, uri, expected) in [
            (
                "p.m3u8",
                "http://ingest.example.com/KEY/p.m3u8.key",
                Some("./p.m3u8.key"),
            ),
            ("p.m3u8", "HTTPS://u:p@other:8080/KEY/a/s.ts?x=1", Some("./a/s.ts?x=1")),
            (
                "v/0/p.m3u8",
                "//ingest.example.com/KEY/v/0/s.ts",
                Some("../../v/0/s.ts"),
            ),
            ("p.m3u8", "/KEY/s.ts", Some("./s.ts")),
            ("v/m.mpd", "http://ingest.example.com/KEY/", Some("../")),
            ("p.m3u8", "http://ingest.example.com/KEY", None),
            ("p.m3u8", "http://ingest.example.com/KEYS/s.ts", None),
            ("p.m3u8", "http://ingest.example.com/other/KEY/s.ts", None),
            ("p.m3u8", "ftp://ingest.example.com/KEY/s.ts", None),
            ("p.m3u8", "s.ts?from=http://ingest.example.com/KEY/", None),
            ("p.m3u8", "KEY/s.ts", None),
            ("p.m3u8", "s.ts", None),
        ] {
            assert_eq!(without_key("KEY", playlist, uri).as_deref(), expected, "{uri}");
        }
    }
}
