//! HTTP/3 (RFC 9114) over QUIC (RFC 9000): the endpoint, its connections, and their end, drained. The requests take the
//! same path as all others, under the same limits.
//!
//! There is no 0-RTT: what comes in it can be replayed by who recorded it (RFC 8446 §8), and a resumed handshake without
//! it takes one round trip.

mod exchange;
mod fields;
mod frames;
mod transport;

pub(crate) use exchange::{Upload, UploadError};

use crate::{
    Edge,
    connection::{Connection, Outcome},
    limits,
};
use h3::error::Code;
use quinn::{
    Connecting, Endpoint, EndpointConfig, Incoming, TokioRuntime, TransportConfig, VarInt,
    crypto::rustls::{HandshakeData, QuicServerConfig},
};
use rustls::ServerConfig;
use socket2::SockRef;
use std::{
    future::poll_fn,
    io,
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, interval_at, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use transport::{Transport, Watch, code};

/// The protocol's name in a handshake (RFC 9114 §3.1).
const ALPN: &[u8] = b"h3";

/// How long the last packets of connections that were closed may take.
const LINGER: Duration = Duration::from_secs(1);

/// How long a GOAWAY may take to be written: less than nothing, unless the client takes no bytes.
const FAREWELL: Duration = Duration::from_secs(1);

/// An endpoint on a socket that is bound, with the certificates and tickets of the TLS listener.
pub(crate) fn endpoint(socket: UdpSocket, tls: &ServerConfig) -> io::Result<Endpoint> {
    let buffers = SockRef::from(&socket);
    // As much as the system gives.
    let _ = buffers.set_recv_buffer_size(limits::H3_SOCKET_BUFFER);
    let _ = buffers.set_send_buffer_size(limits::H3_SOCKET_BUFFER);
    let mut tls = tls.clone();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.max_early_data_size = 0;
    let crypto = QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(Arc::new(transport_config()));
    config.max_incoming(limits::H3_HANDSHAKES);
    Endpoint::new(EndpointConfig::default(), Some(config), socket, Arc::new(TokioRuntime))
}

fn transport_config() -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(limits::STREAMS.into())
        .max_concurrent_uni_streams(VarInt::from_u32(limits::H3_OTHER_STREAMS))
        .stream_receive_window(VarInt::from_u32(limits::H3_STREAM_WINDOW))
        .receive_window(VarInt::from_u32(limits::H3_WINDOW))
        .send_window(limits::H3_UNACKNOWLEDGED)
        .datagram_receive_buffer_size(None)
        // Connections are watched here, as all others are: a client may have to wait for an origin in silence.
        .max_idle_timeout(None);
    config
}

/// What becomes of a client that wants to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admission {
    Accept,
    /// It is to show first that it is where it says: that costs it a round trip, and us nothing (RFC 9000 §8.1.2).
    Retry,
    Refuse,
}

/// Decides on a client, with so many handshakes under way, and room for so many more connections.
fn admit(handshakes: usize, room: u64, validated: bool) -> Admission {
    if room <= handshakes as u64 || handshakes >= limits::H3_HANDSHAKES {
        Admission::Refuse
    } else if !validated && handshakes >= limits::H3_UNVALIDATED {
        Admission::Retry
    } else {
        Admission::Accept
    }
}

