//! What makes a request malformed (RFC 9114 §4.1.2), as far as the HTTP/3 library takes it: it keeps the last of several
//! pseudo-header fields wherever it stands, and fields that belong to a connection.
//!
//! Encoded field sections (RFC 9204 §4.5) are walked through without being decoded: pseudo-header fields are told by
//! their place in the static table, or by their name. What cannot be read here is refused: else the library could read in it
//! what was not looked at.

use super::frames::Fault;
use crate::{multiplexed::OF_CONNECTIONS, upload};
use h3::error::Code;
use http::{
    HeaderMap, Method,
    header::{CONTENT_LENGTH, TE},
    request::Parts,
};

/// Whether a request's pseudo-header fields come first and once each, and are those that a request has (RFC 9114 §4.3);
/// or, in trailers, whether there are none.
pub(super) fn check(section: &[u8], trailers: bool) -> Result<(), Fault> {
    let well_formed = are_well_formed(section, trailers);
    // RFC 9204 §2.2.
    let well_formed = well_formed.ok_or(Fault::Connection(Code::QPACK_DECOMPRESSION_FAILED))?;
    let malformed = Fault::Stream(Code::H3_MESSAGE_ERROR);
    well_formed.then_some(()).ok_or(malformed)
}

/// The same; `None` where that cannot be read.
fn are_well_formed(section: &[u8], trailers: bool) -> Option<bool> {
    let mut rest = section;
    // Two numbers about the dynamic table, which is not used (RFC 9204 §4.5.1).
    integer(&mut rest, 8)?;
    integer(&mut rest, 7)?;
    let (mut seen, mut regular) = ([false; 4], false);
    while !rest.is_empty() {
        match line(&mut rest)? {
            Name::Regular => regular = true,
            Name::Malformed => return Some(false),
            Name::Pseudo(which) => {
                let twice = std::mem::replace(&mut seen[which], true);
                if twice || regular || trailers {
                    return Some(false);
                }
            }
        }
    }
    Some(true)
}

/// The name of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Regular,
    /// By its place in [`PSEUDO`].
    Pseudo(usize),
    /// A pseudo-header field that no request has.
    Malformed,
}

const PSEUDO: [&[u8]; 4] = [b":authority", b":path", b":method", b":scheme"];

impl Name {
    /// Of an entry of the static table (RFC 9204, Appendix A).
    fn of_entry(index: usize) -> Self {
        match index {
            0 | 1 => Self::Pseudo(index),
            15..=21 => Self::Pseudo(2),
            22 | 23 => Self::Pseudo(3),
            // :status
            24..=28 | 63..=71 => Self::Malformed,
            _ => Self::Regular,
        }
    }

    /// Of a name that is spelled out. Encoders have no reason to use Huffman codes for what is in the static table, so a
    /// colon in such a code (0b1011100, RFC 7541, Appendix B) is one too many.
    fn of_text(text: &[u8], huffman: bool) -> Self {
        let colon = |first: &u8| {
            if huffman {
                first >> 1 == 0b101_1100
            } else {
                *first == b':'
            }
        };
        let pseudo = text.first().is_some_and(colon);
        match PSEUDO.iter().position(|name| *name == text) {
            _ if !pseudo => Self::Regular,
            Some(which) if !huffman => Self::Pseudo(which),
            _ => Self::Malformed,
        }
    }
}

/// Walks over a field line (RFC 9204 §4.5.2 to §4.5.6); `None` for one that cannot be read.
fn line(rest: &mut &[u8]) -> Option<Name> {
    let first = *rest.first()?;
    if first & 0x80 != 0 {
        // Indexed; in the static table where T is set.
        let index = integer(rest, 6)?;
        return (first & 0x40 != 0).then(|| Name::of_entry(index));
    }
    let name = if first & 0x40 != 0 {
        let index = integer(rest, 4)?;
        (first & 0x10 != 0).then(|| Name::of_entry(index))?
    } else if first & 0x20 != 0 {
        let length = integer(rest, 3)?;
        Name::of_text(take(rest, length)?, first & 0x08 != 0)
    } else {
        return None;
    };
    let length = integer(rest, 7)?;
    take(rest, length)?;
    Some(name)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(taken)
}

/// An integer in the last `prefix` bits of a byte, and further bytes where they do not suffice (RFC 7541 §5.1): nine of
/// them, as many as the library reads.
fn integer(rest: &mut &[u8], prefix: u32) -> Option<usize> {
    let full = (1_u64 << prefix) - 1;
    let first = u64::from(take(rest, 1)?[0]) & full;
    if first < full {
        return usize::try_from(first).ok();
    }
    let mut value = full;
    for shift in (0..63).step_by(7) {
        let byte = take(rest, 1)?[0];
        value += u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return usize::try_from(value).ok();
        }
    }
    None
}

/// A request is malformed whose fields are each valid: its stream ends with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// The length of the request's content where it says so, in bytes.
pub(super) fn content_length(head: &Parts) -> Result<Option<u64>, Malformed> {
    let headers = &head.headers;
    if OF_CONNECTIONS.iter().any(|name| headers.contains_key(name)) || !te_is_fit(headers) {
        return Err(Malformed);
    }
    let path = head.uri.path();
    if head.method != Method::CONNECT && !path.starts_with('/') && path != "*" {
        return Err(Malformed);
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return Ok(None) };
    let length = upload::content_length(length).filter(|_| lengths.next().is_none());
    length.ok_or(Malformed).map(Some)
}

