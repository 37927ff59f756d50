//! How a large object is kept: its head under its own key, and its bytes in aligned slices, each a stored response of its
//! own. All slices are of one representation, which a strong validator tells (RFC 9110 §8.8.1): bytes of a changed object
//! never meet those from before.

use crate::{conditional, fields::unshared_value, fill::FetchedResponse, policy, range};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{ACCEPT_RANGES, DATE, ETAG, IF_MATCH, IF_UNMODIFIED_SINCE, LAST_MODIFIED},
};
use std::ops::Range;
use uuid::Uuid;

/// Why a slice of an object cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SliceError {
    /// The origin has another representation of it now.
    #[error("the object has changed at the origin")]
    Changed,
    /// The origin does not answer ranges with ranges.
    #[error("the origin does not serve ranges of the object")]
    NoRanges,
    /// The origin fails now.
    #[error("the origin fails")]
    Failing,
}

/// What tells that bytes which are fetched at different times are of one representation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Validator {
    /// A strong entity tag.
    ETag(HeaderValue),
    /// A `Last-Modified` that is strong (RFC 9110 §8.8.2.2).
    Modified(HeaderValue),
}

impl Validator {
    /// The strong validator of a response, if it has one.
    pub fn strong(headers: &HeaderMap) -> Option<Self> {
        if let Some(etag) = headers.get(ETAG) {
            let text = etag.as_bytes();
            return (text.len() >= 2 && text[0] == b'"').then(|| Self::ETag(unshared_value(etag)));
        }
        let modified = headers.get(LAST_MODIFIED)?;
        let date = |value: &HeaderValue| httpdate::parse_http_date(value.to_str().ok()?).ok();
        let is_strong = conditional::is_strong(date(modified)?, date(headers.get(DATE)?)?);
        is_strong.then(|| Self::Modified(unshared_value(modified)))
    }

    /// The condition under which an origin is asked for more of the representation.
    pub fn condition(&self) -> (HeaderName, HeaderValue) {
        match self {
            Self::ETag(etag) => (IF_MATCH, etag.clone()),
            Self::Modified(modified) => (IF_UNMODIFIED_SINCE, modified.clone()),
        }
    }

    pub(crate) fn is_of(&self, headers: &HeaderMap) -> bool {
        match self {
            Self::ETag(etag) => headers.get(ETAG) == Some(etag),
            Self::Modified(modified) => headers.get(LAST_MODIFIED) == Some(modified) && !headers.contains_key(ETAG),
        }
    }
}

/// A representation that is kept in slices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slices {
    /// What its slices are stored under. Random, so that nothing leads to those of a representation that is not stored
    /// any more.
    pub(crate) id: u128,
    /// In bytes.
    pub(crate) length: u64,
    /// Of each slice but the last, in bytes.
    pub(crate) size: u64,
    pub(crate) validator: Validator,
}

impl Slices {
    /// How to slice what an origin answered a request for `asked`, or for the whole, and which slices its body begins
    /// with; `None` if it fits into one slice or cannot be put together of several fetches.
    pub(crate) fn of(response: &FetchedResponse, asked: Option<&Range<u64>>, size: u64) -> Option<(Self, u64)> {
        let headers = &response.head.headers;
        let (first, length) = match (response.head.status, asked) {
            (StatusCode::OK, _) if serves_ranges(headers) => (0, response.length?),
            (StatusCode::PARTIAL_CONTENT, Some(asked)) => {
                let length = whole_length(headers, asked)?;
                (asked.start / size, length)
            }
            _ => return None,
        };
        if length <= size {
            return None;
        }
        let slices = Self {
            id: Uuid::new_v4().as_u128(),
            length,
            size,
            validator: Validator::strong(headers)?,
        };
        Some((slices, first))
    }

