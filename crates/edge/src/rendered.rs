//! Heads of hits as HTTP/1.1 has them on the wire. Until an entry is a second older, all who ask for it in one way get the same
//! head: from the third of them on, it is not made anew.

use crate::{accept::Over, site::Site};
use parking_lot::Mutex;
use std::sync::{Arc, Weak};

/// All that the head of an entry's hit depends on beside the entry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) site: &'a Arc<Site>,
    pub(crate) over: Over,
    pub(crate) signed: bool,
    /// The entry's age, and how long it stays fresh, in seconds.
    pub(crate) age: u64,
    pub(crate) ttl: u64,
}

/// The head that was asked for last of an entry.
#[derive(Debug, Default)]
pub(crate) struct Slot(Mutex<Option<Last>>);

#[derive(Debug)]
struct Last {
    /// Compared by its address, which nobody else is given as long as this is there.
    site: Weak<Site>,
    over: Over,
    signed: bool,
    age: u64,
    ttl: u64,
    text: Option<Arc<[u8]>>,
}

impl Last {
    fn is(&self, asked: Asked<'_>) -> bool {
        std::ptr::eq(self.site.as_ptr(), Arc::as_ptr(asked.site))
            && (self.over, self.signed, self.age, self.ttl) == (asked.over, asked.signed, asked.age, asked.ttl)
    }
}

/// What a slot has.
#[derive(Debug)]
pub(crate) enum Found {
    /// The head.
    Text(Arc<[u8]>),
    /// It was asked for before, and is worth keeping.
    Again,
    New,
}

impl Slot {
    /// The head that is asked for.
    pub(crate) fn find(&self, asked: Asked<'_>) -> Found {
        let mut last = self.0.lock();
        match &*last {
            Some(last) if last.is(asked) => last.text.clone().map_or(Found::Again, Found::Text),
            _ => {
                *last = Some(Last {
                    site: Arc::downgrade(asked.site),
                    over: asked.over,
                    signed: asked.signed,
                    age: asked.age,
                    ttl: asked.ttl,
                    text: None,
                });
                Found::New
            }
        }
    }

    /// Keeps the head that is asked for, unless another one was meanwhile.
    pub(crate) fn keep(&self, asked: Asked<'_>, text: Vec<u8>) {
        if let Some(last) = self.0.lock().as_mut().filter(|last| last.is(asked)) {
            last.text = Some(text.into());
        }
    }
}
