//! What parts are made of: stamped bytes, or real video cut into fragments (ISO/IEC 14496-12 §8.8).

use crate::command_output;
use bytes::Bytes;
use std::{fmt, process::Command, time::Duration};

/// What parts are made of.
#[derive(Clone)]
pub enum Media {
    /// Bytes that tell their number and time: see [`Stamp::read`].
    Stamped {
        /// Bytes a part; at least 64.
        part_bytes: usize,
    },
    /// Fragments of a real video, which ends with the last of them.
    Fragments {
        /// The initialization segment.
        init: Bytes,
        /// A fragment a part.
        parts: Vec<Bytes>,
        /// As in a multivariant playlist.
        codecs: String,
    },
}

impl fmt::Debug for Media {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stamped { part_bytes } => write!(f, "Stamped({part_bytes})"),
            Self::Fragments { parts, .. } => write!(f, "Fragments({})", parts.len()),
        }
    }
}

/// What a stamped part says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Whose.
    pub rendition: usize,
    /// Its number in the whole stream.
    pub part: u64,
    /// When it was finished, in microseconds since 1970 by the wall clock.
    pub unix_micros: u64,
}

impl Stamp {
    /// Reads the stamp at the start of a part, or of a segment, whose first part's it is then.
    pub fn read(content: &[u8]) -> Option<Self> {
        let line = content.split(|byte| *byte == b'\n').next()?;
        let mut words = std::str::from_utf8(line).ok()?.split(' ');
        let mut after = |name: &str| (words.next()? == name).then(|| words.next()?.parse::<u64>().ok())?;
        Some(Self {
            rendition: usize::try_from(after("rendition")?).ok()?,
            part: after("part")?,
            unix_micros: after("finished")?,
        })
    }
}

impl Media {
    /// Video of so many seconds from ffmpeg's test source, H.264 at ten frames a second, in parts of this duration. Each
    /// segment of `parts_per_segment` begins with a key frame.
    pub fn encode(seconds: u64, part: Duration, parts_per_segment: u64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("video.mp4");
        let source = format!("testsrc2=size=320x180:rate=10:duration={seconds}");
        let key_frames = (part.as_secs_f64() * 10.0 * parts_per_segment as f64)
            .round()
            .to_string();
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg
            .args(["-v", "error", "-nostdin", "-f", "lavfi", "-i", &source])
            .args([
                "-c:v",
                "libx264",
                "-preset",
                "ultrafast",
                "-tune",
                "zerolatency",
                "-threads",
                "1",
            ])
            .args(["-g", &key_frames, "-keyint_min", &key_frames, "-sc_threshold", "0"])
            .args(["-movflags", "+empty_moov+default_base_moof", "-f", "mp4"])
            .args(["-frag_duration", &part.as_micros().to_string()])
            .arg(&file);
        let (ok, _, err) = command_output(&mut ffmpeg);
        assert!(ok, "{err}");
        Self::fragments(&std::fs::read(&file).expect("ffmpeg wrote it").into())
    }

    /// Cuts a fragmented file: what is before the first `moof` box, and a part for each, with what follows it.
    fn fragments(file: &Bytes) -> Self {
        let mut starts = Vec::new();
        let mut end = 0;
        while let Some(head) = file.get(end..end + 8) {
            let (size, kind) = head.split_at(4);
            match kind {
                b"moof" => starts.push(end),
                // The index at the file's end.
                b"mfra" => break,
                _ => {}
            }
            end += u32::from_be_bytes(size.try_into().expect("four bytes")) as usize;
        }
        let ends = starts.iter().skip(1).copied().chain([end]);
        let init = file.slice(..*starts.first().expect("a fragment"));
        // ISO/IEC 14496-15 §5.3.3.1: profile, constraints and level are the bytes after the version of `avcC`.
        let avcc = init.windows(4).position(|name| name == b"avcC").expect("H.264") + 5;
        let [profile, constraints, level] = [init[avcc], init[avcc + 1], init[avcc + 2]];
        Self::Fragments {
            parts: starts
                .iter()
                .zip(ends)
                .map(|(start, end)| file.slice(*start..end))
                .collect(),
            codecs: format!("avc1.{profile:02x}{constraints:02x}{level:02x}"),
            init,
        }
    }

    /// How many parts there are at most.
    pub(super) fn parts(&self) -> Option<u64> {
        match self {
            Self::Stamped { .. } => None,
            Self::Fragments { parts, .. } => Some(parts.len() as u64),
        }
    }

    /// The initialization segment.
    pub(super) fn init(&self) -> Bytes {
        match self {
            Self::Stamped { .. } => Bytes::from_static(b"initialization"),
            Self::Fragments { init, .. } => init.clone(),
        }
    }

    pub(super) fn codecs(&self) -> &str {
        match self {
            Self::Stamped { .. } => "avc1.42c00d",
            Self::Fragments { codecs, .. } => codecs,
        }
    }

    pub(super) fn part(&self, rendition: usize, part: u64, unix_micros: u64) -> Bytes {
        match self {
            Self::Stamped { part_bytes } => {
                let mut content = format!("rendition {rendition} part {part} finished {unix_micros}\n").into_bytes();
                content.resize((*part_bytes).max(64), b'.');
                content.into()
            }
            Self::Fragments { parts, .. } => parts[part as usize].clone(),
        }
    }
}
