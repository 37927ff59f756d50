//! The table of rules: by site, and there by what they name.
//!
//! Pure, and indifferent to the order in which records come. To check a response takes a look-up for its path, for each of
//! its surrogate keys and for each length that a prefix of its site has; the number of rules does not matter. What is
//! forgotten of rules makes them purge more, never less.

use super::{Scope, Subject, Verdict, record::Record};
use foldhash::fast::RandomState;
use std::{
    collections::{BTreeMap, HashMap},
    time::SystemTime,
};

type Map<K, V> = HashMap<K, V, RandomState>;

/// The most bytes that the texts of all rules have.
const MAX_TEXT: usize = 16 << 20;

/// The most soft purges of one thing that are told apart.
const MAX_SOFT: usize = 8;

/// This part of the bound is free after pruning, as long as sites have enough to prune.
const FREED: usize = 16;

/// As pruning takes a look at all rules, it is to free more than this part of the bound.
const LEAST_FREED: usize = 256;

/// The fewest rules that make pruning a site by itself worth while.
const FEW: usize = 8;

/// When one thing was purged.
#[derive(Debug, Clone, Default)]
struct Mark {
    /// The last hard purge; 0 if there was none.
    hard: u64,
    /// The soft purges since then, by number.
    soft: Vec<(u64, SystemTime)>,
}

impl Mark {
    fn add(&mut self, number: u64, since: Option<SystemTime>) {
        let Some(since) = since else {
            self.hard = self.hard.max(number);
            self.soft.retain(|(n, _)| *n > number);
            return;
        };
        let at = self.soft.partition_point(|(n, _)| *n < number);
        if number <= self.hard || self.soft.get(at).is_some_and(|(n, _)| *n == number) {
            return;
        }
        self.soft.insert(at, (number, since));
        if self.soft.len() > MAX_SOFT {
            self.merge();
        }
    }

    /// Takes two for one, which purges as much as the later one, and since the earlier one's time: the two that this makes
    /// the least difference to.
    fn merge(&mut self) {
        let apart = |i: &usize| {
            let (a, b) = (self.soft[*i].1, self.soft[i + 1].1);
            b.duration_since(a).unwrap_or_else(|e| e.duration())
        };
        if let Some(first) = (0..self.soft.len() - 1).min_by_key(apart) {
            let (_, since) = self.soft.remove(first);
            self.soft[first].1 = self.soft[first].1.min(since);
        }
    }

    fn check(&self, born: u64) -> Verdict {
        if self.hard > born {
            return Verdict::Gone;
        }
        let since = self.soft.iter().filter(|(n, _)| *n > born).map(|(_, since)| *since);
        since.min().map_or(Verdict::Kept, |since| Verdict::Soft { since })
    }

    /// The number of the last purge.
    fn last(&self) -> u64 {
        self.soft.last().map_or(self.hard, |(n, _)| *n)
    }

    /// Forgets what another rule says; whether anything is left.
    fn prune(&mut self, to: u64) -> bool {
        if self.hard <= to {
            self.hard = 0;
        }
        self.soft.retain(|(n, _)| *n > to);
        self.last() > 0
    }

    fn records<'a>(&'a self, site: i64, scope: Scope<'a>) -> impl Iterator<Item = Record<'a>> {
        let hard = (self.hard > 0).then_some((self.hard, None));
        let soft = self.soft.iter().map(|(n, since)| (*n, Some(*since)));
        hard.into_iter().chain(soft).map(move |(number, since)| Record::Rule {
            number,
            site,
            scope,
            since,
        })
    }
}

type Marks = Map<Box<str>, Mark>;

/// The rules of one site.
#[derive(Debug, Default)]
struct Site {
    /// The number of the last one.
    last: u64,
    all: Mark,
    /// All surrogate keys together, for what has more than are told apart.
    any_key: Mark,
    paths: Marks,
    prefixes: Marks,
    /// How many prefixes have a length.
    lengths: BTreeMap<usize, usize>,
    keys: Marks,
}

/// What a rule has added.
enum Added {
    /// Nothing: its like was there.
    Nothing,
    /// One, with a text of so many bytes.
    One(usize),
}

