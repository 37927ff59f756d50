//! Random runs of encoders, against a model that knows every segment's number, discontinuity and name for ever.

use super::media;
use crate::live::{Continuity, Follow, MediaPlaylist};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// What an encoder does for one segment.
#[derive(Debug, Clone)]
struct Make {
    discontinuity: bool,
    new_key: Option<bool>,
    parts: usize,
    /// Versions of the playlist that nobody sees.
    unseen: bool,
}

#[derive(Debug, Clone)]
struct Run {
    first: u64,
    discontinuities: u64,
    /// How many segments it lists.
    size: usize,
    parts: bool,
    map: bool,
    target: u64,
    crlf: bool,
    makes: Vec<Make>,
    end: bool,
    store: bool,
}

/// A segment as the encoder of a run made it.
#[derive(Debug, Clone)]
struct Made {
    name: String,
    discontinuity: bool,
    key: Option<String>,
    parts: usize,
}

fn make() -> impl Strategy<Value = Make> {
    (
        proptest::bool::weighted(0.2),
        proptest::option::weighted(0.2, any::<bool>()),
        0..4_usize,
        proptest::bool::weighted(0.15),
    )
        .prop_map(|(discontinuity, new_key, parts, unseen)| Make {
            discontinuity,
            new_key,
            parts,
            unseen,
        })
}

fn run() -> impl Strategy<Value = Run> {
    let numbers = (0..30_u64, 0..4_u64, 1..7_usize, 1..6_u64);
    let flags = (
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    );
    (numbers, flags, proptest::collection::vec(make(), 1..12)).prop_map(|(numbers, flags, makes)| Run {
        first: numbers.0,
        discontinuities: numbers.1,
        size: numbers.2,
        target: numbers.3,
        parts: flags.0,
        map: flags.1,
        crlf: flags.2,
        end: flags.3,
        store: flags.4,
        makes,
    })
}

/// The playlist of a run after `made`, the last of which is complete but for its last `open` parts and itself.
fn version(run: &Run, made: &[Made], open: Option<usize>, end: bool) -> MediaPlaylist {
    let complete = made.len() - usize::from(open.is_some());
    let from = complete.saturating_sub(run.size);
    let gone = made[..from].iter().filter(|made| made.discontinuity).count() as u64;
    let mut lines = vec![
        "#EXTM3U".to_owned(),
        "#EXT-X-VERSION:6".into(),
        format!("#EXT-X-TARGETDURATION:{}", run.target),
        format!("#EXT-X-MEDIA-SEQUENCE:{}", run.first + from as u64),
        format!("#EXT-X-DISCONTINUITY-SEQUENCE:{}", run.discontinuities + gone),
    ];
    if run.parts {
        lines.push("#EXT-X-PART-INF:PART-TARGET=0.5".into());
    }
    if run.map {
        lines.push("#EXT-X-MAP:URI=\"init.mp4\"".into());
    }
    let mut key: Option<&String> = None;
    for (at, made) in made.iter().enumerate().skip(from) {
        if made.key.as_ref() != key {
            key = made.key.as_ref();
            lines.push(key.map_or("#EXT-X-KEY:METHOD=NONE".into(), |key| {
                format!("#EXT-X-KEY:METHOD=AES-128,URI=\"{key}\"")
            }));
        }
        if made.discontinuity {
            lines.push("#EXT-X-DISCONTINUITY".into());
        }
        let is_open = at >= complete;
        let parts = if is_open { open.unwrap_or(0) } else { made.parts };
        for part in 0..parts {
            lines.push(format!("#EXT-X-PART:DURATION=0.5,URI=\"part-{}.{part}\"", made.name));
        }
        if is_open {
            lines.push(format!(
                "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"part-{}.{parts}\"",
                made.name
            ));
        } else {
            lines.push(format!("#EXTINF:{},", run.target));
            lines.push(made.name.clone());
        }
    }
    if end {
        lines.push("#EXT-X-ENDLIST".into());
    }
    let newline = if run.crlf { "\r\n" } else { "\n" };
    media(&(lines.join(newline) + newline))
}

/// What is known of a published segment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    discontinuity: u64,
    uri: String,
    map: Option<String>,
    key: Option<String>,
}

/// What viewers know after all versions.
#[derive(Default)]
struct Viewer {
    segments: BTreeMap<u64, Known>,
    sequence: u64,
    discontinuity_sequence: u64,
}

