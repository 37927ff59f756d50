//! A CONNECT proxy that leads every name to one address: for clients that resolve names by the system alone, which
//! knows no `*.localhost` everywhere.

use std::net::SocketAddr;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

/// The proxy. Its task ends with the test.
#[derive(Debug, Clone, Copy)]
pub struct Proxy(SocketAddr);

impl Proxy {
    /// Starts a proxy in front of `target`.
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let _ = connect(stream, target).await;
                });
            }
        });
        Self(address)
    }

    /// The proxy's URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.0)
    }
}

async fn connect(stream: TcpStream, target: SocketAddr) -> std::io::Result<()> {
    let mut client = BufReader::new(stream);
    let mut line = String::new();
    while client.read_line(&mut line).await? > 2 {
        line.clear();
    }
    let mut server = TcpStream::connect(target).await?;
    client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}
