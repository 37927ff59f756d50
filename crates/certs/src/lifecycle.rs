//! The life of a domain's certificate as one pure state machine: state, event and time in; state and actions out.
//!
//! It promises: never a second order while one is open, and a certificate that serves is given up for its successor
//! only. Whoever drives it writes the new state down before it acts. Orders: RFC 8555 §7.1.6; renewal: RFC 9773.

mod event;
#[cfg(test)]
mod properties;
mod schedule;
#[cfg(test)]
mod tests;

use edgeweir_model::Timestamp;
pub use event::{Action, Event, Progress, Status, Verdict};
use schedule::{after_failure, ari, is_over, next_dns_look, poll, two_thirds};
use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01 UTC.
pub type Millis = i64;

/// How long an order may stay open before it is given up, in milliseconds.
const ORDER_PATIENCE: Millis = 3_600_000;
/// A failed attempt to learn the renewal window is repeated after this long.
const WINDOW_RETRY: Millis = 6 * 3_600_000;

/// The moment of a step: the wall clock, and a random number in `0.0..1.0` for jitter.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The time.
    pub now: Millis,
    /// The random number.
    pub random: f64,
}

/// A certificate that serves, and when its successor is due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// From when on it is valid.
    pub not_before: Millis,
    /// Until when.
    pub not_after: Millis,
    /// When it is to be renewed.
    pub renew_at: Millis,
    /// The window that the CA wants it renewed in (RFC 9773 §4.2), and when to ask again.
    pub window: Option<(Millis, Millis)>,
    /// When to ask the CA for that window; never, when it has none to tell.
    pub look_at: Option<Millis>,
}

/// What is being done about the certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Phase {
    /// The name's DNS records are looked at until they lead here.
    Pending {
        /// What is wanted of the owner, and what was seen; before the first look nothing.
        message: Option<String>,
        /// When to look again.
        next: Millis,
    },
    /// An order is being placed or under way.
    Ordering {
        /// When that began.
        began: Millis,
        /// Whether the CA was told that the challenges can be looked at.
        told: bool,
        /// How often the order was looked at since.
        polls: u32,
    },
    /// Nothing is to be done before the renewal.
    Issued,
    /// The last try failed.
    Failed {
        /// Why, in plain words.
        reason: String,
        /// When the next try is.
        next: Millis,
    },
}

/// Where a certificate's life stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The certificate that serves.
    pub certificate: Option<Certificate>,
    /// The URL of the order that is open at the CA.
    pub order: Option<String>,
    /// What is being done.
    pub phase: Phase,
    /// Since when a certificate is wanted that is not there.
    pub since: Millis,
    /// How often that failed.
    pub failures: u32,
}

impl State {
    /// The state of a subscription that was just made.
    pub fn new(now: Millis) -> Self {
        Self {
            certificate: None,
            order: None,
            phase: Phase::Pending {
                message: None,
                next: now,
            },
            since: now,
            failures: 0,
        }
    }

    /// Whether a certificate serves.
    pub fn serves(&self, now: Millis) -> bool {
        self.certificate.as_ref().is_some_and(|c| now < c.not_after)
    }

    /// What the owner is told.
    pub fn status(&self, now: Millis) -> Status {
        match (&self.phase, self.serves(now)) {
            (Phase::Failed { .. }, _) => Status::Failed,
            (Phase::Issued, _) => Status::Issued,
            (_, true) => Status::Renewing,
            (Phase::Pending { .. }, false) => Status::Pending,
            (Phase::Ordering { .. }, false) => Status::Processing,
        }
    }

    /// What the owner is told in words: what was seen, and what is wanted.
    pub fn message(&self, name: &str, target: &str) -> Option<String> {
        match &self.phase {
            Phase::Pending {
                message: Some(text), ..
            } => Some(text.clone()),
            Phase::Pending { message: None, .. } => Some(wanted(name, target)),
            Phase::Ordering { .. } => {
                Some("The certificate has been ordered; the CA is checking the domain.".to_owned())
            }
            Phase::Issued => None,
            Phase::Failed { reason, next } => {
                let next = Timestamp(next.div_euclid(1000));
                Some(format!("{reason} The next try is at {next} UTC."))
            }
        }
    }

