//! An answer as it goes over a connection of HTTP/1.1: its head, and how its content is framed (RFC 9112 §4, §6, §7).

use super::head::Head;
use crate::{body::Body, date, stream::Stream, upload::content_length};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, Method, Response, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING},
};
use http_body::Body as _;
use std::{
    io::{self, IoSlice, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};

/// Content that is copied behind its head: less work than to hand the system two buffers.
const SMALL_BYTES: usize = 4 * 1024;

/// Room for a head; most have no more.
const HEAD_BYTES: usize = 1024;

/// Fields that say how a message is framed, which is not for others to say.
static OF_FRAMING: [HeaderName; 3] = [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING];

/// What an answer needs to know of its request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) head_only: bool,
    /// Whether the client speaks HTTP/1.1: understands chunks, and interim answers.
    pub(super) is_11: bool,
    pub(super) takes_trailers: bool,
}

impl Asked {
    pub(super) fn of(head: &Head) -> Self {
        Self {
            head_only: head.method == Method::HEAD,
            is_11: head.version >= http::Version::HTTP_11,
            takes_trailers: head.takes_trailers,
        }
    }
}

/// The part of an answer's head that stays the same while its fields do, for [`Body::Rendered`]. Not all answers have one.
pub(crate) fn rendered(response: &Response<Body>) -> Option<Vec<u8>> {
    debug_assert_eq!(response.status(), StatusCode::OK);
    let headers = response.headers();
    if headers.contains_key(CONNECTION) || !headers.contains_key(DATE) {
        return None;
    }
    let mut out = Out::default();
    out.status(response.status());
    out.fields(headers);
    Some(out.text)
}

/// How an answer's content is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none.
    Empty,
    /// So many bytes are still to come.
    Length(u64),
    Chunked,
    /// The connection's end is its end.
    UntilClose,
}

/// What waits to be written.
#[derive(Debug, Default)]
pub(super) struct Out {
    text: Vec<u8>,
    written: usize,
    content: Bytes,
    tail: &'static [u8],
}

impl Out {
    pub(super) fn is_empty(&self) -> bool {
        self.written == self.text.len() && self.content.is_empty() && self.tail.is_empty()
    }

    /// Whether so much waits that it is to be written before there is more.
    pub(super) fn is_full(&self) -> bool {
        !self.content.is_empty() || !self.tail.is_empty() || self.text.len() - self.written > SMALL_BYTES
    }

    /// Gives back the memory of what has been written.
    pub(super) fn shrink(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    fn text(&mut self, text: &[u8]) {
        self.text.extend_from_slice(text);
    }

    /// Puts an interim answer (RFC 9110 §15.2).
    pub(super) fn interim(&mut self, interim: &Response<()>) {
        self.status(interim.status());
        self.fields(interim.headers());
        self.text(b"\r\n");
    }

    /// Puts an answer's head, and says how its content is framed. `keep_alive` says whether the connection is to go on;
    /// afterwards, whether it does.
    pub(super) fn head(
        &mut self,
        status: StatusCode,
        headers: &HeaderMap,
        body: &Body,
        asked: Asked,
        keep_alive: &mut bool,
    ) -> Framing {
        *keep_alive &= !headers
            .get(CONNECTION)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
        let said = headers.get(CONTENT_LENGTH).and_then(content_length);
        let length = said.or_else(|| body.size_hint().exact());
        let framing = match length {
            _ if asked.head_only || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) => {
                Framing::Empty
            }
            Some(length) => Framing::Length(length),
            None if asked.is_11 => Framing::Chunked,
            None => Framing::UntilClose,
        };
        *keep_alive &= framing != Framing::UntilClose;
        let small = length.filter(|length| *length <= SMALL_BYTES as u64);
        self.text.reserve(HEAD_BYTES + small.unwrap_or_default() as usize);
        if let Body::Rendered(text, _) = body {
            self.text(text);
        } else {
            self.status(status);
            self.fields(headers);
            if !headers.contains_key(DATE) {
                self.text(b"date: ");
                date::with(|now| self.text(now.as_bytes()));
                self.text(b"\r\n");
            }
        }
        let told = match framing {
            Framing::Length(length) => Some(length),
            // What a GET would have (RFC 9110 §8.6).
            Framing::Empty => said.filter(|_| status != StatusCode::NO_CONTENT),
            Framing::Chunked | Framing::UntilClose => None,
        };
        if let Some(length) = told {
            let _ = write!(self.text, "content-length: {length}\r\n");
        } else if framing == Framing::Chunked {
            self.text(b"transfer-encoding: chunked\r\n");
        }
        if !*keep_alive {
            self.text(b"connection: close\r\n");
        } else if !asked.is_11 {
            self.text(b"connection: keep-alive\r\n");
        }
        self.text(b"\r\n");
        framing
    }

