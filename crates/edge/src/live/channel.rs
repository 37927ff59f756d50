//! One playlist of a live stream: its last published version, and waiting for a later one.
//!
//! However many wait, each version wakes them once, and nothing is asked for on behalf of one of them alone: blocking
//! reloads (RFC 8216bis §6.2.5.2) are collapsed by being held here.

use super::{schedule::Schedule, version::Version};
use crate::refusal::Reason;
use edgeweir_manifest::live::{Continuity, MediaPlaylist, Position};
use http::HeaderValue;
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// How many segments past the last one a reload may wait for (RFC 8216bis §6.2.5.2 asks for a refusal past that).
const MAX_AHEAD: u64 = 2;

/// For how long a request waits for an origin that has a version already, before it gets that.
const REFRESH: Duration = Duration::from_secs(1);

/// For how long a request waits for an origin of which nothing is known: what the origin itself may take, and a little.
const FIRST: Duration = Duration::from_secs(20);

/// For how long a blocking reload is held, in target durations.
const HOLD: u32 = 3;

/// The longest that a blocking reload is held.
const LONGEST_HOLD: Duration = Duration::from_secs(60);

/// What is known of a playlist.
#[derive(Debug, Clone)]
struct State {
    version: Option<Arc<Version>>,
    /// When the version was found to be the last one.
    confirmed: Instant,
    /// Until when it is taken as the last one, for a playlist that is pulled. What is pushed is always.
    due: Option<Instant>,
    /// Why the last poll got nothing.
    failure: Option<Reason>,
    /// How many polls have ended.
    polls: u64,
}

/// What the next version is made from.
#[derive(Debug, Default)]
pub(super) struct Making {
    pub(super) continuity: Continuity,
    /// What tells one run of a DASH packager from another.
    pub(super) availability_start: Option<String>,
    /// When an encoder's last version was taken, by this process.
    pub(super) accepted: Option<Instant>,
    /// When this process found what is left of an encoder's versions.
    pub(super) restored: Option<Instant>,
    pub(super) pulling: Pulling,
}

/// What the next poll of a pulled playlist depends on.
#[derive(Debug)]
pub(super) struct Pulling {
    pub(super) schedule: Schedule,
    /// The last version as the origin wrote it.
    pub(super) raw: Option<MediaPlaylist>,
    /// The last poll got an answer: the next one may have the origin hold its answer.
    pub(super) answered: bool,
    /// The origin's validator of that version.
    pub(super) etag: Option<HeaderValue>,
    /// Since when all that came was older than what is published.
    pub(super) behind: Option<Instant>,
}

impl Default for Pulling {
    fn default() -> Self {
        Self {
            schedule: Schedule::new(Instant::now()),
            raw: None,
            answered: false,
            etag: None,
            behind: None,
        }
    }
}

/// One playlist of one stream.
#[derive(Debug)]
pub(crate) struct Channel {
    state: watch::Sender<State>,
    pub(super) making: Mutex<Making>,
    /// The label of the present run of what the playlist lists; 0 for one that lists no files.
    pub(super) run: AtomicU32,
    polling: AtomicBool,
}

/// The right to poll, for one task at a time.
pub(super) struct Polling<'a>(&'a Channel);

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        self.0.polling.store(false, Ordering::SeqCst);
    }
}

/// What a request for a playlist comes to without waiting.
pub(crate) enum Ready {
    /// This version.
    Version(Arc<Version>),
    /// It must wait.
    Wait,
}

impl Channel {
    /// A playlist of which nothing is known; `pulled` if it is to be asked for.
    pub(super) fn new(pulled: bool) -> Arc<Self> {
        let now = Instant::now();
        let (state, _) = watch::channel(State {
            version: None,
            confirmed: now,
            due: pulled.then_some(now),
            failure: None,
            polls: 0,
        });
        Arc::new(Self {
            state,
            making: Mutex::default(),
            run: AtomicU32::new(0),
            polling: AtomicBool::new(false),
        })
    }

    /// The last version.
    pub(crate) fn version(&self) -> Option<Arc<Version>> {
        self.state.borrow().version.clone()
    }

    /// Makes a version that was pushed the last one.
    pub(super) fn publish(&self, version: Arc<Version>) {
        self.state.send_modify(|state| state.version = Some(version));
    }

    /// Forgets the version.
    pub(super) fn withdraw(&self) {
        self.state.send_modify(|state| state.version = None);
    }

    /// Notes the end of a poll: what it got, if that is new, or why it got nothing; and when the next one is due.
    pub(super) fn polled(&self, got: Result<Option<Arc<Version>>, Reason>, now: Instant, due: Instant) {
        self.state.send_modify(|state| {
            state.due = Some(due);
            state.polls += 1;
            state.failure = None;
            match got {
                Ok(version) => {
                    state.confirmed = now;
                    state.version = version.or_else(|| state.version.take());
                }
                Err(reason) => state.failure = Some(reason),
            }
        });
    }