impl Viewer {
    /// Reads a version; gives the numbers that it lists.
    fn read(&mut self, text: &str) -> Result<Vec<u64>, TestCaseError> {
        let Ok(m3u8_rs::Playlist::MediaPlaylist(read)) = m3u8_rs::parse_playlist_res(text.as_bytes()) else {
            return Err(TestCaseError::fail(format!("others cannot read it: {text}")));
        };
        let number = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name));
            value.map_or(0, |value| value.parse::<u64>().expect("a number"))
        };
        let mut msn = number("#EXT-X-MEDIA-SEQUENCE:");
        let mut discontinuity = number("#EXT-X-DISCONTINUITY-SEQUENCE:");
        prop_assert_eq!(msn, read.media_sequence);
        prop_assert!(msn >= self.sequence, "{} after {}: {}", msn, self.sequence, text);
        prop_assert!(
            discontinuity >= self.discontinuity_sequence,
            "discontinuity sequence: {}",
            text
        );
        (self.sequence, self.discontinuity_sequence) = (msn, discontinuity);
        let (mut map, mut key) = (None, None);
        let mut numbers = Vec::new();
        for line in text.lines() {
            let uri = || line.split('"').nth(1).expect("a URI").to_owned();
            if line == "#EXT-X-DISCONTINUITY" {
                discontinuity += 1;
            } else if line == "#EXT-X-KEY:METHOD=NONE" {
                key = None;
            } else if line.starts_with("#EXT-X-KEY:") {
                key = Some(uri());
            } else if line.starts_with("#EXT-X-MAP:") {
                map = Some(uri());
            } else if !line.starts_with('#') {
                let known = Known {
                    discontinuity,
                    uri: line.to_owned(),
                    map: map.clone(),
                    key: key.clone(),
                };
                let before = self.segments.entry(msn).or_insert_with(|| known.clone());
                prop_assert_eq!(&*before, &known, "segment {} of {}", msn, text);
                numbers.push(msn);
                msn += 1;
            }
        }
        prop_assert_eq!(read.segments.len(), numbers.len());
        Ok(numbers)
    }
}