    fn status(&mut self, status: StatusCode) {
        self.text(b"HTTP/1.1 ");
        self.text(status.as_str().as_bytes());
        self.text(b" ");
        self.text(status.canonical_reason().unwrap_or_default().as_bytes());
        self.text(b"\r\n");
    }

    /// Puts fields, but for those that the framing has.
    fn fields(&mut self, headers: &HeaderMap) {
        for (name, value) in headers {
            if OF_FRAMING.contains(name) {
                continue;
            }
            self.text(name.as_str().as_bytes());
            self.text(b": ");
            self.text(value.as_bytes());
            self.text(b"\r\n");
        }
    }

    /// Puts content behind what waits; false where there is more of it than was said.
    pub(super) fn content(&mut self, data: Bytes, framing: &mut Framing) -> bool {
        match framing {
            Framing::Empty => return data.is_empty(),
            Framing::Length(left) => match left.checked_sub(data.len() as u64) {
                Some(rest) => *left = rest,
                None => return false,
            },
            // An empty chunk would be the last (RFC 9112 §7.1).
            Framing::Chunked if data.is_empty() => {}
            Framing::Chunked => {
                let _ = write!(self.text, "{:x}\r\n", data.len());
                self.tail = b"\r\n";
            }
            Framing::UntilClose => {}
        }
        if data.len() <= SMALL_BYTES && self.tail.is_empty() {
            self.text(&data);
        } else {
            self.content = data;
        }
        true
    }

    /// Puts the content's end; false where there is less of it than was said. What has been put before is written.
    pub(super) fn end(&mut self, framing: Framing, trailers: Option<&HeaderMap>) -> bool {
        if framing == Framing::Chunked {
            // Behind the last chunk, if that is not written yet.
            let last: &'static [u8] = if trailers.is_none() { b"0\r\n\r\n" } else { b"0\r\n" };
            self.text(last);
            if let Some(trailers) = trailers {
                self.fields(trailers);
                self.text(b"\r\n");
            }
        }
        !matches!(framing, Framing::Length(1..))
    }

