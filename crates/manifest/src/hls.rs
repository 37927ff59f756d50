//! HLS playlists (RFC 8216bis): URI lines, and the attributes that hold a URI.

use crate::{
    Error, MAX_LINE,
    splice::{Authority, Places, Splices, Syntax, authority},
};
use std::ops::Range;

/// Tags whose attribute lists hold URIs that a player fetches, and the attributes' names.
const TAGS: [(&str, &[&str]); 12] = [
    ("#EXT-X-MAP", &["URI"]),
    ("#EXT-X-KEY", &["URI"]),
    ("#EXT-X-SESSION-KEY", &["URI"]),
    ("#EXT-X-MEDIA", &["URI"]),
    ("#EXT-X-I-FRAME-STREAM-INF", &["URI"]),
    ("#EXT-X-PART", &["URI"]),
    ("#EXT-X-PRELOAD-HINT", &["URI"]),
    ("#EXT-X-RENDITION-REPORT", &["URI"]),
    ("#EXT-X-SESSION-DATA", &["URI"]),
    ("#EXT-X-CONTENT-STEERING", &["SERVER-URI"]),
    ("#EXT-X-IMAGE-STREAM-INF", &["URI"]),
    ("#EXT-X-DATERANGE", &["X-ASSET-URI", "X-ASSET-LIST"]),
];

/// Those of them that lead to files which are neither media nor playlists, nor of a segment.
const BESIDE: [&str; 4] = [
    "#EXT-X-SESSION-KEY",
    "#EXT-X-SESSION-DATA",
    "#EXT-X-CONTENT-STEERING",
    "#EXT-X-DATERANGE",
];

pub(crate) fn scan(text: &str) -> Result<Splices, Error> {
    let mut places = Places::new(Syntax::Plain);
    for range in uris(text)? {
        match authority(text, range.clone(), Syntax::Plain) {
            Authority::Relative => places.add(text, range, &[])?,
            Authority::Host(host) => places.add(text, range, &[host])?,
            Authority::Other => {}
        }
    }
    Ok(places.finish())
}

/// Where the URIs that a player fetches stand, in the order of the text.
pub(crate) fn uris(text: &str) -> Result<Vec<Range<usize>>, Error> {
    let mut uris = Vec::new();
    for line in lines(text)? {
        let line = line?;
        if line.content.starts_with('#') {
            uris.extend(of_tag(text, &line));
        } else if !line.content.is_empty() {
            uris.push(line.begin..line.begin + line.content.len());
        }
    }
    Ok(uris)
}

/// Where the URIs of the tags in [`BESIDE`] stand, in the order of the text.
pub(crate) fn beside(text: &str) -> Result<Vec<Range<usize>>, Error> {
    let mut uris = Vec::new();
    for line in lines(text)? {
        let line = line?;
        if BESIDE.contains(&line.tag()) {
            uris.extend(of_tag(text, &line));
        }
    }
    Ok(uris)
}

/// Where the URIs of a tag stand.
fn of_tag<'a>(text: &'a str, line: &Line<'a>) -> impl Iterator<Item = Range<usize>> + 'a {
    let names = TAGS
        .iter()
        .find(|(tag, _)| *tag == line.tag())
        .map_or(&[][..], |(_, names)| names);
    let list = line.value();
    attributes(&text[list.clone()], names).map(move |r| list.start + r.start..list.start + r.end)
}

/// A line of a playlist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// Where it begins.
    pub(crate) begin: usize,
    /// Without its end, and white space before that.
    pub(crate) content: &'a str,
    /// With its end, which the last line of a text may lack.
    pub(crate) whole: &'a str,
}

impl<'a> Line<'a> {
    /// What is before the colon of a tag; the whole content where there is none.
    pub(crate) fn tag(&self) -> &'a str {
        self.content.split_once(':').map_or(self.content, |(tag, _)| tag)
    }

    /// Where the text after the tag's colon stands.
    pub(crate) fn value(&self) -> Range<usize> {
        let end = self.begin + self.content.len();
        end.min(self.begin + self.tag().len() + 1)..end
    }
}

