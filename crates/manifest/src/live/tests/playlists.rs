use super::media;
use crate::{
    Error,
    live::{MAX_ENTRIES, Playlist, Position, parse},
};
use std::time::Duration;

const HEAD: &str = "#EXTM3U\n#EXT-X-TARGETDURATION:6\n";

/// A playlist of low latency: segment 10 with its parts listed, segment 11 without, two parts of segment 12.
const LOW_LATENCY: &str = "#EXTM3U
#EXT-X-VERSION:9
#EXT-X-TARGETDURATION:2
#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=0.6
#EXT-X-PART-INF:PART-TARGET=0.2
#EXT-X-MEDIA-SEQUENCE:9
#EXT-X-MAP:URI=\"init.mp4\"
#EXTINF:2.0,
s9.m4s
#EXTINF:2.0,
s10.m4s
#EXT-X-PART:DURATION=0.5,URI=\"s11.0.m4s\",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.5,URI=\"s11.1.m4s\"
#EXTINF:1.0,
s11.m4s
#EXT-X-PART:DURATION=0.2,URI=\"s12.0.m4s\"
#EXT-X-PART:DURATION=0.25,URI=\"s12.1.m4s\"
#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"s12.2.m4s\"
#EXT-X-RENDITION-REPORT:URI=\"../audio/p.m3u8\",LAST-MSN=12,LAST-PART=1
";

#[test]
fn what_is_no_live_playlist_is_refused() {
    let many = |n: usize| format!("{HEAD}{}", "#EXTINF:1,\na\n".repeat(n));
    let long = format!("{HEAD}#EXTINF:1,\n{}\n", "a".repeat(70_000));
    let parts = format!("{HEAD}{}", "#EXT-X-PART:DURATION=1,URI=\"a\"\n".repeat(MAX_ENTRIES + 1));
    let variants = format!(
        "#EXTM3U\n{}",
        "#EXT-X-STREAM-INF:BANDWIDTH=1\na\n".repeat(MAX_ENTRIES + 1)
    );
    assert!(parse(many(MAX_ENTRIES).as_bytes()).is_ok());
    let with_head = |rest: &str| format!("{HEAD}{rest}");
    for (name, text, expected) in [
        ("empty", String::new(), Error::NoHeader),
        ("another format", "<html>".into(), Error::NoHeader),
        ("no header", "#EXT-X-TARGETDURATION:6\n".into(), Error::NoHeader),
        ("nothing in it", "#EXTM3U\n".into(), Error::NoTarget),
        ("no target duration", "#EXTM3U\n#EXTINF:1,\na\n".into(), Error::NoTarget),
        ("a line too long", long, Error::LongLine),
        ("too many segments", many(MAX_ENTRIES + 1), Error::TooLong),
        ("too many parts", parts, Error::TooLong),
        ("too many variants", variants, Error::TooLong),
        (
            "both kinds",
            "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\na\n#EXTINF:1,\nb\n".into(),
            Error::Mixed,
        ),
        ("no EXTINF", with_head("a\n"), Error::NoDuration),
        ("one EXTINF for two", with_head("#EXTINF:1,\na\nb\n"), Error::NoDuration),
        (
            "a delta update",
            with_head("#EXT-X-SKIP:SKIPPED-SEGMENTS=3\n#EXTINF:1,\na\n"),
            Error::Delta,
        ),
        (
            "a map without URI",
            with_head("#EXT-X-MAP:BYTERANGE=\"1@0\"\n"),
            Error::NoUri("EXT-X-MAP"),
        ),
        (
            "an empty URI",
            with_head("#EXT-X-MAP:URI=\"\"\n"),
            Error::NoUri("EXT-X-MAP"),
        ),
        (
            "a URI without quotes",
            with_head("#EXT-X-MAP:URI=a\n"),
            Error::NoUri("EXT-X-MAP"),
        ),
        (
            "a part without URI",
            with_head("#EXT-X-PART:DURATION=1\n"),
            Error::NoUri("EXT-X-PART"),
        ),
        (
            "a hint without URI",
            with_head("#EXT-X-PRELOAD-HINT:TYPE=PART\n"),
            Error::NoUri("EXT-X-PRELOAD-HINT"),
        ),
        (
            "a part without duration",
            with_head("#EXT-X-PART:URI=\"a\"\n"),
            Error::Duration("EXT-X-PART"),
        ),
        (
            "parts of no length",
            with_head("#EXT-X-PART-INF:PART-TARGET=0\n"),
            Error::Duration("EXT-X-PART-INF"),
        ),
        (
            "no part target",
            with_head("#EXT-X-PART-INF:X=1\n"),
            Error::Duration("EXT-X-PART-INF"),
        ),
        (
            "two targets",
            with_head("#EXT-X-TARGETDURATION:6\n"),
            Error::Twice("EXT-X-TARGETDURATION"),
        ),
        (
            "two sequences",
            with_head("#EXT-X-MEDIA-SEQUENCE:6\n#EXT-X-MEDIA-SEQUENCE:6\n"),
            Error::Twice("EXT-X-MEDIA-SEQUENCE"),
        ),
    ] {
        assert_eq!(parse(text.as_bytes()).map(|_| ()), Err(expected), "{name}");
    }
    assert_eq!(parse(b"#EXTM3U\n\xff").map(|_| ()), Err(Error::Utf8));
}

