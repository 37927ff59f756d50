use super::media;
use crate::live::{Continuity, Follow, MediaPlaylist};

/// A playlist of segments of 2 s: `first` is the media sequence number, `lines` is what comes after the header, where
/// `name` stands for a segment and `#tag` for itself.
pub(super) fn list(first: u64, lines: &str) -> MediaPlaylist {
    let mut text = format!("#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:{first}\n");
    for line in lines.split_ascii_whitespace() {
        if line.starts_with('#') {
            text.extend([line, "\n"]);
        } else {
            text.extend(["#EXTINF:2.000000,\n", line, "\n"]);
        }
    }
    media(&text)
}

#[test]
fn how_a_version_follows() {
    use Follow::{Behind, Continues, Restarts, Same};
    for (name, (first, old), (next, new), expected) in [
        ("the same", (0, "a b"), (0, "a b"), Same),
        ("grows", (0, "a b"), (0, "a b c"), Continues),
        ("rolls", (0, "a b c"), (1, "b c d"), Continues),
        ("rolls off whole", (0, "a b c"), (3, "d e f"), Continues),
        ("one at a time", (0, "a"), (1, "b"), Continues),
        ("misses some", (0, "a b c"), (5, "f g h"), Continues),
        ("misses many", (0, "a b c"), (7, "h i j"), Restarts),
        ("goes on with a name that is listed", (0, "a b c"), (4, "c d"), Restarts),
        ("a name changes", (0, "a b c"), (1, "b x d"), Restarts),
        ("begins again", (5, "a b c"), (0, "a"), Restarts),
        ("begins again, empty", (0, "a b c"), (0, ""), Restarts),
        ("lags", (5, "f g h"), (4, "e f g"), Behind),
        ("lags", (4, "e f g h"), (4, "e f g"), Behind),
        ("lags, rolled less", (5, "f g h"), (5, "f g"), Behind),
        ("ends", (0, "a b"), (0, "a b #EXT-X-ENDLIST"), Continues),
        ("after the end", (0, "a b #EXT-X-ENDLIST"), (0, "a b c"), Restarts),
        (
            "the end again",
            (0, "a b #EXT-X-ENDLIST"),
            (0, "a b #EXT-X-ENDLIST"),
            Same,
        ),
        ("a comment", (0, "a b"), (0, "a b #x"), Continues),
        ("first of all", (0, ""), (0, "a"), Continues),
        (
            "a part more",
            (0, "a #EXT-X-PART:DURATION=1,URI=\"p\""),
            (0, "a #EXT-X-PART:DURATION=1,URI=\"p\" #EXT-X-PART:DURATION=1,URI=\"q\""),
            Continues,
        ),
        (
            "a part less",
            (0, "a #EXT-X-PART:DURATION=1,URI=\"p\""),
            (0, "a"),
            Behind,
        ),
        (
            "another part",
            (0, "a #EXT-X-PART:DURATION=1,URI=\"p\""),
            (0, "a #EXT-X-PART:DURATION=1,URI=\"q\" #EXT-X-PART:DURATION=1,URI=\"r\""),
            Restarts,
        ),
        (
            "ranges of one file",
            (0, "#EXT-X-BYTERANGE:5@0 a #EXT-X-BYTERANGE:5@5 a"),
            (2, "#EXT-X-BYTERANGE:5@10 a"),
            Continues,
        ),
    ] {
        let mut continuity = Continuity::default();
        assert_eq!(continuity.follow(&list(first, old)), Follow::First, "{name}");
        continuity.publish(&list(first, old), &mut |_| 1);
        assert_eq!(
            continuity.follow(&list(next, new)),
            expected,
            "{name}: {old} then {new}"
        );
        continuity.expect_restart();
        assert_eq!(continuity.follow(&list(first, old)), Follow::Restarts, "{name}");
    }
}

