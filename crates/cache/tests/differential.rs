//! The cache's decisions held against those of the crate http-cache-semantics: where the two differ, a section of a
//! standard says why, and every reason that is listed here is met.

#![allow(missing_docs)]

use edgeweir_cache::policy::{self, Settings};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_cache_semantics::{CacheOptions, CachePolicy};
use proptest::{
    prelude::*,
    sample::{select, subsequence},
    strategy::ValueTree,
    test_runner::TestRunner,
};
use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

const STATUSES: [u16; 16] = [
    200, 201, 203, 204, 206, 299, 301, 302, 304, 404, 410, 451, 500, 501, 503, 599,
];

const DIRECTIVES: [&str; 17] = [
    "no-store",
    "no-cache",
    "private",
    "public",
    "must-revalidate",
    "proxy-revalidate",
    "must-understand",
    "immutable",
    "max-age=0",
    "max-age=60",
    "max-age=\"60\"",
    "max-age=x",
    "max-age=99999999999",
    "s-maxage=0",
    "s-maxage=30",
    "stale-if-error=60",
    "extension=5",
];

/// An answer, and whether its request was authorized.
#[derive(Debug, Clone)]
struct Case {
    authorized: bool,
    status: StatusCode,
    directives: Vec<&'static str>,
    /// Fields whose value is a date, by seconds from now.
    dates: Vec<(&'static str, Option<i64>)>,
    age: Option<&'static str>,
    set_cookie: bool,
    vary: Option<&'static str>,
}

fn cases() -> impl Strategy<Value = Case> {
    let seconds = || prop_oneof![Just(0), Just(-7200), Just(-1_000_000), Just(20), Just(7200)];
    let date = move |name: &'static str| {
        prop_oneof![
            3 => Just(Vec::new()),
            3 => seconds().prop_map(move |s| vec![(name, Some(s))]),
            1 => Just(vec![(name, None)]),
        ]
    };
    (
        prop::bool::weighted(0.2),
        select(&STATUSES[..]),
        prop_oneof![
            1 => Just(Vec::new()),
            3 => subsequence(DIRECTIVES.to_vec(), 0..4).prop_shuffle(),
        ],
        (date("date"), date("expires"), date("last-modified")),
        prop_oneof![
            4 => Just(None),
            1 => select(vec![Some("0"), Some("10"), Some("7200"), Some("90000"), Some("x"), Some("90000, 5")]),
        ],
        prop::bool::weighted(0.1),
        prop_oneof![8 => Just(None), 1 => Just(Some("accept")), 1 => Just(Some("*"))],
    )
        .prop_map(|(authorized, status, directives, dates, age, set_cookie, vary)| Case {
            authorized,
            status: StatusCode::from_u16(status).expect("valid"),
            directives,
            dates: [dates.0, dates.1, dates.2].concat(),
            age,
            set_cookie,
            vary,
        })
}

/// A point in time without a fraction of a second, which no field can tell.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

impl Case {
    fn has(&self, directive: &str) -> bool {
        self.directives.contains(&directive)
    }

    fn says(&self, directive: &str) -> bool {
        self.directives.iter().any(|d| d.split('=').next() == Some(directive))
    }

    fn has_date(&self, name: &str) -> bool {
        self.dates.iter().any(|(n, _)| *n == name)
    }

    /// What a date that can be read is.
    fn date(&self, name: &str) -> Option<i64> {
        self.dates.iter().find(|(n, _)| *n == name)?.1
    }

    fn request(&self) -> HeaderMap {
        let value = self.authorized.then(|| HeaderValue::from_static("Basic x"));
        value
            .into_iter()
            .map(|v| (HeaderName::from_static("authorization"), v))
            .collect()
    }

    fn response(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut add = |name: &'static str, value: &str| {
            headers.append(name, HeaderValue::from_str(value).expect("visible ASCII"));
        };
        if !self.directives.is_empty() {
            add("cache-control", &self.directives.join(", "));
        }
        for (name, date) in &self.dates {
            let value = date.map_or_else(
                || "0".to_owned(),
                |seconds| {
                    let offset = Duration::from_secs(seconds.unsigned_abs());
                    httpdate::fmt_http_date(if seconds < 0 { now() - offset } else { now() + offset })
                },
            );
            add(name, &value);
        }
        if let Some(age) = self.age {
            add("age", age);
        }
        if self.set_cookie {
            add("set-cookie", "a=b");
        }
        if let Some(vary) = self.vary {
            add("vary", vary);
        }
        headers
    }

    /// Whether this cache stores the answer, and whether it is fresh then.
    fn ours(&self) -> (bool, bool) {
        let (response, settings) = (self.response(), Settings::http());
        let storable = policy::storable(&Method::GET, &self.request(), self.status, &response, &settings);
        let lifetime = policy::freshness_lifetime(self.status, &response, now(), &settings);
        let age = policy::initial_age(&response, now(), Duration::ZERO);
        (storable, storable && lifetime > age)
    }

    /// The same by the other crate.
    fn theirs(&self) -> (bool, bool) {
        let mut request = Request::new(());
        *request.headers_mut() = self.request();
        let mut response = Response::new(());
        *response.status_mut() = self.status;
        *response.headers_mut() = self.response();
        let policy = CachePolicy::new_options(&request, &response, now(), CacheOptions::default());
        let storable = policy.is_storable();
        (storable, storable && !policy.is_stale(now()))
    }

    fn is_explicit(&self) -> bool {
        self.says("max-age") || self.says("s-maxage") || self.has_date("expires")
    }

    /// How long before its `Date` it was modified, in seconds.
    fn unchanged(&self) -> Option<i64> {
        let date = self.date("date").unwrap_or(0);
        Some(date - self.date("last-modified")?)
    }
}

