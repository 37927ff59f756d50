//! What a shared cache may store, and for how long it may serve it: RFC 9111, RFC 5861, RFC 9213. Pure.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{AGE, AUTHORIZATION, CACHE_CONTROL, DATE, EXPIRES, LAST_MODIFIED, SET_COOKIE},
};
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

pub use targeted::SURROGATE_CAPABILITY;
pub use vary::{preferred_language, told, vary_names, vary_value};

mod date;
mod targeted;
mod vary;

/// The most seconds that a number stands for: the largest that every implementation can count (RFC 9111 §1.2.2).
const MOST_SECONDS: u64 = 1 << 31;

/// The longest freshness lifetime that is guessed.
const MOST_HEURISTIC: Duration = Duration::from_secs(24 * 60 * 60);

/// What is done with an origin's answers where they leave it open.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Freshness lifetime of a successful answer that states none; without it, a tenth of the time since the object was
    /// modified (RFC 9111 §4.2.2), a day at most.
    pub default_ttl: Option<Duration>,
    /// Freshness lifetime of a 404 or 410 that states none.
    pub negative_ttl: Duration,
    /// Whether answers with `Set-Cookie` are stored.
    pub store_set_cookie: bool,
    /// Whether large objects are fetched and kept in slices: the origin may be asked for byte ranges.
    pub slices: bool,
    /// Whether answers are kept on disk, too.
    pub persist: bool,
    /// The request fields that the origin is told; `None` for all. An answer that says it varies by another does not.
    pub told: Option<Arc<[HeaderName]>>,
}

impl Settings {
    /// Of origins that store files, and say little about them.
    pub fn storage() -> Self {
        Self {
            default_ttl: Some(Duration::from_secs(60)),
            negative_ttl: Duration::from_secs(5),
            store_set_cookie: false,
            slices: true,
            persist: true,
            told: None,
        }
    }

    /// Of HTTP servers.
    pub fn http() -> Self {
        Self {
            default_ttl: None,
            ..Self::storage()
        }
    }

    /// Of what is at hand, or soon over: kept whole, and in memory alone.
    pub fn memory_only() -> Self {
        Self {
            slices: false,
            persist: false,
            ..Self::storage()
        }
    }

    /// The request fields that select a variant (RFC 9110 §12.5.5), of those that the origin is told; `None` for `Vary: *`.
    pub fn selecting(&self, response: &HeaderMap) -> Option<Vec<HeaderName>> {
        let mut names = vary_names(response)?;
        if let Some(told) = &self.told {
            names.retain(|name| told.contains(name));
        }
        Some(names)
    }
}

/// The directives that a shared cache acts on (RFC 9111 §5.2.2, RFC 5861).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Directives {
    /// Not to be stored.
    pub no_store: bool,
    /// Not to be stored by a shared cache.
    pub private: bool,
    /// To be revalidated before each use.
    pub no_cache: bool,
    /// Storable although the request was authorized.
    pub public: bool,
    /// Never to be served stale.
    pub must_revalidate: bool,
    /// The same, for shared caches.
    pub proxy_revalidate: bool,
    /// Storable only with a status that is understood (RFC 9111 §5.2.2.3).
    pub must_understand: bool,
    /// Freshness lifetime: `s-maxage`, else `max-age`, in seconds.
    pub lifetime: Option<u64>,
    s_maxage: bool,
    /// From a field for caches like this one: `Expires` does not count beside it (RFC 9213 §2.2).
    targeted: bool,
    /// Seconds past freshness for which it may be served while it is revalidated.
    pub stale_while_revalidate: u64,
    /// Seconds past freshness for which it may be served when the origin fails.
    pub stale_if_error: u64,
}