#[test]
fn the_larger_target_and_version_while_both_are_listed() {
    let text = |version: &str, target: &str, names: &[&str]| {
        let segments: Vec<_> = names.iter().map(|name| format!("#EXTINF:1,\n{name}\n")).collect();
        media(&format!(
            "#EXTM3U\n{version}#EXT-X-TARGETDURATION:{target}\n{}",
            segments.concat()
        ))
    };
    let mut continuity = Continuity::default();
    for (name, next, expected) in [
        ("the first run", text("#EXT-X-VERSION:7\n", "6.5", &["a", "b"]), "7 6.5"),
        ("both", text("#EXT-X-VERSION:3\n", "4", &["x"]), "7 7"),
        ("both, without a version", text("", "4", &["y"]), "7 7"),
        ("both, and a longer one", text("#EXT-X-VERSION:8\n", "9", &["z"]), "8 9"),
        (
            "the last run alone",
            text("#EXT-X-VERSION:3\n", "9", &["z", "w"]),
            "3 9",
        ),
    ] {
        let published = continuity.publish(&next, &mut |_| 1);
        let value = |tag: &str| {
            published
                .text
                .lines()
                .find_map(|line| line.strip_prefix(tag))
                .unwrap_or("-")
        };
        assert_eq!(
            format!("{} {}", value("#EXT-X-VERSION:"), value("#EXT-X-TARGETDURATION:")),
            expected,
            "{name}"
        );
    }
}

#[test]
fn a_single_run_is_published_as_it_is() {
    let text = "\u{feff}#EXTM3U\r\n#EXT-X-TARGETDURATION:2\n#EXT-X-FUTURE\n\n#EXTINF:2,\na.ts \n#EXT-X-RENDITION-REPORT:URI=\"r\"\n#EXT-X-PLAYLIST-TYPE:EVENT\n#EXTINF:2,\r\nb.ts";
    let published = Continuity::default().publish(&media(text), &mut |_| 1);
    assert_eq!(published.text, text);
    assert_eq!(published.listed, [("a.ts".to_owned(), 1), ("b.ts".to_owned(), 1)]);
    // Its files may have names that were there before all the same.
    let published = Continuity::default().publish(&media(text), &mut |_| 3);
    assert_eq!(published.text, text.replace(".ts", ".ts?_ew_v=3"));
    assert_eq!(published.listed, [("a.ts".to_owned(), 3), ("b.ts".to_owned(), 3)]);
}

#[test]
fn a_line_without_an_end_gets_one() {
    let mut continuity = Continuity::default();
    continuity.publish(
        &media("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\na\n#EXTINF:2,\nb"),
        &mut |_| 1,
    );
    continuity.expect_restart();
    let next = media("#EXTM3U\r\n#EXT-X-TARGETDURATION:2\r\n#EXTINF:2,\r\na");
    let published = continuity.publish(&next, &mut |_| 2);
    let expected = "#EXTM3U\r\n#EXT-X-TARGETDURATION:2\r\n#EXT-X-MEDIA-SEQUENCE:1\r\n#EXTINF:2,\nb\r\n#EXT-X-DISCONTINUITY\r\n#EXTINF:2,\r\na?_ew_v=2\r\n";
    assert_eq!(published.text, expected);
}

#[test]
fn a_label_holds_while_it_is_listed() {
    let mut continuity = Continuity::default();
    let mut asked = Vec::new();
    let mut publish = |first, lines: &str| {
        asked.clear();
        let published = continuity.publish(&list(first, lines), &mut |uri| {
            asked.push(uri.to_owned());
            u32::try_from(first).expect("small") + 1
        });
        let listed: Vec<_> = published
            .listed
            .iter()
            .map(|(uri, label)| format!("{uri}{label}"))
            .collect();
        (asked.join(" "), listed.join(" "))
    };
    let hint = "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"c\"";
    for (name, (first, lines), asked, listed) in [
        ("the first", (0, "a b".to_owned()), "a b", "a1 b1"),
        ("one rolls off", (1, format!("b {hint}")), "c", "b1"),
        ("a hint comes true", (1, "b c".into()), "c", "b1 c2"),
        ("a name again", (2, "c a".into()), "a", "c2 a3"),
        (
            "another run",
            (0, "a #EXT-X-MAP:URI=\"m\" d".into()),
            "a m d",
            "a1 m1 d1",
        ),
    ] {
        assert_eq!(publish(first, &lines), (asked.to_owned(), listed.to_owned()), "{name}");
    }
}
