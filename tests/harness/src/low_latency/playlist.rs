//! The playlists of a stream of low latency, as they are once so many parts are finished. Pure.

use super::LowLatencyOptions;
use std::fmt::Write as _;

/// The newest whole segments before the end whose parts are listed too: those of three target durations, as
/// draft-pantos-hls-rfc8216bis §4.4.4.9 asks.
fn segments_with_parts(options: &LowLatencyOptions) -> u64 {
    let segment = options.part.as_secs_f64() * options.parts_per_segment as f64;
    (options.target_duration().as_secs_f64() * 3.0 / segment).ceil() as u64
}

/// The multivariant playlist.
pub(super) fn multivariant(options: &LowLatencyOptions) -> String {
    let mut text = String::from("#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-INDEPENDENT-SEGMENTS\n");
    for rendition in 0..options.renditions {
        let bandwidth = 400_000 * (rendition + 1);
        let codecs = options.media.codecs();
        let _ = writeln!(
            text,
            "#EXT-X-STREAM-INF:BANDWIDTH={bandwidth},CODECS=\"{codecs}\",RESOLUTION=320x180"
        );
        let _ = writeln!(text, "v{rendition}/playlist.m3u8");
    }
    text
}

/// A rendition's media playlist when `count` parts are finished.
pub(super) fn media(options: &LowLatencyOptions, rendition: usize, count: u64) -> String {
    let (part, size) = (options.part.as_secs_f64(), options.parts_per_segment);
    let (whole, ended) = (count / size, options.media.parts() == Some(count));
    let first = whole.saturating_sub(options.window_segments);
    let mut text = format!(
        "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:{}\n\
         #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK={:.3}\n\
         #EXT-X-PART-INF:PART-TARGET={part:.3}\n#EXT-X-MEDIA-SEQUENCE:{first}\n#EXT-X-MAP:URI=\"init.mp4\"\n",
        options.target_duration().as_secs(),
        part * 3.0,
    );
    for msn in first..=whole {
        if msn + segments_with_parts(options) >= whole {
            for index in 0..(count - msn * size).min(size) {
                let independent = if index == 0 { ",INDEPENDENT=YES" } else { "" };
                let _ = writeln!(
                    text,
                    "#EXT-X-PART:DURATION={part:.5},URI=\"seg{msn}.{index}.m4s\"{independent}"
                );
            }
        }
        if msn < whole {
            let _ = writeln!(text, "#EXTINF:{:.5},\nseg{msn}.m4s", part * size as f64);
        }
    }
    if ended {
        text.push_str("#EXT-X-ENDLIST\n");
        return text;
    }
    let _ = writeln!(
        text,
        "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"seg{whole}.{}.m4s\"",
        count % size
    );
    if let Some(newest) = count.checked_sub(1) {
        for other in (0..options.renditions).filter(|other| *other != rendition) {
            let (msn, index) = (newest / size, newest % size);
            let _ = writeln!(
                text,
                "#EXT-X-RENDITION-REPORT:URI=\"../v{other}/playlist.m3u8\",LAST-MSN={msn},LAST-PART={index}"
            );
        }
    }
    text
}

/// A path in the stream's folder.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    Multivariant,
    Media { rendition: usize },
    Init,
    Segment { rendition: usize, msn: u64 },
    Part { rendition: usize, msn: u64, index: u64 },
}

impl Place {
    /// What a path, without a slash at its start, leads to.
    pub(super) fn of(path: &str) -> Option<Self> {
        if path == "playlist.m3u8" {
            return Some(Self::Multivariant);
        }
        let (folder, name) = path.split_once('/')?;
        let rendition = folder.strip_prefix('v')?.parse().ok()?;
        match name {
            "playlist.m3u8" => return Some(Self::Media { rendition }),
            "init.mp4" => return Some(Self::Init),
            _ => {}
        }
        let number = name.strip_prefix("seg")?.strip_suffix(".m4s")?;
        Some(match number.split_once('.') {
            None => Self::Segment {
                rendition,
                msn: number.parse().ok()?,
            },
            Some((msn, index)) => Self::Part {
                rendition,
                msn: msn.parse().ok()?,
                index: index.parse().ok()?,
            },
        })
    }
}