impl Directives {
    /// Reads the field that counts: `CDN-Cache-Control` where there is a valid one (RFC 9213 §2.2), else
    /// `Surrogate-Control` where it speaks to this cache, else `Cache-Control`. `None` when there is none.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        if let Some(directives) = targeted::cdn(headers).or_else(|| targeted::surrogate(headers)) {
            return Some(directives);
        }
        let mut values = headers.get_all(CACHE_CONTROL).iter().peekable();
        values.peek()?;
        let mut directives = Self::default();
        for value in values {
            for item in split_list(value.as_bytes()) {
                directives.read(item);
            }
        }
        Some(directives)
    }

    fn read(&mut self, item: &[u8]) {
        let (name, argument) = match item.iter().position(|b| *b == b'=') {
            Some(at) => (&item[..at], Some(item[at + 1..].trim_ascii())),
            None => (item, None),
        };
        let name = name.trim_ascii().to_ascii_lowercase();
        // A lifetime that cannot be read is none at all: stale (RFC 9111 §4.2.1).
        let seconds = || argument.and_then(delta_seconds).unwrap_or(0);
        match &*name {
            b"no-store" => self.no_store = true,
            b"private" => self.private = true,
            b"no-cache" => self.no_cache = true,
            b"public" => self.public = true,
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"must-understand" => self.must_understand = true,
            b"s-maxage" => {
                // The first of several counts (RFC 9111 §4.2.1 allows it), and it outranks max-age.
                if !self.s_maxage {
                    self.lifetime = Some(seconds());
                }
                self.s_maxage = true;
            }
            b"max-age" if !self.s_maxage && self.lifetime.is_none() => self.lifetime = Some(seconds()),
            b"stale-while-revalidate" => self.stale_while_revalidate = seconds(),
            b"stale-if-error" => self.stale_if_error = seconds(),
            _ => {}
        }
    }

    /// Whether staleness is never allowed (RFC 9111 §5.2.2.2, §5.2.2.8, §5.2.2.10).
    pub fn forbids_stale(&self) -> bool {
        self.must_revalidate || self.proxy_revalidate || self.s_maxage || self.no_cache
    }
}

/// For how long after it was fresh a response may be served while it is revalidated, and for how long when its origin fails
/// (RFC 5861).
pub fn stale_windows(headers: &HeaderMap) -> (Duration, Duration) {
    let directives = Directives::of(headers).unwrap_or_default();
    if directives.forbids_stale() {
        return (Duration::ZERO, Duration::ZERO);
    }
    let seconds = Duration::from_secs;
    (
        seconds(directives.stale_while_revalidate),
        seconds(directives.stale_if_error),
    )
}

/// The members of a list: what stands between the commas outside quoted strings (RFC 9110 §5.6.1), some empty perhaps.
pub fn split_list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    let mut escaped = false;
    value
        .split(move |b| {
            if escaped {
                escaped = false;
                return false;
            }
            match b {
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b',' => return !quoted,
                _ => {}
            }
            false
        })
        .map(<[u8]>::trim_ascii)
}

/// `delta-seconds` (RFC 9111 §1.2.2), quoted or not; too large a number is the largest.
fn delta_seconds(text: &[u8]) -> Option<u64> {
    let text = text
        .strip_prefix(b"\"")
        .and_then(|t| t.strip_suffix(b"\""))
        .unwrap_or(text);
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = std::str::from_utf8(text).ok()?.parse::<u64>().unwrap_or(u64::MAX);
    Some(number.min(MOST_SECONDS))
}

/// Whether an answer says that it is for one request only. That tends to last from one answer of a URL to the next.
pub fn is_unshared(response: &HeaderMap, settings: &Settings) -> bool {
    let directives = Directives::of(response).unwrap_or_default();
    // Where both stand, who understands `must-understand` leaves `no-store` to who does not (RFC 9111 §5.2.2.3).
    directives.no_store && !directives.must_understand
        || directives.private
        || response.contains_key(SET_COOKIE) && !settings.store_set_cookie
        || vary_names(response).is_none()
}

/// Whether an answer may be used again only as the origin confirms it (RFC 9111 §5.2.2.4).
pub fn is_to_confirm(response: &HeaderMap) -> bool {
    Directives::of(response).unwrap_or_default().no_cache
}

/// Whether a shared cache may store the answer (RFC 9111 §3).
pub fn storable(
    method: &Method,
    request: &HeaderMap,
    status: StatusCode,
    response: &HeaderMap,
    settings: &Settings,
) -> bool {
    let directives = Directives::of(response).unwrap_or_default();
    let explicit = is_explicit(response) || directives.public;
    let authorized = request.contains_key(AUTHORIZATION);
    *method == Method::GET
        && !is_unshared(response, settings)
        && (!authorized || directives.public || directives.must_revalidate || directives.s_maxage)
        && (!directives.must_understand || status.canonical_reason().is_some())
        && match status.as_u16() {
            206 | 304 | 100..=199 => false,
            _ => is_heuristic(status) || explicit,
        }
}

/// Whether an answer says for how long it is fresh.
pub fn is_explicit(response: &HeaderMap) -> bool {
    let directives = Directives::of(response).unwrap_or_default();
    directives.lifetime.is_some() || !directives.targeted && response.contains_key(EXPIRES)
}

/// Whether an origin says that it cannot answer now: that it fails, or that it is asked too slowly, too soon or too much
/// (RFC 9110 §15.5.9, RFC 8470 §5.2, RFC 6585 §4).
pub(crate) fn is_failure(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429)
}

/// Whether a status may be stored without a word on caching (RFC 9110 §15.1).
fn is_heuristic(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501
    )
}

