//! When to do it: every waiting time of the life cycle, as functions of times and a random number.

use super::{Millis, Moment};

const SECOND: Millis = 1000;
const MINUTE: Millis = 60 * SECOND;
const HOUR: Millis = 60 * MINUTE;
const DAY: Millis = 24 * HOUR;

/// The longest that anything waits by itself; what seems to lie further ahead was written by a clock that went wrong.
const LONGEST: Millis = 8 * DAY;

/// Whether a waiting time is over.
pub(super) fn is_over(next: Millis, now: Millis) -> bool {
    next <= now || next - now > LONGEST
}

/// The DNS is looked at again after an eighth of the time waited: every second at first, after two days every 6 h.
pub(super) fn next_dns_look(waited: Millis, at: Moment) -> Millis {
    at.now + jitter((waited / 8).clamp(SECOND, 6 * HOUR), at.random)
}

/// After failure number `failures` (from 0): 1 min, doubling to 6 h, after 30 days once a day. `gentle` is for a CA that
/// did not answer, which costs it nothing: from 5 s on. While a certificate serves for `left` more, a sixteenth of that
/// at most, so that one of a short life is not lost to waiting.
pub(super) fn after_failure(failures: u32, age: Millis, left: Option<Millis>, gentle: bool, at: Moment) -> Millis {
    let first = if gentle { 5 * SECOND } else { MINUTE };
    let doubled = first.saturating_mul(1 << failures.min(16));
    let longest = if age > 30 * DAY { DAY } else { 6 * HOUR };
    let mut wait = doubled.min(longest);
    if let Some(left) = left.filter(|left| *left > 0) {
        wait = wait.min((left / 16).max(SECOND));
    }
    at.now + jitter(wait, at.random)
}

/// Not before the CA allows it, a week at most.
pub(super) fn obey(own: Millis, retry_at: Option<Millis>, now: Millis) -> Millis {
    retry_at.map_or(own, |retry_at| own.max(retry_at.min(now + 7 * DAY)))
}

/// The next look at an order: 50 ms after the first, doubling to 10 s; or when the CA says, within a minute.
pub(super) fn poll(polls: u32, retry_at: Option<Millis>, now: Millis) -> Millis {
    let own = now + (50 << polls.min(8)).min(10 * SECOND);
    retry_at.map_or(own, |retry_at| retry_at.clamp(own, now + MINUTE))
}

/// Two thirds of the lifetime, and up to a thirtieth of it later.
pub(super) fn two_thirds(not_before: Millis, not_after: Millis, at: Moment) -> Millis {
    let lifetime = (not_after - not_before).max(0);
    not_before + lifetime / 3 * 2 + (lifetime as f64 / 30.0 * at.random) as Millis
}

/// A random point in the CA's window (RFC 9773 §4.2), before the certificate ends.
pub(super) fn ari(start: Millis, end: Millis, not_after: Millis, at: Moment) -> Millis {
    let width = (end - start).max(0) as f64;
    (start + (width * at.random) as Millis).min(not_after)
}

/// When to ask for the window again: as the CA says, but every day, and not more than once a minute.
pub(super) fn window_look(asked: Millis, now: Millis) -> Millis {
    asked.clamp(now + MINUTE, now + DAY)
}

/// A tenth more or less.
fn jitter(wait: Millis, random: f64) -> Millis {
    (wait as f64 * (0.9 + 0.2 * random)) as Millis
}
