//! The frames of a stream (RFC 9114 §7), looked at before the HTTP/3 library sees them: a pure filter over bytes.
//!
//! The library collects a frame whole before it reads it, however long it is, takes an empty DATA frame for the end of a
//! body, and a body that ends within a frame for complete. Here frames are bounded, those without a meaning are left
//! out, and their order and ends are made sure of.

use super::fields;
use crate::limits;
use bytes::{Bytes, BytesMut};
use h3::error::Code;
use std::collections::VecDeque;

/// Frame types (RFC 9114 §7.2).
const DATA: u64 = 0;
const HEADERS: u64 = 1;
/// CANCEL_PUSH, SETTINGS, PUSH_PROMISE, GOAWAY, MAX_PUSH_ID; and what HTTP/2 had (§7.2.8).
const OTHERS: [u64; 9] = [3, 4, 5, 7, 0xd, 2, 6, 8, 9];

/// Stream types (RFC 9114 §6.2).
const CONTROL: u64 = 0;
const PUSH: u64 = 1;

/// The longest frame of a control stream, in bytes: settings are a few numbers.
const CONTROL_FRAME: u64 = 4 * 1024;

/// What is wrong with a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The stream ends with this code.
    Stream(Code),
    /// The connection does.
    Connection(Code),
}

/// What a stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Unidirectional, its type still to come.
    Untyped,
    Control,
    /// Of another type: all passes.
    Other,
    /// A request, of which this was seen.
    Request(Seen),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Nothing,
    Head,
    Trailers,
}

#[derive(Debug)]
enum State {
    /// In a frame's type and length, or the stream's type.
    Between,
    /// In a payload that passes, with so many bytes left.
    Passing(u64),
    /// In one that does not.
    Skipping(u64),
    /// In a field section, which is collected after its frame's head.
    Collecting { left: u64, head: usize },
}

/// The filter of one stream.
#[derive(Debug)]
pub(super) struct Frames {
    kind: Kind,
    state: State,
    /// What came of a frame's head, or of a field section.
    begun: BytesMut,
}

impl Frames {
    /// Of a stream with a request.
    pub(super) fn request() -> Self {
        Self::new(Kind::Request(Seen::Nothing))
    }

    /// Of a unidirectional stream.
    pub(super) fn unidirectional() -> Self {
        Self::new(Kind::Untyped)
    }

    fn new(kind: Kind) -> Self {
        Self {
            kind,
            state: State::Between,
            begun: BytesMut::new(),
        }
    }

    /// Takes what came, and adds to `passed` what the library is to see of it.
    pub(super) fn push(&mut self, mut chunk: Bytes, passed: &mut VecDeque<Bytes>) -> Result<(), Fault> {
        while !chunk.is_empty() {
            match &mut self.state {
                _ if self.kind == Kind::Other => passed.push_back(std::mem::take(&mut chunk)),
                State::Passing(left) => {
                    let part = split(&mut chunk, left);
                    passed.push_back(part);
                }
                State::Skipping(left) => drop(split(&mut chunk, left)),
                State::Collecting { left, head } => {
                    self.begun.extend_from_slice(&split(&mut chunk, left));
                    if *left == 0 {
                        let trailers = self.kind == Kind::Request(Seen::Trailers);
                        fields::check(&self.begun[*head..], trailers)?;
                        passed.push_back(self.begun.split().freeze());
                    }
                }
                State::Between => {
                    self.begun.extend_from_slice(&chunk.split_to(1));
                    self.begin(passed)?;
                }
            }
            if let State::Passing(0) | State::Skipping(0) | State::Collecting { left: 0, .. } = self.state {
                self.state = State::Between;
            }
        }
        Ok(())
    }

    /// Whether the stream may end here (RFC 9114 §7.1).
    pub(super) fn end(&self) -> Result<(), Fault> {
        match (&self.state, self.kind) {
            (_, Kind::Other | Kind::Untyped) => Ok(()),
            (State::Between, _) if self.begun.is_empty() => Ok(()),
            _ => Err(Fault::Connection(Code::H3_FRAME_ERROR)),
        }
    }

