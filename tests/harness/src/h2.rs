//! A client that writes the frames of HTTP/2 by itself, so that it can send what no library would (RFC 9113, RFC 7541).

use std::net::SocketAddr;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

/// Frame types (RFC 9113 §6).
pub mod kind {
    /// DATA.
    pub const DATA: u8 = 0;
    /// HEADERS.
    pub const HEADERS: u8 = 1;
    /// RST_STREAM.
    pub const RST_STREAM: u8 = 3;
    /// SETTINGS.
    pub const SETTINGS: u8 = 4;
    /// PING.
    pub const PING: u8 = 6;
    /// GOAWAY.
    pub const GOAWAY: u8 = 7;
    /// WINDOW_UPDATE.
    pub const WINDOW_UPDATE: u8 = 8;
    /// CONTINUATION.
    pub const CONTINUATION: u8 = 9;
}

/// The last frame of a stream; of SETTINGS and PING, an acknowledgement.
pub const END_STREAM: u8 = 1;
/// The last frame of a block of header fields.
pub const END_HEADERS: u8 = 4;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// SETTINGS_HEADER_TABLE_SIZE: 0, so that what the server encodes can be read without a table.
const NO_TABLE: (u16, u32) = (1, 0);

/// SETTINGS_INITIAL_WINDOW_SIZE.
pub const INITIAL_WINDOW: u16 = 4;

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// One of [`kind`].
    pub kind: u8,
    /// Flags.
    pub flags: u8,
    /// The stream; 0 for the connection.
    pub stream: u32,
    /// What follows the head.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A frame to send.
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        let payload = payload.into();
        Self {
            kind,
            flags,
            stream,
            payload,
        }
    }

    /// A request without a body, in one frame.
    pub fn request(stream: u32, fields: &[(&[u8], &[u8])]) -> Self {
        Self::new(kind::HEADERS, END_STREAM | END_HEADERS, stream, literals(fields))
    }

    /// A PING.
    pub fn ping() -> Self {
        Self::new(kind::PING, 0, 0, *b"edgeweir")
    }

    /// RST_STREAM with CANCEL.
    pub fn cancel(stream: u32) -> Self {
        Self::new(kind::RST_STREAM, 0, stream, 8_u32.to_be_bytes())
    }

    /// The frame as it is on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len())
            .expect("a short payload")
            .to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }
}

/// Fields as literals without indexing (RFC 7541 §6.2.2), whatever bytes they are made of.
pub fn literals(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        text(&mut block, name);
        text(&mut block, value);
    }
    block
}

/// A field as a literal that enters the dynamic table (RFC 7541 §6.2.1), where it is entry 62.
pub fn indexed_literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut block = vec![0x40];
    text(&mut block, name);
    text(&mut block, value);
    block
}

/// A string without Huffman coding (RFC 7541 §5.1, §5.2).
fn text(block: &mut Vec<u8>, bytes: &[u8]) {
    let mut rest = bytes.len();
    if rest < 127 {
        block.push(rest as u8);
    } else {
        block.push(127);
        rest -= 127;
        while rest >= 128 {
            block.push((rest % 128) as u8 | 128);
            rest /= 128;
        }
        block.push(rest as u8);
    }
    block.extend(bytes);
}

/// The status of an answer's header block (RFC 7541 §6, Appendix A and B): its first field.
fn status(block: &[u8]) -> u16 {
    // Before it, the table's size may be told.
    let block = &block[block.iter().position(|b| b & 0xe0 != 0x20).expect("a field")..];
    if let 0x88..=0x8e = block[0] {
        return [200, 204, 206, 304, 400, 404, 500][usize::from(block[0] - 0x88)];
    }
    assert_eq!(block[0] & 0x0f, 8, "not :status first: {block:?}");
    let digits = &block[2..][..usize::from(block[1] & 0x7f)];
    number(digits, block[1] & 0x80 != 0)
}

