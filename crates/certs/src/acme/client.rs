//! HTTPS to the CA: the public roots and the configured ones, a time limit, bounded answers; and when the CA wants to be
//! asked again and what it has made, which instant-acme keeps to itself.

use super::in_millis;
use crate::{Error, lifecycle::Millis};
use bytes::Bytes;
use http::{
    HeaderMap, Request, Response, StatusCode,
    header::{LOCATION, RETRY_AFTER},
};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use parking_lot::Mutex;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

const TIMEOUT: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_secs(30);
/// The longest answer, in bytes.
const ANSWER: usize = 1 << 20;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A client; clones share connections and what the CA said last, unless made [`Http::for_one_job`].
#[derive(Debug, Clone)]
pub(super) struct Http {
    client: Client<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>,
    last: Arc<Mutex<Last>>,
}

/// What an answer says that the library keeps to itself.
#[derive(Debug, Default)]
struct Last {
    retry_at: Option<Millis>,
    /// The URL of what was made (RFC 9110 §15.3.2).
    created: Option<String>,
}

impl Http {
    pub(super) fn new(extra_roots: Option<&str>) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        if let Some(pem) = extra_roots {
            for root in crate::issued::chain(pem)? {
                roots.add(root)?;
            }
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(Duration::from_secs(10)));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        Ok(Self {
            client,
            last: Arc::default(),
        })
    }

    /// The same connections, with a memory of its own for what the CA says.
    pub(super) fn for_one_job(&self) -> Self {
        Self {
            client: self.client.clone(),
            last: Arc::default(),
        }
    }

    /// When the CA wants to be asked again, if its last answer said so.
    pub(super) fn retry_at(&self) -> Option<Millis> {
        self.last.lock().retry_at
    }

    /// The URL of what the last request has made at the CA.
    pub(super) fn created(&self) -> Option<String> {
        self.last.lock().created.clone()
    }

    /// What is at a URL: the answer's status and body.
    pub(super) async fn get(&self, url: &str) -> Result<(StatusCode, Bytes), instant_acme::Error> {
        let request = Request::builder().uri(url).body(BodyWrapper::default())?;
        let mut response = self.request(request).await?;
        let body = response.body.into_bytes().await.map_err(instant_acme::Error::Other)?;
        Ok((response.parts.status, body))
    }
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let (sent, last) = (self.client.request(request), self.last.clone());
        Box::pin(async move {
            *last.lock() = Last::default();
            let whole = async {
                let (parts, body) = sent.await.map_err(BoxError::from)?.into_parts();
                let body = read(body).await?;
                Ok::<_, BoxError>(Response::from_parts(parts, http_body_util::Full::new(body)))
            };
            let response = match tokio::time::timeout(TIMEOUT, whole).await {
                Ok(done) => done.map_err(instant_acme::Error::Other)?,
                Err(elapsed) => return Err(instant_acme::Error::Other(elapsed.into())),
            };
            let headers = response.headers();
            let location = headers.get(LOCATION).and_then(|url| url.to_str().ok());
            *last.lock() = Last {
                retry_at: retry_after(headers, SystemTime::now()),
                created: location
                    .filter(|_| response.status() == StatusCode::CREATED)
                    .map(str::to_owned),
            };
            Ok(BytesResponse::from(response))
        })
    }
}

async fn read(body: Incoming) -> Result<Bytes, BoxError> {
    Ok(Limited::new(body, ANSWER).collect().await?.to_bytes())
}

/// RFC 9110 §10.2.3: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Millis> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let at = match value.parse() {
        Ok(seconds) => now.checked_add(Duration::from_secs(seconds))?,
        Err(_) => httpdate::parse_http_date(value).ok()?,
    };
    Some(in_millis(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn when_to_ask_again() {
        let now = std::time::UNIX_EPOCH + Duration::from_secs(784_111_000);
        for (value, at) in [
            ("120", Some(784_111_120_000)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777_000)),
            ("soon", None),
            ("99999999999999999999", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))]);
            assert_eq!(retry_after(&headers, now), at, "{value}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
