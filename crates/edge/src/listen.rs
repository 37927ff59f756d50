//! Listeners and connections: TCP, TLS, HTTP/1.1 and HTTP/2; and the end of all, drained.

use crate::{Edge, Listeners, connection::Connection, gathered::Gathered, h1, h2, h3, limits, stream::Watched};
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use slab::Slab;
use socket2::SockRef;
use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What `accept` fails with when the system is short of something (Linux).
const ENOMEM: i32 = 12;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const ENOBUFS: i32 = 105;

/// The connections that are open. A request never touches the lock: a connection does, when it comes and goes.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    draining: AtomicBool,
    wakers: Mutex<Slab<Arc<AtomicWaker>>>,
    pub(crate) open: AtomicU64,
}

impl Connections {
    /// Asks every connection to end after the requests that it has.
    fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        for (_, waker) in self.wakers.lock().iter() {
            waker.wake();
        }
    }

    /// Whether every connection is to end.
    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Counts a connection, until the value is dropped.
    pub(crate) fn enter(&self) -> Entered<'_> {
        let waker = Arc::new(AtomicWaker::new());
        let place = self.wakers.lock().insert(waker.clone());
        self.open.fetch_add(1, Ordering::Relaxed);
        Entered {
            connections: self,
            place,
            waker,
        }
    }
}

/// A connection that is open.
pub(crate) struct Entered<'a> {
    connections: &'a Connections,
    /// Where its waker is kept.
    place: usize,
    /// Wakes it when it is to end.
    pub(crate) waker: Arc<AtomicWaker>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.connections.wakers.lock().remove(self.place);
        self.connections.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Edge {
    /// Whether a connection is to end: the server drains, or its client has shown too many forged tokens.
    pub(crate) fn is_ending(&self, connection: &Connection) -> bool {
        self.connections.is_draining() || connection.shown.is_exhausted()
    }
}

/// Serves all listeners until `shutdown`, then lets requests in flight finish, for `drain` at most.
pub(crate) async fn serve(edge: Arc<Edge>, listeners: Listeners, shutdown: CancellationToken, drain: Duration) {
    let Listeners { http, https, h3 } = listeners;
    let tasks = TaskTracker::new();
    let mut accepting = Vec::new();
    if let Some(listener) = http {
        let (this, tasks) = (edge.clone(), tasks.clone());
        let serve = move |stream| drop(tasks.spawn(plain(this.clone(), stream)));
        accepting.push(tokio::spawn(accept(edge.clone(), listener, shutdown.clone(), serve)));
    }
    let mut endpoint = None;
    if let Some((socket, (_, config))) = h3.zip(https.as_ref()) {
        match h3::endpoint(socket, config) {
            Ok(opened) => {
                let serve = h3::accept(edge.clone(), opened.clone(), tasks.clone(), shutdown.clone());
                accepting.push(tokio::spawn(serve));
                endpoint = Some(opened);
            }
            Err(e) => tracing::error!(error = %e, "HTTP/3 is not served"),
        }
    }
    if let Some((listener, config)) = https {
        let (this, tasks, acceptor) = (edge.clone(), tasks.clone(), TlsAcceptor::from(config));
        let serve = move |stream| drop(tasks.spawn(encrypted(this.clone(), acceptor.clone(), stream)));
        accepting.push(tokio::spawn(accept(edge.clone(), listener, shutdown.clone(), serve)));
    }
    for task in accepting {
        let _ = task.await;
    }
    edge.connections.drain();
    tasks.close();
    if tokio::time::timeout(drain, tasks.wait()).await.is_err() {
        tracing::warn!(
            open = edge.connections.open.load(Ordering::Relaxed),
            "connections are cut: the time to drain is over"
        );
    }
    if let Some(endpoint) = endpoint {
        h3::close(&endpoint).await;
    }
}

async fn accept(edge: Arc<Edge>, listener: TcpListener, shutdown: CancellationToken, mut serve: impl FnMut(TcpStream)) {
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            // The rest of the process needs file descriptors, too.
            Ok(_) if edge.connections.open.load(Ordering::Relaxed) >= edge.settings.connections => {}
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                // Without it the system takes megabytes ahead, and some time later a third of them at once.
                let _ = SockRef::from(&stream).set_tcp_notsent_lowat(limits::UNSENT_BYTES);
                serve(stream);
            }
            // Out of file descriptors or memory: there may be some again soon (accept(2)).
            Err(e) if matches!(e.raw_os_error(), Some(ENOMEM | ENFILE | EMFILE | ENOBUFS)) => {
                tracing::warn!(error = %e, "a connection cannot be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            // The client went away before it was accepted.
            Err(_) => {}
        }
    }
}

