//! A relay in front of an HTTP server: it remembers what it was asked, may call the host by another name, and breaks
//! what a test wants broken. One request a connection.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy},
    net::{TcpListener, TcpStream},
};

#[derive(Debug, Default)]
struct Shared {
    heads: Mutex<Vec<String>>,
    away: AtomicBool,
    /// How many bytes of the next answer pass; 0 is all of them.
    cut: AtomicU64,
}

/// The relay. Its task ends with the test.
#[derive(Debug, Clone)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Relay {
    /// Starts a relay in front of `target`.
    pub async fn to(target: SocketAddr) -> Self {
        Self::start(target, None).await
    }

    /// As [`Relay::to`], and every request is for `host` there: for programs that find servers by the system's names
    /// alone.
    pub async fn to_host(target: SocketAddr, host: &str) -> Self {
        Self::start(target, Some(host.to_owned())).await
    }

    async fn start(target: SocketAddr, host: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::<Shared>::default();
        let state = shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (state, host) = (state.clone(), host.clone());
                tokio::spawn(async move {
                    let _ = pass(stream, target, host.as_deref(), &state).await;
                });
            }
        });
        Self { address, shared }
    }

    /// The relay's base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The heads of the requests so far, as they came.
    pub fn heads(&self) -> Vec<String> {
        self.shared.heads.lock().expect("no panic under the lock").clone()
    }

    /// From now on, or not any more, every connection ends at once.
    pub fn set_away(&self, away: bool) {
        self.shared.away.store(away, Ordering::SeqCst);
    }

    /// Has the next answer break off after so many bytes, its head counted.
    pub fn cut_next(&self, bytes: u64) {
        self.shared.cut.store(bytes, Ordering::SeqCst);
    }
}

async fn pass(stream: TcpStream, target: SocketAddr, host: Option<&str>, shared: &Shared) -> std::io::Result<()> {
    if shared.away.load(Ordering::SeqCst) {
        return stream.set_zero_linger();
    }
    let mut client = BufReader::new(stream);
    let (mut seen, mut sent) = (String::new(), String::new());
    loop {
        let mut line = String::new();
        if client.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        seen.push_str(&line);
        if line == "\r\n" {
            break;
        }
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        match (&*name, host) {
            ("connection", _) => {}
            ("host", Some(host)) => sent.extend(["Host: ", host, "\r\n"]),
            _ => sent.push_str(&line),
        }
    }
    sent.push_str("Connection: close\r\n\r\n");
    shared.heads.lock().expect("no panic under the lock").push(seen);
    let mut server = TcpStream::connect(target).await?;
    server.write_all(sent.as_bytes()).await?;
    match shared.cut.swap(0, Ordering::SeqCst) {
        0 => {
            copy(&mut server, client.get_mut()).await?;
            client.shutdown().await
        }
        bytes => {
            copy(&mut server.take(bytes), client.get_mut()).await?;
            client.shutdown().await
        }
    }
}