/// The lines of a playlist, which must begin with `#EXTM3U` (RFC 8216bis §4.4.1.1). A byte order mark before that is
/// passed over: the standard forbids it, and players read on.
pub(crate) fn lines(text: &str) -> Result<impl Iterator<Item = Result<Line<'_>, Error>>, Error> {
    let start = text.len() - text.trim_start_matches('\u{feff}').len();
    let start = start.min('\u{feff}'.len_utf8());
    if text[start..].lines().next().unwrap_or_default().trim_end() != "#EXTM3U" {
        return Err(Error::NoHeader);
    }
    Ok(lines_from(text, start..text.len()).map(|line| {
        if line.whole.len() > MAX_LINE {
            Err(Error::LongLine)
        } else {
            Ok(line)
        }
    }))
}

/// The lines at `range` of `text`.
pub(crate) fn lines_from(text: &str, range: Range<usize>) -> impl Iterator<Item = Line<'_>> {
    let mut begin = range.start;
    text[range].split_inclusive('\n').map(move |whole| {
        let line = Line {
            begin,
            content: whole.trim_end(),
            whole,
        };
        begin += whole.len();
        line
    })
}

/// The quoted values of the named attributes of an attribute list (RFC 8216bis §4.2).
pub(crate) fn attributes<'a>(list: &'a str, names: &'a [&'a str]) -> impl Iterator<Item = Range<usize>> + 'a {
    pairs(list)
        .filter(|pair| pair.quoted && names.contains(&pair.name))
        .map(|pair| pair.value)
}

/// An attribute: `NAME=value` or `NAME="value"`.
pub(crate) struct Pair<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// Where its value stands in the list, without quotes.
    pub(crate) value: Range<usize>,
    /// Whether there are quotes.
    pub(crate) quoted: bool,
}

/// The attributes of a list (RFC 8216bis §4.2).
pub(crate) fn pairs(list: &str) -> impl Iterator<Item = Pair<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= list.len() {
            return None;
        }
        let name_end = at + list[at..].find('=')?;
        let name = list[at..name_end].trim();
        let begin = name_end + 1;
        let comma = |from: usize| list[from..].find(',').map_or(list.len(), |comma| from + comma);
        let (value, quoted) = if list[begin..].starts_with('"') {
            let close = begin + 1 + list[begin + 1..].find('"')?;
            at = comma(close + 1) + 1;
            (begin + 1..close, true)
        } else {
            let end = comma(begin);
            at = end + 1;
            (begin..end, false)
        };
        Some(Pair { name, value, quoted })
    })
}

#[cfg(test)]
mod tests {
    use crate::{Error, Kind, scan};
    use proptest::prelude::*;

    fn render(text: &str) -> String {
        let splices = scan(Kind::Hls, text.as_bytes()).expect(text);
        String::from_utf8(splices.render(text.as_bytes(), "T", "v.example.com")).expect("UTF-8")
    }

