//! Many viewers of one stream, each of which does what a player does.

use crate::{
    clock::Playback,
    connection::Connection,
    playlist::{self, Media},
};
use http::StatusCode;
use serde::Serialize;
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};
use tokio::{
    task::LocalSet,
    time::{sleep, timeout},
};

/// How long a viewer waits for a whole answer: longer than any reload may be held.
const PATIENCE: Duration = Duration::from_secs(20);

/// What to watch.
#[derive(Debug, Clone)]
pub(crate) struct Show {
    pub(crate) address: SocketAddr,
    pub(crate) host: String,
    /// Path and query of the multivariant playlist.
    pub(crate) entry: String,
}

/// What all viewers saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    requests: u64,
    bytes: u64,
    errors: BTreeMap<String, u64>,
    rebuffers: u64,
    rebuffered: u64,
    /// By path: the media sequence and count of segments of each version.
    versions: BTreeMap<String, BTreeSet<(u64, usize)>>,
    segments: BTreeSet<String>,
    playlist_times: Vec<f32>,
    held_times: Vec<f32>,
    segment_times: Vec<f32>,
    startup_times: Vec<f32>,
    buffered: Vec<f32>,
    behind: Vec<f32>,
}

/// Milliseconds at these parts of all.
#[derive(Debug, Serialize)]
pub(crate) struct Spread {
    p50: f32,
    p95: f32,
    p99: f32,
    max: f32,
}

impl Spread {
    pub(crate) fn of(times: &mut [f32]) -> Self {
        times.sort_unstable_by(f32::total_cmp);
        let at = |part: f64| {
            let index = (times.len() as f64 * part) as usize;
            times
                .get(index.min(times.len().saturating_sub(1)))
                .copied()
                .unwrap_or(0.0)
        };
        Self {
            p50: at(0.5),
            p95: at(0.95),
            p99: at(0.99),
            max: at(1.0),
        }
    }
}

/// The same, in figures.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) requests: u64,
    pub(crate) megabytes: u64,
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) rebuffers: u64,
    pub(crate) viewers_that_rebuffered: u64,
    /// Versions of playlists, by path.
    pub(crate) versions: BTreeMap<String, usize>,
    pub(crate) segments: usize,
    pub(crate) playlist_ms: Spread,
    /// Reloads that the server holds until there is news: mostly the time that there was none.
    pub(crate) held_playlist_ms: Spread,
    pub(crate) segment_ms: Spread,
    pub(crate) startup_ms: Spread,
    /// What viewers had ahead, at the end.
    pub(crate) buffered_ms: Spread,
    /// From what was being played to the end of the playlist, at each reload.
    pub(crate) behind_ms: Spread,
}

impl Seen {
    fn summary(mut self) -> Summary {
        Summary {
            requests: self.requests,
            megabytes: self.bytes >> 20,
            errors: self.errors,
            rebuffers: self.rebuffers,
            viewers_that_rebuffered: self.rebuffered,
            versions: self.versions.into_iter().map(|(path, all)| (path, all.len())).collect(),
            segments: self.segments.len(),
            playlist_ms: Spread::of(&mut self.playlist_times),
            held_playlist_ms: Spread::of(&mut self.held_times),
            segment_ms: Spread::of(&mut self.segment_times),
            startup_ms: Spread::of(&mut self.startup_times),
            buffered_ms: Spread::of(&mut self.buffered),
            behind_ms: Spread::of(&mut self.behind),
        }
    }
}

/// Lets so many viewers watch for so long, after they have come one by one in `ramp`.
pub(crate) async fn watch(show: &Show, viewers: usize, ramp: Duration, lasts: Duration) -> Summary {
    let seen = Rc::new(RefCell::new(Seen::default()));
    let all = LocalSet::new();
    let until = Instant::now() + ramp + lasts;
    for number in 0..viewers {
        let (show, seen) = (show.clone(), seen.clone());
        all.spawn_local(async move {
            sleep(ramp.mul_f64(number as f64 / viewers as f64)).await;
            let mut viewer = Viewer {
                number,
                connection: Connection::new(show.address, &show.host),
                seen,
                until,
                rebuffered: false,
            };
            while Instant::now() < until {
                if let Err(error) = viewer.watch(&show.entry).await {
                    *viewer.seen.borrow_mut().errors.entry(error).or_default() += 1;
                    sleep(Duration::from_secs(1)).await;
                }
            }
            viewer.seen.borrow_mut().rebuffered += u64::from(viewer.rebuffered);
        });
    }
    all.await;
    Rc::try_unwrap(seen)
        .expect("all viewers have gone")
        .into_inner()
        .summary()
}

struct Viewer {
    number: usize,
    connection: Connection,
    seen: Rc<RefCell<Seen>>,
    until: Instant,
    /// Whether it ever stood still.
    rebuffered: bool,
}