impl Site {
    fn add(&mut self, number: u64, scope: Scope<'_>, since: Option<SystemTime>) -> Added {
        self.last = self.last.max(number);
        let (marks, text) = match scope {
            Scope::Site => {
                let is_new = self.all.last() == 0;
                self.all.add(number, since);
                return if is_new { Added::One(0) } else { Added::Nothing };
            }
            Scope::Path(path) => (&mut self.paths, path),
            Scope::Prefix(prefix) => (&mut self.prefixes, prefix),
            Scope::Key(key) => {
                self.any_key.add(number, since);
                (&mut self.keys, key)
            }
        };
        if let Some(mark) = marks.get_mut(text) {
            mark.add(number, since);
            return Added::Nothing;
        }
        let mut mark = Mark::default();
        mark.add(number, since);
        marks.insert(text.into(), mark);
        if matches!(scope, Scope::Prefix(_)) {
            *self.lengths.entry(text.len()).or_default() += 1;
        }
        Added::One(text.len())
    }

    fn check(&self, born: u64, subject: &Subject<'_>) -> Verdict {
        if self.last <= born {
            return Verdict::Kept;
        }
        let of = |marks: &Marks, text: &str| marks.get(text).map_or(Verdict::Kept, |mark| mark.check(born));
        let mut verdict = self.all.check(born).and(of(&self.paths, subject.path));
        for length in self.lengths.range(..=subject.path.len()).map(|(length, _)| *length) {
            if let Some(start) = subject.path.get(..length) {
                verdict = verdict.and(of(&self.prefixes, start));
            }
        }
        if self.keys.is_empty() {
            return verdict;
        }
        if subject.keys.are_any() {
            return verdict.and(self.any_key.check(born));
        }
        let by_key = subject.keys.iter().map(|key| of(&self.keys, key));
        by_key.fold(verdict, Verdict::and)
    }

    /// Every mark that has a text, with what it is of.
    fn marks(&self) -> impl Iterator<Item = (Scope<'_>, &Mark)> {
        let paths = self.paths.iter().map(|(path, mark)| (Scope::Path(path), mark));
        let prefixes = self.prefixes.iter().map(|(prefix, mark)| (Scope::Prefix(prefix), mark));
        let keys = self.keys.iter().map(|(key, mark)| (Scope::Key(key), mark));
        paths.chain(prefixes).chain(keys)
    }

    fn text(&self) -> usize {
        let marks = self.paths.keys().chain(self.prefixes.keys()).chain(self.keys.keys());
        marks.map(|text| text.len()).sum()
    }

    /// How many rules there are.
    fn len(&self) -> usize {
        usize::from(self.all.last() > 0) + self.paths.len() + self.prefixes.len() + self.keys.len()
    }

    /// Purges everything born before the last of the older half of the rules, in their place.
    fn prune_half(&mut self) {
        if let Some(to) = middle(self.marks().map(|(_, mark)| mark.last()).collect()) {
            self.all.add(to, None);
            self.prune_marks(to);
        }
    }

    /// Forgets what a rule for everything born before `to` says.
    fn prune(&mut self, to: u64) {
        self.all.prune(to);
        self.prune_marks(to);
    }

    fn prune_marks(&mut self, to: u64) {
        self.any_key.prune(to);
        for marks in [&mut self.paths, &mut self.prefixes, &mut self.keys] {
            marks.retain(|_, mark| mark.prune(to));
            marks.shrink_to_fit();
        }
        self.lengths.clear();
        for prefix in self.prefixes.keys() {
            *self.lengths.entry(prefix.len()).or_default() += 1;
        }
    }
}

/// The number that half of these are not above.
fn middle(mut numbers: Vec<u64>) -> Option<u64> {
    let last = numbers.len().checked_sub(1)?;
    Some(*numbers.select_nth_unstable(last / 2).1)
}

/// All rules.
#[derive(Debug)]
pub(super) struct Rules {
    max: usize,
    /// Everything born before is gone.
    floor: u64,
    /// Between which numbers what was born is gone, in order.
    gaps: Vec<(u64, u64)>,
    position: Option<u64>,
    sites: Map<i64, Site>,
    count: usize,
    text: usize,
}

