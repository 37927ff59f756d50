//! Parts of objects that the cache has no whole of (RFC 9111 §3.3): a suffix, `bytes=-N`, is asked for as it is, since its
//! place is not known before the object's length, and is kept as a response of its own. Other ranges that lie in it are
//! served from it.

use crate::{
    Edge,
    authorize::Authorized,
    fetch::{Answer, Forward, Wanted, shared, through},
    lookup::Upstream,
    refusal::Refusal,
};
use edgeweir_cache::{
    Entry, Fetched, KeyRef, Lookup, Now,
    range::{self, Ranges},
};
use edgeweir_manifest::Kind;
use edgeweir_model::Origin;
use http::{HeaderMap, Method, header::RANGE};
use std::{ops::Range, sync::Arc};

/// A stored part as an answer: all of it, or these bytes of its body.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) entry: Arc<Entry>,
    pub(crate) within: Option<Within>,
}

/// Which bytes of a stored part are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Within {
    /// Counted from the begin of the part.
    pub(crate) body: Range<u64>,
    /// Counted from the begin of the object.
    pub(crate) object: Range<u64>,
    /// The object's length.
    pub(crate) length: u64,
}

/// Answers a request for a range of an object of which the cache has no whole; `None` when the whole is to be fetched.
pub(crate) async fn answer(
    edge: &Arc<Edge>,
    authorized: &Authorized,
    now: Now,
    forward: Forward,
) -> Result<Option<Answer>, Refusal> {
    let Some((whole, asked)) = asked(authorized) else {
        return Ok(None);
    };
    let is_stale = match find(edge, authorized, now, whole, asked).await {
        Found::Part(part) => return Ok(Some(Answer::Part(part))),
        Found::Pass => return through(edge, authorized, Forward::Bypass).await.map(Some),
        Found::Stale => true,
        Found::Nothing => false,
    };
    if !range::is_suffix(asked) {
        return Ok(None);
    }
    edge.cache.note_part(whole, asked);
    let forward = if is_stale { Forward::Stale } else { forward };
    match shared(edge, authorized, Wanted::Part(asked)).await {
        // It was asked for with this request's range.
        Ok(Fetched::Own(response)) => Ok(Some(Answer::Own(response, forward))),
        fetched => Answer::of(edge, authorized, fetched, forward).await.map(Some),
    }
}

/// The stored part that answers a request, if there is one.
pub(crate) async fn stored(edge: &Edge, authorized: &Authorized, now: Now) -> Option<Part> {
    let (whole, asked) = asked(authorized)?;
    match find(edge, authorized, now, whole, asked).await {
        Found::Part(part) => Some(part),
        Found::Pass | Found::Stale | Found::Nothing => None,
    }
}

/// What is stored for a range.
enum Found {
    Part(Part),
    /// Its answers are each request's own.
    Pass,
    /// The answer to this very range, which is not fresh any more.
    Stale,
    Nothing,
}

async fn find(edge: &Edge, authorized: &Authorized, now: Now, whole: KeyRef<'_>, asked: &str) -> Found {
    let request = &authorized.resolved().request.headers;
    let part = whole.part(asked);
    let lookup = match edge.cache.lookup(part.borrow(), request, now) {
        Lookup::OnDisk(on_disk) => edge.cache.read(part.borrow(), request, now, on_disk).await,
        lookup => lookup,
    };
    let is_stale = match lookup {
        Lookup::Fresh { entry, .. } => return Found::Part(Part { entry, within: None }),
        Lookup::Pass => return Found::Pass,
        Lookup::Stale(_) | Lookup::StaleWhileRevalidate(_) => true,
        Lookup::Miss | Lookup::OnDisk(_) => false,
    };
    if let Some((entry, held, Some(length))) = edge.cache.part(whole, request, now)
        && let Some(within) = within(asked, &held, length)
    {
        let within = Some(within);
        return Found::Part(Part { entry, within });
    }
    if is_stale { Found::Stale } else { Found::Nothing }
}

/// The key of an HTTP origin's object, and the range that a request asks for of it, without conditions.
fn asked(authorized: &Authorized) -> Option<(KeyRef<'_>, &str)> {
    let (upstream, key) = authorized.object()?;
    let Upstream::Bucket(bucket) = upstream else {
        return None;
    };
    let request = &authorized.resolved().request;
    let applies = matches!(bucket.origin, Origin::Http(_))
        && request.method == Method::GET
        // A playlist is spliced as a whole.
        && Kind::of_key(key.as_str()).is_none();
    let asked = only_range(&request.headers).filter(|_| applies)?;
    Some((upstream.cache_key(key, authorized.query()), asked))
}

fn only_range(request: &HeaderMap) -> Option<&str> {
    let mut values = request.get_all(RANGE).iter();
    let value = values.next()?.to_str().ok()?;
    let conditions = request.keys().any(|name| name.as_str().starts_with("if-"));
    (values.next().is_none() && !conditions && value.len() <= 64).then_some(value)
}

/// Where the bytes that are asked for lie in those that are held, if they do.
fn within(asked: &str, held: &Range<u64>, length: u64) -> Option<Within> {
    let Ranges::Satisfiable(ranges) = range::parse(asked, length) else {
        return None;
    };
    let [object] = &ranges[..] else { return None };
    let lies = held.start <= object.start && object.end <= held.end;
    lies.then(|| Within {
        body: object.start - held.start..object.end - held.start,
        object: object.clone(),
        length,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_within_a_part() {
        for (asked, expected) in [
            ("bytes=6-8", Some((2..5, 6..9))),
            ("bytes=4-9", Some((0..6, 4..10))),
            ("bytes=6-", Some((2..6, 6..10))),
            ("bytes=-1", Some((5..6, 9..10))),
            ("bytes=-99", None),
            ("bytes=3-5", None),
            ("bytes=4-5,8-9", None),
            ("bytes=10-", None),
            ("lines=6-8", None),
        ] {
            let found = within(asked, &(4..10), 10).map(|w| (w.body, w.object));
            assert_eq!(found, expected, "{asked}");
        }
        assert_eq!(within("bytes=6-", &(4..9), 10), None);
    }
}
