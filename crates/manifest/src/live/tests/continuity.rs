use super::media;
use crate::live::{Continuity, Follow, MediaPlaylist, Published};

/// A playlist of segments of 2 s: `first` is the media sequence number, `lines` is what comes after the header, where
/// `name` stands for a segment and `#tag` for itself.
fn list(first: u64, lines: &str) -> MediaPlaylist {
    let mut text = format!("#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:{first}\n");
    for line in lines.split_ascii_whitespace() {
        if line.starts_with('#') {
            text += &format!("{}\n", line.replace('~', " "));
        } else {
            text += &format!("#EXTINF:2.000000,\n{line}\n");
        }
    }
    media(&text)
}

/// What is published, in the words of `list`, with numbers before.
fn words(published: &Published) -> String {
    let mut words = vec![published.media.media_sequence().to_string()];
    for line in published.text.lines() {
        let kept = match line {
            "#EXTM3U" | "#EXT-X-VERSION:3" | "#EXT-X-TARGETDURATION:2" | "#EXTINF:2.000000," => continue,
            line if line.starts_with("#EXT-X-MEDIA-SEQUENCE:") => continue,
            line => line.replace("#EXT-X-DISCONTINUITY-SEQUENCE:", "D"),
        };
        words.push(kept.replace("_ew_v=", "").replace("#EXT-X-", "#"));
    }
    words.join(" ")
}

/// Publishes versions one after the other; labels go up with each version whose name ends with `!`.
fn publish(versions: &[(u64, &str)]) -> Vec<String> {
    let mut continuity = Continuity::default();
    let mut run = 1;
    let published = versions.iter().map(|(first, lines)| {
        let next = list(*first, lines);
        if matches!(continuity.follow(&next), Follow::Restarts | Follow::Behind) {
            run += 1;
        }
        let published = words(&continuity.publish(&next, &mut |_| run));
        let stored = serde_json::to_string(&continuity).expect("it is data");
        continuity = serde_json::from_str(&stored).expect("it was written");
        published
    });
    published.collect()
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
fn runs_become_one() {
    for (name, versions) in [(
        "the tail goes as the new run comes",
        &[((7, "a b c"), "7 a b c"), ((0, "a"), "8 b c #DISCONTINUITY a?2")][..],
    )] {
        let (given, expected): (Vec<_>, Vec<_>) = versions.iter().copied().unzip();
        assert_eq!(publish(&given), expected, "{name}");
    }
}
