//! What the cache has of an authorized target: the fourth phase (`Authorized` → [`LookedUp`]).

use crate::{
    authorize::Authorized,
    refusal::{Reason, Refusal},
    site::{LivePath, Target},
};
use edgeweir_cache::{Cache, Entry, KeyRef, Lookup, Now, OnDisk, policy::Settings};
use edgeweir_model::{Bucket, LiveOrigin, ObjectKey, Origin, PullUrl, StreamId};
use std::{sync::Arc, time::Duration};

/// What the cache comes to for an authorized request.
#[derive(Debug)]
pub(crate) enum Found {
    /// A fresh entry with all its bytes, and for how long it is.
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
    /// What is on disk: it must be read first.
    Unread(OnDisk),
    /// Perhaps some slices of a fresh entry, and for how long it is.
    Slices(Arc<Entry>, Duration),
    /// Freshness, for a while: the entry serves while it is revalidated.
    StaleWhileRevalidate(Arc<Entry>),
    /// Freshness.
    Stale,
    /// Everything.
    Absent,
    /// The right to be asked: answers for this target are each request's own.
    Pass,
    /// A representation that the request's conditions hold of: see [`is_origins_to_refuse`].
    Match,
}

impl LookedUp {
    pub(crate) fn find(authorized: Authorized, cache: &Cache, now: Now) -> Found {
        let lookup = match authorized.object() {
            Some((upstream, key)) => {
                let key = upstream.cache_key(key, authorized.query());
                cache.lookup(key, &authorized.resolved().request.headers, now)
            }
            None => Lookup::Pass,
        };
        Self::of(authorized, lookup, now)
    }

    /// Of what there is, its conditions hold of none.
    pub(crate) fn without_match(authorized: Authorized) -> Self {
        Self {
            authorized,
            missing: Missing::Match,
            now: Now::now(),
        }
    }

    /// What a look-up comes to.
    pub(crate) fn of(authorized: Authorized, lookup: Lookup, now: Now) -> Found {
        let missing = match lookup {
            Lookup::Fresh { entry, ttl } if entry.slices().is_none() => return Found::Hit(authorized, entry, ttl),
            Lookup::Fresh { entry, ttl } => Missing::Slices(entry, ttl),
            Lookup::StaleWhileRevalidate(entry) => Missing::StaleWhileRevalidate(entry),
            Lookup::Stale(_) => Missing::Stale,
            Lookup::Miss => Missing::Absent,
            Lookup::Pass => Missing::Pass,
            Lookup::OnDisk(on_disk) => Missing::Unread(on_disk),
        };
        Found::LookedUp(Self {
            authorized,
            missing,
            now,
        })
    }
}

/// Whether a request that is refused here is to go on to its origin: a cache evaluates neither `If-Match` nor
/// `If-Unmodified-Since` for it (RFC 9111 §4.3.2), as the client may know a representation that came after the stored one.
/// Of files of local buckets this is the origin.
pub(crate) fn is_origins_to_refuse(authorized: &Authorized, refusal: &Refusal) -> bool {
    matches!(refusal.reason, Reason::PreconditionFailed)
        && match authorized.object() {
            Some((Upstream::Bucket(bucket), _)) => bucket.origin != Origin::Local,
            Some((Upstream::Pulled(..), _)) => true,
            None => false,
        }
}

/// Where something that can be cached comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Upstream<'a> {
    Bucket(&'a Arc<Bucket>),
    /// The folder that a live stream is pulled from.
    Pulled(StreamId, &'a Arc<PullUrl>),
}

impl Authorized {
    /// What can be cached of what is asked for: an object, or a file of a stream that is pulled.
    pub(crate) fn object(&self) -> Option<(Upstream<'_>, &ObjectKey)> {
        match &self.resolved().target {
            Target::Object(bucket, key) => Some((Upstream::Bucket(bucket), key)),
            Target::Live(stream, LivePath::File(key)) => match &stream.origin {
                LiveOrigin::Pull(url) => Some((Upstream::Pulled(stream.id, url), key)),
                LiveOrigin::Ingest(_) => None,
            },
            Target::Live(_, LivePath::Entry { .. }) => None,
        }
    }
}

impl Upstream<'_> {
    /// What the cache does with its answers.
    pub(crate) fn settings(&self) -> Settings {
        match self {
            Self::Bucket(bucket) => match &bucket.origin {
                Origin::Http(http) => Settings {
                    store_set_cookie: http.store_set_cookie,
                    ..Settings::http()
                },
                Origin::S3(_) => Settings::storage(),
                Origin::Local => Settings::memory_only(),
            },
            Self::Pulled(..) => Settings::memory_only(),
        }
    }

    /// Who it is, since when, the decoded key; the query only where the origin may see it. Never a token.
    pub(crate) fn cache_key<'a>(&self, key: &'a ObjectKey, query: &'a str) -> KeyRef<'a> {
        let path = key.as_str();
        match self {
            Self::Bucket(bucket) => KeyRef {
                site: bucket.id.0,
                generation: bucket.generation,
                path,
                query: match bucket.origin {
                    Origin::Local | Origin::S3(_) => "",
                    Origin::Http(_) => query,
                },
            },
            // The low half of a random UUID begins with its variant's one bit (RFC 9562 §4.1): no bucket's generation is
            // as high.
            Self::Pulled(stream, _) => {
                let (high, low) = stream.as_u64_pair();
                KeyRef {
                    site: high as i64,
                    generation: low,
                    path,
                    query,
                }
            }
        }
    }
}
