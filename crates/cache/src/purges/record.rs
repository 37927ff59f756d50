//! Rules as bytes: a version, a kind, numbers in little endian, and a text to the end.
//!
//! A record says all that it is about, so that they can be read in any order. One that cannot be read is never skipped.

use super::Scope;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Changes with the meaning of any record.
const VERSION: u8 = 1;

const CLOCK: u8 = 0;
const FLOOR: u8 = 1;
const GAP: u8 = 2;
const SETTLED: u8 = 3;
const SITE: u8 = 4;
const PATH: u8 = 5;
const PREFIX: u8 = 6;
const KEY: u8 = 7;

/// What a journal holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Record<'a> {
    /// The clock has come so far.
    Clock(u64),
    /// Everything born before is gone.
    Floor(u64),
    /// Everything born between these two is gone: a process ended, and purges that it made may be lacking.
    Gap { after: u64, number: u64 },
    /// Everything is among the rules that the change log purges up to this entry.
    Settled(u64),
    /// A purge of something, soft if it says since when it is stale.
    Rule {
        number: u64,
        site: i64,
        scope: Scope<'a>,
        since: Option<SystemTime>,
    },
}

impl<'a> Record<'a> {
    /// What it says of the clock.
    pub(super) fn number(&self) -> u64 {
        match *self {
            Self::Clock(number) | Self::Floor(number) | Self::Gap { number, .. } | Self::Rule { number, .. } => number,
            Self::Settled(_) => 0,
        }
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        let mut put = |kind: u8, numbers: &[u64], text: &str| {
            bytes.push(kind);
            for number in numbers {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            bytes.extend_from_slice(text.as_bytes());
        };
        match self {
            Self::Clock(number) => put(CLOCK, &[number], ""),
            Self::Floor(number) => put(FLOOR, &[number], ""),
            Self::Gap { after, number } => put(GAP, &[after, number], ""),
            Self::Settled(sequence) => put(SETTLED, &[sequence], ""),
            Self::Rule {
                number,
                site,
                scope,
                since,
            } => {
                let (kind, text) = match scope {
                    Scope::Site => (SITE, ""),
                    Scope::Path(path) => (PATH, path),
                    Scope::Prefix(prefix) => (PREFIX, prefix),
                    Scope::Key(key) => (KEY, key),
                };
                put(kind, &[number, site.cast_unsigned(), since.map_or(0, millis)], text);
            }
        }
        bytes
    }

    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let (&[version, kind], mut rest) = bytes.split_first_chunk()?;
        if version != VERSION {
            return None;
        }
        let mut number = || {
            let (number, after) = rest.split_first_chunk()?;
            rest = after;
            Some(u64::from_le_bytes(*number))
        };
        let record = match kind {
            CLOCK => Self::Clock(number()?),
            FLOOR => Self::Floor(number()?),
            GAP => Self::Gap {
                after: number()?,
                number: number()?,
            },
            SETTLED => Self::Settled(number()?),
            SITE..=KEY => {
                let (number, site, millis) = (number()?, number()?.cast_signed(), number()?);
                let since = if millis == 0 { None } else { Some(time(millis)?) };
                let text = str::from_utf8(std::mem::take(&mut rest)).ok()?;
                let scope = match kind {
                    PATH => Scope::Path(text),
                    PREFIX => Scope::Prefix(text),
                    KEY => Scope::Key(text),
                    _ if text.is_empty() => Scope::Site,
                    _ => return None,
                };
                Self::Rule {
                    number,
                    site,
                    scope,
                    since,
                }
            }
            _ => return None,
        };
        rest.is_empty().then_some(record)
    }
}

/// Milliseconds since 1970, at least 1: 0 is for hard purges. What is cut off makes it stale a little earlier.
fn millis(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// The time that so many milliseconds stand for, if there is such a time.
fn time(millis: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rule(scope: Scope<'_>, millis: Option<u64>) -> Record<'_> {
        Record::Rule {
            number: 7,
            site: -3,
            scope,
            since: millis.map(|ms| UNIX_EPOCH + Duration::from_millis(ms)),
        }
    }

    fn all() -> Vec<Record<'static>> {
        vec![
            Record::Clock(1),
            Record::Floor(u64::MAX),
            Record::Gap { after: 1, number: 2 },
            Record::Settled(9),
            rule(Scope::Site, None),
            rule(Scope::Path("é/b"), Some(1)),
            rule(Scope::Prefix("a"), None),
            rule(Scope::Key("k"), Some(1_800_000_000_123)),
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        for record in all() {
            assert_eq!(Record::read(&record.to_bytes()), Some(record));
        }
    }

    #[test]
    fn what_is_not_whole_or_not_ours_is_not_read() {
        for record in all() {
            let bytes = record.to_bytes();
            let head = bytes.len().min(26);
            for end in 0..head {
                assert_eq!(Record::read(&bytes[..end]), None, "{record:?} to {end}");
            }
        }
        for (case, bytes) in [
            ("another version", &[2, CLOCK, 0, 0, 0, 0, 0, 0, 0, 0][..]),
            ("another kind", &[VERSION, 8, 0, 0, 0, 0, 0, 0, 0, 0]),
            ("more than a number", &[VERSION, CLOCK, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            (
                "no UTF-8",
                &[&rule(Scope::Path(""), None).to_bytes()[..], &[0xff]].concat(),
            ),
            (
                "a site with a text",
                &[&rule(Scope::Site, None).to_bytes()[..], b"a"].concat(),
            ),
        ] {
            assert_eq!(Record::read(bytes), None, "{case}");
        }
    }

    #[test]
    fn a_time_that_is_no_whole_millisecond_is_an_earlier_one() {
        for (nanos, expected) in [(5_900_000, 5_000_000), (1, 1_000_000), (0, 1_000_000)] {
            let at = UNIX_EPOCH + Duration::from_nanos(nanos);
            let expected = UNIX_EPOCH + Duration::from_nanos(expected);
            assert_eq!(time(millis(at)), Some(expected), "{nanos} ns");
        }
    }
}