    /// When something is to be done next.
    pub fn due(&self) -> Millis {
        match &self.phase {
            Phase::Pending { next, .. } | Phase::Failed { next, .. } => *next,
            Phase::Ordering { .. } => 0,
            Phase::Issued => self
                .certificate
                .as_ref()
                .map_or(0, |c| c.look_at.map_or(c.renew_at, |look| look.min(c.renew_at))),
        }
    }

    fn fail(mut self, reason: String, retry_at: Option<Millis>, at: Moment, gentle: bool) -> Self {
        let left = self.certificate.as_ref().map(|c| c.not_after - at.now);
        let age = at.now - self.since;
        let own = after_failure(self.failures, age, left, gentle, at);
        self.failures = self.failures.saturating_add(1);
        self.phase = Phase::Failed {
            reason,
            next: schedule::obey(own, retry_at, at.now),
        };
        self
    }

    fn ordering(mut self, at: Moment) -> (Self, Vec<Action>) {
        self.phase = Phase::Ordering {
            began: at.now,
            told: false,
            polls: 0,
        };
        let action = match &self.order {
            Some(url) => Action::LookAtOrder(url.clone(), at.now),
            None => Action::PlaceOrder,
        };
        (self, vec![action])
    }
}

/// The sentence that every owner starts with.
pub fn wanted(name: &str, target: &str) -> String {
    format!("Create a CNAME for '{name}' and point it to '{target}'.")
}

/// One step. An event that does not belong to the state changes nothing.
pub fn step(state: State, event: Event, at: Moment) -> (State, Vec<Action>) {
    let (state, actions) = match event {
        Event::Tick => tick(state, at),
        Event::WindowSeen { .. } | Event::NoWindow { .. } => (window(state, event, at), Vec::new()),
        Event::DnsSeen(verdict) => dns(state, verdict, at),
        _ => order(state, event, at),
    };
    (state, actions)
}

fn tick(mut state: State, at: Moment) -> (State, Vec<Action>) {
    match &state.phase {
        Phase::Ordering { .. } => match &state.order {
            // A process ended in between: how far the order is, the CA knows.
            Some(url) => {
                let action = Action::LookAtOrder(url.clone(), at.now);
                (state, vec![action])
            }
            None => state.ordering(at),
        },
        Phase::Pending { next, .. } if is_over(*next, at.now) => (state, vec![Action::CheckDns]),
        Phase::Failed { next, .. } if is_over(*next, at.now) => {
            if state.order.is_some() {
                return state.ordering(at);
            }
            // What failed may have failed because the records have changed.
            state.phase = Phase::Pending {
                message: None,
                next: at.now,
            };
            (state, vec![Action::CheckDns])
        }
        Phase::Issued => match &state.certificate {
            Some(c) if c.renew_at > at.now => {
                let ask = c.look_at.is_some_and(|look| is_over(look, at.now));
                (state, if ask { vec![Action::AskForWindow] } else { Vec::new() })
            }
            _ => {
                state.phase = Phase::Pending {
                    message: None,
                    next: at.now,
                };
                (state.since, state.failures) = (at.now, 0);
                (state, vec![Action::CheckDns])
            }
        },
        Phase::Pending { .. } | Phase::Failed { .. } => (state, Vec::new()),
    }
}

