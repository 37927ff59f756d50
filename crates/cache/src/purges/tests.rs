//! The table against a list of everything that was purged, in order.

#![allow(clippy::unwrap_used)]

use super::*;
use proptest::{collection::vec, prelude::*, sample::select};
use std::time::{Duration, UNIX_EPOCH};

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
}

/// A step of a history.
#[derive(Debug, Clone)]
enum Step {
    Purge {
        site: i64,
        scope: Named,
        soft: bool,
        at: u64,
    },
    Everything,
    /// A response is stored whose fetch begins now.
    Store(Stored),
}

/// A [`Scope`] with its text.
#[derive(Debug, Clone)]
enum Named {
    Site,
    Path(String),
    Prefix(String),
    Key(String),
}

impl Named {
    fn scope(&self) -> Scope<'_> {
        match self {
            Self::Site => Scope::Site,
            Self::Path(path) => Scope::Path(path),
            Self::Prefix(prefix) => Scope::Prefix(prefix),
            Self::Key(key) => Scope::Key(key),
        }
    }
}

#[derive(Debug, Clone)]
struct Stored {
    site: i64,
    path: String,
    keys: SurrogateKeys,
}

impl Stored {
    fn subject(&self) -> Subject<'_> {
        Subject {
            site: self.site,
            path: &self.path,
            keys: &self.keys,
        }
    }

    fn has(&self, key: &str) -> bool {
        self.keys.are_any() || self.keys.iter().any(|own| own == key)
    }
}

/// What was purged, by number.
#[derive(Debug, Default)]
struct Model(Vec<(u64, Step)>);

impl Model {
    fn check(&self, born: u64, stored: &Stored) -> Verdict {
        let mut verdict = Verdict::Kept;
        for (_, step) in self.0.iter().filter(|(number, _)| *number > born) {
            let says = match step {
                Step::Everything => Verdict::Gone,
                Step::Purge {
                    site,
                    scope,
                    soft,
                    at: seconds,
                } if *site == stored.site => {
                    let named = match scope {
                        Named::Site => true,
                        Named::Path(path) => *path == stored.path,
                        Named::Prefix(prefix) => stored.path.starts_with(prefix.as_str()),
                        Named::Key(key) => stored.has(key),
                    };
                    match (named, soft) {
                        (false, _) => Verdict::Kept,
                        (true, true) => Verdict::Soft { since: at(*seconds) },
                        (true, false) => Verdict::Gone,
                    }
                }
                _ => Verdict::Kept,
            };
            verdict = verdict.and(says);
        }
        verdict
    }
}

/// Whether this purges at least as much.
fn is_no_less(verdict: Verdict, than: Verdict) -> bool {
    verdict.and(than) == verdict
}

/// A history played through.
struct Played {
    purges: Purges,
    model: Model,
    stored: Vec<(u64, Stored)>,
    /// As a journal that is only ever appended to holds them.
    records: Vec<Vec<u8>>,
}

fn play(steps: Vec<Step>, purges: Purges) -> Played {
    let (mut model, mut stored, mut records) = (Model::default(), Vec::new(), purges.records());
    for step in steps {
        match &step {
            Step::Purge {
                site,
                scope,
                soft,
                at: seconds,
            } => {
                let (site, scope, soft) = (*site, scope.scope(), *soft);
                records.push(purges.add(&Rule { site, scope, soft }, at(*seconds)));
            }
            Step::Everything => records.push(purges.add_everything()),
            Step::Store(response) => {
                stored.push((purges.now(), response.clone()));
                continue;
            }
        }
        model.0.push((purges.now(), step));
    }
    Played {
        purges,
        model,
        stored,
        records,
    }
}

fn restored(records: &[Vec<u8>]) -> Purges {
    Purges::restore(records.iter().map(Vec::as_slice)).unwrap()
}

