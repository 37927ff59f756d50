use crate::{
    Error, Kind,
    live::{beside, check_uris, map_uris, parse, resolve},
};
use proptest::prelude::*;

#[test]
fn where_a_uri_leads() {
    for (playlist, uri, expected) in [
        ("", "a.ts", Some("a.ts")),
        ("p.m3u8", "a.ts", Some("a.ts")),
        ("p.m3u8", "./a.ts", Some("a.ts")),
        ("p.m3u8", "a.ts?x=../..#y/..", Some("a.ts")),
        ("p.m3u8", "v/a.ts", Some("v/a.ts")),
        ("v/p.m3u8", "a.ts", Some("v/a.ts")),
        ("v/p.m3u8", "../a.ts", Some("a.ts")),
        ("v/p.m3u8", "../w/./a.ts", Some("w/a.ts")),
        ("v/p.m3u8", "%2E%2e/a.ts", Some("a.ts")),
        ("v/w/p.m3u8", "../../a.ts", Some("a.ts")),
        ("p.m3u8", "a b%20c.ts", Some("a b%20c.ts")),
        ("p.m3u8", "a/b:c.ts", Some("a/b:c.ts")),
        ("p.m3u8", "...", Some("...")),
        ("p.m3u8", "é.ts", Some("é.ts")),
        ("p.m3u8", "%é.ts", Some("%é.ts")),
        ("p.m3u8", "", None),
        ("p.m3u8", "?x=1", None),
        ("p.m3u8", "#x", None),
        ("p.m3u8", ".", None),
        ("v/p.m3u8", "..", None),
        ("v/p.m3u8", "../", None),
        ("p.m3u8", "a/", None),
        ("p.m3u8", "a//b", None),
        ("p.m3u8", "../a.ts", None),
        ("p.m3u8", "%2e%2E/a.ts", None),
        ("p.m3u8", ".%2e/a.ts", None),
        ("p.m3u8", "v/../../a.ts", None),
        ("v/p.m3u8", "../../a.ts", None),
        ("p.m3u8", "..\\a.ts", None),
        ("p.m3u8", "..%2fa.ts", None),
        ("p.m3u8", "..%5Ca.ts", None),
        ("p.m3u8", "a%00.ts", None),
        ("p.m3u8", "a\u{0}.ts", None),
        ("p.m3u8", " a.ts", None),
        ("p.m3u8", "/a.ts", None),
        ("p.m3u8", "//h/a.ts", None),
        ("p.m3u8", "https://h/a.ts", None),
        ("p.m3u8", "file:///a.ts", None),
        ("p.m3u8", "a:b.ts", None),
        ("p.m3u8", "{$x}/a.ts", None),
        ("p.m3u8", "a-{$x}.ts", None),
    ] {
        assert_eq!(resolve(playlist, uri).as_deref(), expected, "{uri} in {playlist}");
    }
}

#[test]
fn a_playlist_that_leads_out_of_the_stream_is_refused() {
    let lines = |uri: &str| {
        let media = "#EXTM3U\n#EXT-X-TARGETDURATION:6\n";
        [
            format!("{media}#EXTINF:1,\n{uri}\n"),
            format!("{media}#EXT-X-MAP:URI=\"{uri}\"\n"),
            format!("{media}#EXT-X-PART:DURATION=1,URI=\"{uri}\"\n"),
            format!("{media}#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{uri}\"\n"),
            format!("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{uri}\n"),
            format!("#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"a\",NAME=\"a\",URI=\"{uri}\"\n"),
        ]
    };
    for (playlist, uri, passes) in [
        ("p.m3u8", "a.ts", true),
        ("p.m3u8", "v/a.ts?x=1", true),
        ("v/p.m3u8", "../a.ts", true),
        ("p.m3u8", "https://h.example.com/a.ts", true),
        ("p.m3u8", "HTTP://h.example.com:80/../../a.ts", true),
        ("p.m3u8", "//h.example.com/a.ts", true),
        ("p.m3u8", "../a.ts", false),
        ("p.m3u8", "/etc/passwd", false),
        ("p.m3u8", "file:///etc/passwd", false),
        ("p.m3u8", "javascript:alert(1)", false),
        ("p.m3u8", "data:video/mp2t,x", false),
        ("p.m3u8", "FILE:a", false),
        ("p.m3u8", "https:a.ts", false),
        ("p.m3u8", "https:///a.ts", false),
        ("p.m3u8", "https://u@h/a.ts", false),
        ("p.m3u8", "{$x}", false),
    ] {
        for text in lines(uri) {
            let read = parse(text.as_bytes()).expect(&text);
            let expected = if passes {
                Ok(())
            } else {
                Err(Error::Uri(uri.to_owned()))
            };
            assert_eq!(check_uris(playlist, &read), expected, "{text}");
        }
    }
    let key = "#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXT-X-KEY:METHOD=SAMPLE-AES,URI=\"skd://x\"\n#EXTINF:1,\na\n";
    assert_eq!(check_uris("p.m3u8", &parse(key.as_bytes()).expect(key)), Ok(()));
    let long = format!("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\ndata:{}\n", "é".repeat(500));
    let Err(Error::Uri(shown)) = check_uris("", &parse(long.as_bytes()).expect("it is a playlist")) else {
        panic!("it passes")
    };
    assert_eq!(shown.chars().count(), 100);
}

