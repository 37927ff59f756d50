//! What viewers get when one run of an encoder follows another, version by version.

use super::continuity::list;
use crate::live::{Continuity, Follow, Published};

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

/// Publishes versions one after the other; labels count the runs. What is remembered is stored and read
/// between, as over a restart of the server.
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

/// Each version, and what is published of it.
type Case = (&'static str, &'static [((u64, &'static str), &'static str)]);

fn check(cases: &[Case]) {
    for (name, versions) in cases {
        let (given, expected): (Vec<_>, Vec<_>) = versions.iter().copied().unzip();
        assert_eq!(publish(&given), expected, "{name}");
    }
}

#[test]
fn runs_become_one() {
    check(&[
        (
            "the tail goes as the new run comes",
            &[
                ((7, "a b c"), "7 a b c"),
                ((0, "a"), "8 b c #DISCONTINUITY a?2"),
                ((0, "a b"), "9 c #DISCONTINUITY a?2 b?2"),
                ((0, "a b c"), "10 #DISCONTINUITY a?2 b?2 c?2"),
                ((1, "b c d"), "11 D1 b?2 c?2 d?2"),
                ((4, "e f g"), "14 D1 e?2 f?2 g?2"),
            ],
        ),
        (
            "the tail goes at once when the new run rolls",
            &[
                ((7, "a b c d e"), "7 a b c d e"),
                ((0, "x y"), "9 c d e #DISCONTINUITY x?2 y?2"),
                ((1, "y z"), "13 D1 y?2 z?2"),
            ],
        ),
        (
            "the encoder's own discontinuity is the one between",
            &[
                ((0, "a b"), "0 a b"),
                ((0, "#EXT-X-DISCONTINUITY a"), "1 b #DISCONTINUITY a?2"),
                ((0, "#EXT-X-DISCONTINUITY a b"), "2 #DISCONTINUITY a?2 b?2"),
                ((1, "b c"), "3 D1 b?2 c?2"),
            ],
        ),
        (
            "numbers leap",
            &[
                ((0, "a b"), "0 a b"),
                ((100, "x y z"), "2 #DISCONTINUITY x?2 y?2 z?2"),
                ((101, "y z w"), "3 D1 y?2 z?2 w?2"),
            ],
        ),
        (
            "a run that was short",
            &[
                ((0, "a b c d"), "0 a b c d"),
                ((0, "x"), "1 b c d #DISCONTINUITY x?2"),
                ((0, "y"), "2 c d #DISCONTINUITY x?2 #DISCONTINUITY y?3"),
                ((0, "y z"), "3 d #DISCONTINUITY x?2 #DISCONTINUITY y?3 z?3"),
                ((0, "y z w"), "4 #DISCONTINUITY x?2 #DISCONTINUITY y?3 z?3 w?3"),
                ((0, "y z w v"), "5 D1 #DISCONTINUITY y?3 z?3 w?3 v?3"),
                ((1, "z w v u"), "6 D2 z?3 w?3 v?3 u?3"),
            ],
        ),
        (
            "discontinuities within runs",
            &[
                (
                    (0, "#EXT-X-DISCONTINUITY-SEQUENCE:3 a #EXT-X-DISCONTINUITY b c"),
                    "0 D3 a #DISCONTINUITY b c",
                ),
                ((0, "x"), "1 D3 #DISCONTINUITY b c #DISCONTINUITY x?2"),
                (
                    (0, "x #EXT-X-DISCONTINUITY y"),
                    "2 D4 c #DISCONTINUITY x?2 #DISCONTINUITY y?2",
                ),
                ((1, "#EXT-X-DISCONTINUITY y z"), "4 D5 #DISCONTINUITY y?2 z?2"),
                ((2, "#EXT-X-DISCONTINUITY-SEQUENCE:1 z w"), "5 D6 z?2 w?2"),
            ],
        ),
        (
            "segments that nobody saw",
            &[
                ((0, "a"), "0 a"),
                ((0, "x y"), "1 #DISCONTINUITY x?2 y?2"),
                ((4, "#EXT-X-DISCONTINUITY-SEQUENCE:9 v w"), "5 D3 v?2 w?2"),
            ],
        ),
        (
            "a new run after the end",
            &[
                ((0, "a b #EXT-X-ENDLIST"), "0 a b #ENDLIST"),
                ((2, "c"), "1 b #DISCONTINUITY c?2"),
                ((2, "c #EXT-X-ENDLIST"), "1 b #DISCONTINUITY c?2 #ENDLIST"),
            ],
        ),
        (
            "a new run that lists nothing yet",
            &[
                ((0, "a b"), "0 a b"),
                ((0, ""), "0 a b"),
                ((0, "x"), "1 b #DISCONTINUITY x?2"),
            ],
        ),
        (
            "numbers at their limit",
            &[
                ((9_223_372_036_854_775_807, "a b"), "9223372036854775807 a b"),
                ((0, "x y"), "9223372036854775809 #DISCONTINUITY x?2 y?2"),
                (
                    (
                        9_223_372_036_854_775_807,
                        "#EXT-X-DISCONTINUITY-SEQUENCE:9223372036854775807 a",
                    ),
                    "9223372036854775810 D1 y?2 #DISCONTINUITY a?3",
                ),
            ],
        ),
        (
            "nothing was listed yet",
            &[
                ((0, ""), "0"),
                ((5, "x"), "0 #DISCONTINUITY x?2"),
                ((6, "y"), "1 D1 y?2"),
            ],
        ),
        (
            "a list that grows at its front",
            &[
                ((0, "a b"), "0 a b"),
                ((5, "x"), "1 b #DISCONTINUITY x?2"),
                ((3, "v w x y"), "2 #DISCONTINUITY x?2 y?2"),
                ((4, "w x y z"), "2 #DISCONTINUITY x?2 y?2 z?2"),
                ((6, "y z"), "3 D1 y?2 z?2"),
            ],
        ),
        (
            "URIs with a query or a fragment",
            &[
                ((0, "a b"), "0 a b"),
                (
                    (0, "x?y=1#z #EXT-X-FUTURE:URI=\"q\" b#c"),
                    "2 #DISCONTINUITY x?y=1&2#z #FUTURE:URI=\"q\" b?2#c",
                ),
            ],
        ),
        (
            "what does not go on",
            &[
                ((0, "a b"), "0 a b"),
                (
                    (
                        0,
                        "#EXT-X-PLAYLIST-TYPE:EVENT x #EXT-X-RENDITION-REPORT:URI=\"r\",LAST-MSN=0",
                    ),
                    "1 b #DISCONTINUITY x?2",
                ),
            ],
        ),
        (
            "ranges of one file",
            &[
                (
                    (0, "#EXT-X-BYTERANGE:5@3 a #EXT-X-BYTERANGE:6 a #EXT-X-BYTERANGE:7 a"),
                    "0 #BYTERANGE:5@3 a #BYTERANGE:6 a #BYTERANGE:7 a",
                ),
                ((0, "x"), "1 #BYTERANGE:6@8 a #BYTERANGE:7@14 a #DISCONTINUITY x?2"),
            ],
        ),
    ]);
}

#[test]
fn keys_and_initialization_sections_hold_on_both_sides() {
    check(&[
        (
            "a section each",
            &[
                ((0, "#EXT-X-MAP:URI=\"i\" a b c"), "0 #MAP:URI=\"i\" a b c"),
                (
                    (0, "#EXT-X-MAP:URI=\"i\" x"),
                    "1 #MAP:URI=\"i\" b c #DISCONTINUITY #MAP:URI=\"i?2\" x?2",
                ),
                (
                    (0, "#EXT-X-MAP:URI=\"i\" x y"),
                    "2 #MAP:URI=\"i\" c #DISCONTINUITY #MAP:URI=\"i?2\" x?2 y?2",
                ),
                ((1, "#EXT-X-MAP:URI=\"i\" y z"), "4 D1 #MAP:URI=\"i?2\" y?2 z?2"),
            ],
        ),
        (
            "a section changes within the tail",
            &[
                (
                    (0, "#EXT-X-MAP:URI=\"i\" a #EXT-X-MAP:URI=\"j\" b c"),
                    "0 #MAP:URI=\"i\" a #MAP:URI=\"j\" b c",
                ),
                (
                    (0, "#EXT-X-MAP:URI=\"k\" x"),
                    "1 #MAP:URI=\"j\" b c #DISCONTINUITY #MAP:URI=\"k?2\" x?2",
                ),
            ],
        ),
        (
            "no section after one",
            &[
                ((0, "#EXT-X-MAP:URI=\"i\" a b c"), "0 #MAP:URI=\"i\" a b c"),
                ((0, "x"), "3 #DISCONTINUITY x?2"),
            ],
        ),
        (
            "a section after none",
            &[
                ((0, "a b c"), "0 a b c"),
                (
                    (0, "#EXT-X-MAP:URI=\"i\" x"),
                    "1 b c #DISCONTINUITY #MAP:URI=\"i?2\" x?2",
                ),
            ],
        ),
        (
            "no key after one",
            &[
                (
                    (0, "#EXT-X-KEY:METHOD=A,URI=\"k\" a b c"),
                    "0 #KEY:METHOD=A,URI=\"k\" a b c",
                ),
                (
                    (0, "x"),
                    "1 #KEY:METHOD=A,URI=\"k\" b c #DISCONTINUITY #KEY:METHOD=NONE x?2",
                ),
                ((1, "y"), "4 D1 y?2"),
            ],
        ),
        (
            "a key after one",
            &[
                (
                    (0, "#EXT-X-KEY:METHOD=A,URI=\"k\" a b"),
                    "0 #KEY:METHOD=A,URI=\"k\" a b",
                ),
                (
                    (0, "#EXT-X-KEY:METHOD=A,URI=\"l\",KEYFORMAT=\"identity\" x"),
                    "1 #KEY:METHOD=A,URI=\"k\" b #DISCONTINUITY #KEY:METHOD=A,URI=\"l?2\",KEYFORMAT=\"identity\" x?2",
                ),
            ],
        ),
        (
            "another key of the same name",
            &[
                (
                    (0, "#EXT-X-KEY:METHOD=A,URI=\"k\" a b"),
                    "0 #KEY:METHOD=A,URI=\"k\" a b",
                ),
                (
                    (0, "#EXT-X-KEY:METHOD=A,URI=\"k\" a"),
                    "1 #KEY:METHOD=A,URI=\"k\" b #DISCONTINUITY #KEY:METHOD=A,URI=\"k?2\" a?2",
                ),
                (
                    (0, "#EXT-X-KEY:METHOD=A,URI=\"k\" a b"),
                    "2 #DISCONTINUITY #KEY:METHOD=A,URI=\"k?2\" a?2 b?2",
                ),
            ],
        ),
        (
            "a key of another server",
            &[
                ((0, "a"), "0 a"),
                (
                    (0, "#EXT-X-KEY:METHOD=A,URI=\"https://h/l?s=1\" x"),
                    "1 #DISCONTINUITY #KEY:METHOD=A,URI=\"https://h/l?s=1\" x?2",
                ),
            ],
        ),
        (
            "a key of another format after one",
            &[
                (
                    (0, "#EXT-X-KEY:METHOD=A,URI=\"k\" a b"),
                    "0 #KEY:METHOD=A,URI=\"k\" a b",
                ),
                (
                    (0, "#EXT-X-KEY:METHOD=A,URI=\"l\",KEYFORMAT=\"f\" x"),
                    "1 #KEY:METHOD=A,URI=\"k\" b #DISCONTINUITY #KEY:METHOD=NONE #KEY:METHOD=A,URI=\"l?2\",KEYFORMAT=\"f\" x?2",
                ),
            ],
        ),
        (
            "a key that ended, and one that began",
            &[
                (
                    (
                        0,
                        "#EXT-X-KEY:METHOD=A,URI=\"k\" a #EXT-X-KEY:METHOD=NONE b #EXT-X-KEY:METHOD=A,URI=\"l\" c",
                    ),
                    "0 #KEY:METHOD=A,URI=\"k\" a #KEY:METHOD=NONE b #KEY:METHOD=A,URI=\"l\" c",
                ),
                (
                    (0, "#EXT-X-KEY:METHOD=NONE x"),
                    "1 #KEY:METHOD=NONE b #KEY:METHOD=A,URI=\"l\" c #DISCONTINUITY #KEY:METHOD=NONE x?2",
                ),
            ],
        ),
        (
            "a clear section after a key",
            &[
                (
                    (0, "#EXT-X-MAP:URI=\"i\" #EXT-X-KEY:METHOD=A,URI=\"k\" a b c"),
                    "0 #MAP:URI=\"i\" #KEY:METHOD=A,URI=\"k\" a b c",
                ),
                (
                    (0, "#EXT-X-MAP:URI=\"i\" #EXT-X-KEY:METHOD=A,URI=\"l\" x"),
                    "1 #MAP:URI=\"i\" #KEY:METHOD=A,URI=\"k\" b c #DISCONTINUITY #KEY:METHOD=NONE #MAP:URI=\"i?2\" #KEY:METHOD=A,URI=\"l?2\" x?2",
                ),
            ],
        ),
        (
            "an encrypted section of clear segments",
            &[
                (
                    (
                        0,
                        "#EXT-X-KEY:METHOD=A,URI=\"k\" #EXT-X-MAP:URI=\"i\" #EXT-X-KEY:METHOD=NONE a b",
                    ),
                    "0 #KEY:METHOD=A,URI=\"k\" #MAP:URI=\"i\" #KEY:METHOD=NONE a b",
                ),
                (
                    (0, "#EXT-X-MAP:URI=\"j\" x"),
                    "1 #KEY:METHOD=A,URI=\"k\" #MAP:URI=\"i\" #KEY:METHOD=NONE b #DISCONTINUITY #MAP:URI=\"j?2\" x?2",
                ),
            ],
        ),
    ]);
}

#[test]
fn parts_over_a_restart() {
    check(&[
        (
            "those of the unfinished segment are dropped",
            &[
                (
                    (
                        0,
                        "#EXT-X-PART-INF:PART-TARGET=1 a b #EXT-X-PART:DURATION=1,URI=\"c.0\"",
                    ),
                    "0 #PART-INF:PART-TARGET=1 a b #PART:DURATION=1,URI=\"c.0\"",
                ),
                (
                    (0, "#EXT-X-PART-INF:PART-TARGET=1 #EXT-X-PART:DURATION=1,URI=\"x.0\""),
                    "0 #PART-INF:PART-TARGET=1 a b #DISCONTINUITY #PART:DURATION=1,URI=\"x.0?2\"",
                ),
                (
                    (0, "#EXT-X-PART-INF:PART-TARGET=1 #EXT-X-PART:DURATION=1,URI=\"x.0\" x"),
                    "1 #PART-INF:PART-TARGET=1 b #DISCONTINUITY #PART:DURATION=1,URI=\"x.0?2\" x?2",
                ),
            ],
        ),
        (
            "those of complete segments stay",
            &[
                (
                    (
                        0,
                        "#EXT-X-PART-INF:PART-TARGET=1 a #EXT-X-PART:DURATION=1,URI=\"b.0\" b",
                    ),
                    "0 #PART-INF:PART-TARGET=1 a #PART:DURATION=1,URI=\"b.0\" b",
                ),
                (
                    (0, "#EXT-X-PART-INF:PART-TARGET=1 x"),
                    "1 #PART-INF:PART-TARGET=1 #PART:DURATION=1,URI=\"b.0\" b #DISCONTINUITY x?2",
                ),
            ],
        ),
        (
            "but not where the new run has none",
            &[
                (
                    (
                        0,
                        "#EXT-X-PART-INF:PART-TARGET=1 a #EXT-X-PART:DURATION=1,URI=\"b.0\" b",
                    ),
                    "0 #PART-INF:PART-TARGET=1 a #PART:DURATION=1,URI=\"b.0\" b",
                ),
                ((0, "x"), "1 b #DISCONTINUITY x?2"),
            ],
        ),
        (
            "nor where they hang on one another",
            &[
                (
                    (
                        0,
                        "#EXT-X-PART-INF:PART-TARGET=1 a #EXT-X-PART:DURATION=1,URI=\"b\",BYTERANGE=\"5\" b",
                    ),
                    "0 #PART-INF:PART-TARGET=1 a #PART:DURATION=1,URI=\"b\",BYTERANGE=\"5\" b",
                ),
                (
                    (0, "#EXT-X-PART-INF:PART-TARGET=1 x"),
                    "1 #PART-INF:PART-TARGET=1 b #DISCONTINUITY x?2",
                ),
            ],
        ),
        (
            "a hint is of the new run",
            &[
                ((0, "#EXT-X-PART-INF:PART-TARGET=1 a"), "0 #PART-INF:PART-TARGET=1 a"),
                (
                    (
                        0,
                        "#EXT-X-PART-INF:PART-TARGET=1 #EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"x.0\"",
                    ),
                    "0 #PART-INF:PART-TARGET=1 a #DISCONTINUITY #PRELOAD-HINT:TYPE=PART,URI=\"x.0?2\"",
                ),
            ],
        ),
    ]);
}
