//! Heads of hits. Until an entry is a second older, all who ask for it in one way get the same head: where two have, it is
//! kept for those who come next.

use http::HeaderMap;
use parking_lot::Mutex;
use std::sync::Arc;

/// The longest head that is kept, in bytes: what heads take of memory is estimated.
pub(super) const LONGEST: usize = 4 << 10;

/// All that the head of an entry's hit depends on beside the entry and what it goes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeadKey {
    /// The site's number.
    pub(super) site: u64,
    pub(super) signed: bool,
    /// The entry's age, and how long it stays fresh, in seconds.
    pub(super) age: u64,
    pub(super) ttl: u64,
}

/// A head of status 200.
#[derive(Debug, Clone)]
pub(super) enum Head {
    /// As HTTP/1.1 has it.
    Text(Arc<[u8]>),
    /// The fields, for HTTP/2 and HTTP/3.
    Fields(Arc<HeaderMap>),
}

/// What was asked for last.
#[derive(Debug, Default)]
pub(super) struct Slot(Mutex<Option<(HeadKey, State)>>);

#[derive(Debug)]
enum State {
    AskedOnce,
    Kept(Head),
    /// It is too long, or nothing to be kept.
    NotKept,
}

/// What a slot has of a head.
#[derive(Debug)]
pub(super) enum Last {
    Kept(Head),
    /// It was asked for before, and is worth keeping.
    Again,
    /// Nothing.
    None,
}

impl Slot {
    /// What there is of a head. From now on it is the one that was asked for last.
    pub(super) fn look(&self, key: HeadKey) -> Last {
        let mut last = self.0.lock();
        match &*last {
            Some((of, state)) if *of == key => match state {
                State::AskedOnce => Last::Again,
                State::Kept(head) => Last::Kept(head.clone()),
                State::NotKept => Last::None,
            },
            _ => {
                let other = last.replace((key, State::AskedOnce));
                // To free it takes longer than all else here.
                drop(last);
                drop(other);
                Last::None
            }
        }
    }

    /// Keeps a head, if it is to be kept and no other one was asked for meanwhile.
    pub(super) fn keep(&self, key: HeadKey, head: Option<Head>) {
        if let Some((of, state)) = &mut *self.0.lock()
            && *of == key
        {
            *state = head.map_or(State::NotKept, State::Kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: HeadKey = HeadKey {
        site: 1,
        signed: false,
        age: 3,
        ttl: 7,
    };

    #[test]
    fn the_head_that_is_asked_for_twice_is_kept_until_another_is() {
        let text = |slot: &Slot| match slot.look(KEY) {
            Last::Kept(Head::Text(text)) => Some(text),
            _ => None,
        };
        let others = [
            HeadKey { site: 2, ..KEY },
            HeadKey { signed: true, ..KEY },
            HeadKey { age: 4, ..KEY },
            HeadKey { ttl: 6, ..KEY },
        ];
        for other in others {
            let slot = Slot::default();
            assert!(matches!(slot.look(KEY), Last::None));
            assert!(matches!(slot.look(KEY), Last::Again));
            slot.keep(KEY, Some(Head::Text([1].into())));
            assert_eq!(text(&slot).as_deref(), Some(&[1][..]));
            assert!(matches!(slot.look(other), Last::None), "{other:?}");
            // Made before, and kept too late.
            slot.keep(KEY, Some(Head::Text([1].into())));
            assert!(matches!(slot.look(other), Last::Again), "{other:?}");
            assert!(matches!(slot.look(KEY), Last::None), "{other:?}");
        }
    }

    #[test]
    fn what_is_not_kept_is_not_made_to_be_kept_again() {
        let slot = Slot::default();
        assert!(matches!((slot.look(KEY), slot.look(KEY)), (Last::None, Last::Again)));
        slot.keep(KEY, None);
        assert!(matches!(slot.look(KEY), Last::None));
    }
}