    /// The length of the whole, in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn count(&self) -> u64 {
        self.length.div_ceil(self.size)
    }

    /// The slice that holds a byte.
    pub(crate) fn at(&self, position: u64) -> u64 {
        position / self.size
    }

    /// The bytes of a slice.
    pub(crate) fn range(&self, slice: u64) -> Range<u64> {
        let start = slice * self.size;
        start..start.saturating_add(self.size).min(self.length)
    }

    /// Whether they are of one representation.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        (self.length, self.size, &self.validator) == (other.length, other.size, &other.validator)
    }

    /// Whether a response is the answer to a request for these bytes of this representation.
    pub(crate) fn check(&self, response: &FetchedResponse, asked: &Range<u64>) -> Result<(), SliceError> {
        let headers = &response.head.headers;
        match response.head.status {
            StatusCode::PARTIAL_CONTENT if !self.validator.is_of(headers) => Err(SliceError::Changed),
            StatusCode::PARTIAL_CONTENT => match whole_length(headers, asked) {
                Some(length) if length == self.length => Ok(()),
                Some(_) => Err(SliceError::Changed),
                None => Err(SliceError::NoRanges),
            },
            StatusCode::OK if self.validator.is_of(headers) && response.length == Some(self.length) => {
                Err(SliceError::NoRanges)
            }
            status if policy::is_failure(status) => Err(SliceError::Failing),
            _ => Err(SliceError::Changed),
        }
    }
}

fn serves_ranges(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_RANGES).iter();
    values
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|unit| unit.trim().eq_ignore_ascii_case("bytes"))
}

/// The length of the whole as the answer to a range tells it; `None` if it is not the range that was asked for.
pub(crate) fn whole_length(headers: &HeaderMap, asked: &Range<u64>) -> Option<u64> {
    let (range, length) = range::stated(headers)?;
    let length = length?;
    let is_asked = range.start == asked.start && range.end == asked.end.min(length);
    is_asked.then_some(length)
}