async fn plain(edge: Arc<Edge>, stream: TcpStream) {
    let entered = edge.connections.enter();
    let connection = Connection::new(None);
    let stream = Watched::new(stream, &connection);
    let served = async {
        let Some((mut stream, read)) = h1::serve(&edge, &connection, stream).await else {
            return;
        };
        stream.reread(read);
        // Apart: the connections that wait for a request are to be small.
        Box::pin(h2::serve(&edge, &connection, stream, |_| Poll::Ready(Ok(())))).await;
    };
    drive(&edge, &entered, &connection, served).await;
}

async fn encrypted(edge: Arc<Edge>, acceptor: TlsAcceptor, stream: TcpStream) {
    let entered = edge.connections.enter();
    let handshake = tokio::time::timeout(limits::HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
    let Ok(Ok(mut stream)) = handshake else { return };
    let session = stream.get_ref().1;
    if session.alpn_protocol() == Some(edgeweir_certs::ACME_TLS) {
        // The certificate was the answer (RFC 8737 §3).
        let _ = tokio::time::timeout(limits::HANDSHAKE_TIMEOUT, stream.shutdown()).await;
        return;
    }
    let sni = session.server_name().map(|name| Arc::from(name.to_ascii_lowercase()));
    let is_h2 = session.alpn_protocol() == Some(b"h2");
    // Without a name there was no certificate to answer with; a session that has none is not served.
    let Some(sni) = sni else { return };
    let connection = Connection::new(Some(sni));
    if is_h2 {
        let gathered = Gathered::new(stream);
        let stream = Watched::new(gathered.clone(), &connection);
        let served = h2::serve(&edge, &connection, stream, |cx| gathered.poll_send(cx));
        drive(&edge, &entered, &connection, served).await;
    } else {
        let stream = Watched::new(stream, &connection);
        // HTTP/2 is not spoken where another protocol was agreed on (RFC 9113 §3.2).
        drive(&edge, &entered, &connection, async {
            drop(h1::serve(&edge, &connection, stream).await);
        })
        .await;
    }
}

/// Runs a connection to its end. It is woken when the server drains. One on which too little goes on for
/// [`Settings::idle`](crate::Settings::idle) is cut: by a timer of the connection's, since one for every request costs as
/// much as the request.
async fn drive(edge: &Edge, entered: &Entered<'_>, watched: &Connection, connection: impl Future<Output = ()>) {
    let idle = edge.settings.idle;
    let least = limits::least(idle);
    let mut connection = pin!(connection);
    let mut tick = pin!(tokio::time::sleep(idle));
    let mut ticking = false;
    poll_fn(|cx| {
        // Polled when it is set and when it is over only: each poll registers anew, and the task stays the same.
        while !ticking || tick.is_elapsed() {
            if ticking {
                if watched.is_idle(least) {
                    return Poll::Ready(());
                }
                tick.as_mut().reset(Instant::now() + idle);
            }
            ticking = true;
            if tick.as_mut().poll(cx).is_pending() {
                break;
            }
        }
        entered.waker.register(cx.waker());
        connection.as_mut().poll(cx)
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Wake, Waker};

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn those_that_are_open_are_woken_in_whatever_order_others_went() {
        let connections = Connections::default();
        let enter = || {
            let (entered, woken) = (connections.enter(), Arc::new(Woken::default()));
            entered.waker.register(&Waker::from(woken.clone()));
            (entered, woken)
        };
        let mut open: Vec<_> = (0..5).map(|_| enter()).collect();
        let gone: Vec<_> = [3, 0, 1].map(|at| open.remove(at).1).into();
        open.push(enter());
        connections.drain();
        assert_eq!(connections.open.load(Ordering::Relaxed), 3);
        assert!(open.iter().all(|(_, woken)| woken.0.load(Ordering::Relaxed)));
        assert!(!gone.iter().any(|woken| woken.0.load(Ordering::Relaxed)));
    }
}
