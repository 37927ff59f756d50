//! Byte ranges and `multipart/byteranges` (RFC 9110 §14, §14.6). Pure.

use bytes::Bytes;
use http::{HeaderMap, header::CONTENT_RANGE};
use smallvec::SmallVec;
use std::ops::Range;

/// The most ranges that one request is served; more are ignored, and the whole object is the answer.
pub const MAX_RANGES: usize = 16;

/// What a `Range` field comes to for an object of a known length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ranges {
    /// None, malformed, of another unit, or too many: answer 200.
    Ignored,
    /// No byte of the object is asked for: answer 416.
    Unsatisfiable,
    /// Answer 206 with these, in the order asked for; overlapping and adjacent ones made one. Never empty.
    Satisfiable(SmallVec<[Range<u64>; 1]>),
}

/// Reads a `Range` field's value for an object of `length` bytes.
pub fn parse(value: &str, length: u64) -> Ranges {
    let Some((unit, set)) = value.split_once('=') else {
        return Ranges::Ignored;
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Ranges::Ignored;
    }
    let mut ranges: SmallVec<[Range<u64>; 1]> = SmallVec::new();
    let mut count = 0;
    for spec in set
        .split(',')
        .map(|s| s.trim_matches([' ', '\t']))
        .filter(|s| !s.is_empty())
    {
        count += 1;
        // Far over the limit: not worth reading on.
        if count > 4 * MAX_RANGES {
            return Ranges::Ignored;
        }
        match parse_one(spec, length) {
            None => return Ranges::Ignored,
            Some(range) if range.is_empty() => {}
            Some(range) => merge(&mut ranges, range),
        }
    }
    match ranges.len() {
        _ if count == 0 => Ranges::Ignored,
        0 => Ranges::Unsatisfiable,
        1..=MAX_RANGES => Ranges::Satisfiable(ranges),
        _ => Ranges::Ignored,
    }
}

/// One `first-last`, `first-` or `-suffix`; empty when it lies past the end; `None` when malformed.
fn parse_one(spec: &str, length: u64) -> Option<Range<u64>> {
    let (first, last) = spec.split_once('-')?;
    // More digits than a u64 holds are past any end.
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    if first.is_empty() {
        let suffix = number(last)?;
        // All of nothing, of which there is no range to tell (RFC 9110 §14.1.2).
        if length == 0 && suffix > 0 {
            return None;
        }
        return Some(length.saturating_sub(suffix)..length);
    }
    let first = number(first)?;
    let end = if last.is_empty() {
        length
    } else {
        let last = number(last)?;
        if last < first {
            return None;
        }
        last.saturating_add(1).min(length)
    };
    Some(first.min(end)..end)
}

/// Adds a range, made one with those it touches.
fn merge(ranges: &mut SmallVec<[Range<u64>; 1]>, mut range: Range<u64>) {
    let mut at = None;
    let mut index = 0;
    while index < ranges.len() {
        let other = &ranges[index];
        if range.start <= other.end && other.start <= range.end {
            range = range.start.min(other.start)..range.end.max(other.end);
            ranges.remove(index);
            at.get_or_insert(index);
            // What is larger now may touch one that was passed already.
            index = 0;
        } else {
            index += 1;
        }
    }
    let at = at.unwrap_or(ranges.len()).min(ranges.len());
    ranges.insert(at, range);
}

/// The value of `Content-Range` for one part.
pub fn content_range(range: &Range<u64>, length: u64) -> String {
    format!("bytes {}-{}/{length}", range.start, range.end - 1)
}

/// What the `Content-Range` of a message tells, see [`parse_content_range`]; `None` where there is none, or several.
pub(crate) fn stated(headers: &HeaderMap) -> Option<(Range<u64>, Option<u64>)> {
    let mut values = headers.get_all(CONTENT_RANGE).iter();
    let (value, further) = (values.next()?, values.next());
    parse_content_range(value.to_str().ok()?).filter(|_| further.is_none())
}

/// What one `Content-Range` field tells: the bytes, and of how many, where that is known. `None` when it is of another
/// unit or cannot be (RFC 9110 §14.4).
pub fn parse_content_range(value: &str) -> Option<(Range<u64>, Option<u64>)> {
    let (unit, rest) = value.split_once(' ')?;
    let (range, length) = rest.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse::<u64>().ok()).flatten()
    };
    let (first, last) = (number(first)?, number(last)?);
    let length = match length {
        "*" => None,
        length => Some(number(length)?),
    };
    let valid = unit.eq_ignore_ascii_case("bytes") && first <= last && last < length.unwrap_or(u64::MAX);
    valid.then(|| (first..last + 1, length))
}

/// Where the first range of a `Range` field begins, where that does not depend on the object's length.
pub fn first_position(value: &str) -> Option<u64> {
    let (unit, set) = value.split_once('=')?;
    let (first, _) = set.split(',').next()?.split_once('-')?;
    let first = first.trim_matches([' ', '\t']);
    let digits = !first.is_empty() && first.bytes().all(|b| b.is_ascii_digit());
    (digits && unit.trim().eq_ignore_ascii_case("bytes")).then(|| first.parse().ok())?
}