    /// Looks at what may be a frame's head, or the stream's type.
    fn begin(&mut self, passed: &mut VecDeque<Bytes>) -> Result<(), Fault> {
        let Some((first, rest)) = number(&self.begun) else {
            return Ok(());
        };
        if self.kind == Kind::Untyped {
            self.kind = match first {
                CONTROL => Kind::Control,
                PUSH => return Err(Fault::Connection(Code::H3_STREAM_CREATION_ERROR)),
                _ => Kind::Other,
            };
            passed.push_back(self.begun.split().freeze());
            return Ok(());
        }
        let Some((length, _)) = number(rest) else {
            return Ok(());
        };
        self.state = self.admit(first, length)?;
        match self.state {
            State::Passing(_) => passed.push_back(self.begun.split().freeze()),
            State::Collecting { .. } => {}
            State::Skipping(_) | State::Between => self.begun.clear(),
        }
        Ok(())
    }

    /// What becomes of a frame of this type and length.
    fn admit(&mut self, frame: u64, length: u64) -> Result<State, Fault> {
        let unexpected = Err(Fault::Connection(Code::H3_FRAME_UNEXPECTED));
        let Kind::Request(seen) = &mut self.kind else {
            // Which of them may come here, and when, is the library's to say.
            return if frame != DATA && frame != HEADERS && !OTHERS.contains(&frame) {
                Ok(State::Skipping(length))
            } else if length > CONTROL_FRAME {
                Err(Fault::Connection(Code::H3_EXCESSIVE_LOAD))
            } else {
                Ok(State::Passing(length))
            };
        };
        match (frame, *seen) {
            (HEADERS, Seen::Nothing | Seen::Head) => {
                *seen = if *seen == Seen::Nothing {
                    Seen::Head
                } else {
                    Seen::Trailers
                };
                if length > limits::HEAD_BUFFER_BYTES as u64 {
                    return Err(Fault::Stream(Code::H3_EXCESSIVE_LOAD));
                }
                if length == 0 {
                    return Err(Fault::Connection(Code::QPACK_DECOMPRESSION_FAILED));
                }
                Ok(State::Collecting {
                    left: length,
                    head: self.begun.len(),
                })
            }
            (DATA, Seen::Head) if length == 0 => Ok(State::Skipping(0)),
            (DATA, Seen::Head) => Ok(State::Passing(length)),
            (HEADERS | DATA, _) => unexpected,
            (other, _) if OTHERS.contains(&other) => unexpected,
            _ => Ok(State::Skipping(length)),
        }
    }
}

/// The part of `chunk` that belongs to a payload with `left` bytes to come.
fn split(chunk: &mut Bytes, left: &mut u64) -> Bytes {
    let length = usize::try_from(*left).map_or(chunk.len(), |left| left.min(chunk.len()));
    *left -= length as u64;
    chunk.split_to(length)
}