    /// Whether the version stands in for later ones that cannot be got.
    pub(super) fn stands_in(&self) -> bool {
        stand_in(&self.state.borrow()).is_some()
    }

    /// Whether nobody has waited for so long.
    pub(super) fn is_idle(&self, lasts: Duration) -> bool {
        self.is_deserted() && self.state.borrow().confirmed.elapsed() > lasts
    }

    /// Whether nobody waits.
    pub(super) fn is_deserted(&self) -> bool {
        self.state.receiver_count() == 0
    }

    /// Waits until nobody waits.
    pub(super) async fn deserted(&self) {
        self.state.closed().await;
    }

    /// Whether a task has the right to poll. It looks whether somebody waits once more after it has given that up, so that
    /// whoever began to wait before asking this is not left alone.
    pub(super) fn is_polled(&self) -> bool {
        self.polling.load(Ordering::SeqCst)
    }

    /// The right to poll, unless another has it.
    pub(super) fn begin_polling(&self) -> Option<Polling<'_>> {
        (!self.polling.swap(true, Ordering::SeqCst)).then(|| Polling(self))
    }

    /// What there is for a request now. `wanted` is what it waits for, if it is a blocking reload.
    pub(crate) fn ready(&self, wanted: Option<Position>, now: Instant) -> Result<Ready, Reason> {
        answer(&self.state.borrow(), wanted, now)
    }

    /// The version for a request, waited for as long as makes sense. `poll` is called when somebody has to ask the
    /// origin; `closed` ends the wait when the stream is no more.
    pub(crate) async fn wait(
        &self,
        wanted: Option<Position>,
        poll: impl Fn(),
        closed: impl Future<Output = ()>,
    ) -> Result<Arc<Version>, Reason> {
        let mut state = self.state.subscribe();
        let begun = Instant::now();
        let polls = state.borrow().polls;
        let mut closed = std::pin::pin!(closed);
        loop {
            let (ready, known) = {
                let state = state.borrow_and_update();
                (answer(&state, wanted, Instant::now())?, state.clone())
            };
            if let Ready::Version(version) = ready {
                return Ok(version);
            }
            // One poll that failed since this request came is enough for it. One that waits for what is to come waits on as
            // long as what there is would do.
            if let Some(failure) = known.failure.clone().filter(|_| known.polls > polls) {
                match stand_in(&known) {
                    None => return Err(failure),
                    Some(version) if wanted.is_none() => return Ok(version),
                    Some(_) => {}
                }
            }
            let patience = match (&known.version, wanted) {
                (Some(version), Some(_)) => hold(version),
                (Some(_), None) => REFRESH,
                (None, _) if known.due.is_some() => FIRST,
                (None, _) => return Err(Reason::NotLive),
            };
            if known.due.is_some() {
                poll();
            }
            tokio::select! {
                biased;
                () = &mut closed => return Err(Reason::NotLive),
                changed = state.changed() => if changed.is_err() { return Err(Reason::NotLive) },
                () = tokio::time::sleep_until((begun + patience).into()) => {
                    return match stand_in(&known) {
                        Some(version) if wanted.is_none() || known.failure.is_some() => Ok(version),
                        _ if wanted.is_some() => Err(Reason::NotYetAvailable),
                        _ => Err(Reason::OriginTimeout),
                    };
                }
            }
        }
    }
}

/// The version that serves when no later one can be had: as long as what it lists would play after it was known to be the
/// last (RFC 5861 §4, with the stream's own measure), and for ever when it has ended.
fn stand_in(state: &State) -> Option<Arc<Version>> {
    let version = state.version.as_ref()?;
    let ended = version.media.as_ref().is_some_and(MediaPlaylist::has_ended);
    (ended || state.confirmed.elapsed() <= version.window).then(|| version.clone())
}

fn hold(version: &Version) -> Duration {
    let target = version.media.as_ref().map(MediaPlaylist::target_duration);
    target.map_or(REFRESH, |target| (target * HOLD).min(LONGEST_HOLD))
}

fn answer(state: &State, wanted: Option<Position>, now: Instant) -> Result<Ready, Reason> {
    let Some(version) = &state.version else {
        return if state.due.is_some() {
            Ok(Ready::Wait)
        } else {
            Err(Reason::NotLive)
        };
    };
    let is_current = state.due.is_none_or(|due| now < due);
    // The directives mean nothing to what is no media playlist, and nothing comes after the end.
    let media = version.media.as_ref().filter(|media| !media.has_ended());
    if let (Some(media), Some(wanted)) = (media, wanted) {
        if media.holds(wanted) {
            return Ok(Ready::Version(version.clone()));
        }
        // What is far ahead of a version of some time ago may be there by now.
        if is_current && wanted.msn > media.position().msn.saturating_add(MAX_AHEAD) {
            return Err(Reason::BadRequest("_HLS_msn is too far ahead of the playlist"));
        }
        return Ok(Ready::Wait);
    }
    if is_current && (state.failure.is_none() || stand_in(state).is_some()) {
        Ok(Ready::Version(version.clone()))
    } else {
        Ok(Ready::Wait)
    }
}