/// The aligned range of `size` bytes with which to begin to get what a `Range` field asks for, if the object turns out
/// large; `None` where that cannot be known.
pub fn first_slice(asked: &str, size: u64) -> Option<Range<u64>> {
    let first = range::first_position(asked)?;
    let start = first / size * size;
    Some(start..start.checked_add(size)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ResponseHead, policy::Settings};
    use bytes::Bytes;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter()
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_str(v).expect("a value")))
            .collect()
    }

    fn response(status: u16, length: u64, list: &[(&'static str, &str)]) -> FetchedResponse {
        let head = ResponseHead {
            status: StatusCode::from_u16(status).expect("a status"),
            headers: headers(list),
        };
        let mut response = FetchedResponse::whole(head, Bytes::new(), Settings::http());
        response.length = Some(length);
        response
    }

    const OLD: &str = "Mon, 01 Jan 2024 00:00:00 GMT";
    const NEXT: &str = "Mon, 01 Jan 2024 00:00:01 GMT";

    #[test]
    fn strong_validators() {
        for (fields, expected) in [
            (&[("etag", "\"a\"")][..], Some(("if-match", "\"a\""))),
            (&[("etag", "W/\"a\"")], None),
            (&[("etag", "a")], None),
            (&[("etag", "W/\"a\""), ("last-modified", OLD), ("date", NEXT)], None),
            (
                &[("last-modified", OLD), ("date", NEXT)],
                Some(("if-unmodified-since", OLD)),
            ),
            (&[("last-modified", OLD), ("date", OLD)], None),
            (&[("last-modified", NEXT), ("date", OLD)], None),
            (&[("last-modified", OLD)], None),
            (&[], None),
        ] {
            let condition = Validator::strong(&headers(fields)).map(|v| v.condition());
            let condition = condition
                .as_ref()
                .map(|(n, v)| (n.as_str(), v.to_str().expect("ASCII")));
            assert_eq!(condition, expected, "{fields:?}");
        }
    }

    #[test]
    fn a_validator_keeps_no_buffer_of_a_connection() {
        let read = bytes::Bytes::from(vec![b'"'; 1 << 16]);
        let etag = HeaderValue::from_maybe_shared(read.slice(..10)).expect("ASCII");
        let validator = Validator::strong(&[(ETAG, etag)].into_iter().collect());
        assert!(validator.is_some() && read.is_unique());
    }

    #[test]
    fn what_is_sliced() {
        let tag = ("etag", "\"a\"");
        let ranges = ("accept-ranges", "bytes");
        let (asked, whole) = (Some(8..16), None);
        for (name, status, length, fields, asked, expected) in [
            ("large", 200, 9, &[tag, ranges][..], &whole, Some((9, 0))),
            ("one slice", 200, 8, &[tag, ranges], &whole, None),
            ("no ranges", 200, 9, &[tag], &whole, None),
            ("other ranges", 200, 9, &[tag, ("accept-ranges", "none")], &whole, None),
            ("no validator", 200, 9, &[ranges], &whole, None),
            ("an error", 404, 9, &[tag, ranges], &whole, None),
            (
                "a range",
                206,
                8,
                &[tag, ("content-range", "bytes 8-15/99")],
                &asked,
                Some((99, 1)),
            ),
            (
                "the last",
                206,
                2,
                &[tag, ("content-range", "bytes 8-9/10")],
                &asked,
                Some((10, 1)),
            ),
            (
                "not asked for",
                206,
                8,
                &[tag, ("content-range", "bytes 8-15/99")],
                &whole,
                None,
            ),
            (
                "another",
                206,
                8,
                &[tag, ("content-range", "bytes 0-7/99")],
                &asked,
                None,
            ),
            (
                "shorter",
                206,
                4,
                &[tag, ("content-range", "bytes 8-11/99")],
                &asked,
                None,
            ),
            (
                "of no length",
                206,
                8,
                &[tag, ("content-range", "bytes 8-15/*")],
                &asked,
                None,
            ),
            ("the whole instead", 200, 99, &[tag, ranges], &asked, Some((99, 0))),
        ] {
            let found = Slices::of(&response(status, length, fields), asked.as_ref(), 8);
            assert_eq!(found.map(|(s, first)| (s.length, first)), expected, "{name}");
        }
    }

    #[test]
    fn what_a_slice_is_taken_from() {
        let slices = Slices {
            id: 1,
            length: 20,
            size: 8,
            validator: Validator::ETag(HeaderValue::from_static("\"a\"")),
        };
        assert_eq!((slices.count(), slices.at(7), slices.at(8)), (3, 0, 1));
        assert_eq!((slices.range(0), slices.range(2)), (0..8, 16..20));
        use SliceError::{Changed, Failing, NoRanges};
        let tag = ("etag", "\"a\"");
        for (name, status, length, fields, expected) in [
            ("it", 206, 8, &[tag, ("content-range", "bytes 8-15/20")][..], Ok(())),
            (
                "another length",
                206,
                8,
                &[tag, ("content-range", "bytes 8-15/21")],
                Err(Changed),
            ),
            (
                "another tag",
                206,
                8,
                &[("etag", "\"b\""), ("content-range", "bytes 8-15/20")],
                Err(Changed),
            ),
            ("no tag", 206, 8, &[("content-range", "bytes 8-15/20")], Err(Changed)),
            (
                "another range",
                206,
                8,
                &[tag, ("content-range", "bytes 0-7/20")],
                Err(NoRanges),
            ),
            ("the whole", 200, 20, &[tag], Err(NoRanges)),
            ("another whole", 200, 20, &[("etag", "\"b\"")], Err(Changed)),
            ("condition failed", 412, 0, &[], Err(Changed)),
            ("shorter now", 416, 0, &[], Err(Changed)),
            ("gone", 404, 0, &[], Err(Changed)),
            ("down", 503, 0, &[], Err(Failing)),
            ("busy", 429, 0, &[], Err(Failing)),
            ("slow", 408, 0, &[], Err(Failing)),
        ] {
            assert_eq!(
                slices.check(&response(status, length, fields), &(8..16)),
                expected,
                "{name}"
            );
        }
    }

    #[test]
    fn the_slice_that_a_range_begins_in() {
        for (asked, expected) in [
            ("bytes=0-0", Some(0..8)),
            ("bytes=17-", Some(16..24)),
            ("bytes=9-10, 0-1", Some(8..16)),
            ("bytes=-5", None),
            ("bytes=x-", None),
            ("items=1-2", None),
            ("bytes=18446744073709551615-", None),
        ] {
            assert_eq!(first_slice(asked, 8), expected, "{asked}");
        }
    }
}
