//! What a client may ask of the edge: sizes and times, defined once, alike for every HTTP version.

use std::time::Duration;

/// The longest path and query together, in bytes; over it the answer is 414 (RFC 9110 §15.5.15).
pub(crate) const TARGET_BYTES: usize = 8 * 1024;

/// The header fields of a request together, names and values, in bytes; over it the answer is 431 (RFC 6585 §5).
pub(crate) const HEADER_BYTES: usize = 8 * 1024;

/// What the HTTP/1.1 reader buffers of a request head before it gives up by itself. Higher than the two limits above
/// together, so that these answer, with the site's CORS headers.
pub(crate) const HEAD_BUFFER_BYTES: usize = 64 * 1024;

/// Header fields of a request, by count.
pub(crate) const HEADER_COUNT: usize = 100;

/// How much must be written to a connection in each [`Settings::idle`](crate::Settings::idle) in which no request came and
/// no answer is being got, in bytes for a second of it. A client that reads slower than this, holds a window of HTTP/2
/// shut, idles, or takes its time to send a request's head, is cut. Of HTTP/2 and HTTP/3, an answer that is read slower than
/// this is given up, whatever else its client asks for; and so is a request whose content comes slower.
pub(crate) const LEAST_RATE: u64 = 4 * 1024;

/// What [`LEAST_RATE`] comes to in such a time, in bytes.
pub(crate) fn least(idle: Duration) -> u64 {
    LEAST_RATE * idle.as_secs()
}

/// How long a client may take for so many bytes of an answer over HTTP/2 or HTTP/3.
pub(crate) fn patience(bytes: usize, idle: Duration) -> Duration {
    idle + Duration::from_secs(bytes as u64 / LEAST_RATE)
}

/// Bytes that the system holds for a connection before it sends them; it takes more once half of them are sent. So low
/// that a client which reads at [`LEAST_RATE`] is seen to read, within an idle time of 30 s.
pub(crate) const UNSENT_BYTES: u32 = 256 * 1024;

/// Tokens with a signature that does not hold that one connection may show.
pub(crate) const FORGED_TOKENS: u32 = 8;

/// How long a TLS handshake may take.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Requests at a time on one connection of HTTP/2 or HTTP/3.
pub(crate) const STREAMS: u32 = 256;

/// Bytes that HTTP/2 holds for a stream whose client does not read.
pub(crate) const H2_SEND_BUFFER_BYTES: usize = 256 * 1024;

/// Streams that are no requests at a time on one HTTP/3 connection: its own three (RFC 9114 §6.2), and some to spare.
pub(crate) const H3_OTHER_STREAMS: u32 = 16;

/// Bytes of a request's body that are held for a slow origin, over HTTP/3; and those of all a connection's requests.
pub(crate) const H3_STREAM_WINDOW: u32 = 512 * 1024;
/// See [`H3_STREAM_WINDOW`].
pub(crate) const H3_WINDOW: u32 = 2 * 1024 * 1024;

/// Bytes that an HTTP/3 connection holds until they are acknowledged: what it can send in a round trip.
pub(crate) const H3_UNACKNOWLEDGED: u64 = 2 * 1024 * 1024;

/// Packets of HTTP/3 that the system holds, in bytes, in each direction: those of all connections share a socket.
pub(crate) const H3_SOCKET_BUFFER: usize = 2 * 1024 * 1024;

/// For how long a client may remember that HTTP/3 is served, in seconds.
pub(crate) const ALTERNATIVE_SECONDS: u32 = 24 * 3600;

/// Handshakes of HTTP/3 at a time; of more, clients are refused.
pub(crate) const H3_HANDSHAKES: usize = 1024;

/// Handshakes of HTTP/3 at a time above which a client must show first that its address is its own.
pub(crate) const H3_UNVALIDATED: usize = 64;

/// Requests that may be malformed or taken back in a row, on one connection of HTTP/2 or HTTP/3; an answer that is had makes
/// good for one.
pub(crate) const FUTILE_REQUESTS: u32 = 256;

/// A request is not futile whose client has taken so many bytes of content.
pub(crate) const WORTH_BYTES: u64 = 64 * 1024;

/// The largest playlist into which a token is carried, in bytes.
pub(crate) const PLAYLIST_BYTES: u64 = 16 * 1024 * 1024;

/// The memory that remembered token verdicts may take, in bytes.
pub(crate) const VERDICT_BYTES: u64 = 16 * 1024 * 1024;

/// The largest playlist or manifest of a live stream, in bytes.
pub(crate) const LIVE_PLAYLIST_BYTES: usize = 2 * 1024 * 1024;

/// How many playlists a stream may have.
pub(crate) const LIVE_PLAYLISTS: usize = 256;

/// How many of them may arrive at a time from an encoder.
pub(crate) const PLAYLISTS_AT_A_TIME: u32 = 16;

/// How long one of them may take.
pub(crate) const PLAYLIST_TIME: Duration = Duration::from_secs(60);

/// How long an encoder may stand still in the middle of a file.
pub(crate) const PUSH_IDLE: Duration = Duration::from_secs(30);

/// What is read of a body that is refused, in bytes and time, so that its sender comes to read why.
pub(crate) const DRAINED_BYTES: usize = 8 * 1024 * 1024;
/// See [`DRAINED_BYTES`].
pub(crate) const DRAIN_TIME: Duration = Duration::from_secs(2);

/// The largest answer to a POST that is kept as the answer to a GET, in bytes.
pub(crate) const KEPT_POST_BYTES: u64 = 1 << 20;
