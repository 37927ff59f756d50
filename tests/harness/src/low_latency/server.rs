//! The source as an origin: blocking reloads and hinted parts are held until there is what they ask for
//! (draft-pantos-hls-rfc8216bis §6.2.5.2 and §6.2.6).

use super::{
    Shared,
    playlist::{self, Place},
};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Instant,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
};

/// A request as it came, before any waiting.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Path and query.
    pub target: String,
    /// When.
    pub at: Instant,
}

struct Log {
    asked: Mutex<Vec<Asked>>,
    came: Notify,
}

impl Log {
    fn asked(&self) -> MutexGuard<'_, Vec<Asked>> {
        self.asked.lock().expect("no panic under the lock")
    }
}

/// A running origin. Its task ends with the test.
#[derive(Clone)]
pub struct LowLatencyServer {
    address: SocketAddr,
    log: Arc<Log>,
}

impl LowLatencyServer {
    pub(super) async fn start(source: Arc<Shared>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let log = Arc::new(Log {
            asked: Mutex::default(),
            came: Notify::new(),
        });
        let seen = log.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(stream, source.clone(), seen.clone()));
            }
        });
        Self { address, log }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The multivariant playlist's URL.
    pub fn url(&self) -> String {
        format!("http://{}/playlist.m3u8", self.address)
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.log.asked().clone()
    }

    /// How often it was asked for this path and query.
    pub fn count(&self, target: &str) -> usize {
        self.log.asked().iter().filter(|asked| asked.target == target).count()
    }

    /// Waits until it was asked for this path and query so often.
    pub async fn until_asked(&self, target: &str, count: usize) {
        loop {
            let came = self.log.came.notified();
            if self.count(target) >= count {
                return;
            }
            came.await;
        }
    }
}

async fn connection(stream: TcpStream, source: Arc<Shared>, log: Arc<Log>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request: Request<Incoming>| {
        let (source, log) = (source.clone(), log.clone());
        async move {
            log.asked().push(Asked {
                target: request.uri().to_string(),
                at: Instant::now(),
            });
            log.came.notify_waiters();
            Ok::<_, Infallible>(answer(&source, request.uri()).await)
        }
    });
    // An error is the client's end.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn ok(media_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    let value = header::HeaderValue::from_static(media_type);
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}

fn refused(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

/// The number that a delivery directive gives.
fn directive(uri: &http::Uri, name: &str) -> Option<u64> {
    let mut pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name)?.1.parse().ok()
}

async fn answer(source: &Shared, uri: &http::Uri) -> Response<Full<Bytes>> {
    let options = &source.options;
    let size = options.parts_per_segment;
    let there = |rendition: usize| rendition < options.renditions;
    let playlist = "application/vnd.apple.mpegurl";
    match Place::of(uri.path().trim_start_matches('/')) {
        Some(Place::Multivariant) => ok(playlist, playlist::multivariant(options)),
        Some(Place::Media { rendition }) if there(rendition) => {
            let mut count = *source.count.borrow();
            if let Some(msn) = directive(uri, "_HLS_msn") {
                // §6.2.5.2: more than two segments ahead is an error.
                if msn > count / size + 2 {
                    return refused(StatusCode::BAD_REQUEST);
                }
                let wanted = match directive(uri, "_HLS_part") {
                    Some(part) => msn * size + part + 1,
                    None => (msn + 1) * size,
                };
                count = source
                    .until(wanted.min(options.media.parts().unwrap_or(u64::MAX)))
                    .await;
            }
            ok(playlist, playlist::media(options, rendition, count))
        }
        Some(Place::Init) => ok("video/mp4", options.media.init()),
        Some(Place::Segment { rendition, msn }) if there(rendition) => match source.segment(rendition, msn) {
            Some(content) => ok("video/mp4", content),
            None => refused(StatusCode::NOT_FOUND),
        },
        Some(Place::Part { rendition, msn, index }) if there(rendition) && index < size => {
            let number = msn.saturating_mul(size).saturating_add(index);
            // Only the next part is hinted.
            if number <= *source.count.borrow() {
                source.until(number + 1).await;
            }
            match source.part(rendition, number) {
                Some(content) => ok("video/mp4", content),
                None => refused(StatusCode::NOT_FOUND),
            }
        }
        _ => refused(StatusCode::NOT_FOUND),
    }
}
