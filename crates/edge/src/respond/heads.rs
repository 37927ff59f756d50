//! Heads of hits. Until an entry is a second older, all who ask for it in one way get the same head: where two have, it is
//! kept for those who come next.

use super::room::{Room, memory};
use http::HeaderMap;
use parking_lot::Mutex;
use std::sync::Arc;

/// The longest head that is kept, in bytes.
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

impl Head {
    /// What it takes of memory, in bytes.
    fn memory(&self) -> usize {
        16 + match self {
            Self::Text(text) => text.len(),
            Self::Fields(fields) => memory(fields),
        }
    }
}

/// What was asked for last.
#[derive(Debug, Default)]
pub(super) struct Slot(Mutex<Asked>);

#[derive(Debug, Default)]
struct Asked {
    last: Option<(HeadKey, State)>,
    /// The room that its heads have, in bytes.
    room: usize,
}

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
        let mut asked = self.0.lock();
        match &asked.last {
            Some((of, state)) if *of == key => match state {
                State::AskedOnce => Last::Again,
                State::Kept(head) => Last::Kept(head.clone()),
                State::NotKept => Last::None,
            },
            _ => {
                let other = asked.last.replace((key, State::AskedOnce));
                // To free it takes longer than all else here.
                drop(asked);
                drop(other);
                Last::None
            }
        }
    }

    /// Keeps a head, if it is to be kept, has room, and no other one was asked for meanwhile.
    pub(super) fn keep(&self, key: HeadKey, head: Option<Head>, room: &Room) {
        let mut asked = self.0.lock();
        let Asked { last, room: own } = &mut *asked;
        if let Some((of, state)) = last
            && *of == key
        {
            let head = head.filter(|head| {
                let more = head.memory().saturating_sub(*own);
                let fits = more == 0 || room.take_any(more);
                *own += if fits { more } else { 0 };
                fits
            });
            *state = head.map_or(State::NotKept, State::Kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::respond::ATTACHED_BYTES;

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
            slot.keep(KEY, Some(Head::Text([1].into())), &Room::default());
            assert_eq!(text(&slot).as_deref(), Some(&[1][..]));
            assert!(matches!(slot.look(other), Last::None), "{other:?}");
            // Made before, and kept too late.
            slot.keep(KEY, Some(Head::Text([1].into())), &Room::default());
            assert!(matches!(slot.look(other), Last::Again), "{other:?}");
            assert!(matches!(slot.look(KEY), Last::None), "{other:?}");
        }
    }

    #[test]
    fn what_is_not_kept_is_not_made_to_be_kept_again() {
        let slot = Slot::default();
        assert!(matches!((slot.look(KEY), slot.look(KEY)), (Last::None, Last::Again)));
        slot.keep(KEY, None, &Room::default());
        assert!(matches!(slot.look(KEY), Last::None));
    }

    #[test]
    fn a_slot_has_the_room_of_its_longest_head() {
        let (slot, room) = (Slot::default(), Room::default());
        let keeps = |age, length: usize| {
            let key = HeadKey { age, ..KEY };
            let _ = (slot.look(key), slot.look(key));
            slot.keep(key, Some(Head::Text(vec![1; length].into())), &room);
            matches!(slot.look(key), Last::Kept(_))
        };
        let all = ATTACHED_BYTES as usize;
        assert!(keeps(0, 1000));
        assert!(room.take(all - 1216) && !room.take(201));
        assert!(keeps(1, 1200) && !room.take(1), "what is more is taken");
        assert!(keeps(2, 500) && keeps(3, 1200), "what is there is used again");
    }
}
