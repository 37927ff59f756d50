//! What a response is stored under.

use crate::policy;
use http::{HeaderMap, HeaderName};
use std::hash::{DefaultHasher, Hash, Hasher};

/// A cache key, borrowed: a look-up does not allocate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRef<'a> {
    /// The bucket's id: no two owners' objects meet.
    pub site: i64,
    /// The bucket's generation: a higher one makes everything stored before unreachable, at no cost.
    pub generation: u64,
    /// The decoded object key.
    pub path: &'a str,
    /// The query without any token; empty for storage origins.
    pub query: &'a str,
}

/// A cache key, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub(crate) site: i64,
    pub(crate) generation: u64,
    pub(crate) path: Box<str>,
    pub(crate) query: Box<str>,
}

impl Key {
    /// The borrowed form.
    pub fn borrow(&self) -> KeyRef<'_> {
        KeyRef {
            site: self.site,
            generation: self.generation,
            path: &self.path,
            query: &self.query,
        }
    }
}

impl<'a> KeyRef<'a> {
    /// The owned form.
    pub fn to_owned(self) -> Key {
        Key {
            site: self.site,
            generation: self.generation,
            path: self.path.into(),
            query: self.query.into(),
        }
    }

    /// The key of the path, whatever the query: what is purged.
    pub(crate) fn resource(self) -> Self {
        self.with_query("")
    }

    /// The key of a part of it, as a `Range` field asks for it: a response of its own, which is purged with the whole.
    pub fn part(self, range: &str) -> Key {
        Key {
            // No query has a NUL.
            query: format!("{}\0{range}", self.query).into(),
            ..self.to_owned()
        }
    }

    /// The key of a slice of the representation with this id.
    pub(crate) fn slice(self, id: u128, slice: u64) -> Key {
        self.part(&format!("\0{id:x}:{slice}"))
    }

    /// What the fetch of a variant is joined by, where one of another variant is under way: of what these request fields
    /// select. Two variants may have the same.
    pub(crate) fn variant<'n>(self, names: impl IntoIterator<Item = &'n HeaderName>, request: &HeaderMap) -> Key {
        let mut hasher = DefaultHasher::new();
        for name in names {
            (name, policy::vary_value(request, name)).hash(&mut hasher);
        }
        self.part(&format!("variant {:x}", hasher.finish()))
    }

    /// Whether it is of a slice.
    pub(crate) fn is_slice(self) -> bool {
        self.query.contains("\0\0")
    }

    /// Whether it is of a part.
    pub(crate) fn is_part(self) -> bool {
        self.query.contains('\0')
    }

    pub(crate) fn with_query(self, query: &'a str) -> Self {
        Self { query, ..self }
    }
}

impl Hash for KeyRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_i64(self.site);
        state.write_u64(self.generation);
        self.path.hash(state);
        if !self.query.is_empty() {
            self.query.hash(state);
        }
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.borrow().hash(state);
    }
}

impl quick_cache::Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self == key.borrow()
    }
}