#[test]
fn durations_and_numbers() {
    for (value, duration) in [
        ("6", Some(6.0)),
        ("6,", Some(6.0)),
        ("6.006,title, more", Some(6.006)),
        (" 6.5 ,", Some(6.5)),
        ("0,", Some(0.0)),
        (".5,", Some(0.5)),
        ("86400,", Some(86_400.0)),
        ("86401,", None),
        ("1e3,", None),
        ("-1,", None),
        ("+1,", None),
        ("", None),
        (",", None),
        (".", None),
        ("1.2.3,", None),
        ("nan,", None),
        ("inf,", None),
        ("99999999999999999999999999,", None),
    ] {
        let read = parse(format!("{HEAD}#EXTINF:{value}\na\n").as_bytes());
        match (read, duration) {
            (Ok(Playlist::Media(read)), Some(duration)) => {
                assert_eq!(read.window(), Duration::from_secs_f64(duration), "{value}");
            }
            (read, None) => assert_eq!(read.map(|_| ()), Err(Error::Duration("EXTINF")), "{value}"),
            (read, _) => panic!("{value}: {read:?}"),
        }
    }
    for value in ["", "0", "-6", "x", "86401", "6s"] {
        let read = parse(format!("#EXTM3U\n#EXT-X-TARGETDURATION:{value}\n").as_bytes());
        assert_eq!(
            read.map(|_| ()),
            Err(Error::Duration("EXT-X-TARGETDURATION")),
            "{value}"
        );
    }
    for name in ["EXT-X-MEDIA-SEQUENCE", "EXT-X-DISCONTINUITY-SEQUENCE"] {
        for (value, is_number) in [
            ("0", true),
            (" 7 ", true),
            ("9223372036854775807", true),
            ("9223372036854775808", false),
            ("99999999999999999999", false),
            ("-1", false),
            ("+1", false),
            ("1.0", false),
            ("", false),
        ] {
            let read = parse(format!("{HEAD}#{name}:{value}\n").as_bytes());
            let expected = if is_number { Ok(()) } else { Err(Error::Number(name)) };
            assert_eq!(read.map(|_| ()), expected, "{name}:{value}");
        }
    }
}

#[test]
fn any_line_end_is_read() {
    let plain =
        "#EXTM3U\n#EXT-X-TARGETDURATION:6\n\n# a comment\n#EXTINF:2,\n\na.ts\n#EXT-X-FUTURE:1\n#EXTINF:3,\nb.ts\n";
    for (name, text) in [
        ("LF", plain.to_owned()),
        ("CRLF", plain.replace('\n', "\r\n")),
        ("a byte order mark", format!("\u{feff}{plain}")),
        ("no end", plain.trim_end().to_owned()),
        ("spaces", plain.replace(".ts", ".ts  ")),
    ] {
        let read = media(&text);
        assert_eq!(read.text(), text, "{name}");
        assert_eq!(read.media_uris().collect::<Vec<_>>(), ["a.ts", "b.ts"], "{name}");
        assert_eq!(read.window(), Duration::from_secs(5), "{name}");
    }
}

#[test]
fn what_a_playlist_of_low_latency_says() {
    let read = media(LOW_LATENCY);
    assert_eq!(read.target_duration(), Duration::from_secs(2));
    assert_eq!(read.part_target(), Some(Duration::from_millis(200)));
    assert_eq!(read.update_interval(), Duration::from_millis(200));
    assert_eq!((read.media_sequence(), read.segments()), (9, 3));
    assert_eq!(read.window(), Duration::from_millis(5450));
    assert!(read.can_block_reload() && !read.has_ended());
    assert_eq!(read.position(), Position { msn: 12, part: Some(1) });
    let expected = [
        "init.mp4",
        "s9.m4s",
        "s10.m4s",
        "s11.0.m4s",
        "s11.1.m4s",
        "s11.m4s",
        "s12.0.m4s",
        "s12.1.m4s",
    ];
    assert_eq!(read.media_uris().collect::<Vec<_>>(), expected);
    assert_eq!(read.hints().collect::<Vec<_>>(), ["s12.2.m4s"]);
}

