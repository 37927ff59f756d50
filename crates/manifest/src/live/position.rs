//! Where in a live stream something is (RFC 8216bis §6.2.5.2).

use std::cmp::Ordering;

/// A segment, or a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// The media sequence number.
    pub msn: u64,
    /// The part's index in the segment, from 0; `None` is the whole segment.
    pub part: Option<u64>,
}

/// By when it is complete: a segment comes after each of its parts.
impl Ord for Position {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |p: &Self| (p.msn, p.part.is_none(), p.part);
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
