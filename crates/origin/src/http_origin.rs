//! HTTP origins: pooled connections, time limits, no private addresses, no redirects followed.
//!
//! A name's addresses are checked as they are connected to, so a name that is bound anew between check and connect
//! gains nothing. A redirect is passed to the client, never followed: no hop leads anywhere unchecked.

mod resolver;

use crate::{
    Body, Error, Interim, Request, RequestBody, Response, Timeouts,
    address::is_open,
    body::{HttpBody, Stage, Upload},
    hop::{self, Itself},
    retry::RetryBudget,
};
use bytes::{Bytes, BytesMut};
use edgeweir_model::OriginUrl;
use http::{
    HeaderMap, HeaderValue, Method, Uri,
    header::{HOST, IF_MATCH, IF_NONE_MATCH, IF_UNMODIFIED_SINCE, USER_AGENT, VIA},
};
use http_body::Body as _;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use resolver::{NotPublic, Resolver};
use rustls::{ClientConfig, RootCertStore};
use std::{io, net::IpAddr, pin::pin, sync::Arc, time::Duration};
use tokio::sync::watch;

const USER_AGENT_VALUE: &str = concat!("edgeweir/", env!("CARGO_PKG_VERSION"));

/// Idle connections that are kept for an origin, and for how long.
const IDLE_CONNECTIONS: usize = 64;
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Up to this size, in bytes, what is sent is kept until it is answered.
const KEPT: u64 = 64 << 10;

/// The client for every HTTP origin.
#[derive(Debug)]
pub(crate) struct HttpClient {
    client: Client<HttpsConnector<HttpConnector<Resolver>>, RequestBody>,
    allow_private: bool,
    timeouts: Timeouts,
    retries: RetryBudget,
    itself: Itself,
}

impl HttpClient {
    pub(crate) fn new(allow_private: bool, timeouts: Timeouts) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(Resolver::new(allow_private));
        tcp.set_connect_timeout(Some(timeouts.connect));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider speaks TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .http1_max_buf_size(64 << 10)
            .build(connector);
        Self {
            client,
            allow_private,
            timeouts,
            retries: RetryBudget::new(),
            itself: Itself::new(),
        }
    }

    /// Whether a request came from this process.
    pub(crate) fn loops(&self, headers: &HeaderMap) -> bool {
        self.itself.has_signed(headers)
    }

    pub(crate) async fn fetch(&self, url: &OriginUrl, request: Request) -> Result<Response, Error> {
        let query = if request.query.is_empty() {
            String::new()
        } else {
            format!("?{}", request.query)
        };
        let target = format!("{}/{}{query}", url.prefix(), request.key.to_url_path());
        let (method, headers) = (request.method, request.headers);
        self.ask(url, &target, method, headers, request.body, request.interim.as_ref())
            .await
    }

    /// Whether something may be asked once more, beside what is by itself; if so, that is paid for.
    pub(crate) fn may_retry(&self, url: &OriginUrl) -> bool {
        self.retries.pay(&url.authority())
    }

    /// Asks the server of `url` for `target`, which is a path and perhaps a query.
    pub(crate) async fn ask(
        &self,
        url: &OriginUrl,
        target: &str,
        method: Method,
        mut headers: HeaderMap,
        body: Option<RequestBody>,
        interim: Option<&Interim>,
    ) -> Result<Response, Error> {
        // The connector asks no resolver about an address.
        if !self.allow_private && url.host().parse::<IpAddr>().is_ok_and(|address| !is_open(address)) {
            return Err(Error::Refused);
        }
        let authority = url.authority();
        let scheme = if url.is_https() { "https" } else { "http" };
        let uri: Uri = format!("{scheme}://{authority}{target}")
            .parse()
            .map_err(|_| Error::Broken)?;
        hop::strip(&mut headers);
        headers.insert(HOST, HeaderValue::from_str(&authority).map_err(|_| Error::Broken)?);
        headers.insert(USER_AGENT, HeaderValue::from_static(USER_AGENT_VALUE));
        headers.insert(VIA, HeaderValue::from_static("1.1 edgeweir"));
        self.itself.sign(&mut headers);

        let repeats = is_repeatable(&method, &headers);
        let mut content = Content::of(body, repeats).await?;
        self.retries.earn(&authority);
        let mut retried = false;
        let response = loop {
            let mut outgoing = outgoing(&method, &uri, &headers, content.take());
            if let Some(interim) = interim.cloned() {
                hyper::ext::on_informational(&mut outgoing.0, move |response| {
                    let mut headers = response.headers().clone();
                    hop::strip(&mut headers);
                    (interim.0)(response.status(), headers);
                });
            }
            match self.head(outgoing).await {
                Err(e)
                    if repeats
                        && content.is_there()
                        && !retried
                        && e.is_retryable()
                        && self.retries.pay(&authority) =>
                {
                    retried = true;
                }
                result => break result?,
            }
        };
        let (mut parts, incoming) = response.into_parts();
        // Nobody asked for another protocol (RFC 9110 §15.2.2), and every other interim answer has one behind it.
        if parts.status.is_informational() {
            return Err(Error::Broken);
        }
        hop::strip(&mut parts.headers);
        let length = if method == Method::HEAD {
            None
        } else {
            incoming.size_hint().exact()
        };
        let body = Body::Http(HttpBody::new(incoming, self.timeouts.idle));
        Ok(Response {
            status: parts.status,
            headers: parts.headers,
            body,
            length,
        })
    }

    /// Sends a request and waits for its answer's head. The time for the head begins when the request is sent; until
    /// then its body must get on, and before it does so a connection must be there.
    async fn head(&self, (outgoing, mut stage): Outgoing) -> Result<http::Response<Incoming>, Error> {
        let mut answer = pin!(self.client.request(outgoing));
        loop {
            let limit = match *stage.borrow_and_update() {
                Stage::Sending(_) => self.timeouts.idle,
                Stage::Begun | Stage::Sent => self.timeouts.first_byte,
            };
            let step = async {
                tokio::select! {
                    answer = &mut answer => Some(answer),
                    Ok(()) = stage.changed() => None,
                }
            };
            if let Some(answer) = tokio::time::timeout(limit, step).await.map_err(|_| Error::Timeout)? {
                return answer.map_err(|e| classify(&e));
            }
        }
    }
}