/// Whether a `Range` field asks for one suffix, `bytes=-N`: where it begins is not known before the object's length is.
pub fn is_suffix(value: &str) -> bool {
    let suffix = value
        .split_once('=')
        .filter(|(unit, _)| unit.trim().eq_ignore_ascii_case("bytes"));
    suffix
        .and_then(|(_, set)| set.trim().strip_prefix('-'))
        .is_some_and(|count| !count.is_empty() && count.bytes().all(|b| b.is_ascii_digit()))
}

/// The framing of a `multipart/byteranges` body: what stands before each part's bytes, and what closes it.
#[derive(Debug)]
pub struct Multipart {
    /// A header block for each range, in their order.
    pub headers: Vec<Bytes>,
    /// The closing delimiter.
    pub close: Bytes,
}

impl Multipart {
    /// Frames `ranges` of an object of `length` bytes.
    pub fn new(ranges: &[Range<u64>], length: u64, content_type: Option<&str>, boundary: &str) -> Self {
        let part = |range: &Range<u64>| {
            let content_type = content_type
                .map(|t| format!("Content-Type: {t}\r\n"))
                .unwrap_or_default();
            let content_range = content_range(range, length);
            Bytes::from(format!(
                "\r\n--{boundary}\r\n{content_type}Content-Range: {content_range}\r\n\r\n"
            ))
        };
        Self {
            headers: ranges.iter().map(part).collect(),
            close: Bytes::from(format!("\r\n--{boundary}--\r\n")),
        }
    }

    /// The length of the whole body.
    pub fn len(&self, ranges: &[Range<u64>]) -> u64 {
        let framing: usize = self.headers.iter().map(Bytes::len).sum::<usize>() + self.close.len();
        framing as u64 + ranges.iter().map(|r| r.end - r.start).sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn range_sets() {
        let some = |list: &[Range<u64>]| Ranges::Satisfiable(list.iter().cloned().collect());
        let many = format!(
            "bytes={}",
            (0..17)
                .map(|i| format!("{}-{}", i * 4, i * 4))
                .collect::<Vec<_>>()
                .join(",")
        );
        let overlapping = format!("bytes={}", vec!["0-"; 60].join(","));
        for (value, length, expected) in [
            ("bytes=0-0", 10, some(&[0..1])),
            ("bytes=0-", 10, some(&[0..10])),
            ("bytes=5-99", 10, some(&[5..10])),
            ("bytes=-3", 10, some(&[7..10])),
            ("bytes=-30", 10, some(&[0..10])),
            // All of nothing (RFC 9110 §14.1.2), which no 206 can say.
            ("bytes=-5", 0, Ranges::Ignored),
            ("bytes=-0", 0, Ranges::Unsatisfiable),
            ("bytes=0-", 0, Ranges::Unsatisfiable),
            ("bytes=9-99999999999999999999999", 10, some(&[9..10])),
            ("Bytes = 1-2", 10, some(&[1..3])),
            ("bytes=0-1, 4-5", 10, some(&[0..2, 4..6])),
            ("bytes=4-5,0-1", 10, some(&[4..6, 0..2])),
            ("bytes=0-3,2-5,6-7", 10, some(&[0..8])),
            ("bytes=0-1,20-30", 10, some(&[0..2])),
            ("bytes=10-", 10, Ranges::Unsatisfiable),
            ("bytes=-0", 10, Ranges::Unsatisfiable),
            ("bytes=99999999999999999999-", 10, Ranges::Unsatisfiable),
            ("bytes=0-", 0, Ranges::Unsatisfiable),
            ("bytes=3-2", 10, Ranges::Ignored),
            ("bytes=", 10, Ranges::Ignored),
            ("bytes=a-b", 10, Ranges::Ignored),
            ("bytes=--1", 10, Ranges::Ignored),
            ("bytes=+1-2", 10, Ranges::Ignored),
            ("bytes", 10, Ranges::Ignored),
            ("items=0-1", 10, Ranges::Ignored),
            (&many, 100, Ranges::Ignored),
            (&overlapping, 10, some(&[0..10])),
        ] {
            assert_eq!(parse(value, length), expected, "{value}");
        }
    }

    #[test]
    fn content_ranges() {
        for (value, expected) in [
            ("bytes 0-4/10", Some((0..5, Some(10)))),
            ("Bytes 9-9/10", Some((9..10, Some(10)))),
            ("bytes 0-4/*", Some((0..5, None))),
            ("bytes 0-10/10", None),
            ("bytes 5-4/10", None),
            ("bytes */10", None),
            ("items 0-4/10", None),
            ("bytes 0-4", None),
            ("bytes +0-4/10", None),
            ("bytes 0-18446744073709551615/*", None),
        ] {
            assert_eq!(parse_content_range(value), expected, "{value}");
        }
        for (value, expected) in [
            ("bytes=-5", true),
            ("bytes = -5", true),
            ("bytes=-", false),
            ("bytes=0-5", false),
            ("bytes=-5,0-1", false),
            ("items=-5", false),
        ] {
            assert_eq!(is_suffix(value), expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn ranges_lie_within_and_apart(value in "bytes=[0-9, -]{0,60}", length in 0u64..200) {
            if let Ranges::Satisfiable(ranges) = parse(&value, length) {
                prop_assert!(!ranges.is_empty() && ranges.len() <= MAX_RANGES);
                for (i, a) in ranges.iter().enumerate() {
                    prop_assert!(a.start < a.end && a.end <= length);
                    prop_assert!(ranges[i + 1..].iter().all(|b| a.end < b.start || b.end < a.start));
                }
            }
        }
    }
}