impl Viewer {
    async fn text(&mut self, target: &str) -> Result<String, String> {
        let asked = Instant::now();
        let Ok(answer) = timeout(PATIENCE, self.connection.get(target)).await else {
            self.connection.close();
            return Err("playlist: no answer in time".to_owned());
        };
        let (status, body) = answer?;
        let mut seen = self.seen.borrow_mut();
        seen.requests += 1;
        seen.bytes += body.len() as u64;
        let took = asked.elapsed().as_secs_f32() * 1000.0;
        if target.contains("_HLS_msn=") {
            seen.held_times.push(took);
        } else {
            seen.playlist_times.push(took);
        }
        if status != StatusCode::OK {
            return Err(format!("playlist: {status}"));
        }
        String::from_utf8(body.into()).map_err(|_| "playlist: not UTF-8".to_owned())
    }

    async fn media(&mut self, target: &str) -> Result<Media, String> {
        let text = self.text(target).await?;
        let media = Media::parse(&text).ok_or("playlist: cannot be read")?;
        let path = target.split('?').next().unwrap_or_default().to_owned();
        let first = media.segments.first().map_or(0, |segment| segment.msn);
        let mut seen = self.seen.borrow_mut();
        seen.versions
            .entry(path)
            .or_default()
            .insert((first, media.segments.len()));
        Ok(media)
    }

    /// Plays from the live edge until the time is over, or something fails: what had been seen until then counts.
    async fn watch(&mut self, entry: &str) -> Result<(), String> {
        let mut playback = Playback::default();
        let result = self.play(entry, &mut playback).await;
        let now = Instant::now();
        playback.played(now);
        let mut seen = self.seen.borrow_mut();
        seen.rebuffers += u64::from(playback.rebuffers);
        self.rebuffered |= playback.rebuffers > 0;
        if result.is_ok() {
            seen.buffered.push(playback.buffered(now).as_secs_f32() * 1000.0);
        }
        result
    }

    async fn play(&mut self, entry: &str, playback: &mut Playback) -> Result<(), String> {
        let begun = Instant::now();
        let multivariant = self.text(entry).await?;
        let variants = playlist::variants(&multivariant);
        let variant = variants
            .get(self.number % variants.len().max(1))
            .ok_or("playlist: no variants")?;
        let target = playlist::join(entry, variant);
        let mut asked = Instant::now();
        let mut media = self.media(&target).await?;
        let mut next = media.start();
        let (mut started, mut last) = (false, None);
        loop {
            let ahead: Duration = media
                .segments
                .iter()
                .filter(|s| s.msn >= next)
                .map(|s| s.duration)
                .sum();
            if started {
                let behind = playback.buffered(Instant::now()) + ahead;
                self.seen.borrow_mut().behind.push(behind.as_secs_f32() * 1000.0);
            }
            for segment in &media.segments {
                if segment.msn < next {
                    continue;
                }
                if segment.msn > next && next > 0 {
                    self.note("segments: missed");
                }
                self.segment(&playlist::join(&target, &segment.uri)).await?;
                playback.downloaded(segment.duration, Instant::now());
                if !std::mem::replace(&mut started, true) {
                    let startup = begun.elapsed().as_secs_f32() * 1000.0;
                    self.seen.borrow_mut().startup_times.push(startup);
                }
                next = segment.msn + 1;
            }
            if Instant::now() >= self.until || media.ended {
                return Ok(());
            }
            let version = Some((media.segments.first().map_or(0, |s| s.msn), media.segments.len()));
            // A target duration after the last reload, or half of one when nothing had changed (RFC 8216 §6.3.4).
            let pause = if version == last {
                media.target / 2
            } else {
                media.target
            };
            last = version;
            let reload = if media.blocks {
                format!(
                    "{target}{}_HLS_msn={next}",
                    if target.contains('?') { '&' } else { '?' }
                )
            } else {
                sleep((asked + pause).saturating_duration_since(Instant::now())).await;
                target.clone()
            };
            asked = Instant::now();
            media = self.media(&reload).await?;
        }
    }

    async fn segment(&mut self, target: &str) -> Result<(), String> {
        let asked = Instant::now();
        let Ok(answer) = timeout(PATIENCE, self.connection.count(target)).await else {
            self.connection.close();
            return Err("segment: not whole in time".to_owned());
        };
        let (status, bytes) = answer?;
        let mut seen = self.seen.borrow_mut();
        seen.requests += 1;
        seen.bytes += bytes;
        seen.segment_times.push(asked.elapsed().as_secs_f32() * 1000.0);
        let path = target.split('?').next().unwrap_or_default().to_owned();
        seen.segments.insert(path);
        if status == StatusCode::OK {
            Ok(())
        } else {
            Err(format!("segment: {status}"))
        }
    }

    fn note(&self, error: &str) {
        *self.seen.borrow_mut().errors.entry(error.to_owned()).or_default() += 1;
    }
}