    /// Writes all that waits.
    pub(super) fn poll_write<S: Stream>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let text = &self.text[self.written..];
            let written = if self.content.is_empty() && self.tail.is_empty() {
                Pin::new(&mut *stream).poll_write(cx, text)
            } else if let Some(sent) = stream.poll_send(text, &self.content, cx) {
                sent
            } else {
                let parts = [text, &self.content[..], self.tail].map(IoSlice::new);
                Pin::new(&mut *stream).poll_write_vectored(cx, &parts)
            };
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.advance(written),
            }
        }
        self.text.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut written: usize) {
        let text = written.min(self.text.len() - self.written);
        self.written += text;
        written -= text;
        let content = written.min(self.content.len());
        if content == self.content.len() {
            self.content = Bytes::new();
        } else {
            let _ = self.content.split_to(content);
        }
        self.tail = &self.tail[written - content..];
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http::{
        HeaderValue,
        header::{ETAG, TRAILER},
    };
    use std::task::Waker;
    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    const GET: Asked = Asked {
        head_only: false,
        is_11: true,
        takes_trailers: false,
    };

    /// A stream that takes a few bytes at a time, and after so many of them none for a while.
    struct Narrow {
        taken: Vec<u8>,
        at_a_time: usize,
        room: usize,
    }

    impl AsyncRead for Narrow {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Narrow {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            if self.room == 0 {
                return Poll::Pending;
            }
            let taken = buf.len().min(self.at_a_time).min(self.room);
            self.room -= taken;
            self.taken.extend_from_slice(&buf[..taken]);
            Poll::Ready(Ok(taken))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl Stream for Narrow {}

    fn written(out: &mut Out) -> String {
        let mut stream = Narrow {
            taken: Vec::new(),
            at_a_time: 3,
            room: usize::MAX,
        };
        let polled = out.poll_write(&mut stream, &mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Ready(Ok(()))));
        assert!(out.is_empty());
        String::from_utf8(stream.taken).unwrap()
    }

    fn head(
        status: u16,
        fields: &[(&'static str, &'static str)],
        body: &Body,
        asked: Asked,
    ) -> (String, Framing, bool) {
        let mut headers = HeaderMap::new();
        headers.insert(DATE, HeaderValue::from_static("now"));
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let (mut out, mut keep_alive) = (Out::default(), true);
        let status = StatusCode::from_u16(status).unwrap();
        let framing = out.head(status, &headers, body, asked, &mut keep_alive);
        (written(&mut out), framing, keep_alive)
    }

    #[test]
    fn heads_say_how_the_content_is_framed() {
        let full = || Body::Full(Bytes::from_static(b"abc"));
        let unknown = || {
            Body::Own(Box::pin(http_body_util::StreamBody::new(
                futures_util::stream::pending(),
            )))
        };
        let old = Asked { is_11: false, ..GET };
        let head_only = Asked { head_only: true, ..GET };
        for (name, of, text, framing, keep_alive) in [
            (
                "known",
                head(200, &[], &full(), GET),
                "200 OK\r\ndate: now\r\ncontent-length: 3\r\n",
                Framing::Length(3),
                true,
            ),
            (
                "unknown",
                head(200, &[], &unknown(), GET),
                "200 OK\r\ndate: now\r\ntransfer-encoding: chunked\r\n",
                Framing::Chunked,
                true,
            ),
            (
                "unknown to 1.0",
                head(200, &[], &unknown(), old),
                "200 OK\r\ndate: now\r\nconnection: close\r\n",
                Framing::UntilClose,
                false,
            ),
            (
                "known to 1.0",
                head(200, &[], &full(), old),
                "200 OK\r\ndate: now\r\ncontent-length: 3\r\nconnection: keep-alive\r\n",
                Framing::Length(3),
                true,
            ),
            (
                "said",
                head(200, &[("content-length", "7")], &unknown(), GET),
                "200 OK\r\ndate: now\r\ncontent-length: 7\r\n",
                Framing::Length(7),
                true,
            ),
            (
                "HEAD",
                head(200, &[("content-length", "7")], &Body::Empty, head_only),
                "200 OK\r\ndate: now\r\ncontent-length: 7\r\n",
                Framing::Empty,
                true,
            ),
            (
                "HEAD of an unknown length",
                head(200, &[], &Body::Empty, head_only),
                "200 OK\r\ndate: now\r\n",
                Framing::Empty,
                true,
            ),
            (
                "204",
                head(204, &[], &Body::Empty, GET),
                "204 No Content\r\ndate: now\r\n",
                Framing::Empty,
                true,
            ),
            (
                "204 with a length",
                head(204, &[("content-length", "0")], &Body::Empty, GET),
                "204 No Content\r\ndate: now\r\n",
                Framing::Empty,
                true,
            ),
            (
                "304",
                head(304, &[("etag", "\"a\"")], &Body::Empty, GET),
                "304 Not Modified\r\ndate: now\r\netag: \"a\"\r\n",
                Framing::Empty,
                true,
            ),
            (
                "close",
                head(404, &[("connection", "close")], &Body::Empty, GET),
                "404 Not Found\r\ndate: now\r\ncontent-length: 0\r\nconnection: close\r\n",
                Framing::Length(0),
                false,
            ),
            (
                "an origin's framing",
                head(200, &[("transfer-encoding", "gzip")], &full(), GET),
                "200 OK\r\ndate: now\r\ncontent-length: 3\r\n",
                Framing::Length(3),
                true,
            ),
            (
                "an unknown status",
                head(599, &[], &Body::Empty, GET),
                "599 \r\ndate: now\r\ncontent-length: 0\r\n",
                Framing::Length(0),
                true,
            ),
        ] {
            assert_eq!(of, (format!("HTTP/1.1 {text}\r\n"), framing, keep_alive), "{name}");
        }
    }

    #[test]
    fn a_rendered_head_is_the_same() {
        let response = |fields: &[(&'static str, &'static str)]| {
            let mut response = Response::new(Body::Full(Bytes::from_static(b"abc")));
            for (name, value) in fields {
                response.headers_mut().append(*name, HeaderValue::from_static(value));
            }
            response
        };
        let fields = [
            ("date", "now"),
            ("age", "7"),
            ("vary", "a"),
            ("vary", "b"),
            ("content-length", "3"),
        ];
        let made = response(&fields);
        let kept = Body::Rendered(rendered(&made).unwrap().into(), Bytes::from_static(b"abc"));
        for asked in [GET, Asked { is_11: false, ..GET }] {
            for keep_alive in [true, false] {
                let text = |headers: &HeaderMap, body: &Body| {
                    let (mut out, mut goes_on) = (Out::default(), keep_alive);
                    let framing = out.head(StatusCode::OK, headers, body, asked, &mut goes_on);
                    (written(&mut out), framing, goes_on)
                };
                assert_eq!(text(&HeaderMap::new(), &kept), text(made.headers(), made.body()));
            }
        }
        for fields in [&[("age", "7")][..], &[("date", "now"), ("connection", "close")]] {
            assert!(rendered(&response(fields)).is_none(), "{fields:?}");
        }
    }

    #[test]
    fn content_is_framed_as_the_head_says() {
        let chunk = |text: &'static str| Bytes::from_static(text.as_bytes());
        let mut out = Out::default();
        let mut framing = Framing::Chunked;
        let mut text = String::new();
        for part in ["abc", "", "0123456789abcdefg"] {
            assert!(out.content(chunk(part), &mut framing));
            text += &written(&mut out);
        }
        assert!(out.end(framing, None));
        text += &written(&mut out);
        assert_eq!(text, "3\r\nabc\r\n11\r\n0123456789abcdefg\r\n0\r\n\r\n");

        let mut trailers = HeaderMap::new();
        trailers.insert(ETAG, HeaderValue::from_static("\"a\""));
        trailers.insert(TRAILER, HeaderValue::from_static("etag"));
        assert!(out.end(Framing::Chunked, Some(&trailers)));
        assert_eq!(written(&mut out), "0\r\netag: \"a\"\r\ntrailer: etag\r\n\r\n");

        let mut framing = Framing::Length(4);
        assert!(out.content(chunk("abc"), &mut framing));
        assert!(!out.end(framing, None), "a byte is missing");
        assert!(!out.content(chunk("de"), &mut framing), "a byte too many");
        assert!(out.content(chunk("d"), &mut framing) && out.end(framing, None));
        assert_eq!(written(&mut out), "abcd");
        let large = Bytes::from(vec![b'x'; 3 * SMALL_BYTES]);
        assert!(out.content(large, &mut Framing::UntilClose) && out.is_full());
        assert_eq!(written(&mut out).len(), 3 * SMALL_BYTES);
    }

    #[test]
    fn a_stream_may_get_stuck_anywhere() {
        let whole = "3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n";
        for at in 0..whole.len() {
            let (mut out, mut framing) = (Out::default(), Framing::Chunked);
            let mut stream = Narrow {
                taken: Vec::new(),
                at_a_time: usize::MAX,
                room: at,
            };
            let mut context = Context::from_waker(Waker::noop());
            let mut write = |out: &mut Out, is_last: bool| {
                // Written as an answer is: before there is more, where much waits, and as far as it goes.
                let _ = out.poll_write(&mut stream, &mut context);
                while is_last || out.is_full() {
                    stream.room = 1000;
                    if out.poll_write(&mut stream, &mut context).is_ready() {
                        break;
                    }
                }
            };
            for part in ["abc", "defg"] {
                assert!(out.content(Bytes::from_static(part.as_bytes()), &mut framing));
                write(&mut out, false);
            }
            assert!(out.end(framing, None));
            write(&mut out, true);
            assert_eq!(String::from_utf8(stream.taken).unwrap(), whole, "stuck at {at}");
        }
    }

    #[test]
    fn interim_answers_have_no_content() {
        let mut interim = Response::new(());
        *interim.status_mut() = StatusCode::from_u16(103).unwrap();
        interim
            .headers_mut()
            .insert("link", HeaderValue::from_static("</a.css>; rel=preload"));
        let mut out = Out::default();
        out.interim(&interim);
        assert_eq!(
            written(&mut out),
            "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n"
        );
    }
}
