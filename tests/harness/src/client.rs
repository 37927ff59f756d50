//! An HTTP client for one request at a time: HTTP/1.1 and HTTP/2, plain and TLS, to a given address whatever the host
//! is called.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use std::{net::SocketAddr, path::Path, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// How a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    H1,
    /// HTTP/2.
    H2,
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The protocol's version.
    pub version: Version,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body, as far as it came.
    pub body: Bytes,
    /// Whether the body ended as it should.
    pub complete: bool,
}

impl Reply {
    /// A header's value, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().expect("ASCII"))
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The code of a refusal's JSON body.
    pub fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }
}

/// Settings that trust one root.
pub(crate) fn trusting(root: &Path) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(root).expect("a certificate in PEM");
    roots.add(certificate).expect("a root certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// A client of one address.
#[derive(Debug, Clone)]
pub struct Client {
    address: SocketAddr,
    protocol: Protocol,
    tls: Option<Arc<ClientConfig>>,
    /// The server name to send, when it is not the request's host.
    sni: Option<String>,
}

impl Client {
    /// A client without TLS.
    pub fn plain(address: SocketAddr, protocol: Protocol) -> Self {
        Self {
            address,
            protocol,
            tls: None,
            sni: None,
        }
    }

    /// A client with TLS that trusts one root.
    pub fn tls(address: SocketAddr, protocol: Protocol, root: &Path) -> Self {
        let mut config = trusting(root);
        config.alpn_protocols = vec![match protocol {
            Protocol::H1 => b"http/1.1".to_vec(),
            Protocol::H2 => b"h2".to_vec(),
        }];
        Self {
            address,
            protocol,
            tls: Some(Arc::new(config)),
            sni: None,
        }
    }

    /// Sends this server name whatever the request's host is.
    #[must_use]
    pub fn with_sni(mut self, name: &str) -> Self {
        self.sni = Some(name.to_owned());
        self
    }

    /// GET.
    pub async fn get(&self, host: &str, path: &str) -> Reply {
        self.send(Method::GET, host, path, &[], Bytes::new()).await
    }

    /// GET with header fields.
    pub async fn get_with(&self, host: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
        self.send(Method::GET, host, path, headers, Bytes::new()).await
    }

    /// Any request. Panics when there is no answer.
    pub async fn send(&self, method: Method, host: &str, path: &str, headers: &[(&str, &str)], body: Bytes) -> Reply {
        self.try_send(method, host, path, headers, body)
            .await
            .unwrap_or_else(|e| panic!("{host}{path}: {e}"))
    }

    /// Any request; an error when the connection, the handshake or the answer's head fails.
    pub async fn try_send(
        &self,
        method: Method,
        host: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Reply, String> {
        let tcp = TcpStream::connect(self.address).await.map_err(|e| e.to_string())?;
        let mut request = Request::builder().method(method);
        request = match (self.protocol, &self.tls) {
            (Protocol::H1, _) => request.uri(path).header("host", host),
            (Protocol::H2, Some(_)) => request.uri(format!("https://{host}{path}")),
            (Protocol::H2, None) => request.uri(format!("http://{host}{path}")),
        };
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).map_err(|e| e.to_string())?;
        match &self.tls {
            None => self.exchange(tcp, request).await,
            Some(config) => {
                let name = self.sni.as_deref().unwrap_or(host).to_owned();
                let name = ServerName::try_from(name).map_err(|e| e.to_string())?;
                let connector = TlsConnector::from(config.clone());
                let tls = connector.connect(name, tcp).await.map_err(|e| e.to_string())?;
                self.exchange(tls, request).await
            }
        }
    }

    /// A handshake alone, a full one: the certificate that was shown for this name, in DER.
    pub async fn handshake(&self, name: &str) -> Result<Vec<u8>, String> {
        let tcp = TcpStream::connect(self.address).await.map_err(|e| e.to_string())?;
        let mut config = ClientConfig::clone(self.tls.as_deref().expect("a client with TLS"));
        config.resumption = rustls::client::Resumption::disabled();
        let name = ServerName::try_from(name.to_owned()).map_err(|e| e.to_string())?;
        let connector = TlsConnector::from(Arc::new(config));
        let mut tls = connector.connect(name, tcp).await.map_err(|e| e.to_string())?;
        let shown = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let shown = shown.expect("the handshake is complete").to_vec();
        let _ = tls.shutdown().await;
        Ok(shown)
    }

    async fn exchange<S>(&self, stream: S, request: Request<Full<Bytes>>) -> Result<Reply, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(stream);
        let response = match self.protocol {
            Protocol::H1 => {
                let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
                    .await
                    .map_err(|e| e.to_string())?;
                tokio::spawn(connection);
                sender.send_request(request).await
            }
            Protocol::H2 => {
                let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                    .await
                    .map_err(|e| e.to_string())?;
                tokio::spawn(connection);
                sender.send_request(request).await
            }
        };
        let (parts, mut incoming) = response.map_err(|e| e.to_string())?.into_parts();
        let mut body = Vec::new();
        let mut complete = true;
        while let Some(frame) = incoming.frame().await {
            match frame {
                Ok(frame) => body.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new())),
                Err(_) => {
                    complete = false;
                    break;
                }
            }
        }
        Ok(Reply {
            status: parts.status,
            version: parts.version,
            headers: parts.headers,
            body: body.into(),
            complete,
        })
    }

    /// A connection with its handshake done, to send anything over. Panics on a client without TLS.
    pub async fn handshaken(&self, name: &str) -> TlsStream<TcpStream> {
        let tcp = TcpStream::connect(self.address).await.expect("a connection");
        let connector = TlsConnector::from(self.tls.clone().expect("a client with TLS"));
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        connector.connect(name, tcp).await.expect("a handshake")
    }

    /// Sends bytes as they are over a plain connection, and reads until the server closes it.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut tcp = TcpStream::connect(self.address).await.expect("a connection");
        // The server may answer and close before it has read all.
        let _ = tcp.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = tcp.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}