/// Purges of few things, so that many are purged again, and responses.
fn step(soft: impl Strategy<Value = bool>) -> impl Strategy<Value = Step> {
    let path = || "[ab/é]{1,4}";
    let key = || select(vec!["k", "l", "m"]).prop_map(str::to_owned);
    let keys = prop_oneof![
        6 => select(vec!["", "k", "k l", "l m n", "n"]).prop_map(SurrogateKeys::from_text),
        1 => Just(SurrogateKeys::from_text(",")),
    ];
    let scope = prop_oneof![
        1 => Just(Named::Site),
        4 => path().prop_map(Named::Path),
        4 => path().prop_map(Named::Prefix),
        4 => key().prop_map(Named::Key),
    ];
    let site = || 0..3_i64;
    prop_oneof![
        10 => (site(), scope, soft, 0..50_u64).prop_map(|(site, scope, soft, at)| Step::Purge { site, scope, soft, at }),
        1 => Just(Step::Everything),
        10 => (site(), path(), keys).prop_map(|(site, path, keys)| Step::Store(Stored { site, path, keys })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn as_a_list_of_all_purges_says(steps in vec(step(any::<bool>()), 1..60)) {
        // So few soft ones that all are told apart.
        let mut soft_ones = 0;
        let steps = steps.into_iter().map(|step| match step {
            Step::Purge { site, scope, soft: true, at } => {
                soft_ones += 1;
                Step::Purge { site, scope, soft: soft_ones <= 8, at }
            }
            other => other,
        });
        let played = play(steps.collect(), Purges::new());
        let mut shuffled = played.records.clone();
        shuffled[1..].reverse();
        let again = restored(&played.purges.records());
        let appended = restored(&played.records);
        let reversed = restored(&shuffled);
        for (born, stored) in &played.stored {
            let expected = played.model.check(*born, stored);
            for (case, purges) in [
                ("at once", &played.purges),
                ("restored", &again),
                ("restored from the first to the last", &appended),
                ("restored from the last to the first", &reversed),
            ] {
                prop_assert_eq!(purges.check(*born, &stored.subject()), expected, "{}: {} {:?}", case, born, stored);
            }
        }
    }

    #[test]
    fn many_soft_purges_are_stale_no_later(steps in vec(step(Just(true)), 1..200)) {
        let played = play(steps, Purges::new());
        let again = restored(&played.purges.records());
        for (born, stored) in &played.stored {
            let expected = played.model.check(*born, stored);
            let verdict = played.purges.check(*born, &stored.subject());
            let same_kind = std::mem::discriminant(&verdict) == std::mem::discriminant(&expected);
            prop_assert!(same_kind && is_no_less(verdict, expected), "{verdict:?} for {expected:?}");
            prop_assert!(is_no_less(again.check(*born, &stored.subject()), expected));
        }
    }

    #[test]
    fn rules_beyond_the_bound_purge_more_and_never_less(
        steps in vec(step(any::<bool>()), 1..120),
        max in 1..40_usize,
    ) {
        let played = play(steps, Purges::holding(Rules::new(max), 1));
        let records = played.purges.records();
        prop_assert!(played.purges.len() <= max);
        let again = Purges::restore_within(max, records.iter().map(Vec::as_slice)).unwrap();
        prop_assert!(again.len() <= max);
        for (born, stored) in &played.stored {
            let expected = played.model.check(*born, stored);
            let verdict = played.purges.check(*born, &stored.subject());
            prop_assert!(is_no_less(verdict, expected), "{verdict:?} for {expected:?}");
            prop_assert!(is_no_less(again.check(*born, &stored.subject()), verdict));
        }
        // It forgets no more than it must: what nobody has purged since is kept.
        let fresh = Stored { site: 0, path: "a".to_owned(), keys: SurrogateKeys::default() };
        prop_assert_eq!(played.purges.check(played.purges.now(), &fresh.subject()), Verdict::Kept);
    }

    #[test]
    fn a_journal_whose_end_is_lost_lets_nothing_come_back(steps in vec(step(any::<bool>()), 1..60), kept in 1..60_usize) {
        let mut played = play(steps, Purges::new());
        played.records.truncate(kept);
        let last = kept.min(played.records.len()) as u64;
        let again = restored(&played.records);
        played.model.0.retain(|(number, _)| *number <= last);
        for (born, stored) in &played.stored {
            let verdict = again.check(*born, &stored.subject());
            if *born > last {
                prop_assert_eq!(verdict, Verdict::Gone);
            } else {
                prop_assert!(is_no_less(verdict, played.model.check(*born, stored)));
            }
        }
    }

    #[test]
    fn no_record_is_misread(bytes in vec(any::<u8>(), 0..40), like_ours in any::<bool>()) {
        let mut bytes = bytes;
        if like_ours && bytes.len() > 1 {
            bytes[0] = 1;
            bytes[1] %= 9;
        }
        if let Some(record) = Record::read(&bytes) {
            prop_assert_eq!(record.to_bytes(), bytes);
        }
    }
}

/// A response of site 1 with these keys.
fn stored(path: &str, keys: &str) -> Stored {
    Stored {
        site: 1,
        path: path.to_owned(),
        keys: SurrogateKeys::from_text(keys),
    }
}

fn rule(scope: Scope<'_>, soft: bool) -> Rule<'_> {
    Rule { site: 1, scope, soft }
}

const HARD: bool = false;
const SOFT: bool = true;

#[test]
fn a_purge_names_what_it_purges() {
    let response = stored("movies/é.mp4", "p-1 p-2");
    let cases = [
        ("the path", Scope::Path("movies/é.mp4"), true),
        ("another path", Scope::Path("movies/é"), false),
        ("a folder", Scope::Prefix("movies/"), true),
        ("within a name", Scope::Prefix("movies/é"), true),
        ("all of it", Scope::Prefix("movies/é.mp4"), true),
        ("longer", Scope::Prefix("movies/é.mp4/"), false),
        ("as long as half a character of it", Scope::Prefix("movies/e"), false),
        ("from elsewhere", Scope::Prefix("ovies"), false),
        ("its first key", Scope::Key("p-1"), true),
        ("its other key", Scope::Key("p-2"), true),
        ("part of a key", Scope::Key("p-"), false),
        ("two keys in one", Scope::Key("p-1 p-2"), false),
        ("a path as a key", Scope::Key("movies/é.mp4"), false),
        ("the site", Scope::Site, true),
    ];
    for (case, scope, named) in cases {
        for (soft, purged) in [(HARD, Verdict::Gone), (SOFT, Verdict::Soft { since: at(7) })] {
            let purges = Purges::new();
            let born = purges.now();
            purges.add(&rule(scope, soft), at(7));
            let expected = if named { purged } else { Verdict::Kept };
            assert_eq!(purges.check(born, &response.subject()), expected, "{case}");
            let other = Stored {
                site: 2,
                ..response.clone()
            };
            assert_eq!(
                purges.check(born, &other.subject()),
                Verdict::Kept,
                "{case}, another site"
            );
            assert_eq!(
                purges.check(purges.now(), &response.subject()),
                Verdict::Kept,
                "{case}, fetched since"
            );
        }
    }
}

#[test]
fn one_thing_purged_again() {
    let response = stored("a", "");
    let soft = |seconds| Verdict::Soft { since: at(seconds) };
    // What was fetched before all, and after each.
    let cases: [(&str, &[bool], &[Verdict]); 6] = [
        ("hard", &[HARD], &[Verdict::Gone, Verdict::Kept]),
        ("soft", &[SOFT], &[soft(0), Verdict::Kept]),
        ("soft twice", &[SOFT, SOFT], &[soft(0), soft(1), Verdict::Kept]),
        (
            "soft then hard",
            &[SOFT, HARD],
            &[Verdict::Gone, Verdict::Gone, Verdict::Kept],
        ),
        (
            "hard then soft",
            &[HARD, SOFT],
            &[Verdict::Gone, soft(1), Verdict::Kept],
        ),
        (
            "hard between soft ones",
            &[SOFT, HARD, SOFT, SOFT],
            &[Verdict::Gone, Verdict::Gone, soft(2), soft(3), Verdict::Kept],
        ),
    ];
    for (case, purged, expected) in cases {
        let purges = Purges::new();
        let first = purges.now();
        for (seconds, soft) in (0..).zip(purged) {
            purges.add(&rule(Scope::Path("a"), *soft), at(seconds));
        }
        for (born, verdict) in (first..).zip(expected) {
            assert_eq!(purges.check(born, &response.subject()), *verdict, "{case}, born {born}");
        }
        assert_eq!(purges.len(), 1, "{case}: one rule");
    }
}

#[test]
fn a_burst_of_soft_purges_does_not_age_what_earlier_ones_left() {
    let purges = Purges::new();
    for seconds in 0..7 {
        purges.add(&rule(Scope::Key("k"), SOFT), at(seconds * 3600));
    }
    let born = purges.now();
    for seconds in 0..100 {
        purges.add(&rule(Scope::Key("k"), SOFT), at(1_000_000 + seconds));
    }
    let verdict = purges.check(born, &stored("a", "k").subject());
    assert_eq!(verdict, Verdict::Soft { since: at(1_000_000) });
}

#[test]
fn a_site_that_purges_much_has_its_own_purged_and_no_others() {
    let purges = Purges::holding(Rules::new(64), 1);
    let born = purges.now();
    for n in 0..1000 {
        let path = format!("upload/{n}");
        purges.add(&rule(Scope::Path(&path), HARD), at(0));
    }
    assert!(purges.len() <= 64);
    assert_eq!(purges.check(born, &stored("other", "").subject()), Verdict::Gone);
    let others = Stored {
        site: 2,
        ..stored("other", "")
    };
    assert_eq!(purges.check(born, &others.subject()), Verdict::Kept);
    // Many sites share the bound.
    for site in 10..1000 {
        let scope = Scope::Key("k");
        purges.add(
            &Rule {
                site,
                scope,
                soft: SOFT,
            },
            at(0),
        );
    }
    assert!(purges.len() <= 64);
    assert_eq!(purges.check(born, &others.subject()), Verdict::Gone);
    assert_eq!(purges.check(purges.now(), &others.subject()), Verdict::Kept);
}

/// However many sites they are: who purges little keeps what it has.
#[test]
fn sites_that_purge_much_together_have_their_own_purged_and_no_others() {
    let purges = Purges::holding(Rules::new(1 << 10), 1);
    let quiet = Stored {
        site: 99,
        ..stored("other", "")
    };
    let one = Scope::Path("one");
    purges.add(
        &Rule {
            site: 99,
            scope: one,
            soft: HARD,
        },
        at(0),
    );
    let born = purges.now();
    for n in 0..40_000 {
        let path = format!("upload/{n}");
        let (site, scope) = (n % 40, Scope::Path(&path));
        purges.add(
            &Rule {
                site,
                scope,
                soft: HARD,
            },
            at(0),
        );
    }
    assert!(purges.len() <= 1 << 10);
    assert_eq!(purges.check(born, &quiet.subject()), Verdict::Kept);
    assert_eq!(purges.check(born, &stored("other", "").subject()), Verdict::Gone);
}

#[test]
fn long_rules_are_fewer() {
    let purges = Purges::new();
    for n in 0..40_000 {
        let path = format!("{n:01024}");
        purges.add(&rule(Scope::Path(&path), HARD), at(0));
    }
    let bytes: usize = purges.records().iter().map(Vec::len).sum();
    assert!(bytes < 18 << 20, "{bytes}");
    assert_eq!(purges.check(1, &stored("other", "").subject()), Verdict::Gone);
}

#[test]
fn what_a_journal_must_hold_to_be_believed() {
    let purges = Purges::new();
    let records = {
        let mut records = purges.records();
        records.push(purges.add(&rule(Scope::Path("a"), HARD), at(0)));
        records.push(purges.settle(17));
        records
    };
    let restore = |records: &[&[u8]]| Purges::restore(records.iter().copied()).map(|p| p.position());
    let [clock, purge, settled] = &records[..] else {
        panic!("{records:?}")
    };
    let cases: [(&str, &[&[u8]], _); 7] = [
        ("all", &[clock, purge, settled], Ok(Some(17))),
        ("without a position", &[clock, purge], Ok(None)),
        ("nothing", &[], Err(Unreadable)),
        ("no beginning", &[purge, settled], Err(Unreadable)),
        ("an empty record", &[clock, b"", settled], Err(Unreadable)),
        ("another version's", &[clock, &[2, 0], settled], Err(Unreadable)),
        (
            "the end of time",
            &[&Record::Clock(u64::MAX).to_bytes()],
            Err(Unreadable),
        ),
    ];
    for (case, records, expected) in cases {
        assert_eq!(restore(records), expected, "{case}");
    }
    assert_eq!(Purges::new().position(), None);
}

#[test]
fn restarts_keep_what_was_stored_and_the_order_of_time() {
    let mut purges = Purges::new();
    let response = stored("a", "");
    let mut lives = Vec::new();
    for _ in 0..5 {
        lives.push(purges.now());
        // Its end is lost: nothing of it is in the journal.
        let journal = purges.records();
        purges.add(&rule(Scope::Path("b"), HARD), at(0));
        let unknown = purges.now();
        purges = restored(&journal);
        assert!(purges.now() > unknown);
        assert_eq!(purges.check(unknown, &response.subject()), Verdict::Gone);
        for born in &lives {
            assert_eq!(purges.check(*born, &response.subject()), Verdict::Kept);
        }
    }
    purges.add(&rule(Scope::Path("a"), HARD), at(0));
    for born in &lives {
        assert_eq!(purges.check(*born, &response.subject()), Verdict::Gone);
    }
}

#[test]
fn rules_of_a_purge() {
    let keys = ["k", "l"].map(|key| edgeweir_model::SurrogateKey::new(key).unwrap());
    let key = edgeweir_model::ObjectKey::new("a").unwrap();
    let prefix = edgeweir_model::KeyPrefix::new("a/").unwrap();
    for (what, expected) in [
        (Purged::Object(key), &[Scope::Path("a")][..]),
        (Purged::Prefix(prefix), &[Scope::Prefix("a/")]),
        (Purged::SurrogateKeys(keys.into()), &[Scope::Key("k"), Scope::Key("l")]),
        (Purged::Everything, &[Scope::Site]),
    ] {
        for soft in [HARD, SOFT] {
            let purge = Purge {
                what: what.clone(),
                soft,
            };
            let expected: Vec<_> = expected.iter().map(|scope| rule(*scope, soft)).collect();
            assert_eq!(Rule::of(1, &purge).collect::<Vec<_>>(), expected);
        }
    }
}
