//! One playlist of a live stream: its last published version, and waiting for a later one.
//!
//! However many wait, each version wakes them once, and nothing is asked for on behalf of one of them alone: blocking
//! reloads (RFC 8216bis §6.2.5.2) are collapsed by being held here.

use super::{schedule::Schedule, version::Version};
use crate::refusal::Reason;
use edgeweir_manifest::live::{Continuity, MediaPlaylist, Position};
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
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

/// What is known of a playlist.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) version: Option<Arc<Version>>,
    /// Until when the version is taken as the last one, for a playlist that is pulled. What is pushed is always.
    pub(super) due: Option<Instant>,
    /// Why the last poll got nothing.
    pub(super) failure: Option<Reason>,
    /// How many polls have ended.
    polls: u64,
}

/// What the next version is made from.
#[derive(Debug)]
pub(super) struct Making {
    pub(super) continuity: Continuity,
    /// The last version as the encoder or origin wrote it.
    pub(super) raw: Option<MediaPlaylist>,
    pub(super) schedule: Schedule,
    /// The origin's validator of that version.
    pub(super) etag: Option<http::HeaderValue>,
    /// Since when all that came was older than what is published.
    pub(super) behind: Option<Instant>,
    /// When an encoder's last version was taken, by this process.
    pub(super) accepted: Option<Instant>,
    /// What tells one run of a DASH encoder from another.
    pub(super) availability_start: Option<String>,
}

/// One playlist of one stream.
#[derive(Debug)]
pub(crate) struct Channel {
    state: watch::Sender<State>,
    pub(super) making: Mutex<Making>,
    polling: AtomicBool,
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
            due: pulled.then_some(now),
            failure: None,
            polls: 0,
        });
        Arc::new(Self {
            state,
            making: Mutex::new(Making {
                continuity: Continuity::default(),
                raw: None,
                schedule: Schedule::new(now),
                etag: None,
                behind: None,
                accepted: None,
                availability_start: None,
            }),
            polling: AtomicBool::new(false),
        })
    }

    /// The last version.
    pub(crate) fn version(&self) -> Option<Arc<Version>> {
        self.state.borrow().version.clone()
    }

    /// Makes a version the last one.
    pub(super) fn publish(&self, version: Arc<Version>) {
        self.state.send_modify(|state| {
            state.version = Some(version);
            state.failure = None;
        });
    }

    /// Takes the playlist back.
    pub(super) fn withdraw(&self) {
        self.state.send_modify(|state| state.version = None);
    }

    /// Notes the end of a poll: what it got is published already.
    pub(super) fn polled(&self, due: Instant, failure: Option<Reason>) {
        self.state.send_modify(|state| {
            state.due = Some(due);
            state.failure = failure;
            state.polls += 1;
        });
    }

    /// Waits until nobody waits.
    pub(super) async fn deserted(&self) {
        self.state.closed().await;
    }

    /// The right to poll, for one task at a time.
    pub(super) fn begin_polling(&self) -> bool {
        !self.polling.swap(true, Ordering::AcqRel)
    }

    pub(super) fn end_polling(&self) {
        self.polling.store(false, Ordering::Release);
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
            // One poll that failed since this request came is enough for it, unless there is nothing to wait for.
            if let Some(failure) = known.failure.clone().filter(|_| known.polls > polls) {
                return stand_in(&known, wanted).ok_or(failure);
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
                    let late = if wanted.is_some() { Reason::NotYetAvailable } else { Reason::OriginTimeout };
                    return stand_in(&known, wanted).ok_or(late);
                }
            }
        }
    }
}

/// The version that serves when no later one can be had: as long as what it lists would play (RFC 5861 §4, with the
/// stream's own measure).
fn stand_in(state: &State, wanted: Option<Position>) -> Option<Arc<Version>> {
    let version = state.version.as_ref().filter(|_| wanted.is_none())?;
    (version.at.elapsed() <= version.window).then(|| version.clone())
}

fn hold(version: &Version) -> Duration {
    version
        .media
        .as_ref()
        .map_or(REFRESH, |media| media.target_duration() * HOLD)
}

fn answer(state: &State, wanted: Option<Position>, now: Instant) -> Result<Ready, Reason> {
    let Some(version) = &state.version else {
        return if state.due.is_some() {
            Ok(Ready::Wait)
        } else {
            Err(Reason::NotLive)
        };
    };
    // The directives mean nothing to what is no media playlist, and nothing comes after the end.
    let media = version.media.as_ref().filter(|media| !media.has_ended());
    if let (Some(media), Some(wanted)) = (media, wanted) {
        if wanted.msn > media.position().msn.saturating_add(MAX_AHEAD) {
            return Err(Reason::BadRequest("_HLS_msn is too far ahead of the playlist"));
        }
        if media.holds(wanted) {
            return Ok(Ready::Version(version.clone()));
        }
        return Ok(Ready::Wait);
    }
    if state.due.is_none_or(|due| now < due) && (state.failure.is_none() || stand_in(state, None).is_some()) {
        Ok(Ready::Version(version.clone()))
    } else {
        Ok(Ready::Wait)
    }
}
