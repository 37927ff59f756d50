//! Heads of hits. Until an entry is a second older, all who ask for it in one way get the same head: from the third of them
//! on, it is not made anew.

use crate::{accept::Over, site::Site};
use http::HeaderMap;
use parking_lot::Mutex;
use std::sync::{Arc, Weak};

/// All that the head of an entry's hit depends on beside the entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) site: &'a Arc<Site>,
    pub(super) over: Over,
    pub(super) signed: bool,
    /// The entry's age, and how long it stays fresh, in seconds.
    pub(super) age: u64,
    pub(super) ttl: u64,
}

/// A head.
#[derive(Debug, Clone)]
pub(super) enum Head {
    /// As HTTP/1.1 has it.
    Text(Arc<[u8]>),
    /// The fields, for HTTP/2 and HTTP/3.
    Fields(Arc<HeaderMap>),
}

/// The head that was asked for last of an entry.
#[derive(Debug, Default)]
pub(super) struct Slot(Mutex<Option<Last>>);

#[derive(Debug)]
struct Last {
    /// Compared by its address, which no other site is given as long as this is there.
    site: Weak<Site>,
    over: Over,
    signed: bool,
    age: u64,
    ttl: u64,
    head: Option<Head>,
}

impl Last {
    fn of(asked: Asked<'_>) -> Self {
        Self {
            site: Arc::downgrade(asked.site),
            over: asked.over,
            signed: asked.signed,
            age: asked.age,
            ttl: asked.ttl,
            head: None,
        }
    }

    fn is(&self, asked: Asked<'_>) -> bool {
        std::ptr::eq(self.site.as_ptr(), Arc::as_ptr(asked.site))
            && (self.over, self.signed, self.age, self.ttl) == (asked.over, asked.signed, asked.age, asked.ttl)
    }
}

/// What a slot has.
#[derive(Debug)]
pub(super) enum Found {
    Kept(Head),
    /// Nothing, but it was asked for before, and is worth keeping.
    Again,
    New,
}

impl Slot {
    /// The head that is asked for.
    pub(super) fn find(&self, asked: Asked<'_>) -> Found {
        let mut last = self.0.lock();
        match &*last {
            Some(last) if last.is(asked) => last.head.clone().map_or(Found::Again, Found::Kept),
            _ => {
                *last = Some(Last::of(asked));
                Found::New
            }
        }
    }

    /// Keeps the head that is asked for, unless another one was meanwhile.
    pub(super) fn keep(&self, asked: Asked<'_>, head: Head) {
        if let Some(last) = self.0.lock().as_mut().filter(|last| last.is(asked)) {
            last.head = Some(head);
        }
    }
}