/// Three digits, which may be in Huffman codes (RFC 7541, Appendix B).
pub(crate) fn number(digits: &[u8], huffman: bool) -> u16 {
    if !huffman {
        return std::str::from_utf8(digits)
            .ok()
            .and_then(|s| s.parse().ok())
            .expect("digits");
    }
    // From the top of 32 bits: "0", "1" and "2" have five, the others six, from 011001 on.
    let mut bits = digits
        .iter()
        .rev()
        .fold(0_u32, |bits, byte| bits >> 8 | u32::from(*byte) << 24);
    let mut status = 0;
    for _ in 0..3 {
        let (digit, length) = match bits >> 27 {
            short @ 0..=2 => (short, 5),
            _ => ((bits >> 26) - 0b01_1001 + 3, 6),
        };
        status = status * 10 + digit as u16;
        bits <<= length;
    }
    status
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// An answer with this status.
    Status(u16),
    /// RST_STREAM with this code.
    Reset(u32),
    /// GOAWAY with this code.
    GoAway(u32),
    /// The connection's end.
    Closed,
}

impl Outcome {
    /// Whether the request was refused: by the protocol, or with 400.
    pub fn is_refusal(self) -> bool {
        match self {
            Self::Status(status) => status == 400,
            // A graceful end is none.
            Self::GoAway(code) => code != 0,
            Self::Reset(_) | Self::Closed => true,
        }
    }
}

/// Both directions of a connection.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection.
pub struct H2 {
    stream: Box<dyn Stream>,
    read: Vec<u8>,
}

impl H2 {
    /// Connects to a plain listener with prior knowledge (RFC 9113 §3.3), and sends preface and settings.
    pub async fn plain(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        Self::over(TcpStream::connect(address).await.expect("a connection"), settings).await
    }

    /// Sends preface and settings over any stream.
    pub async fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, settings: &[(u16, u32)]) -> Self {
        let mut connection = Self {
            stream: Box::new(stream),
            read: Vec::new(),
        };
        let settings = [&[NO_TABLE], settings].concat();
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        let settings = Frame::new(kind::SETTINGS, 0, 0, payload).bytes();
        connection.write(&[PREFACE, &settings].concat()).await;
        connection
    }

    /// Sends bytes as they are; whether the connection still takes them.
    pub async fn write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    /// Sends a frame; whether the connection still takes it.
    pub async fn send(&mut self, frame: &Frame) -> bool {
        self.write(&frame.bytes()).await
    }

    /// The next frame, or `None` at the connection's end. May be dropped at any time, and loses nothing then.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(head) = self.read.get(..9) {
                let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
                let stream = u32::from_be_bytes(head[5..9].try_into().expect("four bytes"));
                let (kind, flags) = (head[3], head[4]);
                if self.read.len() >= 9 + length {
                    let payload = self.read[9..9 + length].to_vec();
                    self.read.drain(..9 + length);
                    return Some(Frame::new(kind, flags, stream, payload));
                }
            }
            if !matches!(self.stream.read_buf(&mut self.read).await, Ok(1..)) {
                return None;
            }
        }
    }

    /// Reads on until it is known what becomes of a stream.
    pub async fn outcome(&mut self, stream: u32) -> Outcome {
        while let Some(frame) = self.next().await {
            let code = |at: usize| u32::from_be_bytes(frame.payload[at..at + 4].try_into().expect("four bytes"));
            match frame.kind {
                kind::HEADERS if frame.stream == stream => return Outcome::Status(status(&frame.payload)),
                kind::RST_STREAM if frame.stream == stream => return Outcome::Reset(code(0)),
                kind::GOAWAY => return Outcome::GoAway(code(4)),
                _ => {}
            }
        }
        Outcome::Closed
    }

    /// Reads on until the connection ends, answering PINGs: a server that ends it gracefully waits for that
    /// (RFC 9113 §6.8). Whether a GOAWAY came before.
    pub async fn end(&mut self) -> bool {
        let mut told = false;
        while let Some(frame) = self.next().await {
            told |= frame.kind == kind::GOAWAY;
            if frame.kind == kind::PING && frame.flags & END_STREAM == 0 {
                self.send(&Frame::new(kind::PING, END_STREAM, 0, frame.payload)).await;
            }
        }
        told
    }
}