    #[test]
    fn every_line_and_tag_that_names_a_uri() {
        for (line, expected) in [
            ("seg1.ts", "seg1.ts?auth=T"),
            ("seg1.ts?v=1", "seg1.ts?v=1&auth=T"),
            ("seg1.ts#t=1", "seg1.ts?auth=T#t=1"),
            ("../a/seg1.ts", "../a/seg1.ts?auth=T"),
            ("/abs/seg1.ts", "/abs/seg1.ts?auth=T"),
            ("a/b:c.ts", "a/b:c.ts?auth=T"),
            ("https://v.example.com/s.ts", "https://v.example.com/s.ts?auth=T"),
            (
                "HTTP://V.Example.com:8080/s.ts",
                "HTTP://V.Example.com:8080/s.ts?auth=T",
            ),
            ("//v.example.com/s.ts", "//v.example.com/s.ts?auth=T"),
            ("https://other.example.com/s.ts", "https://other.example.com/s.ts"),
            ("//other.example.com/s.ts", "//other.example.com/s.ts"),
            (
                "https://v.example.com@evil.example/s.ts",
                "https://v.example.com@evil.example/s.ts",
            ),
            (
                "https://v.example.com.evil.example/s.ts",
                "https://v.example.com.evil.example/s.ts",
            ),
            ("https:\\\\evil.example/s.ts", "https:\\\\evil.example/s.ts"),
            ("/\\evil.example/s.ts", "/\\evil.example/s.ts"),
            ("/\t/evil.example/s.ts", "/\t/evil.example/s.ts"),
            ("https:/evil.example/s.ts", "https:/evil.example/s.ts"),
            ("data:video/mp2t;base64,AA", "data:video/mp2t;base64,AA"),
            ("my film0.ts", "my film0.ts?auth=T"),
            ("a b/c d.ts?e f#g h", "a b/c d.ts?e f&auth=T#g h"),
            (" //evil.example/s.ts", " //evil.example/s.ts"),
            ("\u{a0}//evil.example/s.ts", "\u{a0}//evil.example/s.ts"),
            ("https ://v.example.com/s.ts", "https ://v.example.com/s.ts"),
            ("https:// v.example.com/s.ts", "https:// v.example.com/s.ts"),
            ("#EXT-X-MAP:URI=\"i.mp4 \"", "#EXT-X-MAP:URI=\"i.mp4 \""),
            ("#EXT-X-MAP:URI=\"a b.mp4\"", "#EXT-X-MAP:URI=\"a b.mp4?auth=T\""),
            ("{$base}/s.ts", "{$base}/s.ts"),
            ("/{$host}/s.ts", "/{$host}/s.ts"),
            ("//{$host}/s.ts", "//{$host}/s.ts"),
            ("http{$rest}/s.ts", "http{$rest}/s.ts"),
            ("HTTPS{$rest}", "HTTPS{$rest}"),
            ("https:{$rest}", "https:{$rest}"),
            (
                "https://v.example.com:{$port}/s.ts",
                "https://v.example.com:{$port}/s.ts",
            ),
            ("https://v.example.com{$more}/s.ts", "https://v.example.com{$more}/s.ts"),
            ("a/{$name}.ts", "a/{$name}.ts?auth=T"),
            ("seg-{$n}.ts?q={$q}", "seg-{$n}.ts?q={$q}&auth=T"),
            (
                "https://v.example.com/{$name}.ts",
                "https://v.example.com/{$name}.ts?auth=T",
            ),
            (
                "#EXT-X-MAP:URI=\"i.mp4\",BYTERANGE=\"1@0\"",
                "#EXT-X-MAP:URI=\"i.mp4?auth=T\",BYTERANGE=\"1@0\"",
            ),
            (
                "#EXT-X-KEY:METHOD=AES-128,URI=\"k.bin\",IV=0x1",
                "#EXT-X-KEY:METHOD=AES-128,URI=\"k.bin?auth=T\",IV=0x1",
            ),
            (
                "#EXT-X-KEY:METHOD=SAMPLE-AES,URI=\"skd://x\"",
                "#EXT-X-KEY:METHOD=SAMPLE-AES,URI=\"skd://x\"",
            ),
            (
                "#EXT-X-MEDIA:TYPE=AUDIO,NAME=\"a,URI=\",GROUP-ID=\"g\",URI=\"a.m3u8\"",
                "#EXT-X-MEDIA:TYPE=AUDIO,NAME=\"a,URI=\",GROUP-ID=\"g\",URI=\"a.m3u8?auth=T\"",
            ),
            (
                "#EXT-X-PART:DURATION=0.2,URI=\"p.m4s\"",
                "#EXT-X-PART:DURATION=0.2,URI=\"p.m4s?auth=T\"",
            ),
            (
                "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"p\"",
                "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"p?auth=T\"",
            ),
            (
                "#EXT-X-RENDITION-REPORT:URI=\"r.m3u8\",LAST-MSN=1",
                "#EXT-X-RENDITION-REPORT:URI=\"r.m3u8?auth=T\",LAST-MSN=1",
            ),
            (
                "#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=1,URI=\"i.m3u8\"",
                "#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=1,URI=\"i.m3u8?auth=T\"",
            ),
            (
                "#EXT-X-SESSION-DATA:DATA-ID=\"x\",URI=\"d.json\"",
                "#EXT-X-SESSION-DATA:DATA-ID=\"x\",URI=\"d.json?auth=T\"",
            ),
            (
                "#EXT-X-CONTENT-STEERING:SERVER-URI=\"s\"",
                "#EXT-X-CONTENT-STEERING:SERVER-URI=\"s?auth=T\"",
            ),
            ("#EXTINF:6.0,URI=\"x\"", "#EXTINF:6.0,URI=\"x\""),
            ("# URI=\"x\"", "# URI=\"x\""),
        ] {
            for end in ["\n", "\r\n", ""] {
                assert_eq!(
                    render(&format!(
                        "#EXTM3U{}{line}{end}",
                        if end.is_empty() { "\n" } else { end }
                    )),
                    format!("#EXTM3U{}{expected}{end}", if end.is_empty() { "\n" } else { end })
                );
            }
        }
    }