/// How long after its generation an answer is fresh (RFC 9111 §4.2.1, §4.2.2).
pub fn freshness_lifetime(status: StatusCode, headers: &HeaderMap, now: SystemTime, settings: &Settings) -> Duration {
    let directives = Directives::of(headers).unwrap_or_default();
    if directives.no_cache {
        return Duration::ZERO;
    }
    if let Some(seconds) = directives.lifetime {
        return Duration::from_secs(seconds);
    }
    let date = http_date(headers, &DATE).unwrap_or(now);
    if let Some(expires) = headers.get(EXPIRES).filter(|_| !directives.targeted) {
        return expires
            .to_str()
            .ok()
            .and_then(date::parse)
            .and_then(|e| e.duration_since(date).ok())
            .unwrap_or(Duration::ZERO);
    }
    let modified = http_date(headers, &LAST_MODIFIED).and_then(|modified| date.duration_since(modified).ok());
    match (status.as_u16(), settings.default_ttl) {
        (200 | 203 | 206 | 300 | 301 | 308, Some(ttl)) => ttl,
        (404 | 410, Some(_)) => settings.negative_ttl,
        (_, None) if is_heuristic(status) || directives.public => match modified {
            Some(unchanged) => (unchanged / 10).min(MOST_HEURISTIC),
            None if matches!(status.as_u16(), 404 | 410) => settings.negative_ttl,
            None => Duration::ZERO,
        },
        _ => Duration::ZERO,
    }
}

/// The age that an answer has when it arrives, `delay` after it was asked for (RFC 9111 §4.2.3).
pub fn initial_age(headers: &HeaderMap, now: SystemTime, delay: Duration) -> Duration {
    let apparent = http_date(headers, &DATE)
        .and_then(|date| now.duration_since(date).ok())
        .unwrap_or_default();
    apparent.max(stated_age(headers) + delay)
}

/// The `Age` field: of a list the first member counts, and what is no number is ignored (RFC 9111 §5.1). A member may
/// have parameters, as any item.
fn stated_age(headers: &HeaderMap) -> Duration {
    let value = headers.get(AGE).map_or(&b""[..], HeaderValue::as_bytes);
    let first = value.split(|b| matches!(b, b',' | b';')).next().unwrap_or_default();
    Duration::from_secs(delta_seconds(first.trim_ascii()).unwrap_or(0))
}