/// `TE` says nothing but `trailers` (RFC 9114 §4.2).
fn te_is_fit(headers: &HeaderMap) -> bool {
    headers
        .get_all(TE)
        .iter()
        .all(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pseudo_header_fields_come_first_and_once() {
        let (method, path, scheme, authority) = (0xd1, 0xc1, 0xd7, [0x50, 1, b'a']);
        let text = |name: &[u8]| [&[0x20 | name.len().min(7) as u8], &rest_of(name)[..], &[1, b'v']].concat();
        fn rest_of(name: &[u8]) -> Vec<u8> {
            let more = name.len().checked_sub(7).map(|n| n as u8);
            more.into_iter().chain(name.iter().copied()).collect()
        }
        let usual = [&[method, path, scheme][..], &authority].concat();
        let with = |more: &[u8]| [&usual[..], more].concat();
        let (well_formed, malformed) = (Ok(()), Err(Fault::Stream(Code::H3_MESSAGE_ERROR)));
        let unreadable = Err(Fault::Connection(Code::QPACK_DECOMPRESSION_FAILED));
        let long = |length: &[u8]| [&[0x21, b'x', 0x7f], length, &[b'v'; 127]].concat();
        for (name, fields, wanted) in [
            ("the usual", usual.clone(), well_formed),
            ("a field by the table", with(&[0xc2]), well_formed),
            ("a field with a name of the table", with(&[0x52, 1, b'v']), well_formed),
            ("a field", with(&text(b"x-long-name")), well_formed),
            ("spelled out", [&usual[1..], &text(b":method")].concat(), well_formed),
            (":method twice", with(&[0xd2]), malformed),
            (":path twice", with(&[0x51, 1, b'/']), malformed),
            (":authority twice", with(&authority), malformed),
            (":scheme twice", with(&text(b":scheme")), malformed),
            (":status", with(&[0xd9]), malformed),
            (":protocol", with(&text(b":protocol")), malformed),
            ("an unknown one", with(&text(b":edge")), malformed),
            (
                "a colon in Huffman codes",
                with(&[0x2a, 0xb9, 0x56, 1, b'v']),
                malformed,
            ),
            ("a late one", [&text(b"x"), &usual[..]].concat(), malformed),
            ("no name", with(&text(b"")), well_formed),
            ("a string that is cut off", with(&[0x23, b':']), unreadable),
            ("the dynamic table", with(&[0x80, 0xd1]), unreadable),
            (
                "a length in many bytes",
                with(&long(&[0x80, 0x80, 0x80, 0x80, 0])),
                well_formed,
            ),
            (
                "a late one after it",
                with(&[&long(&[0x80, 0x80, 0x80, 0x80, 0])[..], &[0xd1]].concat()),
                malformed,
            ),
            (
                "a length in too many bytes",
                with(&long(&[&[0x80; 9][..], &[0]].concat())),
                unreadable,
            ),
            ("a length without an end", with(&[0x21, b'x', 0x7f, 0x80]), unreadable),
        ] {
            let section = [&[0, 0], &fields[..]].concat();
            assert_eq!(check(&section, false), wanted, "{name}");
        }
        assert_eq!(check(&[0, 0, method], true), malformed);
        assert_eq!(check(&[&[0, 0], &text(b"x")[..]].concat(), true), well_formed);
        for section in [&[][..], &[0xff, 0xff], &[0, 0xff]] {
            assert_eq!(check(section, false), unreadable, "{section:?}");
        }
    }

    #[test]
    fn what_a_head_may_not_say() {
        let of = |method: &str, path: &'static str, fields: &[(&'static str, &'static str)]| {
            let mut request = http::Request::builder().method(method).uri(path);
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            content_length(&request.body(()).unwrap().into_parts().0)
        };
        for (method, path, fields, wanted) in [
            ("GET", "https://a/", vec![], Ok(None)),
            ("GET", "https://a/", vec![("te", "Trailers")], Ok(None)),
            ("GET", "https://a/", vec![("te", "gzip")], Err(Malformed)),
            ("GET", "https://a/", vec![("connection", "close")], Err(Malformed)),
            (
                "GET",
                "https://a/",
                vec![("transfer-encoding", "chunked")],
                Err(Malformed),
            ),
            ("GET", "https://a/", vec![("content-length", "0")], Ok(Some(0))),
            ("POST", "https://a/", vec![("content-length", "5")], Ok(Some(5))),
            ("POST", "https://a/", vec![("content-length", "+5")], Err(Malformed)),
            ("POST", "https://a/", vec![("content-length", "")], Err(Malformed)),
            (
                "POST",
                "https://a/",
                vec![("content-length", "5"), ("content-length", "5")],
                Err(Malformed),
            ),
            ("OPTIONS", "*", vec![], Ok(None)),
            ("CONNECT", "a:443", vec![], Ok(None)),
        ] {
            assert_eq!(of(method, path, &fields), wanted, "{method} {fields:?}");
        }
    }
}
