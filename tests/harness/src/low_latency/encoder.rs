//! The source as an encoder: it PUTs each part, each segment and then the playlist that lists them.

use super::{Shared, playlist};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{net::TcpStream, sync::watch, task::JoinHandle};

/// A folder on an ingest server.
#[derive(Debug, Clone)]
pub struct PushTarget {
    /// Where to connect to, in plain HTTP.
    pub address: SocketAddr,
    /// The `Host`.
    pub host: String,
    /// The folder's path, with a slash at both ends.
    pub folder: String,
}

/// A running encoder; it stops when it is dropped.
pub struct LowLatencyEncoder {
    renditions: Vec<(watch::Receiver<u64>, JoinHandle<()>)>,
    refused: Arc<Mutex<Vec<(String, StatusCode)>>>,
}

impl LowLatencyEncoder {
    pub(super) fn start(source: Arc<Shared>, target: PushTarget) -> Self {
        let refused = Arc::new(Mutex::default());
        let renditions = (0..source.options.renditions).map(|rendition| {
            let (pushed, seen) = watch::channel(0);
            let mut connection = Connection {
                target: target.clone(),
                sender: None,
                refused: Arc::clone(&refused),
            };
            let source = source.clone();
            (
                seen,
                tokio::spawn(async move { push(&source, rendition, &mut connection, &pushed).await }),
            )
        });
        Self {
            renditions: renditions.collect(),
            refused,
        }
    }

    /// Waits until so many of the stream's parts, and the playlists that list them, are pushed in every rendition.
    pub async fn until_pushed(&mut self, count: u64) {
        for (pushed, _) in &mut self.renditions {
            let reached = pushed.wait_for(|pushed| *pushed >= count).await;
            reached.expect("the encoder runs");
        }
    }

    /// The paths that were not answered with 200, 201 or 204, and how they were.
    pub fn refused(&self) -> Vec<(String, StatusCode)> {
        self.refused.lock().expect("no panic under the lock").clone()
    }
}

impl Drop for LowLatencyEncoder {
    fn drop(&mut self) {
        for (_, task) in &self.renditions {
            task.abort();
        }
    }
}

async fn push(source: &Shared, rendition: usize, to: &mut Connection, pushed: &watch::Sender<u64>) {
    let options = &source.options;
    let size = options.parts_per_segment;
    if rendition == 0 {
        to.put("playlist.m3u8", playlist::multivariant(options).into()).await;
    }
    to.put(&format!("v{rendition}/init.mp4"), options.media.init()).await;
    let first = *source.count.borrow() / size;
    let mut next = first.saturating_sub(options.window_segments) * size;
    loop {
        let count = source.until(next + 1).await;
        for number in next..count {
            let (msn, index) = (number / size, number % size);
            if let Some(content) = source.part(rendition, number) {
                to.put(&format!("v{rendition}/seg{msn}.{index}.m4s"), content).await;
            }
            if index + 1 == size
                && let Some(content) = source.segment(rendition, msn)
            {
                to.put(&format!("v{rendition}/seg{msn}.m4s"), content).await;
            }
        }
        let playlist = playlist::media(options, rendition, count);
        to.put(&format!("v{rendition}/playlist.m3u8"), playlist.into()).await;
        pushed.send_replace(count);
        next = count;
    }
}

/// A connection that is made when there is none.
struct Connection {
    target: PushTarget,
    sender: Option<SendRequest<Full<Bytes>>>,
    refused: Arc<Mutex<Vec<(String, StatusCode)>>>,
}

impl Connection {
    /// PUTs a file, over again until there is an answer.
    async fn put(&mut self, path: &str, content: Bytes) {
        let status = loop {
            match self.try_put(path, content.clone()).await {
                Some(status) => break status,
                None => {
                    self.sender = None;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        };
        if !matches!(status, StatusCode::OK | StatusCode::CREATED | StatusCode::NO_CONTENT) {
            let mut refused = self.refused.lock().expect("no panic under the lock");
            refused.push((path.to_owned(), status));
        }
    }

    async fn try_put(&mut self, path: &str, content: Bytes) -> Option<StatusCode> {
        let mut sender = match self.sender.take() {
            Some(sender) => sender,
            None => {
                let stream = TcpStream::connect(self.target.address).await.ok()?;
                stream.set_nodelay(true).ok()?;
                let io = TokioIo::new(stream);
                let (sender, connection) = hyper::client::conn::http1::handshake(io).await.ok()?;
                tokio::spawn(connection);
                sender
            }
        };
        let request = Request::builder()
            .method(Method::PUT)
            .uri(format!("{}{path}", self.target.folder))
            .header("host", &self.target.host)
            .body(Full::new(content))
            .expect("a path and a host");
        sender.ready().await.ok()?;
        let response = sender.send_request(request).await.ok()?;
        let status = response.status();
        let _ = response.into_body().collect().await;
        self.sender = Some(sender);
        Some(status)
    }
}
