//! When a playlist is asked for again: as soon as a new version can be there, and seldom before. Pure.
//!
//! Versions of a live playlist come at a steady pace, so that the instant of the next one is known as well as that of the
//! last. That one lies between two polls: the last that did not see it, and the first that did. The time between is
//! halved with each version, until it is small; after that a poll comes right after each version.

use std::time::{Duration, Instant};

/// The part of an interval by which each poll that finds a new version comes earlier than the one before, so that one
/// that came late does not stay late for ever.
const ADVANCE: f64 = 0.002;

/// What is left uncertain of the instant of a version, as a part of the interval; and how long after a poll that found
/// nothing the next one is made, at least.
const STEP: f64 = 0.06;

/// The same, in any case.
const LEAST_STEP: Duration = Duration::from_millis(40);

/// The wait after a first failure, which is doubled with each further one.
const RETRY: Duration = Duration::from_millis(250);

/// The longest wait after a failure. It is half an interval at most, so that little of what comes after an outage is
/// seen late.
const LONGEST_RETRY: Duration = Duration::from_secs(2);

/// The times of one playlist.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    /// How long a version is the last one.
    interval: Duration,
    /// How long what is there is taken as it is, where there is no beat; else zero.
    rest: Duration,
    /// The present version was made in this time.
    made: (Instant, Instant),
    /// When it was looked for without success last.
    missed: Option<Instant>,
    /// How often in a row.
    misses: u32,
    failures: u32,
    due: Instant,
}

