//! Where bytes come from: files of local buckets, HTTP origins and S3 buckets.
//!
//! [`Origins`] is what the edge asks. No path leaves its bucket, no request goes to an address that is not public
//! unless the operator allows it, and nothing that identifies a viewer is sent along.

mod address;
mod body;
mod hop;
mod http_origin;
pub mod ingest;
mod local;
mod media_type;
mod retry;
mod s3;

pub use address::is_public;
pub use body::{Body, FileBody};
pub use hop::CDN_LOOP;
pub use local::{BucketFolder, Condition, LocalError, LocalStorage, ObjectInfo, PutOutcome};
pub use media_type::media_type;
pub use s3::ResumedBody;

use bytes::Bytes;
use edgeweir_model::{Bucket, ObjectKey, Origin, OriginUrl, Seal};
use http::{HeaderMap, Method, StatusCode};
use http_origin::HttpClient;
use s3::S3Client;
use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

/// The body of a request that is passed on.
pub type RequestBody = http_body_util::combinators::UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// What is asked of an origin.
#[derive(Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The object.
    pub key: ObjectKey,
    /// The query, without any token.
    pub query: String,
    /// Header fields to send along, the client's `CDN-Loop` among them; hop-by-hop and forwarding ones are taken out
    /// here.
    pub headers: HeaderMap,
    /// The body, for methods that have one.
    pub body: Option<RequestBody>,
    /// Whom to tell of interim responses. Only HTTP origins have some.
    pub interim: Option<Interim>,
}

/// Whom an origin's interim responses (RFC 9110 §15.2) go to: called with the status, and the header fields without
/// hop-by-hop ones.
#[derive(Clone)]
pub struct Interim(Arc<dyn Fn(StatusCode, HeaderMap) + Send + Sync>);

impl Interim {
    /// One that calls `tell`, which must not block.
    pub fn new(tell: impl Fn(StatusCode, HeaderMap) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }
}

impl fmt::Debug for Interim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interim")
    }
}

/// What an origin answers.
#[derive(Debug)]
pub struct Response {
    /// The status; an object that is not there is a 404, not an error.
    pub status: StatusCode,
    /// The header fields, without hop-by-hop ones.
    pub headers: HeaderMap,
    /// The body.
    pub body: Body,
    /// The body's length in bytes, where it is known.
    pub length: Option<u64>,
}

/// Why an origin gave no answer, or broke off in one. The text names no address, path or secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Its address is not public, and private ones are not allowed.
    #[error("the origin's address is not public")]
    Refused,
    /// No connection.
    #[error("the origin cannot be reached")]
    Connect,
    /// No answer, or no further byte, in time.
    #[error("the origin does not answer in time")]
    Timeout,
    /// Something that is no HTTP answer, or one that breaks off.
    #[error("the origin's answer is broken")]
    Broken,
    /// It refuses what it is asked for reasons that are ours: credentials, region, bucket.
    #[error("the origin refuses the credentials or settings")]
    Denied,
    /// The disk failed.
    #[error("the object cannot be read")]
    Io,
}

impl Error {
    /// Whether asking again at once may help. What took too long is not asked for once more.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Connect | Self::Broken)
    }
}

/// How long an HTTP origin may take.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// To accept a connection.
    pub connect: Duration,
    /// To send its answer's head, once it has the request.
    pub first_byte: Duration,
    /// Between two parts of a body, in either direction.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(15),
            idle: Duration::from_secs(30),
        }
    }
}

/// How origins are reached.
#[derive(Debug, Clone)]
pub struct OriginsConfig {
    /// The folder that holds `buckets/` and `uploads/`.
    pub data_dir: PathBuf,
    /// Whether HTTP origins may be on loopback, link-local and private addresses.
    pub allow_private: bool,
    /// Time limits.
    pub timeouts: Timeouts,
}

/// Every origin of every bucket. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Origins {
    local: LocalStorage,
    http: Arc<HttpClient>,
    s3: S3Client,
}

impl Origins {
    /// Opens the local storage and makes ready to connect. `seal` opens the credentials of S3 origins.
    pub fn new(config: &OriginsConfig, seal: Arc<dyn Seal>) -> std::io::Result<Self> {
        let local = LocalStorage::open(&config.data_dir)?;
        let http = Arc::new(HttpClient::new(config.allow_private, config.timeouts));
        Ok(Self {
            local,
            s3: S3Client::new(http.clone(), seal),
            http,
        })
    }

    /// Asks a bucket's origin.
    pub async fn fetch(&self, bucket: &Bucket, request: Request) -> Result<Response, Error> {
        match &bucket.origin {
            Origin::Local => {
                let folder = BucketFolder::new(&bucket.name, bucket.id);
                self.local.get(&folder, &request.key, &request.headers).await
            }
            Origin::Http(origin) => self.fetch_from(&origin.url, request).await,
            Origin::S3(origin) => self.s3.fetch(bucket, origin, request).await,
        }
    }

    /// Asks an HTTP origin.
    pub async fn fetch_from(&self, url: &OriginUrl, request: Request) -> Result<Response, Error> {
        self.http.fetch(url, request).await
    }

    /// Whether a request has been sent by this process: an origin leads back here (RFC 8586). Every request to an HTTP
    /// origin is marked with [`CDN_LOOP`].
    pub fn loops(&self, headers: &HeaderMap) -> bool {
        self.http.loops(headers)
    }

    /// The files of local buckets.
    pub fn local(&self) -> &LocalStorage {
        &self.local
    }
}
