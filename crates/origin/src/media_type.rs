//! The media type of an object, by its key's extension.

/// What video delivery needs, before the general table is asked: some of these are wrong or missing there.
const VIDEO: [(&str, &str); 16] = [
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("mpd", "application/dash+xml"),
    ("ts", "video/mp2t"),
    ("m4s", "video/iso.segment"),
    ("cmfv", "video/mp4"),
    ("cmfa", "audio/mp4"),
    ("cmft", "application/mp4"),
    ("mp4", "video/mp4"),
    ("m4v", "video/mp4"),
    ("m4a", "audio/mp4"),
    ("aac", "audio/aac"),
    ("webm", "video/webm"),
    ("vtt", "text/vtt"),
    ("srt", "application/x-subrip"),
    ("key", "application/octet-stream"),
    ("json", "application/json"),
];

/// The media type of an object; `application/octet-stream` for what is not known.
pub fn media_type(key: &str) -> &'static str {
    let name = key.rsplit('/').next().unwrap_or(key);
    let Some((_, extension)) = name.rsplit_once('.') else {
        return "application/octet-stream";
    };
    let extension = extension.to_ascii_lowercase();
    match VIDEO.iter().find(|(e, _)| *e == extension) {
        Some((_, media_type)) => media_type,
        None => match mime_guess::from_ext(&extension).first_raw() {
            Some("text/html") => "text/html; charset=utf-8",
            Some("text/css") => "text/css; charset=utf-8",
            Some("text/plain") => "text/plain; charset=utf-8",
            Some("text/javascript" | "application/javascript") => "text/javascript; charset=utf-8",
            Some(other) => other,
            None => "application/octet-stream",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_the_last_extension() {
        for (key, expected) in [
            ("a/master.M3U8", "application/vnd.apple.mpegurl"),
            ("a.mpd", "application/dash+xml"),
            ("x.m3u8/seg1.ts", "video/mp2t"),
            ("x.m3u8/y.css", "text/css; charset=utf-8"),
            ("init.mp4", "video/mp4"),
            ("index.html", "text/html; charset=utf-8"),
            ("poster.jpg", "image/jpeg"),
            ("noextension", "application/octet-stream"),
            ("a.unknownext", "application/octet-stream"),
        ] {
            assert_eq!(media_type(key), expected, "{key}");
        }
    }
}