    #[test]
    fn what_is_no_playlist_is_refused() {
        for (text, why) in [
            ("", Error::NoHeader),
            ("<html>", Error::NoHeader),
            ("\n#EXTM3U", Error::NoHeader),
            ("#EXTM3U8\n", Error::NoHeader),
        ] {
            assert_eq!(scan(Kind::Hls, text.as_bytes()), Err(why), "{text}");
        }
        assert_eq!(scan(Kind::Hls, b"#EXTM3U\n\xff"), Err(Error::Utf8));
        let long = format!("#EXTM3U\n{}", "a".repeat(70_000));
        assert_eq!(scan(Kind::Hls, long.as_bytes()), Err(Error::LongLine));
        assert_eq!(render("\u{feff}#EXTM3U\na.ts\n"), "\u{feff}#EXTM3U\na.ts?auth=T\n");
    }

    #[test]
    fn a_playlist_of_too_many_uris_is_refused() {
        let text = |n| format!("#EXTM3U\n{}", "a\n".repeat(n));
        assert!(scan(Kind::Hls, text(100_000).as_bytes()).is_ok());
        assert_eq!(scan(Kind::Hls, text(100_001).as_bytes()), Err(Error::TooMany));
    }

    #[test]
    fn what_is_found_takes_less_memory_than_its_text() {
        for line in [
            "a\n",
            "//v.example.com/\n",
            "#EXT-X-MAP:URI=\"a\"\n",
            "#EXTINF:6.000,\nhttps://v.example.com/film/segment00001.ts?v=1\n",
        ] {
            let text = format!("#EXTM3U\n{}", line.repeat(20_000));
            let splices = scan(Kind::Hls, text.as_bytes()).expect(line);
            assert_eq!(splices.len(), 20_000, "{line}");
            assert!(splices.memory_size() < text.len(), "{line}: {}", splices.memory_size());
        }
        // Of six hours of film it is a few KiB.
        let text = format!("#EXTM3U\n{}", "#EXTINF:6.000,\nsegment00001.ts\n".repeat(3600));
        let splices = scan(Kind::Hls, text.as_bytes()).expect("it is one");
        assert!(splices.memory_size() <= 7300, "{}", splices.memory_size());
    }

    #[test]
    fn a_parser_of_others_still_reads_it() {
        let text = "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:6\n#EXT-X-MAP:URI=\"init.mp4\"\n#EXTINF:6.0,\n1.m4s\n#EXT-X-FUTURE:A=1\n#EXTINF:4.0,\n2.m4s\n#EXT-X-ENDLIST\n";
        let rendered = render(text);
        let Ok(m3u8_rs::Playlist::MediaPlaylist(playlist)) = m3u8_rs::parse_playlist_res(rendered.as_bytes()) else {
            panic!("{rendered}")
        };
        let uris: Vec<_> = playlist.segments.iter().map(|s| s.uri.as_str()).collect();
        assert_eq!(uris, ["1.m4s?auth=T", "2.m4s?auth=T"]);
        assert_eq!(
            playlist.segments[0].map.as_ref().map(|m| m.uri.as_str()),
            Some("init.mp4?auth=T")
        );
    }

    proptest! {
        #[test]
        fn nothing_but_the_token_is_added(text in "(#EXT-X-MAP:URI=\"|#EXTINF:|\"|,|=|[a-z/:?#.\\\\ ]|//|http://|\n|\r\n|é){0,40}") {
            let text = format!("#EXTM3U\n{text}");
            if let Ok(splices) = scan(Kind::Hls, text.as_bytes()) {
                let rendered = String::from_utf8(splices.render(text.as_bytes(), "T0KEN", "v.example.com")).expect("UTF-8");
                prop_assert_eq!(rendered.replace("?auth=T0KEN", "").replace("&auth=T0KEN", ""), text);
            }
        }
    }
}
