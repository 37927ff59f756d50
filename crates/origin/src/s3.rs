//! S3 buckets: signed reads over the same pooled connections, time limits and address checks as HTTP origins.
//!
//! What S3 says in its own words becomes plain HTTP: an object that is not there is a 404, a refusal that is the
//! operator's to mend is [`Error::Denied`], and no name, id or text of the bucket reaches a viewer.

mod answer;
mod resume;
mod sign;

pub use resume::ResumedBody;

use crate::{Body, CDN_LOOP, Error, Request, Response, http_origin::HttpClient};
use answer::{Meaning, code, fields, is_strong, meaning, span};
use bytes::Bytes;
use edgeweir_model::{Bucket, BucketName, ObjectKey, S3Origin, Seal};
use futures_util::future::BoxFuture;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{ETAG, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE},
};
use http_body_util::{BodyExt, Limited};
use resume::{Ask, Rest};
use sign::Signer;
use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use time::OffsetDateTime;

/// What of a request S3 is told. A query would mean something else to it.
const SENT: [HeaderName; 6] = [
    RANGE,
    IF_MATCH,
    IF_NONE_MATCH,
    IF_MODIFIED_SINCE,
    IF_UNMODIFIED_SINCE,
    CDN_LOOP,
];

/// How often it is logged that an origin refuses what it is asked.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// How much of the body of an error is read, in bytes.
const ERROR_BYTES: usize = 16 << 10;

/// The client for every S3 origin. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct S3Client(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    http: Arc<HttpClient>,
    seal: Arc<dyn Seal>,
    complaints: Complaints,
}

impl S3Client {
    pub(crate) fn new(http: Arc<HttpClient>, seal: Arc<dyn Seal>) -> Self {
        Self(Arc::new(Shared {
            http,
            seal,
            complaints: Complaints::default(),
        }))
    }

    /// Reads an object, or asks after it.
    pub(crate) async fn fetch(
        &self,
        bucket: &Bucket,
        origin: &Arc<S3Origin>,
        request: Request,
    ) -> Result<Response, Error> {
        let object = Arc::new(Object {
            shared: self.0.clone(),
            origin: origin.clone(),
            bucket: bucket.name.clone(),
            key: request.key,
        });
        let mut headers = HeaderMap::new();
        for name in SENT {
            for value in request.headers.get_all(&name) {
                headers.append(name.clone(), value.clone());
            }
        }
        // Beside an entity tag a date counts for nothing (RFC 9110 §13.1.3, §13.1.4). Not every server knows: one would
        // confirm an object that was replaced within a second.
        for (tag, date) in [(IF_NONE_MATCH, IF_MODIFIED_SINCE), (IF_MATCH, IF_UNMODIFIED_SINCE)] {
            if headers.contains_key(tag) {
                headers.remove(date);
            }
        }
        // Only a GET has ranges (RFC 9110 §14.2); S3 would answer a HEAD with one.
        headers.remove(RANGE);
        if request.method != Method::HEAD
            && let Some(range) = one_range(&request.headers)
        {
            headers.insert(RANGE, range);
        }
        let Some(if_range) = request.headers.get(IF_RANGE).filter(|_| headers.contains_key(RANGE)) else {
            return object.answer(&request.method, headers).await;
        };
        // S3 knows no If-Range: it would send a part of whatever object is there now. A date is no strong validator
        // (RFC 9110 §13.1.5).
        let mut whole = headers.clone();
        whole.remove(RANGE);
        if is_strong(if_range) && !headers.contains_key(IF_MATCH) {
            headers.insert(IF_MATCH, if_range.clone());
            let part = object.answer(&request.method, headers).await?;
            if part.status != StatusCode::PRECONDITION_FAILED {
                return Ok(part);
            }
        }
        object.answer(&request.method, whole).await
    }
}

/// One object of one bucket.
struct Object {
    shared: Arc<Shared>,
    origin: Arc<S3Origin>,
    bucket: BucketName,
    key: ObjectKey,
}

impl Object {
    /// Asks, and makes plain HTTP of the answer; its body goes on where it breaks off.
    async fn answer(self: &Arc<Self>, method: &Method, headers: HeaderMap) -> Result<Response, Error> {
        let (response, meaning) = self.ask(method, headers).await?;
        match meaning {
            Meaning::Object => {}
            Meaning::Missing => return Ok(empty(StatusCode::NOT_FOUND, HeaderMap::new())),
            Meaning::Busy => return Err(Error::Broken),
            Meaning::Denied => return Err(Error::Denied),
        }
        let (status, length) = (response.status, response.length);
        let headers = fields(status, &response.headers, &self.key);
        if !status.is_success() {
            return Ok(empty(status, headers));
        }
        let etag = headers.get(ETAG).filter(|etag| is_strong(etag)).cloned();
        let span = span(status, &headers, length).filter(|_| *method == Method::GET);
        let body = match (response.body, span, etag) {
            (Body::Http(body), Some((range, total)), Some(etag)) => {
                let rest = Arc::new(Version {
                    object: self.clone(),
                    etag,
                    total,
                });
                Body::S3(Box::new(ResumedBody::new(body, range, rest)))
            }
            (body, ..) => body,
        };
        Ok(Response {
            status,
            headers,
            body,
            length,
        })
    }