impl Rules {
    /// No rules yet, and never more than `max`.
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            floor: 0,
            gaps: Vec::new(),
            position: None,
            sites: Map::default(),
            count: 0,
            text: 0,
        }
    }

    pub(super) fn apply(&mut self, record: &Record<'_>) {
        match *record {
            Record::Clock(_) => {}
            Record::Settled(sequence) => self.position = self.position.max(Some(sequence)),
            Record::Floor(number) => self.raise_floor(number),
            Record::Gap { after, number } => {
                let at = self.gaps.partition_point(|gap| *gap < (after, number));
                self.gaps.insert(at, (after, number));
            }
            Record::Rule { number, .. } if number <= self.floor => {}
            Record::Rule {
                number,
                site,
                scope,
                since,
            } => {
                if let Added::One(text) = self.sites.entry(site).or_default().add(number, scope, since) {
                    self.count += 1;
                    self.text += text;
                }
            }
        }
        while self.len() > self.max || self.text > MAX_TEXT {
            self.prune_largest();
        }
    }

    pub(super) fn check(&self, born: u64, subject: &Subject<'_>) -> Verdict {
        if born < self.floor || self.is_in_gap(born) {
            return Verdict::Gone;
        }
        let site = self.sites.get(&subject.site);
        site.map_or(Verdict::Kept, |site| site.check(born, subject))
    }

    pub(super) fn position(&self) -> Option<u64> {
        self.position
    }

    /// How many rules there are.
    pub(super) fn len(&self) -> usize {
        self.count + self.gaps.len()
    }

    pub(super) fn records(&self) -> impl Iterator<Item = Record<'_>> {
        let floor = (self.floor > 0).then_some(Record::Floor(self.floor));
        let gaps = self.gaps.iter().map(|(after, number)| Record::Gap {
            after: *after,
            number: *number,
        });
        let rules = self.sites.iter().flat_map(|(id, site)| {
            let all = std::iter::once((Scope::Site, &site.all));
            let marks = all.chain(site.marks());
            marks.flat_map(|(scope, mark)| mark.records(*id, scope))
        });
        floor
            .into_iter()
            .chain(gaps)
            .chain(rules)
            .chain(self.position.map(Record::Settled))
    }

    fn is_in_gap(&self, born: u64) -> bool {
        let next = self.gaps.partition_point(|(after, _)| *after < born);
        self.gaps[..next].last().is_some_and(|(_, number)| born < *number)
    }

    fn raise_floor(&mut self, to: u64) {
        self.floor = self.floor.max(to);
        self.gaps.retain(|(_, number)| *number > to);
        for site in self.sites.values_mut() {
            site.prune(to);
        }
        self.sites.retain(|_, site| site.len() > 0);
        self.recount();
    }

    /// Has rules that purge more take the place of the older half of those of the sites that have most; only where none has
    /// many, of the older half of all.
    fn prune_largest(&mut self) {
        let by_text = self.text > MAX_TEXT;
        let size = |site: &Site| if by_text { site.text() } else { site.len() };
        let bound = if by_text { MAX_TEXT } else { self.max };
        let many = self.sites.values_mut().filter(|site| site.len() >= FEW);
        let mut sites: Vec<_> = many.map(|site| (size(site), site)).collect();
        sites.sort_unstable_by_key(|(size, _)| std::cmp::Reverse(*size));
        let mut freed = 0;
        for (before, site) in sites {
            if freed > bound / FREED {
                break;
            }
            site.prune_half();
            freed += before - size(site);
        }
        self.recount();
        if freed > bound / LEAST_FREED {
            return;
        }
        let of_sites = self.sites.values().flat_map(|site| {
            let all = Some(site.all.last()).filter(|last| *last > 0);
            all.into_iter().chain(site.marks().map(|(_, mark)| mark.last()))
        });
        let of_gaps = self.gaps.iter().map(|(_, number)| *number);
        if let Some(to) = middle(of_sites.chain(of_gaps).collect()) {
            self.raise_floor(to);
        }
    }

    fn recount(&mut self) {
        self.count = self.sites.values().map(Site::len).sum();
        self.text = self.sites.values().map(Site::text).sum();
    }
}
