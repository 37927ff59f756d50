//! A live stream of low latency (draft-pantos-hls-rfc8216bis) that a test holds in its hand: parts come to be by the clock or
//! when the test says so, and each tells its number and when it was finished. It is an origin to be pulled
//! ([`LowLatencySource::serve`]) and an encoder that pushes ([`LowLatencySource::push`]), also both at once.

mod encoder;
mod media;
mod playlist;
mod server;

pub use encoder::{LowLatencyEncoder, PushTarget};
pub use media::{Media, Stamp};
pub use server::{Asked, LowLatencyServer};

use bytes::Bytes;
use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::sync::watch;

/// When parts are finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// One every part duration, on the beat: a late one does not make the next late.
    RealTime,
    /// When [`LowLatencySource::advance`] is called.
    Manual,
}

/// What a stream is like.
#[derive(Debug, Clone)]
pub struct LowLatencyOptions {
    /// A part's duration.
    pub part: Duration,
    /// Parts in a segment.
    pub parts_per_segment: u64,
    /// Complete segments in a playlist.
    pub window_segments: u64,
    /// Parts that are there from the start.
    pub lead: u64,
    /// Renditions, alike but for their names.
    pub renditions: usize,
    /// When parts are finished.
    pub pace: Pace,
    /// What parts are made of.
    pub media: Media,
}

impl Default for LowLatencyOptions {
    /// Parts of 200 ms and segments of 1 s, of which six are listed and three there at the start; two renditions of 4 KiB a
    /// part, in real time.
    fn default() -> Self {
        Self {
            part: Duration::from_millis(200),
            parts_per_segment: 5,
            window_segments: 6,
            lead: 15,
            renditions: 2,
            pace: Pace::RealTime,
            media: Media::Stamped { part_bytes: 4096 },
        }
    }
}

impl LowLatencyOptions {
    /// The target duration: a whole number of seconds.
    pub fn target_duration(&self) -> Duration {
        let segment = self.part.as_secs_f64() * self.parts_per_segment as f64;
        Duration::from_secs(segment.ceil().max(1.0) as u64)
    }
}

/// When a part was finished.
#[derive(Debug, Clone, Copy)]
struct Finished {
    at: Instant,
    unix_micros: u64,
}

impl Finished {
    fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            at: Instant::now(),
            unix_micros: since.map_or(0, |d| d.as_micros() as u64),
        }
    }
}

struct Shared {
    options: LowLatencyOptions,
    /// Every part so far, by its number.
    finished: Mutex<Vec<Finished>>,
    /// How many parts are finished.
    count: watch::Sender<u64>,
}

impl Shared {
    fn finished(&self) -> MutexGuard<'_, Vec<Finished>> {
        self.finished.lock().expect("no panic under the lock")
    }

    fn finish(&self, parts: u64) {
        let end = self.options.media.parts().unwrap_or(u64::MAX);
        let count = {
            let mut finished = self.finished();
            let room = end.saturating_sub(finished.len() as u64).min(parts);
            let now = Finished::now();
            finished.extend((0..room).map(|_| now));
            finished.len() as u64
        };
        self.count.send_replace(count);
    }

    /// A part's content, once it is finished.
    fn part(&self, rendition: usize, number: u64) -> Option<Bytes> {
        let finished = *self.finished().get(usize::try_from(number).ok()?)?;
        Some(self.options.media.part(rendition, number, finished.unix_micros))
    }

    /// A segment's content, once all of its parts are finished.
    fn segment(&self, rendition: usize, msn: u64) -> Option<Bytes> {
        let first = msn.checked_mul(self.options.parts_per_segment)?;
        let mut whole = Vec::new();
        for number in first..first + self.options.parts_per_segment {
            whole.extend_from_slice(&self.part(rendition, number)?);
        }
        Some(whole.into())
    }

    /// Waits until so many parts are finished; how many are.
    async fn until(&self, count: u64) -> u64 {
        let mut watch = self.count.subscribe();
        let reached = watch.wait_for(|finished| *finished >= count).await;
        *reached.expect("the sender is in self")
    }
}

/// A live stream of low latency. Part `n` of the whole stream is part `n % parts_per_segment` of segment
/// `n / parts_per_segment`.
///
/// The stream's folder holds `playlist.m3u8` (multivariant), and for each rendition `v<r>/playlist.m3u8`,
/// `v<r>/init.mp4`, `v<r>/seg<msn>.m4s` and `v<r>/seg<msn>.<part>.m4s`.
#[derive(Clone)]
pub struct LowLatencySource {
    shared: Arc<Shared>,
}

impl LowLatencySource {
    /// A stream whose clock runs from now, inside a tokio runtime. The clock stops when all who hold the source are gone.
    pub fn start(options: LowLatencyOptions) -> Self {
        let shared = Arc::new(Shared {
            finished: Mutex::default(),
            count: watch::Sender::new(0),
            options,
        });
        shared.finish(shared.options.lead);
        if shared.options.pace == Pace::RealTime {
            let (clock, period) = (Arc::downgrade(&shared), shared.options.part);
            tokio::spawn(async move {
                let mut beat = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
                loop {
                    beat.tick().await;
                    let Some(shared) = clock.upgrade() else { return };
                    shared.finish(1);
                }
            });
        }
        Self { shared }
    }

    /// What the stream is like.
    pub fn options(&self) -> &LowLatencyOptions {
        &self.shared.options
    }

    /// Finishes so many parts now.
    pub fn advance(&self, parts: u64) {
        self.shared.finish(parts);
    }

    /// Begins anew, as an encoder does after a crash: the numbers start at 0 again, with so many parts at once.
    pub fn begin_anew(&self, lead: u64) {
        self.shared.finished().clear();
        self.shared.finish(lead);
    }

    /// How many parts are finished.
    pub fn count(&self) -> u64 {
        *self.shared.count.borrow()
    }

    /// Waits until so many parts are finished.
    pub async fn until(&self, count: u64) {
        self.shared.until(count).await;
    }

    /// When a part was finished: the moment before which nobody can have read it.
    pub fn finished(&self, number: u64) -> Option<Instant> {
        let finished = self.shared.finished();
        finished.get(usize::try_from(number).ok()?).map(|finished| finished.at)
    }

    /// A part's content, once it is finished.
    pub fn part(&self, rendition: usize, number: u64) -> Option<Bytes> {
        self.shared.part(rendition, number)
    }

    /// A segment's content, once it is complete.
    pub fn segment(&self, rendition: usize, msn: u64) -> Option<Bytes> {
        self.shared.segment(rendition, msn)
    }

    /// A media playlist as it is now.
    pub fn playlist(&self, rendition: usize) -> String {
        playlist::media(self.options(), rendition, self.count())
    }

    /// Serves the stream on a free port. Blocking reloads (`_HLS_msn`, `_HLS_part`) and requests for the hinted part are
    /// held until there is what they ask for, however long that takes.
    pub async fn serve(&self) -> LowLatencyServer {
        LowLatencyServer::start(self.shared.clone()).await
    }

    /// Pushes the stream into a folder of an ingest server, from what is listed now on. Each rendition has a connection of
    /// its own, that it makes anew when it breaks.
    pub fn push(&self, target: PushTarget) -> LowLatencyEncoder {
        LowLatencyEncoder::start(self.shared.clone(), target)
    }
}

#[cfg(test)]
mod tests;