impl Schedule {
    /// The schedule of a playlist that nothing is known of: it is due.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            interval: Duration::ZERO,
            rest: Duration::ZERO,
            made: (now, now),
            missed: None,
            misses: 0,
            failures: 0,
            due: now,
        }
    }

    /// When a new version can be there.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    fn step(&self) -> Duration {
        self.interval.mul_f64(STEP).max(LEAST_STEP)
    }

    /// A new version was there at `now`, and the one after it will come `interval` after it.
    pub(super) fn changed(&mut self, now: Instant, interval: Duration) {
        let before = now.checked_sub(interval).unwrap_or(now);
        // Not before the last poll, if that did not see it; else not before it was expected at the earliest. What was
        // first seen long after that is of any time within the last interval, and so is the first.
        let expected = (!self.interval.is_zero()).then(|| self.made.0 + self.interval);
        let missed = self.missed.filter(|missed| *missed >= self.made.0);
        let earliest = missed.or(expected).map_or(before, |at| at.clamp(before, now));
        self.interval = interval;
        self.rest = Duration::ZERO;
        self.made = (earliest, now);
        self.missed = None;
        self.misses = 0;
        self.failures = 0;
        self.due = self.next(earliest + interval, now + interval).max(now + LEAST_STEP);
    }

    /// What was there, new or not, is taken as it is for so long: it has no beat.
    pub(super) fn rests(&mut self, now: Instant, interval: Duration) {
        *self = Self {
            rest: interval,
            due: now + interval,
            ..Self::new(now)
        };
    }

    /// The version that was known was there still.
    pub(super) fn unchanged(&mut self, now: Instant) {
        if !self.rest.is_zero() {
            return self.rests(now, self.rest);
        }
        self.failures = 0;
        self.missed = Some(now);
        let latest = self.made.1 + self.interval;
        // One that does not come is looked for more and more seldom, down to twice an interval (RFC 8216 §6.3.4).
        let overdue = if now > latest { self.misses } else { 0 };
        self.misses = self.misses.saturating_add(1);
        let seldom = self.step() * 2u32.saturating_pow(overdue.min(8));
        let wait = seldom.min(self.interval / 2).max(self.step());
        self.due = self.next(now, latest).max(now + wait);
    }

    /// Whether it has failed more than once in a row.
    pub(super) fn fails_again(&self) -> bool {
        self.failures > 1
    }

    /// The origin failed.
    pub(super) fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        let longest = (self.interval / 2).clamp(RETRY, LONGEST_RETRY);
        let wait = RETRY * 2u32.saturating_pow(self.failures.min(8) - 1);
        self.due = now + wait.min(longest);
    }

    /// When to look for a version that comes between the two.
    fn next(&self, earliest: Instant, latest: Instant) -> Instant {
        let uncertain = latest.saturating_duration_since(earliest);
        if uncertain <= self.step() {
            earliest + uncertain.saturating_sub(self.interval.mul_f64(ADVANCE))
        } else {
            earliest + uncertain / 2
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Polls whenever it is due an origin that makes a version each `interval`, give or take `jitter`; how many polls it
    /// took a version, and how late they were seen on average, after the first ten.
    fn polled(interval: Duration, jitter: Duration, versions: u32) -> (f64, Duration) {
        let start = Instant::now();
        let made = |n: u32| {
            let noise = f64::from(n.wrapping_mul(2_654_435_761) >> 8) / f64::from(1 << 24);
            start + interval * n + jitter.mul_f64(noise)
        };
        // The first poll comes at no particular time.
        let mut now = start + interval.mul_f64(0.7);
        let mut schedule = Schedule::new(now);
        let (mut seen, mut polls, mut late) = (None, 0, Duration::ZERO);
        while seen != Some(versions) {
            let newest = (0..=versions).rev().find(|n| made(*n) <= now);
            if newest == seen {
                schedule.unchanged(now);
            } else {
                seen = newest;
                schedule.changed(now, interval);
                if seen > Some(10) {
                    late += now - made(seen.unwrap());
                }
            }
            if seen > Some(10) {
                polls += 1;
            }
            now = schedule.due();
        }
        (f64::from(polls) / f64::from(versions - 10), late / (versions - 10))
    }

    #[test]
    fn few_polls_a_version_and_soon_after_it() {
        for (interval, jitter) in [(1000, 0), (2000, 30), (2000, 80), (4000, 50), (6000, 100), (500, 10)] {
            let interval = Duration::from_millis(interval);
            let (polls, late) = polled(interval, Duration::from_millis(jitter), 400);
            assert!((1.0..=1.17).contains(&polls), "{interval:?} {jitter}: {polls}");
            let most = interval.mul_f64(0.07) + Duration::from_millis(jitter);
            assert!(late <= most, "{interval:?} {jitter}: {late:?}");
        }
    }

    #[test]
    fn an_origin_that_fails_is_asked_more_and_more_seldom() {
        let mut now = Instant::now();
        let mut schedule = Schedule::new(now);
        schedule.changed(now, Duration::from_secs(6));
        let mut waits = Vec::new();
        for _ in 0..12 {
            schedule.failed(now);
            waits.push((schedule.due() - now).as_millis());
            now = schedule.due();
        }
        assert_eq!(waits[..5], [250, 500, 1000, 2000, 2000]);
        assert!(waits[5..].iter().all(|w| *w == 2000));
        schedule.changed(now, Duration::from_secs(2));
        assert!(schedule.due() > now + Duration::from_millis(900));
    }

    #[test]
    fn one_without_a_beat_is_asked_at_fixed_times() {
        let (mut now, rest) = (Instant::now(), Duration::from_secs(5));
        let mut schedule = Schedule::new(now);
        schedule.rests(now, rest);
        for _ in 0..3 {
            assert_eq!(schedule.due(), now + rest);
            now = schedule.due();
            schedule.unchanged(now);
        }
    }

    #[test]
    fn one_that_stands_still_is_asked_twice_an_interval() {
        let mut now = Instant::now();
        let mut schedule = Schedule::new(now);
        schedule.changed(now, Duration::from_secs(6));
        let mut waits = Vec::new();
        for _ in 0..20 {
            now = schedule.due();
            schedule.unchanged(now);
            waits.push(schedule.due() - now);
        }
        assert!(
            waits[10..].iter().all(|wait| *wait == Duration::from_secs(3)),
            "{waits:?}"
        );
    }
}
