//! How the cache took part in an answer (RFC 9211).

use super::CACHE_STATUS;
use crate::fetch::{Answer, Forward};
use bytes::Bytes;
use edgeweir_cache::{Entry, FetchStatus, Now};
use http::{HeaderMap, HeaderValue, StatusCode};
use std::{
    fmt::{self, Write},
    time::Duration,
};

/// What is said of an answer.
pub(super) fn cache_status(answer: &Answer, now: Now) -> HeaderValue {
    let hit = |entry: &Entry| own_status(format_args!("hit; ttl={}", entry.ttl(now)));
    let forwarded = |forward: &Forward, more: &str| own_status(format_args!("fwd={}{more}", forward.token()));
    match answer {
        Answer::Fresh(_, ttl) => hit_status(*ttl),
        Answer::Stale(entry) => own_status(format_args!("hit; ttl={}; detail=stale", entry.ttl(now))),
        Answer::Part(part) => hit(&part.entry),
        Answer::Fetched(entry, how, _, forward) => match how {
            FetchStatus::Miss => forwarded(forward, "; stored"),
            FetchStatus::Collapsed => forwarded(forward, "; stored; collapsed"),
            FetchStatus::Stored => hit(entry),
            FetchStatus::Revalidated => forwarded(forward, "; fwd-status=304; stored"),
            FetchStatus::Confirmed => forwarded(forward, "; fwd-status=304; stored; collapsed"),
            FetchStatus::Unkept => forwarded(forward, "; fwd-status=304"),
            FetchStatus::StaleIfError(Some(status)) => forwarded(
                forward,
                &format!("; fwd-status={}; detail=stale-if-error", status.as_u16()),
            ),
            FetchStatus::StaleIfError(None) => forwarded(forward, "; detail=stale-if-error"),
        },
        Answer::Stream(stream, forward) => match (stream.stored, stream.status == FetchStatus::Collapsed) {
            (true, true) => forwarded(forward, "; stored; collapsed"),
            (true, false) => forwarded(forward, "; stored"),
            (false, true) => forwarded(forward, "; collapsed"),
            (false, false) => forwarded(forward, ""),
        },
        Answer::Own(_, forward) | Answer::Through(_, forward) => forwarded(forward, ""),
    }
}

pub(super) fn hit_status(ttl: Duration) -> HeaderValue {
    own_status(format_args!("hit; ttl={}", ttl.as_secs()))
}

fn own_status(parameters: fmt::Arguments<'_>) -> HeaderValue {
    let mut status = String::with_capacity(40);
    let _ = write!(status, "edgeweir; {parameters}");
    HeaderValue::from_maybe_shared(Bytes::from(status)).expect("ASCII")
}

/// The status of what the origin was asked for this answer, where it is known.
pub(super) fn answered(answer: &Answer) -> Option<StatusCode> {
    match answer {
        Answer::Stream(stream, _) => Some(stream.answered),
        Answer::Own(response, _) => Some(response.head.status),
        Answer::Through(response, _) => Some(response.status),
        Answer::Fresh(..) | Answer::Stale(_) | Answer::Part(_) | Answer::Fetched(..) => None,
    }
}

/// What the caches on the way to the origin say of this answer. Those had no part in what is served without them.
pub(super) fn upstream(answer: &Answer) -> Option<&HeaderMap> {
    match answer {
        Answer::Fresh(..)
        | Answer::Stale(_)
        | Answer::Fetched(_, FetchStatus::StaleIfError(_) | FetchStatus::Stored, ..)
        | Answer::Part(_) => None,
        Answer::Fetched(entry, ..) => Some(entry.headers()),
        Answer::Stream(stream, _) => Some(&stream.head.headers),
        Answer::Own(response, _) => Some(&response.head.headers),
        Answer::Through(response, _) => Some(&response.headers),
    }
}

/// What this cache says, after what those before it have said: the list ends with the one nearest to the client
/// (RFC 9211 §2).
pub(super) fn after(upstream: Option<&HeaderMap>, own: HeaderValue) -> HeaderValue {
    let before = upstream.into_iter().flat_map(|headers| headers.get_all(CACHE_STATUS));
    let mut list: Vec<_> = before.map(HeaderValue::as_bytes).filter(|v| !v.is_empty()).collect();
    if list.is_empty() {
        return own;
    }
    list.push(own.as_bytes());
    HeaderValue::from_bytes(&list.join(&b", "[..])).unwrap_or(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_are_listed_from_the_origin_on() {
        for (before, expected) in [
            (&[][..], "edgeweir; hit"),
            (&[""], "edgeweir; hit"),
            (&["a; hit"], "a; hit, edgeweir; hit"),
            (
                &["a; hit, b; fwd=uri-miss", "c"],
                "a; hit, b; fwd=uri-miss, c, edgeweir; hit",
            ),
        ] {
            let mut headers = HeaderMap::new();
            for value in before {
                headers.append(CACHE_STATUS, HeaderValue::from_static(value));
            }
            let own = HeaderValue::from_static("edgeweir; hit");
            assert_eq!(after(Some(&headers), own), expected, "{before:?}");
        }
    }
}
