//! A client that writes the frames of HTTP/3 by itself, over quinn, so that it can send what no library would
//! (RFC 9114, RFC 9204).

use crate::{
    client::trusting,
    h2::{Outcome, number},
};
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, ReadError, RecvStream, SendStream, TransportConfig, VarInt,
    crypto::rustls::QuicClientConfig,
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

/// H3_REQUEST_CANCELLED.
pub const CANCELLED: u32 = 0x10c;

/// GOAWAY.
const GOAWAY: u64 = 7;

/// A connection.
#[derive(Debug)]
pub struct H3 {
    /// The connection.
    pub quic: Connection,
    /// The stream with the settings, which must not end.
    pub control: SendStream,
    _endpoint: Endpoint,
}

impl H3 {
    /// Connects, and sends settings that ask for nothing. A stream's window may be given, in bytes.
    pub async fn connect(address: SocketAddr, root: &Path, name: &str, window: Option<u32>) -> Result<Self, String> {
        let (endpoint, connecting) = begin(address, root, name, window);
        let quic = connecting.await.map_err(|e| e.to_string())?;
        let mut control = quic.open_uni().await.map_err(|e| e.to_string())?;
        control.write_all(&[0, 4, 0]).await.map_err(|e| e.to_string())?;
        Ok(Self {
            quic,
            control,
            _endpoint: endpoint,
        })
    }

    /// Opens a stream, and sends bytes on it.
    pub async fn send(&self, bytes: &[u8]) -> Result<Exchange, ConnectionError> {
        let (mut send, receive) = self.quic.open_bi().await?;
        // The server may have read enough.
        let _ = send.write_all(bytes).await;
        Ok(Exchange {
            send,
            receive,
            read: Vec::new(),
        })
    }

    /// Sends a request without a body, and tells what becomes of it.
    pub async fn outcome(&self, fields: &[(&[u8], &[u8])]) -> Outcome {
        let Ok(mut exchange) = self.send(&head(fields)).await else {
            return Outcome::Closed;
        };
        let _ = exchange.send.finish();
        exchange.outcome().await
    }

    /// Waits for a GOAWAY, and tells the first stream that it leaves out.
    pub async fn goaway(&self) -> u64 {
        loop {
            let mut stream = self.quic.accept_uni().await.expect("a control stream");
            let mut bytes = Vec::new();
            let mut chunk = [0; 64];
            while let Ok(Some(length)) = stream.read(&mut chunk).await {
                bytes.extend_from_slice(&chunk[..length]);
                if bytes[0] != 0 {
                    break;
                }
                let mut rest = &bytes[1..];
                while let Some((kind, payload, after)) = frame(rest) {
                    if kind == GOAWAY {
                        return integer(payload).expect("a stream").0;
                    }
                    rest = after;
                }
            }
        }
    }
}

/// Begins a handshake.
pub fn begin(address: SocketAddr, root: &Path, name: &str, window: Option<u32>) -> (Endpoint, quinn::Connecting) {
    let mut tls = trusting(root);
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("TLS 1.3")));
    if let Some(window) = window {
        let mut transport = TransportConfig::default();
        transport.stream_receive_window(VarInt::from_u32(window));
        config.transport_config(Arc::new(transport));
    }
    let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).expect("a socket");
    let connecting = endpoint.connect_with(config, address, name).expect("a valid name");
    (endpoint, connecting)
}

/// A request that was sent.
#[derive(Debug)]
pub struct Exchange {
    /// To send more.
    pub send: SendStream,
    /// What is answered.
    pub receive: RecvStream,
    read: Vec<u8>,
}

impl Exchange {
    /// Reads on until it is known what becomes of the request: an answer, interim or final, or its end.
    pub async fn outcome(&mut self) -> Outcome {
        let mut chunk = [0; 4096];
        loop {
            if let Some((kind, payload, rest)) = frame(&self.read) {
                let outcome = (kind == 1).then(|| Outcome::Status(status(payload)));
                self.read = rest.to_vec();
                match outcome {
                    Some(outcome) => return outcome,
                    None => continue,
                }
            }
            match self.receive.read(&mut chunk).await {
                Ok(Some(length)) => self.read.extend_from_slice(&chunk[..length]),
                Ok(None) => return Outcome::Closed,
                Err(e) => return failed(&e),
            }
        }
    }
}

fn failed(error: &ReadError) -> Outcome {
    let short = |code: &VarInt| u32::try_from(code.into_inner()).expect("a code of HTTP/3");
    match error {
        ReadError::Reset(code) => Outcome::Reset(short(code)),
        ReadError::ConnectionLost(ConnectionError::ApplicationClosed(close)) => {
            Outcome::GoAway(short(&close.error_code))
        }
        _ => Outcome::Closed,
    }
}

/// A HEADERS frame with these fields as literals (RFC 9204 §4.5.6), whatever bytes they are made of.
pub fn head(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut section = vec![0, 0];
    for (name, value) in fields {
        prefixed(&mut section, 0x20, 3, name.len());
        section.extend_from_slice(name);
        prefixed(&mut section, 0, 7, value.len());
        section.extend_from_slice(value);
    }
    framed(1, &section)
}

/// A frame (RFC 9114 §7.1).
pub fn framed(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload") | 0x8000_0000;
    [&[kind], &length.to_be_bytes()[..], payload].concat()
}

/// An integer in the last bits of a byte, and more (RFC 7541 §5.1).
fn prefixed(block: &mut Vec<u8>, first: u8, bits: u32, value: usize) {
    let full = (1 << bits) - 1;
    if value < full {
        block.push(first | value as u8);
        return;
    }
    block.push(first | full as u8);
    let mut rest = value - full;
    while rest >= 128 {
        block.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    block.push(rest as u8);
}

/// A whole frame: its type, its payload, and what follows it.
fn frame(bytes: &[u8]) -> Option<(u64, &[u8], &[u8])> {
    let (kind, rest) = integer(bytes)?;
    let (length, rest) = integer(rest)?;
    let (payload, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    Some((kind, payload, rest))
}

/// A variable-length integer (RFC 9000 §16), and what follows it.
fn integer(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (encoded, rest) = bytes.split_at_checked(1 << (bytes.first()? >> 6))?;
    let first = u64::from(encoded[0] & 0x3f);
    let value = encoded[1..].iter().fold(first, |value, b| value << 8 | u64::from(*b));
    Some((value, rest))
}

/// The status of an answer's field section, which is its first field, without the dynamic table.
fn status(section: &[u8]) -> u16 {
    match section[2..] {
        // In the static table (RFC 9204, Appendix A).
        [indexed, ..] if indexed & 0xc0 == 0xc0 && indexed != 0xff => match indexed & 0x3f {
            24 => 103,
            25 => 200,
            26 => 304,
            27 => 404,
            28 => 503,
            other => panic!("not :status first: {other}"),
        },
        [0xff, more, ..] => [100, 204, 206, 302, 400, 403, 421, 425, 500][usize::from(more)],
        // Its name is, and the value is spelled out.
        [named, ..] if named & 0xf0 == 0x50 => {
            let value = &section[if named & 0x0f == 0x0f { 4 } else { 3 }..];
            number(&value[1..][..usize::from(value[0] & 0x7f)], value[0] & 0x80 != 0)
        }
        _ => panic!("not :status first: {section:?}"),
    }
}