/// A variable-length integer (RFC 9000 §16), and what follows it; `None` while it is not all there.
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let length = 1 << (bytes.first()? >> 6);
    let (encoded, rest) = bytes.split_at_checked(length)?;
    let first = u64::from(encoded[0] & 0x3f);
    let value = encoded[1..].iter().fold(first, |value, b| value << 8 | u64::from(*b));
    Some((value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    proptest! {
        #[test]
        fn however_a_stream_is_cut_into_pieces(
            frames in vec((0_u8..5, vec(any::<u8>(), 0..9)), 0..5),
            rest in vec(any::<u8>(), 0..9),
            size in 1_usize..20,
        ) {
            let framed = frames.iter().map(|(kind, payload)| [&[*kind, payload.len() as u8], &payload[..]].concat());
            let stream = [framed.collect::<Vec<_>>().concat(), rest].concat();
            for kind in [Frames::request, Frames::unidirectional] {
                prop_assert_eq!(filtered(kind(), &stream, size), filtered(kind(), &stream, 1));
            }
        }
    }

    /// A field section: `:method: GET`, `:path: /`, `:scheme: https`, by the static table.
    const HEAD: &[u8] = &[1, 5, 0, 0, 0xd1, 0xc1, 0xd7];

    /// What passes of a stream that comes in pieces of `size` bytes, and then ends.
    fn filtered(mut frames: Frames, stream: &[u8], size: usize) -> Result<Vec<u8>, Fault> {
        let mut passed = VecDeque::new();
        for piece in stream.chunks(size) {
            frames.push(Bytes::copy_from_slice(piece), &mut passed)?;
        }
        frames.end()?;
        Ok(passed.into_iter().flatten().collect())
    }

    #[test]
    fn what_passes_of_a_request() {
        let unexpected = Err(Fault::Connection(Code::H3_FRAME_UNEXPECTED));
        let cut = Err(Fault::Connection(Code::H3_FRAME_ERROR));
        let trailers = &[1, 7, 0, 0, 0x21, b'x', 2, b'y', b'z'][..];
        let long_head = [&[1, 0x80, 1, 0, 1][..], &[0; 10]].concat();
        for (name, stream, wanted) in [
            ("a head", vec![HEAD], Ok(vec![HEAD])),
            ("a body", vec![HEAD, &[0, 2, 7, 8]], Ok(vec![HEAD, &[0, 2, 7, 8]])),
            (
                "an empty frame in it",
                vec![HEAD, &[0, 1, 7], &[0, 0], &[0, 1, 8]],
                Ok(vec![HEAD, &[0, 1, 7, 0, 1, 8]]),
            ),
            (
                "trailers",
                vec![HEAD, &[0, 1, 7], trailers],
                Ok(vec![HEAD, &[0, 1, 7], trailers]),
            ),
            (
                "frames without a meaning",
                vec![&[0x21, 2, 9, 9], HEAD, &[0x40, 0x40, 0], &[0, 1, 7], &[0x21, 0]],
                Ok(vec![HEAD, &[0, 1, 7]]),
            ),
            ("nothing", vec![], Ok(vec![])),
            ("a body first", vec![&[0, 1, 7]], unexpected.clone()),
            (
                "a body after trailers",
                vec![HEAD, trailers, &[0, 1, 7]],
                unexpected.clone(),
            ),
            ("trailers twice", vec![HEAD, trailers, trailers], unexpected.clone()),
            ("settings", vec![HEAD, &[4, 0]], unexpected.clone()),
            ("a frame of HTTP/2", vec![HEAD, &[6, 0]], unexpected),
            ("an end in a frame's length", vec![HEAD, &[0]], cut.clone()),
            ("an end in a body's frame", vec![HEAD, &[0, 2, 7]], cut.clone()),
            ("an end before it", vec![HEAD, &[0, 2]], cut.clone()),
            ("an end in a head", vec![&HEAD[..4]], cut),
            (
                "a long head",
                vec![&long_head],
                Err(Fault::Stream(Code::H3_EXCESSIVE_LOAD)),
            ),
            (
                "pseudo-header fields in trailers",
                vec![HEAD, HEAD],
                Err(Fault::Stream(Code::H3_MESSAGE_ERROR)),
            ),
        ] {
            let stream = stream.concat();
            for size in [1, 2, 3, 1000] {
                let passed = filtered(Frames::request(), &stream, size);
                assert_eq!(passed, wanted.clone().map(|w| w.concat()), "{name}, by {size}");
            }
        }
    }

    #[test]
    fn what_passes_of_a_unidirectional_stream() {
        for (name, stream, wanted) in [
            ("settings", &[0, 4, 2, 6, 5][..], Ok(&[0, 4, 2, 6, 5][..])),
            ("a frame without a meaning", &[0, 4, 0, 0x21, 1, 1], Ok(&[0, 4, 0])),
            ("QPACK", &[2, 0x80, 1], Ok(&[2, 0x80, 1])),
            ("a type without a meaning", &[0x21, 4, 4, 4], Ok(&[0x21, 4, 4, 4])),
            (
                "a push",
                &[1, 0],
                Err(Fault::Connection(Code::H3_STREAM_CREATION_ERROR)),
            ),
            (
                "long settings",
                &[0, 4, 0x80, 1, 0, 0],
                Err(Fault::Connection(Code::H3_EXCESSIVE_LOAD)),
            ),
        ] {
            for size in [1, 1000] {
                let passed = filtered(Frames::unidirectional(), stream, size);
                assert_eq!(passed, wanted.map(<[u8]>::to_vec), "{name}, by {size}");
            }
        }
    }
}
