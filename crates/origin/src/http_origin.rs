//! HTTP origins: pooled connections, time limits, no private addresses, no redirects followed.
//!
//! A name's addresses are checked as they are connected to, so a name that is bound anew between check and connect
//! gains nothing. A redirect is passed to the client, never followed: no hop leads anywhere unchecked.

use crate::{Body, Error, Request, Response, Timeouts, address::is_public, body::HttpBody};
use bytes::Bytes;
use edgeweir_model::OriginUrl;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri,
    header::{
        CONNECTION, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
        VIA,
    },
};
use http_body::Body as _;
use http_body_util::{BodyExt, Empty};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{
        Client,
        connect::{HttpConnector, dns::Name},
    },
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore};
use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tower::Service;

const USER_AGENT_VALUE: &str = concat!("edgeweir/", env!("CARGO_PKG_VERSION"));

/// Idle connections that are kept for an origin, and for how long.
const IDLE_CONNECTIONS: usize = 64;
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The client for every HTTP origin.
#[derive(Debug)]
pub(crate) struct HttpClient {
    client: Client<HttpsConnector<HttpConnector<Resolver>>, crate::RequestBody>,
    allow_private: bool,
    timeouts: Timeouts,
}

impl HttpClient {
    pub(crate) fn new(allow_private: bool, timeouts: Timeouts) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(Resolver { allow_private });
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
        }
    }

    pub(crate) async fn fetch(&self, url: &OriginUrl, request: Request) -> Result<Response, Error> {
        // The connector asks no resolver about an address.
        if !self.allow_private && url.host().parse::<IpAddr>().is_ok_and(|address| !is_public(address)) {
            return Err(Error::Refused);
        }
        let query = if request.query.is_empty() {
            String::new()
        } else {
            format!("?{}", request.query)
        };
        let uri: Uri = format!("{url}/{}{query}", request.key.to_url_path())
            .parse()
            .map_err(|_| Error::Broken)?;
        let is_head = request.method == Method::HEAD;
        let body = request
            .body
            .unwrap_or_else(|| Empty::<Bytes>::new().map_err(|e| match e {}).boxed_unsync());
        let mut outgoing = http::Request::new(body);
        *outgoing.method_mut() = request.method;
        *outgoing.uri_mut() = uri;
        *outgoing.headers_mut() = request.headers;
        let headers = outgoing.headers_mut();
        strip(headers);
        headers.insert(
            HOST,
            HeaderValue::from_str(&url.authority()).map_err(|_| Error::Broken)?,
        );
        headers.insert(USER_AGENT, HeaderValue::from_static(USER_AGENT_VALUE));
        headers.insert(VIA, HeaderValue::from_static("1.1 edgeweir"));

        let answer = tokio::time::timeout(self.timeouts.first_byte, self.client.request(outgoing)).await;
        let (mut parts, incoming) = answer
            .map_err(|_| Error::Timeout)?
            .map_err(|e| classify(&e))?
            .into_parts();
        strip(&mut parts.headers);
        let length = if is_head { None } else { incoming.size_hint().exact() };
        let body = Body::Http(HttpBody::new(incoming, self.timeouts.idle));
        Ok(Response {
            status: parts.status,
            headers: parts.headers,
            body,
            length,
        })
    }
}

/// Takes out hop-by-hop fields (RFC 9110 §7.6.1), also those that `Connection` names, and what tells of other hops.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [
        CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ] {
        headers.remove(name);
    }
    for name in [
        "keep-alive",
        "proxy-connection",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
    ] {
        headers.remove(name);
    }
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

#[derive(Debug, thiserror::Error)]
#[error("the address is not public")]
struct NotPublic;

/// The system's resolver, less the addresses that may not be connected to.
#[derive(Debug, Clone)]
struct Resolver {
    allow_private: bool,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<_> = found.filter(|a| allow_private || is_public(a.ip())).collect();
            if allowed.is_empty() {
                Err(io::Error::other(NotPublic))
            } else {
                Ok(allowed.into_iter())
            }
        })
    }
}
