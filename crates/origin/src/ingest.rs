#![allow(missing_docs, clippy::unused_self, clippy::unused_async, unused_variables)]
use bytes::Bytes;
use edgeweir_model::{ObjectKey, StreamId};
use http::HeaderValue;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::{
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
#[derive(Debug, Clone, Default)]
pub struct IngestConfig {
    pub data_dir: PathBuf,
    pub memory_bytes: u64,
    pub stream_bytes: u64,
    pub file_bytes: u64,
    pub files: usize,
    pub uploads: usize,
    pub window: Duration,
}
#[derive(Debug, Clone)]
pub struct Ingest;
impl Ingest {
    pub fn open(config: IngestConfig) -> io::Result<Self> {
        todo!()
    }
    pub fn window(&self, stream: StreamId) -> Arc<Window> {
        todo!()
    }
    pub fn find(&self, stream: StreamId) -> Option<Arc<Window>> {
        todo!()
    }
    pub fn retain(&self, keep: impl Fn(StreamId) -> bool) {
        todo!()
    }
    pub fn expire(&self, now: Instant) {}
    pub async fn flush(&self) {
        todo!()
    }
}
#[derive(Debug)]
pub struct Window;
impl Window {
    pub fn begin(
        self: &Arc<Self>,
        path: &ObjectKey,
        media_type: HeaderValue,
        length: Option<u64>,
    ) -> Result<Upload, PushError> {
        todo!()
    }
    pub fn delete(&self, path: &ObjectKey) -> bool {
        todo!()
    }
    pub fn read(&self, path: &ObjectKey, label: Option<u32>) -> Option<LiveFile> {
        todo!()
    }
    pub async fn wait(&self, path: &ObjectKey, label: Option<u32>) -> Option<LiveFile> {
        todo!()
    }
    pub fn pin(&self, path: &ObjectKey) -> Option<u32> {
        todo!()
    }
    pub fn session(&self) -> u32 {
        todo!()
    }
    pub fn begin_session(&self) -> u32 {
        todo!()
    }
    pub fn publish(&self, path: &ObjectKey, document: Document) {
        todo!()
    }
    pub fn documents(&self) -> Vec<(ObjectKey, Document)> {
        todo!()
    }
    pub fn withdraw(&self, path: &ObjectKey) -> bool {
        todo!()
    }
    pub fn clear(&self) {
        todo!()
    }
    pub fn last_arrival(&self) -> Option<Instant> {
        todo!()
    }
    pub fn is_uploading(&self) -> bool {
        todo!()
    }
}
#[derive(Debug, Clone)]
pub struct Document {
    pub body: Bytes,
    pub media_type: HeaderValue,
    pub state: Bytes,
    pub listed: Vec<(ObjectKey, u32)>,
    pub keep: Vec<ObjectKey>,
}
#[derive(Debug)]
pub struct Upload;
impl Upload {
    pub fn push(&mut self, chunk: Bytes) -> Result<(), PushError> {
        todo!()
    }
    pub fn finish(self) -> Result<(), PushError> {
        todo!()
    }
}
#[derive(Debug)]
pub struct LiveFile {
    pub media_type: HeaderValue,
    pub etag: HeaderValue,
    pub content: Content,
}
#[derive(Debug)]
pub enum Content {
    Whole(Bytes),
    Arriving(ArrivingBody),
}
#[derive(Debug)]
pub struct ArrivingBody;
impl http_body::Body for ArrivingBody {
    type Data = Bytes;
    type Error = crate::Error;
    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, crate::Error>>> {
        todo!()
    }
}
#[derive(Debug)]
pub enum PushError {
    Limit { name: &'static str, limit: u64 },
    Busy,
    Short,
    Closed,
}
