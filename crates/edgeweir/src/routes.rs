//! Serves the routes of the API and the admin listener: HTTP/1.1 and HTTP/2, plain or over TLS. No client keeps a
//! connection for nothing: handshakes, heads, requests to come and answers to be taken have their time, and connections
//! are counted.

mod activity;

use activity::{Activity, Answer};
use axum::{Router, extract::ConnectInfo};
use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rustls::ServerConfig;
use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

/// How many connections a listener has open at most; more wait to be accepted.
const CONNECTIONS: usize = 1024;
const HANDSHAKE: Duration = Duration::from_secs(10);
/// For a request's head, counted from the end of the request before.
const HEAD: Duration = Duration::from_secs(30);
/// For the next request, or for taking more of an answer. Slow clients take their time: the kernel holds megabytes for them.
const QUIET: Duration = Duration::from_secs(60);
/// For what is on its way when a connection is given up for that.
const GRACE: Duration = Duration::from_secs(5);
/// How often a silent HTTP/2 connection is asked whether it is there, and how long it may take to say so.
const PING: Duration = Duration::from_secs(30);

/// Serves until `shutdown`, then lets requests in flight finish.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    shutdown: CancellationToken,
) {
    let acceptor = tls.map(TlsAcceptor::from);
    let (places, connections) = (Arc::new(Semaphore::new(CONNECTIONS)), TaskTracker::new());
    loop {
        let accepted = async {
            let place = places.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accepted => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                // Mostly a want of file descriptors, which others will give back (accept(2)).
                tracing::warn!(error = %e, "a connection cannot be accepted");
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (acceptor, router, shutdown) = (acceptor.clone(), router.clone(), shutdown.clone());
        connections.spawn(async move {
            connection(stream, peer, acceptor, router, shutdown).await;
            drop(place);
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    router: Router,
    shutdown: CancellationToken,
) {
    // Small answers should not wait for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    match acceptor {
        None => exchange(stream, peer, router, shutdown).await,
        Some(acceptor) => {
            if let Ok(Ok(stream)) = timeout(HANDSHAKE, acceptor.accept(stream)).await {
                exchange(stream, peer, router, shutdown).await;
            }
        }
    }
}

async fn exchange<S>(stream: S, peer: SocketAddr, router: Router, shutdown: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    let activity = Activity::new();
    let service = service_fn({
        let activity = activity.clone();
        move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            let (activity, work, answer) = (activity.clone(), activity.request(), router.clone().oneshot(request));
            async move {
                let answer = answer.await;
                drop(work);
                answer.map(|answer| answer.map(|body| Answer::new(body, activity)))
            }
        }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    // hyper's own time-outs begin when it knows which protocol it is, and know nothing of answers.
    let mut quiet = pin!(activity.quiet(HEAD, QUIET));
    let (mut given_up, mut ending) = (false, false);
    loop {
        tokio::select! {
            // How a connection ends is the client's affair.
            _ = connection.as_mut() => return,
            () = quiet.as_mut() => {
                if given_up {
                    return;
                }
                given_up = true;
                quiet.set(activity.quiet(HEAD + GRACE, QUIET + GRACE));
            }
            () = shutdown.cancelled(), if !ending => {}
        }
        if !std::mem::replace(&mut ending, true) {
            connection.as_mut().graceful_shutdown();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// The clock runs on by itself whenever everybody waits.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_asks_for_nothing_is_cut_and_one_that_is_answered_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let slow = get(async || {
            sleep(10 * HEAD).await;
            "answered"
        });
        let (router, stop) = (Router::new().route("/", slow), CancellationToken::new());
        let serving = tokio::spawn(serve(listener, None, router, stop.clone()));
        for (sent, wanted) in [
            ("", ""),
            ("GET / HT", ""),
            ("GET / HTTP/1.1\r\nHost: ", ""),
            ("PRI * HTTP/2.0\r\n", ""),
            ("GET / HTTP/1.0\r\n\r\n", "answered"),
        ] {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(sent.as_bytes()).await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert!(
                answer.ends_with(wanted) && wanted.is_empty() != answer.contains("200 OK"),
                "{sent:?}: {answer}"
            );
        }
        stop.cancel();
        serving.await.unwrap();
    }

    /// More than what the kernel and hyper take of an answer that nobody reads.
    const LARGE: usize = 32 << 20;

    /// Serves a small answer and a large one, and one that takes its time.
    async fn serving() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let slow = get(async || {
            sleep(4 * HEAD).await;
            "answered"
        });
        let router = Router::new()
            .route("/small", get(async || "answered"))
            .route("/large", get(async || vec![0_u8; LARGE]))
            .route("/slow", slow);
        tokio::spawn(serve(listener, None, router, CancellationToken::new()));
        // Left to itself, the clock would jump to the next time-out while bytes are on their way.
        tokio::spawn(async {
            loop {
                sleep(HEAD / 30).await;
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        address
    }

    /// A client of HTTP/2 that answers PINGs, and for how long its connection lasts.
    async fn h2(
        address: SocketAddr,
    ) -> (
        hyper::client::conn::http2::SendRequest<http_body_util::Empty<bytes::Bytes>>,
        tokio::task::JoinHandle<Duration>,
    ) {
        let stream = TcpStream::connect(address).await.unwrap();
        let (client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
        let begun = tokio::time::Instant::now();
        let lasted = tokio::spawn(async move {
            let _ = timeout(100 * HEAD, connection).await;
            begun.elapsed()
        });
        (client, lasted)
    }

    fn request(path: &str) -> Request<http_body_util::Empty<bytes::Bytes>> {
        Request::get(format!("http://localhost{path}"))
            .body(http_body_util::Empty::new())
            .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_http2_connection_is_kept_while_it_is_used_and_no_longer() {
        let address = serving().await;
        let (mut client, lasted) = h2(address).await;
        for path in ["/small", "/slow", "/small"] {
            sleep(HEAD / 2).await;
            client.ready().await.unwrap();
            assert_eq!(
                client.send_request(request(path)).await.unwrap().status(),
                200,
                "{path}"
            );
        }
        let lasted = lasted.await.unwrap();
        let used = 5 * HEAD;
        assert!((used..used + 4 * HEAD).contains(&lasted), "{lasted:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_take_its_answer_is_cut() {
        let address = serving().await;
        let (mut client, lasted) = h2(address).await;
        let answer = client.send_request(request("/large")).await.unwrap();
        let lasted = lasted.await.unwrap();
        assert!(lasted < 4 * HEAD, "{lasted:?}");
        drop(answer);
        for pause in [Duration::ZERO, HEAD / 2, 10 * HEAD] {
            let mut client = TcpStream::connect(address).await.unwrap();
            let request = "GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            client.write_all(request.as_bytes()).await.unwrap();
            sleep(pause).await;
            let (mut taken, mut part) = (0, vec![0; 16 << 20]);
            while let Ok(read @ 1..) = client.read(&mut part).await {
                taken += read;
                if taken % (8 << 20) < read {
                    sleep(pause.min(HEAD / 2)).await;
                }
            }
            assert_eq!(taken > LARGE, pause < HEAD, "{pause:?}: {taken} bytes");
        }
    }
}
