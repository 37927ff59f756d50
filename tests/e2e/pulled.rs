//! A server with one bucket, whose origin does what a test says.

use crate::BINARY;
use bytes::Bytes;
use edgeweir_harness::{Answer, Edge, Origin, Project, Reply, Seen};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::{net::SocketAddr, ops::Range};

/// The server, its bucket `pulled`, and the origin, which has the bucket's objects below `/base`.
pub(crate) struct Pulled {
    pub(crate) edge: Edge,
    pub(crate) project: Project,
    /// The bucket's host.
    pub(crate) host: String,
    pub(crate) origin: Origin,
}

impl Pulled {
    pub(crate) async fn start(
        settings: &[(&str, &str)],
        answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::before(Edge::start_with(BINARY, settings).await, answer).await
    }

    /// The same with a server that runs already.
    pub(crate) async fn before(edge: Edge, answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        let project = edge.project().await;
        let origin = Origin::serve(answer).await;
        let url = format!("{}/base", origin.url());
        let host = project.bucket_at("pulled", json!({"type": "http", "url": url})).await;
        Self {
            edge,
            project,
            host,
            origin,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.get_with(path, &[]).await
    }

    pub(crate) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        self.edge.http().get_with(&self.host, path, headers).await
    }

    pub(crate) async fn head(&self, path: &str) -> Reply {
        let client = self.edge.http();
        client.send(Method::HEAD, &self.host, path, &[], Bytes::new()).await
    }

    /// Asks for bytes of an object, and gets so many.
    pub(crate) async fn range(&self, path: &str, range: Range<u64>) -> Reply {
        let asked = format!("bytes={}-{}", range.start, range.end - 1);
        let reply = self.get_with(path, &[("range", &asked)]).await;
        let told = format!("bytes {}-{}/", range.start, range.end - 1);
        assert_eq!(reply.status, StatusCode::PARTIAL_CONTENT, "{:?}", reply.headers);
        assert!(reply.header("content-range").starts_with(&told), "{:?}", reply.headers);
        assert!(reply.complete && reply.body.len() as u64 == range.end - range.start);
        reply
    }

    pub(crate) async fn purge(&self, what: Value) {
        self.project.post("/v1/buckets/pulled/cache/purge", what).await;
    }

    /// Waits until so many responses and slices are stored in memory: who left before the end, or had a body of unknown length,
    /// may be ahead of that.
    pub(crate) async fn stored(&self, count: u64) {
        self.edge.until("edgeweir_cache_memory_entries", |n| n == count).await;
    }

    /// Waits until all that was put on disk is in its files, and that is so many records.
    pub(crate) async fn written(&self, count: u64) {
        self.edge
            .until("edgeweir_cache_disk_writes_total", |n| n >= count)
            .await;
        self.edge.until("edgeweir_cache_disk_queued_bytes", |n| n == 0).await;
    }

    /// The server's address for viewers.
    pub(crate) fn address(&self) -> SocketAddr {
        self.edge.address("http")
    }

    /// Kills the server without warning, and starts it again.
    pub(crate) async fn crash(&mut self) {
        self.edge.kill();
        self.start_again().await;
    }

    /// Has the server end in order, and starts it again.
    pub(crate) async fn restart(&mut self) {
        self.edge.stop().await;
        self.start_again().await;
    }

    /// Starts the server, which has ended.
    pub(crate) async fn start_again(&mut self) {
        self.edge.restart().await;
        self.project.refresh(self.edge.address("api")).await;
    }
}

/// Whether an answer came from the cache, and no origin was asked for any of it.
pub(crate) fn is_hit(reply: &Reply) -> bool {
    reply.header("cache-status").starts_with("edgeweir; hit")
}
