//! The content of a request of HTTP/1.1 as it is framed on the connection (RFC 9112 §6, §7). Pure.

use super::head::{Framing, has_bare_line_feed};
use crate::limits;
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

/// The longest line of a chunk's size and extensions, in bytes; and what all extensions of a body may be, since each comes
/// with a chunk that may be a byte long.
const LINE_BYTES: usize = 1024;
const EXTENSION_BYTES: usize = 16 * 1024;

/// The trailers of a body together, in bytes.
const TRAILER_BYTES: usize = limits::HEADER_BYTES;

/// Takes a body out of what is read.
#[derive(Debug)]
pub(super) struct Decoder {
    state: State,
    /// Bytes of chunk extensions that may still come.
    extensions: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many bytes, and the end.
    Length(u64),
    /// A line with a chunk's size.
    Size,
    /// So many bytes of a chunk.
    Chunk(u64),
    /// The line's end that a chunk's bytes have.
    ChunkEnd,
    /// Fields, and an empty line.
    Trailers,
    Ended,
    /// It was malformed: where it ends cannot be told any more.
    Broken,
}

/// What comes next of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
    /// What is still to be read.
    Unread,
    End,
}

/// The body is not framed as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body's chunks are malformed")]
pub(super) struct Malformed;

impl Decoder {
    pub(super) fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Empty => State::Ended,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size,
        };
        Self {
            state,
            extensions: EXTENSION_BYTES,
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Takes the next part from the begin of `buffer`. What is malformed once stays so.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Part, Malformed> {
        let part = self.read(buffer);
        if part.is_err() {
            self.state = State::Broken;
        }
        part
    }

    fn read(&mut self, buffer: &mut BytesMut) -> Result<Part, Malformed> {
        loop {
            match self.state {
                State::Ended => return Ok(Part::End),
                State::Broken => return Err(Malformed),
                State::Length(left) | State::Chunk(left) => {
                    let Some(data) = take(buffer, left) else {
                        return Ok(Part::Unread);
                    };
                    let left = left - data.len() as u64;
                    self.state = match self.state {
                        State::Length(_) if left == 0 => State::Ended,
                        State::Length(_) => State::Length(left),
                        _ if left == 0 => State::ChunkEnd,
                        _ => State::Chunk(left),
                    };
                    return Ok(Part::Data(data));
                }
                State::Size => {
                    let Some(line) = line(buffer)? else {
                        return Ok(Part::Unread);
                    };
                    let (size, extension) = chunk_size(&line).ok_or(Malformed)?;
                    self.extensions = self.extensions.checked_sub(extension).ok_or(Malformed)?;
                    self.state = if size == 0 { State::Trailers } else { State::Chunk(size) };
                }
                State::ChunkEnd => match buffer.first_chunk() {
                    Some(b"\r\n") => {
                        buffer.advance(2);
                        self.state = State::Size;
                    }
                    Some(_) => return Err(Malformed),
                    None if buffer.first().is_some_and(|b| *b != b'\r') => return Err(Malformed),
                    None => return Ok(Part::Unread),
                },
                State::Trailers => {
                    let Some(trailers) = trailers(buffer)? else {
                        return Ok(Part::Unread);
                    };
                    self.state = State::Ended;
                    if !trailers.is_empty() {
                        return Ok(Part::Trailers(trailers));
                    }
                }
            }
        }
    }
}

/// At most so many bytes that are there; `None` where there is none.
fn take(buffer: &mut BytesMut, most: u64) -> Option<Bytes> {
    let length = usize::try_from(most).unwrap_or(usize::MAX).min(buffer.len());
    (length > 0).then(|| buffer.split_to(length).freeze())
}

/// A line without its end, once it is all there. It ends with CR LF, and nothing else does (RFC 9112 §7.1): recipients
/// that differ in this are made to read two bodies.
fn line(buffer: &mut BytesMut) -> Result<Option<Bytes>, Malformed> {
    match memchr::memchr(b'\n', buffer) {
        Some(end) if end > LINE_BYTES => Err(Malformed),
        Some(end) => {
            let line = buffer.split_to(end + 1).freeze();
            let text = line.strip_suffix(b"\r\n").ok_or(Malformed)?;
            Ok(Some(line.slice_ref(text)))
        }
        None if buffer.len() > LINE_BYTES => Err(Malformed),
        None => Ok(None),
    }
}

/// The size that a chunk's line begins with, in bytes, and the length of what stands behind it.
fn chunk_size(line: &[u8]) -> Option<(u64, usize)> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let (size, rest) = line.split_at(digits);
    // Fifteen digits are an exabyte.
    if !(1..=15).contains(&digits) || rest.contains(&b'\r') {
        return None;
    }
    let extension = rest.trim_ascii_start();
    if !extension.is_empty() && !extension.starts_with(b";") {
        return None;
    }
    let size = u64::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
    Some((size, rest.len()))
}