/// A URI as viewers get it in run `n` of the encoder.
fn labelled(uri: &str, n: u32) -> String {
    if n == 1 {
        uri.to_owned()
    } else {
        format!("{uri}?_ew_v={n}")
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn numbers_discontinuities_and_names_hold_for_ever(runs in proptest::collection::vec(run(), 1..5)) {
        let mut continuity = Continuity::default();
        let mut viewer = Viewer::default();
        // Of the last version: how many segments it listed, and the last one's number.
        let (mut listed, mut last) = (0, None::<u64>);
        for (n, run) in (1..).zip(&runs) {
            let mut made: Vec<Made> = Vec::new();
            let mut offset = None;
            let size_before = listed;
            continuity.expect_restart();
            for (at, make) in run.makes.iter().enumerate() {
                let key = match make.new_key {
                    None => made.last().and_then(|made| made.key.clone()),
                    Some(false) => None,
                    Some(true) => Some(format!("key{at}")),
                };
                let parts = if run.parts { make.parts } else { 0 };
                made.push(Made { name: format!("seg-{at}"), discontinuity: make.discontinuity, key, parts });
                let steps = (1..=parts).map(Some).chain([None]);
                for open in steps {
                    if make.unseen {
                        continue;
                    }
                    let end = open.is_none() && run.end && at + 1 == run.makes.len();
                    let next = version(run, &made, open, end);
                    let follow = continuity.follow(&next);
                    let first_of_run = offset.is_none();
                    let expected = match (n, first_of_run) {
                        (1, true) => Follow::First,
                        (_, true) => Follow::Restarts,
                        _ => Follow::Continues,
                    };
                    // Where more was missed than is listed it is another run, and told apart no better by a viewer.
                    prop_assume!(follow == expected);
                    let published = continuity.publish(&next, &mut |_| n);
                    prop_assert_eq!(continuity.follow(&next), Follow::Same);
                    if run.store {
                        let stored = serde_json::to_string(&continuity).expect("it is data");
                        continuity = serde_json::from_str(&stored).expect("it was written");
                    }
                    if n == 1 {
                        prop_assert_eq!(&published.text, next.text());
                    }
                    let numbers = viewer.read(&published.text)?;
                    prop_assert_eq!(published.media.segments(), numbers.len());
                    prop_assert_eq!(published.media.text(), &published.text);
                    prop_assert_eq!(published.media.has_ended(), end);
                    // The run's numbers go on from the ones before.
                    let (begin, base, before) = *offset.get_or_insert((
                        (next.media_sequence() - run.first) as usize,
                        last.map_or(next.media_sequence(), |last| last + 1),
                        last.and_then(|last| viewer.segments.get(&last)).map(|known| known.discontinuity),
                    ));
                    if first_of_run && n > 1 {
                        let new = next.segments();
                        let has_tail = numbers.len() > new;
                        prop_assert_eq!(numbers.last().copied(), (base + new as u64).checked_sub(1).filter(|_| !numbers.is_empty()));
                        prop_assert!(!has_tail || numbers.len() == size_before.max(new));
                    }
                    let own: Vec<_> = next.media_uris().filter(|uri| uri.starts_with("seg-")).collect();
                    for (uri, msn) in own.iter().rev().zip(numbers.iter().rev()) {
                        prop_assert_eq!(&viewer.segments[msn].uri, &labelled(uri, n));
                        let at: usize = uri["seg-".len()..].parse().expect("a number");
                        prop_assert_eq!(*msn, base + (at - begin) as u64);
                        let tags = |from: usize| made.get(from..=at).unwrap_or_default().iter().filter(|made| made.discontinuity).count() as u64;
                        let discontinuity = match before {
                            Some(before) if n > 1 => Some(before + 1 + tags(begin + 1)),
                            _ if n == 1 => Some(run.discontinuities + tags(0)),
                            _ => None,
                        };
                        if let Some(discontinuity) = discontinuity {
                            prop_assert_eq!(viewer.segments[msn].discontinuity, discontinuity);
                        }
                        let key = made[at].key.as_ref().map(|key| labelled(key, n));
                        prop_assert_eq!(&viewer.segments[msn].key, &key);
                        let map = run.map.then(|| labelled("init.mp4", n));
                        prop_assert_eq!(&viewer.segments[msn].map, &map);
                    }
                    // Everything that is listed is told, and nothing else.
                    let mut told: Vec<_> = published.listed.iter().map(|(uri, label)| labelled(uri, *label)).collect();
                    let media = published.media.media_uris();
                    let mut there: Vec<_> = media.chain(published.media.key_uris()).map(str::to_owned).collect();
                    told.sort();
                    there.sort();
                    there.dedup();
                    prop_assert_eq!(told, there);
                    listed = numbers.len();
                    last = numbers.last().copied().or(last);
                }
            }
        }
    }

    #[test]
    fn nothing_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = crate::live::parse(&bytes);
        let _ = crate::live::parse_manifest(&bytes);
        let mut text = b"#EXTM3U\n".to_vec();
        text.extend_from_slice(&bytes);
        let _ = crate::live::parse(&text);
    }

    #[test]
    fn no_playlists_make_it_panic(texts in proptest::collection::vec(
        "(#EXTINF:2,\n|#EXTINF:\n|#EXT-X-BYTERANGE:5(@[0-9])?\n|#EXT-X-MEDIA-SEQUENCE:[0-9]{1,20}\n|#EXT-X-DISCONTINUITY-SEQUENCE:[0-9]{1,20}\n|#EXT-X-DISCONTINUITY\n|#EXT-X-MAP:URI=\"[a-c]\"\n|#EXT-X-PART:DURATION=1,URI=\"[a-c]\"\n|#EXT-X-PRELOAD-HINT:URI=\"x\"\n|#EXT-X-KEY:METHOD=(NONE|A)\n|#EXT-X-ENDLIST\n|#EXTINF:2\n[a-f]\n|[a-f]\r?\n|é|\"|,|=){0,20}",
        1..5,
    )) {
        let mut continuity = Continuity::default();
        for text in texts {
            let text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n{text}");
            if let Ok(crate::live::Playlist::Media(next)) = crate::live::parse(text.as_bytes()) {
                let published = continuity.publish(&next, &mut |uri| uri.len() as u32 % 3);
                let again = continuity.publish(&next, &mut |_| 7);
                if next.hints().next().is_none() {
                    prop_assert_eq!(published.text, again.text);
                }
                let stored = serde_json::to_string(&continuity).expect("it is data");
                continuity = serde_json::from_str(&stored).expect("it was written");
            }
        }
    }
}
