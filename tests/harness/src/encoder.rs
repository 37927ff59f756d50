//! A live encoder: ffmpeg, that makes moving pictures and a tone in real time, in small renditions, and writes them to a
//! folder or pushes them over HTTP.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// The frames a second of what encoders make.
pub const FRAME_RATE: u32 = 10;

/// What an encoder writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packaging {
    /// HLS with MPEG-TS segments.
    HlsTs,
    /// HLS with fragmented MP4 segments.
    HlsFmp4,
    /// DASH, with a template and a timeline.
    Dash,
}

/// How an encoder works.
#[derive(Debug, Clone)]
pub struct EncoderOptions {
    /// What it writes. HLS: `playlist.m3u8` (multivariant) and `v<r>/playlist.m3u8`; DASH: `manifest.mpd`.
    pub packaging: Packaging,
    /// Renditions of video, each with its sound.
    pub renditions: u32,
    /// A segment's duration in seconds.
    pub segment: u32,
    /// Segments in a playlist.
    pub list: u32,
    /// It stops by itself after so many seconds.
    pub seconds: Option<u32>,
    /// Whether it uses one connection for many uploads.
    pub persistent: bool,
    /// Whether it goes on when an upload fails.
    pub stubborn: bool,
    /// Whether it sends DELETE for (or removes) segments that left the playlist.
    pub deletes: bool,
    /// For HLS: whether it encrypts segments (AES-128), with a key that it pushes, and names by the URL that it pushes
    /// to.
    pub encrypts: bool,
    /// For HLS: the `Host` to send, where the URL's does not resolve and no proxy leads there.
    pub host: Option<String>,
}

impl Default for EncoderOptions {
    /// HLS with MPEG-TS, two renditions, six segments of a second, until it is stopped.
    fn default() -> Self {
        Self {
            packaging: Packaging::HlsTs,
            renditions: 2,
            segment: 1,
            list: 6,
            seconds: None,
            persistent: true,
            stubborn: false,
            deletes: true,
            encrypts: false,
            host: None,
        }
    }
}

/// A running encoder; it is killed when it is dropped.
#[derive(Debug)]
pub struct Encoder {
    child: Child,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Encoder {
    /// Writes into a folder that is there.
    pub fn to_folder(options: &EncoderOptions, folder: &Path) -> Self {
        Self::start(options, &folder.display().to_string(), None)
    }

    /// Pushes with PUT into a folder's URL. `proxy`: the URL of a proxy that leads there.
    pub fn to_url(options: &EncoderOptions, url: &str, proxy: Option<&str>) -> Self {
        Self::start(options, url.trim_end_matches('/'), proxy)
    }

    fn start(options: &EncoderOptions, target: &str, proxy: Option<&str>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("ffmpeg.log");
        let mut command = Command::new("ffmpeg");
        command.args(arguments(options, target));
        if let Some(proxy) = proxy {
            command.env("http_proxy", proxy);
        }
        let err = File::create(&log).expect("a log");
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(err)
            .spawn()
            .unwrap_or_else(|e| panic!("ffmpeg (scripts/test installs it): {e}"));
        Self {
            child,
            log,
            _folder: folder,
        }
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it has ended by itself: whether all went well.
    pub async fn ended(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(150);
        loop {
            if let Some(status) = self.child.try_wait().expect("it is a child") {
                return status.success();
            }
            assert!(Instant::now() < deadline, "ffmpeg goes on:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Kills it without warning: an upload breaks off in the middle.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().rev().take(25).collect();
            eprintln!("the encoder's last lines:");
            lines.into_iter().rev().for_each(|line| eprintln!("  {line}"));
        }
    }
}

fn arguments(options: &EncoderOptions, target: &str) -> Vec<String> {
    let mut args = Vec::new();
    let mut add = |words: &[&str]| args.extend(words.iter().map(|word| (*word).to_owned()));
    let pictures = format!("testsrc2=size=320x180:rate={FRAME_RATE}");
    add(&["-hide_banner", "-nostdin", "-loglevel", "info"]);
    add(&[
        "-re",
        "-f",
        "lavfi",
        "-i",
        &pictures,
        "-re",
        "-f",
        "lavfi",
        "-i",
        "sine=frequency=440:sample_rate=44100",
    ]);
    for rendition in 0..options.renditions {
        add(&["-map", "0:v", "-map", "1:a"]);
        add(&[&format!("-b:v:{rendition}"), &format!("{}k", 150 * (rendition + 1))]);
    }
    let key_frames = (FRAME_RATE * options.segment).to_string();
    add(&[
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-threads",
        "1",
        "-pix_fmt",
        "yuv420p",
    ]);
    add(&["-g", &key_frames, "-keyint_min", &key_frames, "-sc_threshold", "0"]);
    add(&["-c:a", "aac", "-b:a", "48k", "-ac", "1"]);
    if let Some(seconds) = options.seconds {
        add(&["-t", &seconds.to_string()]);
    }
    let (segment, list) = (options.segment.to_string(), options.list.to_string());
    let is_url = target.contains("://");
    if is_url {
        add(&[
            "-method",
            "PUT",
            "-http_persistent",
            if options.persistent { "1" } else { "0" },
        ]);
        if options.stubborn {
            add(&["-ignore_io_errors", "1"]);
        }
        if let Some(host) = &options.host {
            add(&["-headers", &format!("Host: {host}\r\n")]);
        }
    }
    if options.packaging == Packaging::Dash {
        add(&[
            "-f",
            "dash",
            "-seg_duration",
            &segment,
            "-window_size",
            &list,
            "-extra_window_size",
            "3",
        ]);
        add(&[
            "-use_template",
            "1",
            "-use_timeline",
            "1",
            "-adaptation_sets",
            "id=0,streams=v id=1,streams=a",
        ]);
        add(&[&format!("{target}/manifest.mpd")]);
        return args;
    }
    let mut flags = vec!["independent_segments"];
    if options.deletes {
        flags.push("delete_segments");
    }
    if !is_url {
        // A reader never sees half a file.
        flags.push("temp_file");
    }
    let renditions: Vec<_> = (0..options.renditions).map(|r| format!("v:{r},a:{r}")).collect();
    add(&[
        "-f",
        "hls",
        "-hls_time",
        &segment,
        "-hls_list_size",
        &list,
        "-hls_flags",
        &flags.join("+"),
    ]);
    add(&[
        "-hls_delete_threshold",
        "2",
        "-master_pl_name",
        "playlist.m3u8",
        "-var_stream_map",
        &renditions.join(" "),
    ]);
    if options.encrypts {
        // Its own name for the key has the number of the rendition still to be filled in.
        let key = format!("{target}/stream.key");
        add(&["-hls_enc", "1", "-hls_enc_key", "0123456789abcdef"]);
        add(&["-hls_enc_key_url", &key]);
    }
    let ending = if options.packaging == Packaging::HlsFmp4 {
        add(&["-hls_segment_type", "fmp4"]);
        "m4s"
    } else {
        "ts"
    };
    add(&["-hls_segment_filename", &format!("{target}/v%v/seg%d.{ending}")]);
    add(&[&format!("{target}/v%v/playlist.m3u8")]);
    args
}
