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
    Entry, Fetched, Lookup, Now,
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
    let Some(asked) = asked(authorized) else {
        return Ok(None);
    };
    let Some((upstream, key)) = authorized.object() else {
        return Ok(None);
    };
    let request = &authorized.resolved().request.headers;
    let whole = upstream.cache_key(key, authorized.query());
    let part = whole.part(asked);
    let lookup = match edge.cache.lookup(part.borrow(), request, now) {
        Lookup::OnDisk(on_disk) => edge.cache.read(part.borrow(), request, now, on_disk).await,
        lookup => lookup,
    };
    let is_stale = match lookup {
        Lookup::Fresh { entry, .. } => return Ok(Some(Answer::Part(Part { entry, within: None }))),
        Lookup::Pass => return through(edge, authorized, Forward::Bypass).await.map(Some),
        Lookup::Stale(_) | Lookup::StaleWhileRevalidate(_) => true,
        Lookup::Miss | Lookup::OnDisk(_) => false,
    };
    if let Some((entry, held, Some(length))) = edge.cache.part(whole, request, now)
        && let Some(within) = within(asked, &held, length)
    {
        let within = Some(within);
        return Ok(Some(Answer::Part(Part { entry, within })));
    }
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

/// The range that a request asks an HTTP origin's object for, without conditions.
fn asked(authorized: &Authorized) -> Option<&str> {
    let (Upstream::Bucket(bucket), key) = authorized.object()? else {
        return None;
    };
    let request = &authorized.resolved().request;
    let applies = matches!(bucket.origin, Origin::Http(_))
        && request.method == Method::GET
        // A playlist is spliced as a whole.
        && Kind::of_key(key.as_str()).is_none();
    applies.then(|| only_range(&request.headers))?
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
