//! What the cache has of an authorized target: the fourth phase (`Authorized` → [`LookedUp`]).

use crate::{authorize::Authorized, site::Target};
use edgeweir_cache::{Cache, Entry, KeyRef, Lookup, Now};
use edgeweir_model::{Bucket, ObjectKey, Origin};
use std::{sync::Arc, time::Duration};

/// What the cache comes to for an authorized request.
#[derive(Debug)]
pub(crate) enum Found {
    /// A fresh entry, and for how long it is.
    Hit(Authorized, Arc<Entry>, Duration),
    /// Less than that.
    LookedUp(LookedUp),
}

/// An authorized request whose answer must be got.
#[derive(Debug)]
pub(crate) struct LookedUp {
    pub(crate) authorized: Authorized,
    pub(crate) missing: Missing,
    pub(crate) now: Now,
}

/// What the cache lacks.
#[derive(Debug)]
pub(crate) enum Missing {
    /// Freshness, for a while: the entry serves while it is revalidated.
    StaleWhileRevalidate(Arc<Entry>),
    /// Freshness.
    Stale(Arc<Entry>),
    /// Everything.
    Absent,
    /// The right to be asked: answers for this target are each request's own.
    Pass,
}

impl LookedUp {
    pub(crate) fn find(authorized: Authorized, cache: &Cache, now: Now) -> Found {
        let lookup = match authorized.object() {
            Some((bucket, key)) => {
                let key = cache_key(bucket, key, authorized.query());
                cache.lookup(key, &authorized.resolved().request.headers, now)
            }
            None => Lookup::Pass,
        };
        let missing = match lookup {
            Lookup::Fresh { entry, ttl } => return Found::Hit(authorized, entry, ttl),
            Lookup::StaleWhileRevalidate(entry) => Missing::StaleWhileRevalidate(entry),
            Lookup::Stale(entry) => Missing::Stale(entry),
            Lookup::Miss => Missing::Absent,
            Lookup::Pass => Missing::Pass,
        };
        Found::LookedUp(Self {
            authorized,
            missing,
            now,
        })
    }
}

impl Authorized {
    /// The object that is asked for.
    pub(crate) fn object(&self) -> Option<(&Arc<Bucket>, &ObjectKey)> {
        match &self.resolved().target {
            Target::Object(bucket, key) => Some((bucket, key)),
            Target::Live(_) => None,
        }
    }
}

/// Bucket, its generation, the decoded key; the query only where the origin may see it. Never a token.
pub(crate) fn cache_key<'a>(bucket: &Bucket, key: &'a ObjectKey, query: &'a str) -> KeyRef<'a> {
    let query = match bucket.origin {
        Origin::Local => "",
        Origin::Http(_) => query,
    };
    KeyRef {
        site: bucket.id.0,
        generation: bucket.generation,
        path: key.as_str(),
        query,
    }
}
