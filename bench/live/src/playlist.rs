//! As much of HLS as a player needs to play (RFC 8216bis). Pure.

use std::time::Duration;

/// A segment as a playlist lists it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Segment {
    pub(crate) msn: u64,
    pub(crate) uri: String,
    pub(crate) duration: Duration,
}

/// A media playlist.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Media {
    pub(crate) target: Duration,
    pub(crate) blocks: bool,
    pub(crate) ended: bool,
    pub(crate) segments: Vec<Segment>,
    /// Parts, of all segments, in their order.
    pub(crate) parts: Vec<String>,
    /// The file that is announced.
    pub(crate) hint: Option<String>,
}

impl Media {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        lines.next().filter(|line| line.trim() == "#EXTM3U")?;
        let (mut media, mut msn, mut duration) = (
            Self {
                target: Duration::ZERO,
                blocks: false,
                ended: false,
                segments: Vec::new(),
                parts: Vec::new(),
                hint: None,
            },
            0,
            Duration::ZERO,
        );
        for line in lines {
            if let Some(value) = line.strip_prefix("#EXT-X-TARGETDURATION:") {
                media.target = Duration::from_secs(value.trim().parse().ok()?);
            } else if let Some(value) = line.strip_prefix("#EXT-X-MEDIA-SEQUENCE:") {
                msn = value.trim().parse().ok()?;
            } else if let Some(value) = line.strip_prefix("#EXTINF:") {
                duration = Duration::from_secs_f64(value.split(',').next()?.parse().ok()?);
            } else if line.starts_with("#EXT-X-SERVER-CONTROL:") {
                media.blocks = line.contains("CAN-BLOCK-RELOAD=YES");
            } else if line.starts_with("#EXT-X-PART:") {
                media.parts.push(uri(line)?);
            } else if line.starts_with("#EXT-X-PRELOAD-HINT:") {
                media.hint = uri(line);
            } else if line.starts_with("#EXT-X-ENDLIST") {
                media.ended = true;
            } else if !line.starts_with('#') && !line.trim().is_empty() {
                media.segments.push(Segment {
                    msn,
                    uri: line.trim().to_owned(),
                    duration,
                });
                msn += 1;
            }
        }
        (!media.target.is_zero()).then_some(media)
    }

    /// The number of the first segment to play: three target durations from the end (RFC 8216 §6.3.3).
    pub(crate) fn start(&self) -> u64 {
        let mut from_end = Duration::ZERO;
        for segment in self.segments.iter().rev() {
            from_end += segment.duration;
            if from_end >= self.target * 3 {
                return segment.msn;
            }
        }
        self.segments.first().map_or(0, |segment| segment.msn)
    }
}

/// The playlists that a multivariant playlist lists as variants.
pub(crate) fn variants(text: &str) -> Vec<&str> {
    let uris = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    uris.collect()
}

fn uri(line: &str) -> Option<String> {
    Some(line.split("URI=\"").nth(1)?.split('"').next()?.to_owned())
}

/// Where a relative reference leads from a path and query.
pub(crate) fn join(base: &str, reference: &str) -> String {
    if reference.starts_with('/') {
        return reference.to_owned();
    }
    let base = base.split('?').next().unwrap_or_default();
    let mut folder: Vec<&str> = base.split('/').collect();
    folder.pop();
    let (path, query) = reference.split_at(reference.find('?').unwrap_or(reference.len()));
    for segment in path.split('/') {
        match segment {
            "." => {}
            ".." => drop(folder.pop()),
            other => folder.push(other),
        }
    }
    folder.join("/") + query
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_player_begins_three_target_durations_from_the_end() {
        let text = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:7\n#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES\n\
            #EXTINF:2.0,\na.ts?auth=T\n#EXTINF:2.0,\nb.ts\n#EXTINF:1.5,\nc.ts\n#EXTINF:2.0,\nd.ts\n#EXT-X-PART:DURATION=0.2,URI=\"p.0\"\n";
        let media = Media::parse(text).unwrap();
        assert_eq!((media.segments.len(), media.start(), media.blocks), (4, 7, true));
        assert_eq!((media.segments[3].msn, media.parts.len(), media.ended), (10, 1, false));
        assert_eq!(Media::parse("#EXTM3U\n"), None);
        assert_eq!(Media::parse("x"), None);
    }

    #[test]
    fn references_are_joined() {
        for (base, reference, joined) in [
            ("/a/b.m3u8?auth=T", "c.ts?auth=T/../x", "/a/c.ts?auth=T/../x"),
            ("/a/v/b.m3u8", "../c.ts", "/a/c.ts"),
            ("/a/b.m3u8", "/c.ts", "/c.ts"),
            ("/b.m3u8", "v/c.ts", "/v/c.ts"),
        ] {
            assert_eq!(join(base, reference), joined);
        }
    }
}