type Reason = (&'static str, fn(&Case) -> bool);

/// Why the two may differ on storing.
const STORING: &[Reason] = &[
    (
        "RFC 9111 §7.3: Set-Cookie does not forbid storing, but is not for everybody",
        |c| c.set_cookie,
    ),
    (
        "RFC 9111 §3: any final status may be stored with explicit freshness",
        |c| {
            !matches!(c.status.as_u16(), 200 | 203 | 204 | 301 | 302 | 404 | 410 | 501)
                && (c.is_explicit() || c.has("public"))
        },
    ),
    (
        "RFC 9111 §4.1: Vary: * matches nothing, so that it is not worth storing",
        |c| c.vary == Some("*"),
    ),
    (
        "RFC 9111 §5.2.2.3: must-understand asks for a known status, and outranks no-store",
        |c| c.has("must-understand"),
    ),
    (
        "RFC 9111 §4.2.1: of two lifetimes the first counts; that there are two gives no leave to store",
        |c| c.authorized && c.directives.iter().filter(|d| d.starts_with("max-age")).count() > 1,
    ),
];

/// Why the two may differ on freshness.
const FRESHNESS: &[Reason] = &[
    (
        "RFC 9111 §5.2.2.8: proxy-revalidate says what to do once it is stale",
        |c| c.has("proxy-revalidate"),
    ),
    ("RFC 9111 §4.2.3: Date tells an age, too", |c| {
        c.date("date").is_some_and(|s| s < 0)
    }),
    (
        "RFC 9111 §5.1: of an Age that is a list the first member counts",
        |c| c.age.is_some_and(|age| age.contains(',')),
    ),
    ("RFC 9111 §4.2.2: a lifetime that is guessed ends after a day", |c| {
        !c.is_explicit() && c.unchanged().is_some_and(|s| s > 864_000)
    }),
    ("RFC 9111 §4.2.2: what is not there may be so for some seconds", |c| {
        !c.is_explicit() && matches!(c.status.as_u16(), 404 | 410)
    }),
    ("RFC 8246 §2: immutable gives no lifetime by itself", |c| {
        c.has("immutable") && !c.says("max-age") && !c.says("s-maxage")
    }),
];

#[test]
fn differences_are_explained() {
    let mut runner = TestRunner::deterministic();
    let mut met = BTreeSet::new();
    for _ in 0..40_000 {
        let case = cases().new_tree(&mut runner).expect("a case").current();
        let (ours, theirs) = (case.ours(), case.theirs());
        let reasons = match (ours.0 == theirs.0, ours == theirs) {
            (_, true) => continue,
            (false, _) => STORING,
            (true, false) => FRESHNESS,
        };
        let mut apply = reasons
            .iter()
            .filter(|(_, applies)| applies(&case))
            .map(|(why, _)| *why);
        let first = apply.next();
        assert!(first.is_some(), "{case:?}: {ours:?}, theirs {theirs:?}");
        // A difference with a single reason shows that the reason is one.
        if apply.next().is_none() {
            met.extend(first);
        }
    }
    let all = STORING.iter().chain(FRESHNESS).map(|(why, _)| *why);
    let unmet: Vec<_> = all.filter(|why| !met.contains(why)).collect();
    assert!(unmet.is_empty(), "{unmet:?}");
}

proptest! {
    #[test]
    fn a_request_selects_what_it_selected(value in "[a-zA-Z0-9;=., ]{0,30}") {
        let name = HeaderName::from_static("accept-language");
        let with = |text: &str| HeaderMap::from_iter([(name.clone(), HeaderValue::from_str(text).expect("visible ASCII"))]);
        let selected = policy::vary_value(&with(&value), &name);
        prop_assert_eq!(&selected, &policy::vary_value(&with(&value), &name));
        // Normal forms are their own.
        if let Some(normal) = &selected {
            prop_assert_eq!(&policy::vary_value(&with(normal), &name), &selected);
        }
    }
}