/// Takes connections until `shutdown`. The endpoint goes on serving those that it has.
pub(crate) async fn accept(edge: Arc<Edge>, endpoint: Endpoint, tasks: TaskTracker, shutdown: CancellationToken) {
    let handshakes = Arc::new(AtomicUsize::new(0));
    loop {
        let incoming = tokio::select! {
            () = shutdown.cancelled() => break,
            incoming = endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { break };
        let open = edge.connections.open.load(Ordering::Relaxed);
        let room = edge.settings.connections.saturating_sub(open);
        match admit(handshakes.load(Ordering::Relaxed), room, may_be_answered(&incoming)) {
            Admission::Refuse => incoming.refuse(),
            // An error says that it may not be asked to, and so has retried: not so here.
            Admission::Retry => drop(incoming.retry()),
            Admission::Accept => {
                let Ok(connecting) = incoming.accept() else { continue };
                let handshake = Handshake::begin(&handshakes);
                tasks.spawn(serve(edge.clone(), connecting, handshake));
            }
        }
    }
    endpoint.set_server_config(None);
}

fn may_be_answered(incoming: &Incoming) -> bool {
    incoming.remote_address_validated() || !incoming.may_retry()
}

/// Ends what is left of an endpoint's connections.
pub(crate) async fn close(endpoint: &Endpoint) {
    endpoint.close(code(Code::H3_NO_ERROR), b"");
    let _ = timeout(LINGER, endpoint.wait_idle()).await;
}

/// A handshake that is under way, until this is dropped.
struct Handshake(Arc<AtomicUsize>);

impl Handshake {
    fn begin(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection, from its handshake to its end.
async fn serve(edge: Arc<Edge>, connecting: Connecting, handshake: Handshake) {
    let Ok(Ok(quic)) = timeout(limits::HANDSHAKE_TIMEOUT, connecting).await else {
        return;
    };
    let data = quic
        .handshake_data()
        .and_then(|data| data.downcast::<HandshakeData>().ok());
    let Some(sni) = data.and_then(|data| data.server_name) else {
        return;
    };
    let watch = Arc::new(Watch::default());
    let mut builder = h3::server::builder();
    builder
        .max_field_section_size(limits::HEAD_BUFFER_BYTES as u64)
        .send_grease(false);
    // It takes a client that gives no room for the settings (RFC 9114 §6.2) to make this wait.
    let built = timeout(
        limits::HANDSHAKE_TIMEOUT,
        builder.build(Transport::new(quic.clone(), watch.clone())),
    );
    let Ok(Ok(requests)) = built.await else { return };
    drop(handshake);
    let connection = Connection::new(Some(sni.to_ascii_lowercase().into()));
    drive(&edge, &connection, requests, &quic, &watch).await;
}

/// Runs a connection to its end, asking it to end when the server drains or the client has shown too many forged
/// tokens, and cutting it when too little goes on, or too much in vain.
async fn drive(
    edge: &Arc<Edge>,
    connection: &Arc<Connection>,
    mut requests: h3::server::Connection<Transport, bytes::Bytes>,
    quic: &quinn::Connection,
    watch: &Arc<Watch>,
) {
    let idle = edge.settings.idle;
    let entered = edge.connections.enter();
    let mut under_way = JoinSet::new();
    let (mut ending, mut ended) = (false, false);
    let mut tick = interval_at(Instant::now() + idle, idle);
    let to_end = || {
        poll_fn(|cx| {
            entered.waker.register(cx.waker());
            if edge.is_ending(connection) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
    };
    while !(ending && under_way.is_empty()) {
        tokio::select! {
            _ = tick.tick() => {
                connection.wrote(watch.written.swap(0, Ordering::Relaxed) as usize);
                connection.read(watch.read.swap(0, Ordering::Relaxed) as usize);
                if connection.is_idle(limits::least(idle)) {
                    break;
                }
            }
            () = to_end(), if !ending => {
                ending = true;
                watch.rejecting.store(true, Ordering::Relaxed);
                // The library counts from the last request, and the field names the first that is not taken
                // (RFC 9114 §5.2).
                if !matches!(timeout(FAREWELL, requests.shutdown(1)).await, Ok(Ok(()))) {
                    break;
                }
            }
            request = requests.accept(), if !ended => {
                let resolver = match request {
                    Ok(Some(resolver)) => resolver,
                    // The client has said GOAWAY, and what it asked for is written.
                    Ok(None) => {
                        (ending, ended) = (true, true);
                        continue;
                    }
                    // Final for the connection.
                    Err(_) => break,
                };
                if let Some(stopped) = watch.stopped.lock().take() {
                    under_way.spawn(exchange::run(edge.clone(), connection.clone(), resolver, stopped));
                }
            }
            Some(outcome) = under_way.join_next() => {
                connection.ended(outcome.unwrap_or(Outcome::Futile));
                if connection.is_futile() {
                    quic.close(code(Code::H3_EXCESSIVE_LOAD), b"");
                    break;
                }
            }
        }
    }
    // Before the answers that are under way are dropped.
    quic.close(code(Code::H3_NO_ERROR), b"");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_connect() {
        let (few, many, all) = (0, limits::H3_UNVALIDATED, limits::H3_HANDSHAKES);
        for (handshakes, room, validated, wanted) in [
            (few, 10, false, Admission::Accept),
            (many, 10_000, false, Admission::Retry),
            (many, 10_000, true, Admission::Accept),
            (all, 10_000, true, Admission::Refuse),
            (few, 0, true, Admission::Refuse),
            (5, 5, true, Admission::Refuse),
        ] {
            assert_eq!(
                admit(handshakes, room, validated),
                wanted,
                "{handshakes} {room} {validated}"
            );
        }
    }
}