    /// Asks, and once more where the server is busy. The body of an error is read.
    async fn ask(&self, method: &Method, headers: HeaderMap) -> Result<(Response, Meaning), Error> {
        let mut again = true;
        loop {
            let mut response = self.send(method, headers.clone()).await?;
            let status = response.status;
            if meaning(status, None) == Meaning::Object {
                return Ok((response, Meaning::Object));
            }
            let body = std::mem::replace(&mut response.body, Body::Whole(Bytes::new()));
            let body = Limited::new(body, ERROR_BYTES).collect().await;
            let code = body.ok().and_then(|body| code(&body.to_bytes()));
            let meaning = meaning(status, code.as_deref());
            if meaning == Meaning::Busy && std::mem::take(&mut again) && self.shared.http.may_retry(self.origin.base())
            {
                continue;
            }
            if meaning != Meaning::Missing {
                self.shared.complaints.of(self, status, code.as_deref());
            }
            return Ok((response, meaning));
        }
    }

    /// Sends a signed request.
    async fn send(&self, method: &Method, mut headers: HeaderMap) -> Result<Response, Error> {
        let (base, settings) = (self.origin.base(), self.origin.settings());
        let path = format!("{}/{}", base.prefix(), self.key.to_url_path());
        let purpose = S3Origin::purpose(&self.bucket);
        let Some(secret) = self.shared.seal.open(&purpose, self.origin.secret_access_key()) else {
            self.shared
                .complaints
                .of(self, StatusCode::UNAUTHORIZED, Some("NotOpened"));
            return Err(Error::Denied);
        };
        let signer = Signer {
            access_key_id: &settings.access_key_id,
            secret_access_key: &secret,
            region: &settings.region,
        };
        let now = OffsetDateTime::now_utc();
        signer.sign(method, &base.authority(), &path, &mut headers, now);
        drop(secret);
        let http = &self.shared.http;
        http.ask(base, &path, method.clone(), headers, None, None).await
    }
}

/// The range that a request asks for, if it is one, in a form that is signed as it is sent: SigV4 has several fields joined
/// and spaces made one. S3 gives one range at most.
fn one_range(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut fields = headers.get_all(RANGE).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else {
        return None;
    };
    let (unit, range) = field.to_str().ok()?.split_once('=')?;
    let (first, last) = range.trim().split_once('-')?;
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_range =
        unit.trim().eq_ignore_ascii_case("bytes") && is_number(first) && is_number(last) && range.trim() != "-";
    is_range.then(|| HeaderValue::from_str(&format!("bytes={first}-{last}")).expect("ASCII"))
}

fn empty(status: StatusCode, headers: HeaderMap) -> Response {
    Response {
        status,
        headers,
        body: Body::Whole(Bytes::new()),
        length: Some(0),
    }
}

/// One version of an object.
struct Version {
    object: Arc<Object>,
    etag: HeaderValue,
    total: u64,
}

impl Ask for Version {
    fn ask(self: Arc<Self>, range: Range<u64>) -> BoxFuture<'static, Rest> {
        Box::pin(async move {
            let shared = &self.object.shared;
            if !shared.http.may_retry(self.object.origin.base()) {
                return Rest::Failed(Error::Broken);
            }
            let mut headers = HeaderMap::new();
            headers.insert(IF_MATCH, self.etag.clone());
            let bytes = format!("bytes={}-{}", range.start, range.end - 1);
            headers.insert(RANGE, HeaderValue::from_str(&bytes).expect("ASCII"));
            match self.object.ask(&Method::GET, headers).await {
                Ok((response, Meaning::Object)) => {
                    // Not every server knows If-Match.
                    let same = response.headers.get(ETAG) == Some(&self.etag);
                    if same && span(response.status, &response.headers, response.length) == Some((range, self.total)) {
                        Rest::Body(response.body)
                    } else {
                        Rest::Gone
                    }
                }
                Ok((_, Meaning::Missing)) => Rest::Gone,
                Ok((_, Meaning::Busy)) => Rest::Failed(Error::Broken),
                Ok((_, Meaning::Denied)) => Rest::Failed(Error::Denied),
                Err(e) => Rest::Failed(e),
            }
        })
    }
}

/// What is logged of refusals: one line in a while, however many requests meet one.
#[derive(Debug)]
struct Complaints {
    start: Instant,
    /// When the last one was, in milliseconds since the start, and one.
    last: AtomicU64,
}

impl Default for Complaints {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            last: AtomicU64::new(0),
        }
    }
}

impl Complaints {
    fn of(&self, object: &Object, status: StatusCode, code: Option<&str>) {
        let now = self.start.elapsed().as_millis() as u64 + 1;
        let due =
            |last: u64| (last == 0 || now - last.min(now) >= COMPLAINT_INTERVAL.as_millis() as u64).then_some(now);
        if self
            .last
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, due)
            .is_ok()
        {
            tracing::warn!(
                bucket = %object.bucket,
                endpoint = object.origin.settings().endpoint,
                status = status.as_u16(),
                code,
                "an S3 origin does not give what it is asked for: check its credentials, region and bucket"
            );
        }
    }
}

#[cfg(test)]
mod tests;