fn http_date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    date::parse(headers.get(name)?.to_str().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::VARY;
    use proptest::prelude::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter()
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
            .collect()
    }

    #[test]
    fn lifetimes() {
        const MON: &str = "Mon, 01 Jan 2024 00:00:00 GMT";
        let now = httpdate::parse_http_date("Mon, 01 Jan 2024 00:00:10 GMT").expect("a date");
        for (status, list, seconds) in [
            (200, &[("cache-control", "max-age=30")][..], 30),
            (200, &[("cache-control", "max-age=30, s-maxage=5")], 5),
            (200, &[("cache-control", "s-maxage=5, max-age=30")], 5),
            (200, &[("cache-control", "MAX-AGE=\"30\"")], 30),
            (
                200,
                &[("cache-control", "max-age=30"), ("cdn-cache-control", "max-age=7")],
                7,
            ),
            (200, &[("cache-control", "max-age=99999999999999999999")], 1 << 31),
            (200, &[("cache-control", "max-age=-1")], 0),
            (200, &[("cache-control", "max-age=1.5")], 0),
            (200, &[("cache-control", "max-age")], 0),
            (200, &[("cache-control", "no-cache, max-age=30")], 0),
            (200, &[("cache-control", "foo=\"max-age=9, x\", max-age=3")], 3),
            (200, &[("expires", "Mon, 01 Jan 2024 00:01:00 GMT"), ("date", MON)], 60),
            (200, &[("expires", "0"), ("date", MON)], 0),
            (200, &[("expires", MON), ("date", MON)], 0),
            (200, &[("expires", "MON, 01 jan 2024 00:01:00 gmt"), ("date", MON)], 60),
            (200, &[("expires", "0"), ("cache-control", "max-age=4")], 4),
            (200, &[], 60),
            (404, &[], 5),
            (500, &[], 0),
        ] {
            let got = freshness_lifetime(
                StatusCode::from_u16(status).expect("valid"),
                &headers(list),
                now,
                &Settings::storage(),
            );
            assert_eq!(got.as_secs(), seconds, "{status} {list:?}");
        }
        assert_eq!(
            initial_age(&headers(&[("date", MON)]), now, Duration::ZERO).as_secs(),
            10
        );
        assert_eq!(
            initial_age(&headers(&[("date", MON), ("age", "25")]), now, Duration::ZERO).as_secs(),
            25
        );
    }

    #[test]
    fn lifetimes_that_are_guessed() {
        let now = httpdate::parse_http_date("Wed, 31 Jan 2024 00:00:00 GMT").expect("a date");
        let hours_ago = [("last-modified", "Tue, 30 Jan 2024 14:00:00 GMT")];
        let long_ago = [("last-modified", "Sun, 01 Jan 2023 00:00:00 GMT")];
        let with = |more, list: &[(&'static str, &'static str)]| headers(&[list, &[("cache-control", more)]].concat());
        for (status, list, seconds) in [
            (200, headers(&hours_ago), 3600),
            (204, headers(&hours_ago), 3600),
            (200, headers(&long_ago), 86_400),
            (200, headers(&[("last-modified", "Thu, 01 Feb 2024 00:00:00 GMT")]), 0),
            (200, headers(&[]), 0),
            (404, headers(&[]), 5),
            (404, headers(&hours_ago), 3600),
            (403, headers(&hours_ago), 0),
            (403, with("public", &hours_ago), 3600),
            (200, with("no-cache", &hours_ago), 0),
            (200, with("max-age=7", &hours_ago), 7),
        ] {
            let status = StatusCode::from_u16(status).expect("valid");
            let lifetime = freshness_lifetime(status, &list, now, &Settings::http());
            assert_eq!(lifetime.as_secs(), seconds, "{status} {list:?}");
        }
    }

    #[test]
    fn ages() {
        let now = SystemTime::UNIX_EPOCH;
        for (list, seconds) in [
            (&[][..], 3),
            (&[("age", "25")], 28),
            (&[("age", "25,0")], 28),
            (&[("age", "99999999999999999999")], MOST_SECONDS + 3),
            (&[("age", "25, 0")], 28),
            (&[("age", "25"), ("age", "0")], 28),
            (&[("age", "7;a=b")], 10),
            (&[("age", "-1")], 3),
            (&[("age", "7.0")], 3),
            (&[("age", "x, 7")], 3),
            (&[("age", "")], 3),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in list {
                map.append(*name, HeaderValue::from_static(value));
            }
            let age = initial_age(&map, now, Duration::from_secs(3));
            assert_eq!(age.as_secs(), seconds, "{list:?}");
        }
    }

    #[test]
    fn what_is_stored() {
        let none = headers(&[]);
        let authorized = headers(&[("authorization", "x")]);
        for (request, status, list, expected) in [
            (&none, 200, &[][..], true),
            (&none, 404, &[], true),
            (&none, 206, &[("cache-control", "max-age=9")], false),
            (&none, 304, &[], false),
            (&none, 500, &[], false),
            (&none, 500, &[("cache-control", "max-age=9")], true),
            (&none, 200, &[("cache-control", "no-store")], false),
            (&none, 200, &[("cache-control", "private")], false),
            (&none, 200, &[("cache-control", "private=\"set-cookie\"")], false),
            (
                &none,
                200,
                &[("set-cookie", "a=b"), ("cache-control", "public, max-age=9")],
                false,
            ),
            (&none, 200, &[("vary", "*")], false),
            (&none, 200, &[("vary", "accept-encoding, *")], false),
            (&none, 200, &[("cache-control", "no-store, must-understand")], true),
            (&none, 599, &[("cache-control", "max-age=9")], true),
            (&none, 599, &[("cache-control", "max-age=9, must-understand")], false),
            (&none, 302, &[("cdn-cache-control", "public, max-age=9")], true),
            (&authorized, 200, &[("cache-control", "proxy-revalidate")], false),
            (&authorized, 200, &[("cache-control", "must-revalidate")], true),
            (&authorized, 200, &[], false),
            (&authorized, 200, &[("cache-control", "public")], true),
            (&authorized, 200, &[("cache-control", "s-maxage=9")], true),
        ] {
            let status = StatusCode::from_u16(status).expect("valid");
            assert_eq!(
                storable(&Method::GET, request, status, &headers(list), &Settings::storage()),
                expected,
                "{status} {list:?}"
            );
        }
        assert!(!storable(
            &Method::POST,
            &none,
            StatusCode::OK,
            &headers(&[("cache-control", "max-age=9")]),
            &Settings::storage()
        ));
    }

    proptest! {
        #[test]
        fn no_value_makes_it_panic(value in "[ -~]{0,60}") {
            let mut map = HeaderMap::new();
            map.insert(CACHE_CONTROL, HeaderValue::from_str(&value).expect("visible ASCII"));
            map.insert(VARY, HeaderValue::from_str(&value).expect("visible ASCII"));
            let _ = (Directives::of(&map), vary_names(&map), vary_value(&map, &VARY));
        }
    }
}
