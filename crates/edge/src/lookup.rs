//! What the cache has of an authorized target: the fourth phase (`Authorized` → [`LookedUp`]).

use crate::{authorize::Authorized, site::Target};
use edgeweir_cache::{Cache, KeyRef, Lookup, Now};
use edgeweir_model::{Bucket, ObjectKey, Origin};
use std::sync::Arc;

/// An authorized request for an object, and what is stored of it.
#[derive(Debug)]
pub(crate) struct LookedUp {
    pub(crate) authorized: Authorized,
    pub(crate) lookup: Lookup,
    pub(crate) now: Now,
}

impl LookedUp {
    pub(crate) fn new(authorized: Authorized, cache: &Cache, now: Now) -> Self {
        let lookup = match authorized.object() {
            Some((bucket, key)) => {
                let key = cache_key(bucket, key, authorized.query());
                cache.lookup(key, &authorized.resolved().request.headers, now)
            }
            None => Lookup::Pass,
        };
        Self {
            authorized,
            lookup,
            now,
        }
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