/// The fields after the last chunk, once the empty line behind them is there.
fn trailers(buffer: &mut BytesMut) -> Result<Option<HeaderMap>, Malformed> {
    let mut fields = [httparse::EMPTY_HEADER; limits::HEADER_COUNT];
    let (length, trailers) = match httparse::parse_headers(buffer, &mut fields) {
        Ok(httparse::Status::Complete((length, fields))) => {
            let pairs = fields.iter().map(|field| {
                let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
                Some((name, HeaderValue::from_bytes(field.value).ok()?))
            });
            (length, pairs.collect::<Option<Vec<_>>>().ok_or(Malformed)?)
        }
        Ok(httparse::Status::Partial) if buffer.len() <= TRAILER_BYTES => return Ok(None),
        _ => return Err(Malformed),
    };
    if has_bare_line_feed(&buffer[..length]) {
        return Err(Malformed);
    }
    buffer.advance(length);
    let mut map = HeaderMap::with_capacity(trailers.len());
    for (name, value) in trailers {
        map.append(name, value);
    }
    Ok(Some(map))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// What a body comes to whose bytes come in pieces of `step`: its content, its trailers, and what is left.
    fn decode(framing: Framing, text: &[u8], step: usize) -> Result<(Vec<u8>, usize, Vec<u8>), Malformed> {
        let mut decoder = Decoder::new(framing);
        let (mut buffer, mut content, mut fields) = (BytesMut::new(), Vec::new(), 0);
        let mut pieces = text.chunks(step.max(1));
        loop {
            match decoder.next(&mut buffer)? {
                Part::Data(data) => content.extend_from_slice(&data),
                Part::Trailers(trailers) => fields = trailers.len(),
                Part::Unread => match pieces.next() {
                    Some(piece) => buffer.extend_from_slice(piece),
                    None => return Ok((content, usize::MAX, buffer.to_vec())),
                },
                Part::End => {
                    assert!(decoder.has_ended());
                    let rest = buffer.iter().chain(pieces.flatten()).copied().collect();
                    return Ok((content, fields, rest));
                }
            }
        }
    }

    #[test]
    fn bodies_end_where_they_say() {
        for (framing, text, content, fields, rest) in [
            (Framing::Empty, "GET /", "", 0, "GET /"),
            (Framing::Length(3), "abcGET /", "abc", 0, "GET /"),
            (Framing::Chunked, "0\r\n\r\nGET /", "", 0, "GET /"),
            (Framing::Chunked, "3\r\nabc\r\n0\r\n\r\nGET /", "abc", 0, "GET /"),
            (
                Framing::Chunked,
                "3;a=\"b\"\r\nabc\r\n00A ; x\r\n0123456789\r\n0\r\n\r\n",
                "abc0123456789",
                0,
                "",
            ),
            (
                Framing::Chunked,
                "1\r\na\r\n0\r\nX: y\r\nZ: 1\r\n\r\nrest",
                "a",
                2,
                "rest",
            ),
        ] {
            for step in 1..=text.len() {
                let decoded = decode(framing, text.as_bytes(), step);
                let wanted = (content.as_bytes().to_vec(), fields, rest.as_bytes().to_vec());
                assert_eq!(decoded, Ok(wanted), "{text:?} in pieces of {step}");
            }
        }
    }

    #[test]
    fn chunks_that_can_be_read_in_two_ways_are_refused() {
        for text in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\na\r\n",
            " 1\r\na\r\n",
            "0x1\r\na\r\n",
            "1\na\n0\n\n",
            "1\r\na\n0\r\n\r\n",
            "1\r\nab\r\n0\r\n\r\n",
            "1 1\r\na\r\n",
            "1\ra\r\n",
            "1;\rx\r\na\r\n",
            "1234567890123456\r\n",
            "0\r\n\n",
            "0\r\nX: y\n\r\n",
            "0\r\nX: y\r\n\n",
            "0\r\nX : y\r\n\r\n",
            "0\r\n\0: y\r\n\r\n",
        ] {
            for step in [1, 2, text.len()] {
                assert_eq!(
                    decode(Framing::Chunked, text.as_bytes(), step),
                    Err(Malformed),
                    "{text:?}"
                );
            }
        }
        // What follows is no end of it.
        let mut decoder = Decoder::new(Framing::Chunked);
        let mut buffer = BytesMut::from("x\r\n0\r\n\r\n");
        for _ in 0..3 {
            assert_eq!(decoder.next(&mut buffer), Err(Malformed));
        }
        assert!(!decoder.has_ended());
        let long = format!("1;{}", "x".repeat(LINE_BYTES));
        assert_eq!(decode(Framing::Chunked, long.as_bytes(), 100), Err(Malformed));
        let many = format!("1;{}\r\na\r\n", "x".repeat(1000)).repeat(EXTENSION_BYTES / 1000 + 1);
        assert_eq!(decode(Framing::Chunked, many.as_bytes(), 100), Err(Malformed));
        let fields = format!("0\r\nX: {}", "x".repeat(TRAILER_BYTES));
        assert_eq!(decode(Framing::Chunked, fields.as_bytes(), 100), Err(Malformed));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..6), step in 1_usize..64) {
            let mut text = Vec::new();
            for chunk in &chunks {
                text.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                text.extend(chunk);
                text.extend(b"\r\n");
            }
            text.extend(b"0\r\n\r\nnext");
            let decoded = decode(Framing::Chunked, &text, step);
            prop_assert_eq!(decoded, Ok((chunks.concat(), 0, b"next".to_vec())));
        }

        #[test]
        fn nothing_makes_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), step in 1_usize..64) {
            let _ = decode(Framing::Chunked, &bytes, step);
        }
    }
}