#[test]
fn files_beside_what_is_listed() {
    let text = "#EXTM3U\n#EXT-X-SESSION-KEY:METHOD=AES-128,URI=\"k\"\n#EXT-X-SESSION-DATA:DATA-ID=\"a\",URI=\"d.json\"\n\
                #EXT-X-SESSION-DATA:DATA-ID=\"b\",VALUE=\"URI\"\n#EXT-X-CONTENT-STEERING:SERVER-URI=\"s\"\n\
                #EXT-X-MAP:URI=\"i\"\n#EXT-X-KEY:METHOD=A,URI=\"l\"\n\
                #EXT-X-DATERANGE:ID=\"x\",X-ASSET-URI=\"a.mp4\",X-ASSET-LIST=\"a.json\"\n#EXTINF:1,\na.ts\n";
    assert_eq!(beside(text), Ok(vec!["k", "d.json", "s", "a.mp4", "a.json"]));
    assert_eq!(beside("a"), Err(Error::NoHeader));
}

#[test]
fn other_uris_in_their_place() {
    let mut map = |uri: &str| match uri {
        "keep" => None,
        uri => Some(format!("<{uri}&>")),
    };
    for (kind, text, expected) in [
        (
            Kind::Hls,
            "\u{feff}#EXTM3U\r\n#EXT-X-MAP:URI=\"i\",X=1\r\n#EXT-X-KEY:METHOD=A,URI=\"k\"\r\nkeep\r\n#c\r\na b \r\n",
            "\u{feff}#EXTM3U\r\n#EXT-X-MAP:URI=\"<i&>\",X=1\r\n#EXT-X-KEY:METHOD=A,URI=\"<k&>\"\r\nkeep\r\n#c\r\n<a b&> \r\n",
        ),
        (
            Kind::Dash,
            "<MPD><BaseURL> b/ </BaseURL><BaseURL/><S media='x'/><SegmentTemplate media=\"$Number$&amp;\" initialization='keep'/></MPD>",
            "<MPD><BaseURL> &lt;b/&amp;&gt; </BaseURL><BaseURL/><S media='x'/><SegmentTemplate media=\"&lt;$Number$&amp;&amp;&gt;\" initialization='keep'/></MPD>",
        ),
        (
            Kind::Dash,
            "<MPD><Location>a<!-- x -->b</Location><Location>c&amp;d</Location></MPD>",
            "<MPD><Location>a<!-- x -->b</Location><Location>&lt;c&amp;d&amp;&gt;</Location></MPD>",
        ),
    ] {
        assert_eq!(map_uris(kind, text, &mut map).as_deref(), Ok(expected));
    }
    for (kind, text, expected) in [
        (Kind::Hls, "a", Error::NoHeader),
        (Kind::Dash, "<MPD>", Error::Xml),
        (Kind::Dash, "</MPD>", Error::Xml),
        (Kind::Dash, "<!DOCTYPE a><MPD/>", Error::Doctype),
    ] {
        assert_eq!(map_uris(kind, text, &mut map), Err(expected), "{text}");
    }
    let deep = "<a>".repeat(100);
    assert_eq!(map_uris(Kind::Dash, &deep, &mut map), Err(Error::TooDeep));
}

proptest! {
    #[test]
    fn what_is_resolved_stays_in_the_folder(
        playlist in "([a-c]{1,2}/){0,2}p",
        uri in "(\\.\\.|\\.|%2[eEfF]|/|[a-c]|\\?|#|:|é|%){0,12}",
    ) {
        if let Some(path) = resolve(&playlist, &uri) {
            prop_assert!(!path.starts_with('/') && !path.contains("//"));
            let decoded = path.replace("%2e", ".").replace("%2E", ".");
            prop_assert!(decoded.split('/').all(|segment| segment != "." && segment != ".." && !segment.is_empty()));
        }
    }

    #[test]
    fn mapping_to_nothing_changes_nothing(text in "(#EXT-X-MAP:URI=\"|\"|,|=|[a-z/:?#. ]|\n|\r\n|é|<BaseURL>|</BaseURL>|<A b=\"|\"/>){0,40}") {
        for (kind, text) in [(Kind::Hls, format!("#EXTM3U\n{text}")), (Kind::Dash, format!("<MPD>{text}</MPD>"))] {
            if let Ok(same) = map_uris(kind, &text, &mut |_| None) {
                prop_assert_eq!(same, text);
            }
        }
    }
}
