//! What was purged, as rules that stored responses are checked against when they are found.
//!
//! Each purge gets the next number of a clock, and each stored response remembers the clock's value when its fetch began
//! (`born`). A rule purges what it names and what was born before it. So a purge costs the same however much is stored, in
//! memory or on disk, and wins over fetches under way. Rules outlive the process as records of a journal.

mod keys;
mod record;
mod rules;

pub use keys::SURROGATE_KEYS;
pub(crate) use keys::SurrogateKeys;

use edgeweir_model::{Purge, Purged};
use parking_lot::RwLock;
use record::Record;
use rules::Rules;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

/// The most rules that are kept. Beyond, the older half of those of the sites that have most, where none has many the older
/// half of all, is replaced by one rule that purges everything from before, which is more than was asked for.
const MAX_RULES: usize = 1 << 16;

/// By how much the clock goes on at a restart: more than a process has purges, so that no number is given twice.
const LIFE: u64 = 1 << 32;

/// A purge of something of one site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule<'a> {
    pub(crate) site: i64,
    pub(crate) scope: Scope<'a>,
    /// Stale since the purge, and not gone.
    pub(crate) soft: bool,
}

/// What of a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope<'a> {
    /// Everything.
    Site,
    /// This path, whatever the query.
    Path(&'a str),
    /// Every path that begins so.
    Prefix(&'a str),
    /// What the origin gave this surrogate key.
    Key(&'a str),
}

impl<'a> Rule<'a> {
    /// The rules of a purge: several where it names several surrogate keys.
    pub(crate) fn of(site: i64, purge: &'a Purge) -> impl Iterator<Item = Self> {
        let (one, keys): (_, &[_]) = match &purge.what {
            Purged::Object(key) => (Some(Scope::Path(key.as_str())), &[]),
            Purged::Prefix(prefix) => (Some(Scope::Prefix(prefix.as_str())), &[]),
            Purged::SurrogateKeys(keys) => (None, keys),
            Purged::Everything => (Some(Scope::Site), &[]),
        };
        let keys = keys.iter().map(|key| Scope::Key(key.as_str()));
        let soft = purge.soft;
        one.into_iter().chain(keys).map(move |scope| Self { site, scope, soft })
    }
}

/// A stored response, as rules see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) site: i64,
    /// The decoded object key.
    pub(crate) path: &'a str,
    pub(crate) keys: &'a SurrogateKeys,
}

/// What rules say of a stored response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// None purges it.
    Kept,
    /// It is stale since then at the latest, whatever its lifetime.
    Soft { since: SystemTime },
    /// It may not be used again, nor revalidated.
    Gone,
}

impl Verdict {
    /// What two rules say together.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Gone, _) | (_, Self::Gone) => Self::Gone,
            (Self::Soft { since: a }, Self::Soft { since: b }) => Self::Soft { since: a.min(b) },
            (soft @ Self::Soft { .. }, Self::Kept) | (Self::Kept, soft) => soft,
        }
    }
}

/// Records from which nothing can be said of what was purged: nothing that was stored with them may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record of purges cannot be read")]
pub(crate) struct Unreadable;

/// All that was purged.
#[derive(Debug)]
pub(crate) struct Purges {
    /// The number of the last purge. It goes on once the rule is there, under the rules' lock.
    clock: AtomicU64,
    rules: RwLock<Rules>,
}

impl Purges {
    /// Nothing was purged, and nothing is stored. The clock stands at 1, so that nothing is born at 0.
    pub(crate) fn new() -> Self {
        Self::holding(Rules::new(MAX_RULES), 1)
    }

    fn holding(rules: Rules, clock: u64) -> Self {
        Self {
            clock: AtomicU64::new(clock),
            rules: RwLock::new(rules),
        }
    }

    /// The clock: a response whose fetch begins now is born at it. One that was checked after this was read, and was kept,
    /// need not be checked again before it moves on, and may then be checked as if born at what was read.
    pub(crate) fn now(&self) -> u64 {
        self.clock.load(Ordering::Acquire)
    }

    /// Purges what a rule names, and gives the record of it for the journal. Records may be written in any order.
    pub(crate) fn add(&self, rule: &Rule<'_>, at: SystemTime) -> Vec<u8> {
        self.next(|number| {
            let since = rule.soft.then_some(at);
            let Rule { site, scope, .. } = *rule;
            Record::Rule {
                number,
                site,
                scope,
                since,
            }
        })
    }

    /// Purges everything of all sites, hard, and gives the record of it.
    pub(crate) fn add_everything(&self) -> Vec<u8> {
        self.next(Record::Floor)
    }

    fn next<'a>(&self, record: impl FnOnce(u64) -> Record<'a>) -> Vec<u8> {
        let mut rules = self.rules.write();
        let number = self.clock.load(Ordering::Relaxed) + 1;
        let record = record(number);
        rules.apply(&record);
        self.clock.store(number, Ordering::Release);
        record.to_bytes()
    }

    /// What the rules say of a response that was born then.
    pub(crate) fn check(&self, born: u64, subject: &Subject<'_>) -> Verdict {
        self.rules.read().check(born, subject)
    }

    /// The change-log entry up to which everything is purged that it purges; `None` before the first [`Purges::settle`].
    pub(crate) fn position(&self) -> Option<u64> {
        self.rules.read().position()
    }

    /// Notes that what the change log purges up to this entry is among the rules, and gives the record of it, which must
    /// come to the journal after theirs.
    pub(crate) fn settle(&self, sequence: u64) -> Vec<u8> {
        let record = Record::Settled(sequence);
        self.rules.write().apply(&record);
        record.to_bytes()
    }

    /// How many rules there are. A journal of many more records is worth writing anew, from [`Purges::records`].
    pub(crate) fn len(&self) -> usize {
        self.rules.read().len()
    }

    /// Everything, as few records as possible: what a journal begins with.
    pub(crate) fn records(&self) -> Vec<Vec<u8>> {
        let rules = self.rules.read();
        let clock = Record::Clock(self.clock.load(Ordering::Acquire));
        std::iter::once(clock)
            .chain(rules.records())
            .map(Record::to_bytes)
            .collect()
    }

    /// The rules of an earlier process. What was born after the last purge that its journal holds is gone: purges may be
    /// lacking. [`Purges::records`] must be in the journal before anything is stored.
    pub(crate) fn restore<'a>(records: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, Unreadable> {
        Self::restore_within(MAX_RULES, records)
    }

    fn restore_within<'a>(max_rules: usize, records: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, Unreadable> {
        let mut rules = Rules::new(max_rules);
        let mut clock = None;
        for bytes in records {
            let record = Record::read(bytes).ok_or(Unreadable)?;
            let is_first = clock.is_none();
            if is_first && !matches!(record, Record::Clock(_)) {
                return Err(Unreadable);
            }
            clock = clock.max(Some(record.number()));
            rules.apply(&record);
        }
        let after = clock.ok_or(Unreadable)?;
        let number = after.checked_add(LIFE).ok_or(Unreadable)?;
        rules.apply(&Record::Gap { after, number });
        Ok(Self::holding(rules, number))
    }
}

#[cfg(test)]
mod tests;