/// Whether a request may be made twice (RFC 9110 §9.2.2): a kept connection may be closed while one is sent, which then has
/// no answer. Not one that changes something on a condition: when that was done, the second answer says that it was not.
fn is_repeatable(method: &Method, headers: &HeaderMap) -> bool {
    let conditions = [IF_MATCH, IF_NONE_MATCH, IF_UNMODIFIED_SINCE];
    method.is_safe() || method.is_idempotent() && !conditions.iter().any(|name| headers.contains_key(name))
}

/// What a request is sent with.
enum Content {
    None,
    /// All of it, to be sent as often as need be.
    Whole(Bytes),
    /// To be sent once.
    Stream(Option<RequestBody>),
}

impl Content {
    /// That of a request; with `keep`, what is short is read first.
    async fn of(body: Option<RequestBody>, keep: bool) -> Result<Self, Error> {
        let Some(mut body) = body.filter(|body| !body.is_end_stream()) else {
            return Ok(Self::None);
        };
        let short = body.size_hint().upper().filter(|length| *length <= KEPT);
        let Some(length) = short.filter(|_| keep) else {
            return Ok(Self::Stream(Some(body)));
        };
        // A copy: frames may be many, and each a window on a larger buffer.
        let mut whole = BytesMut::with_capacity(length as usize);
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(|_| Error::Broken)?.into_data() {
                whole.extend_from_slice(&data);
            }
        }
        Ok(Self::Whole(whole.freeze()))
    }

    fn is_there(&self) -> bool {
        !matches!(self, Self::Stream(None))
    }

    fn take(&mut self) -> Option<RequestBody> {
        match self {
            Self::None => None,
            Self::Whole(bytes) => Some(Full::new(bytes.clone()).map_err(|e| match e {}).boxed_unsync()),
            Self::Stream(body) => body.take(),
        }
    }
}

/// A request, and how far its body is sent.
type Outgoing = (http::Request<RequestBody>, watch::Receiver<Stage>);

fn outgoing(method: &Method, uri: &Uri, headers: &HeaderMap, body: Option<RequestBody>) -> Outgoing {
    let (body, stage) = match body {
        Some(body) => {
            let (upload, stage) = Upload::new(body);
            (upload.boxed_unsync(), stage)
        }
        None => {
            let empty = Empty::<Bytes>::new().map_err(|e| match e {});
            (empty.boxed_unsync(), watch::channel(Stage::Sent).1)
        }
    };
    let mut outgoing = http::Request::new(body);
    *outgoing.method_mut() = method.clone();
    *outgoing.uri_mut() = uri.clone();
    *outgoing.headers_mut() = headers.clone();
    (outgoing, stage)
}

fn classify(error: &hyper_util::client::legacy::Error) -> Error {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(e) = source {
        if e.downcast_ref::<NotPublic>().is_some() {
            return Error::Refused;
        }
        if let Some(io) = e.downcast_ref::<io::Error>() {
            if io
                .get_ref()
                .is_some_and(|inner| inner.downcast_ref::<NotPublic>().is_some())
            {
                return Error::Refused;
            }
            if io.kind() == io::ErrorKind::TimedOut {
                return Error::Timeout;
            }
        }
        source = e.source();
    }
    if error.is_connect() {
        Error::Connect
    } else {
        Error::Broken
    }
}

#[cfg(test)]
mod tests;