#[test]
fn what_a_plain_playlist_says() {
    for (name, rest, interval, position, ended) in [
        ("two segments", "#EXTINF:4,\na\n#EXTINF:3,\nb\n", 3, 1, false),
        ("nothing yet", "", 6, 0, false),
        ("a segment of no length", "#EXTINF:0,\na\n", 6, 0, false),
        ("the end", "#EXTINF:4,\na\n#EXT-X-ENDLIST\n", 4, 0, true),
    ] {
        let read = media(&format!("{HEAD}{rest}"));
        assert_eq!(read.update_interval(), Duration::from_secs(interval), "{name}");
        assert_eq!(
            read.position(),
            Position {
                msn: position,
                part: None
            },
            "{name}"
        );
        assert_eq!(read.has_ended(), ended, "{name}");
        assert!(!read.can_block_reload() && read.part_target().is_none(), "{name}");
    }
}

#[test]
fn what_a_reload_may_be_answered_with() {
    let read = media(LOW_LATENCY);
    for (msn, part, held) in [
        (0, None, true),
        (8, Some(99), true),
        (9, None, true),
        (11, None, true),
        (12, None, false),
        (13, None, false),
        (u64::MAX, None, false),
        (u64::MAX, Some(u64::MAX), false),
        // The parts of segment 10 are not listed any more.
        (10, Some(7), true),
        (11, Some(1), true),
        // Past the last part of segment 11: part 0 of segment 12.
        (11, Some(2), true),
        (12, Some(0), true),
        (12, Some(1), true),
        (12, Some(2), false),
        (13, Some(0), false),
    ] {
        assert_eq!(read.holds(Position { msn, part }), held, "{msn} {part:?}");
    }
    // Without the begun segment, part 0 of it is still to come.
    let complete = media(&LOW_LATENCY[..LOW_LATENCY.find("#EXT-X-PART:DURATION=0.2").expect("it is there")]);
    for (msn, part, held) in [
        (11, Some(1), true),
        (11, Some(2), false),
        (12, Some(0), false),
        (10, Some(9), true),
    ] {
        assert_eq!(complete.holds(Position { msn, part }), held, "{msn} {part:?}");
    }
    let empty = media(HEAD);
    assert!(!empty.holds(Position { msn: 0, part: None }));
    assert!(!empty.holds(Position { msn: 0, part: Some(0) }));
}

#[test]
fn positions_are_in_the_order_of_completion() {
    let position = |msn, part| Position { msn, part };
    let mut all = vec![
        position(2, Some(0)),
        position(1, None),
        position(1, Some(1)),
        position(0, None),
        position(1, Some(0)),
    ];
    all.sort();
    let expected = [(0, None), (1, Some(0)), (1, Some(1)), (1, None), (2, Some(0))];
    assert_eq!(all, expected.map(|(msn, part)| position(msn, part)));
}

#[test]
fn the_playlists_of_a_multivariant_one() {
    let text = "#EXTM3U\r\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"a\",NAME=\"x\",URI=\"a.m3u8\"\r\n#EXT-X-MEDIA:TYPE=CLOSED-CAPTIONS,GROUP-ID=\"c\",NAME=\"y\",INSTREAM-ID=\"CC1\"\r\n#EXT-X-SESSION-KEY:METHOD=SAMPLE-AES,URI=\"skd://x\"\r\n\r\n# a comment\r\n#EXT-X-STREAM-INF:BANDWIDTH=1\r\nv0.m3u8\r\n#EXT-X-STREAM-INF:BANDWIDTH=2\r\nv1.m3u8\r\n#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=1,URI=\"i.m3u8\"";
    let Ok(Playlist::Multivariant(read)) = parse(text.as_bytes()) else {
        panic!("{text}")
    };
    assert_eq!(read.text(), text);
    assert_eq!(
        read.uris().collect::<Vec<_>>(),
        ["a.m3u8", "v0.m3u8", "v1.m3u8", "i.m3u8"]
    );
    let without = "#EXTM3U\n#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=1\n";
    assert_eq!(
        parse(without.as_bytes()).map(|_| ()),
        Err(Error::NoUri("EXT-X-I-FRAME-STREAM-INF"))
    );
}