fn dns(mut state: State, verdict: Verdict, at: Moment) -> (State, Vec<Action>) {
    if !matches!(state.phase, Phase::Pending { .. }) {
        return (state, Vec::new());
    }
    let text = match verdict {
        Verdict::Here => return state.ordering(at),
        // A resolver of ours that is ill must not end a certificate that serves: the CA asks its own.
        Verdict::Unanswered(_) if state.serves(at.now) => return state.ordering(at),
        Verdict::NotYet(text) | Verdict::Unanswered(text) => text,
    };
    let next = next_dns_look(at.now - state.since, at);
    state.phase = Phase::Pending {
        message: Some(text),
        next,
    };
    (state, Vec::new())
}

/// What happens while an order is placed or under way.
fn order(mut state: State, event: Event, at: Moment) -> (State, Vec<Action>) {
    let Phase::Ordering { began, told, polls } = &mut state.phase else {
        return (state, Vec::new());
    };
    let url = state.order.clone();
    let action = match (event, url) {
        (Event::OrderPlaced(placed), None) => {
            state.order = Some(placed.clone());
            Action::LookAtOrder(placed, at.now)
        }
        (Event::ChallengesShown, Some(url)) => Action::TellReady(url),
        (Event::ToldReady, Some(url)) => {
            (*told, *polls) = (true, 0);
            Action::LookAtOrder(url, poll(0, None, at.now))
        }
        (Event::OrderSeen(Progress::Pending, _), Some(url)) if !*told => Action::ShowChallenges(url),
        (Event::OrderSeen(Progress::Pending | Progress::Processing, retry_at), Some(url)) => {
            if at.now - *began > ORDER_PATIENCE {
                state.order = None;
                let reason = "The CA has not finished the order within an hour.".to_owned();
                return (state.fail(reason, None, at, false), Vec::new());
            }
            *polls = polls.saturating_add(1);
            Action::LookAtOrder(url, poll(*polls, retry_at, at.now))
        }
        (Event::OrderSeen(Progress::Ready, _), Some(url)) => Action::Finalize(url),
        (Event::OrderSeen(Progress::Valid, _), Some(url)) => Action::Download(url),
        (Event::CertificateStored { not_before, not_after }, Some(_)) => {
            state.certificate = Some(Certificate {
                not_before,
                not_after,
                renew_at: two_thirds(not_before, not_after, at),
                window: None,
                look_at: Some(at.now),
            });
            (state.order, state.phase, state.failures, state.since) = (None, Phase::Issued, 0, at.now);
            Action::AskForWindow
        }
        (Event::OrderFailed { reason, retry_at }, _) => {
            state.order = None;
            return (state.fail(reason, retry_at, at, false), Vec::new());
        }
        (Event::OrderLost(reason), Some(_)) => {
            state.order = None;
            if state.failures > 0 {
                return (state.fail(reason, None, at, false), Vec::new());
            }
            // Nothing was refused: a new order goes out at once, this one time.
            state.failures = 1;
            return state.ordering(at);
        }
        (Event::CaUnreachable { reason, retry_at }, _) => {
            return (state.fail(reason, retry_at, at, true), Vec::new());
        }
        _ => return (state, Vec::new()),
    };
    (state, vec![action])
}

fn window(mut state: State, event: Event, at: Moment) -> State {
    let Some(c) = &mut state.certificate else { return state };
    match event {
        // One that ends before it begins counts as no answer (RFC 9773 §4.2). One that was over before this certificate
        // was valid cannot be about it: obeyed, it would have each successor renewed as soon as it is there.
        Event::WindowSeen { start, end, .. } if end <= start || end <= c.not_before => {
            c.look_at = Some(at.now + WINDOW_RETRY);
        }
        Event::WindowSeen { start, end, look_at } => {
            // A point in the window is chosen once, and again when the window moves (RFC 9773 §4.2).
            if c.window != Some((start, end)) {
                c.window = Some((start, end));
                c.renew_at = ari(start, end, c.not_after, at);
            }
            c.look_at = Some(schedule::window_look(look_at, at.now));
        }
        Event::NoWindow { never } => c.look_at = (!never).then_some(at.now + WINDOW_RETRY),
        _ => {}
    }
    state
}
