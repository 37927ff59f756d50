//! One kept connection of a viewer, in HTTP/1.1.

use bytes::Bytes;
use http::{Method, Request, StatusCode, header::HOST};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// A connection that is made when it is needed.
pub(crate) struct Connection {
    address: SocketAddr,
    host: String,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    pub(crate) fn new(address: SocketAddr, host: &str) -> Self {
        Self {
            address,
            host: host.to_owned(),
            sender: None,
        }
    }

    /// Gives the connection up; the next request makes another.
    pub(crate) fn close(&mut self) {
        self.sender = None;
    }

    async fn sender(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, String> {
        if self.sender.as_ref().is_none_or(SendRequest::is_closed) {
            let stream = TcpStream::connect(self.address)
                .await
                .map_err(|e| format!("connect: {e}"))?;
            let _ = stream.set_nodelay(true);
            let shaken = http1::handshake(TokioIo::new(stream)).await;
            let (sender, connection) = shaken.map_err(|e| format!("connect: {e}"))?;
            tokio::spawn(connection);
            self.sender = Some(sender);
        }
        Ok(self.sender.as_mut().expect("it was made above"))
    }

    async fn head(
        &mut self,
        method: Method,
        target: &str,
        body: Bytes,
    ) -> Result<http::Response<hyper::body::Incoming>, String> {
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(HOST, &self.host)
            .body(Full::new(body))
            .map_err(|e| e.to_string())?;
        let sender = self.sender().await?;
        sender.ready().await.map_err(|e| format!("send: {e}"))?;
        sender.send_request(request).await.map_err(|e| format!("send: {e}"))
    }

    /// The whole answer.
    pub(crate) async fn get(&mut self, target: &str) -> Result<(StatusCode, Bytes), String> {
        let response = self.head(Method::GET, target, Bytes::new()).await?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|e| format!("body: {e}"))?;
        Ok((status, body.to_bytes()))
    }

    /// The answer's status, and how many bytes there were.
    pub(crate) async fn count(&mut self, target: &str) -> Result<(StatusCode, u64), String> {
        let response = self.head(Method::GET, target, Bytes::new()).await?;
        let (status, mut body, mut bytes) = (response.status(), response.into_body(), 0);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| format!("body: {e}"))?;
            bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        Ok((status, bytes))
    }

    /// Puts a file. Panics when it is not taken.
    pub(crate) async fn put(&mut self, target: &str, body: Bytes) {
        let response = self.head(Method::PUT, target, body).await.expect("an answer");
        assert!(response.status().is_success(), "{target}: {}", response.status());
        response.into_body().collect().await.expect("a body");
    }
}
