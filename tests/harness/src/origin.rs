//! An HTTP origin that does what a test says, and remembers what it was asked.

use crate::Large;
use bytes::Bytes;
use std::{
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

/// A request as the origin saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The whole head, lower-case.
    pub head: String,
}

impl Seen {
    /// The value of a header field, whose name is lower-case.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find_map(|(field, value)| (field == name).then_some(value))
    }

    /// The bytes that it asks for, if it asks for one range: to [`u64::MAX`] where it names no end.
    pub fn range(&self) -> Option<Range<u64>> {
        let (first, last) = self.field("range")?.strip_prefix("bytes=")?.split_once('-')?;
        let end = if last.is_empty() {
            u64::MAX
        } else {
            last.parse::<u64>().ok()? + 1
        };
        Some(first.parse().ok()?..end)
    }
}

/// What the origin answers.
#[derive(Debug, Clone)]
pub enum Answer {
    /// These bytes, head and all; then the connection is closed.
    Raw(Bytes),
    /// These bytes once [`Origin::release`] was called.
    Held(Bytes),
    /// These bytes; once [`Origin::release`] was called the connection is reset.
    Reset(Bytes),
    /// The first of these at once, and each further one for a permit of [`Origin::step`] or [`Origin::release`].
    Steps(Vec<Bytes>),
    /// A head, and these bytes of a large object.
    Large {
        /// Status and header fields.
        head: Bytes,
        /// The object.
        object: Large,
        /// What of it.
        range: Range<u64>,
    },
}

impl Answer {
    /// 200 with these header lines and this body.
    pub fn ok(headers: &str, body: &str) -> Self {
        let length = body.len();
        Self::Raw(
            format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{headers}Connection: close\r\n\r\n{body}").into(),
        )
    }

    /// The same, but only when it is released.
    #[must_use]
    pub fn held(self) -> Self {
        match self {
            Self::Raw(bytes) | Self::Held(bytes) => Self::Held(bytes),
            other => other,
        }
    }

    /// The same, but after so many bytes of it only when it is released.
    #[must_use]
    pub fn held_after(self, bytes: usize) -> Self {
        match self {
            Self::Raw(all) | Self::Held(all) => Self::Steps(vec![all.slice(..bytes), all.slice(bytes..)]),
            other => other,
        }
    }
}

struct Shared {
    seen: Mutex<Vec<Seen>>,
    came: Notify,
    gate: tokio::sync::Semaphore,
    closed: AtomicBool,
    /// Bytes of large objects that went out.
    sent: AtomicU64,
    /// Answers under way.
    busy: AtomicUsize,
}

/// An answer that is under way until this is dropped.
struct Busy<'a>(&'a Shared);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::SeqCst);
        self.0.came.notify_waiters();
    }
}

/// The origin. Its task ends with the test.
#[derive(Clone)]
pub struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Origin {
    /// Starts an origin that answers with what `answer` says.
    pub async fn serve(answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            seen: Mutex::default(),
            came: Notify::new(),
            gate: tokio::sync::Semaphore::new(0),
            closed: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            busy: AtomicUsize::new(0),
        });
        let (answer, state) = (Arc::new(answer), shared.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, state) = (answer.clone(), state.clone());
                tokio::spawn(async move {
                    let _ = one(stream, &state, &*answer).await;
                });
            }
        });
        Self { address, shared }
    }

    /// The origin's base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it was asked so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.lock().clone()
    }

    /// Waits until it was asked so often.
    pub async fn asked(&self, count: usize) {
        loop {
            let came = self.shared.came.notified();
            if self.lock().len() >= count {
                return;
            }
            came.await;
        }
    }

    /// Waits until no answer is under way: all have gone out, or nobody takes them any more.
    pub async fn quiet(&self) {
        loop {
            let came = self.shared.came.notified();
            if self.shared.busy.load(Ordering::SeqCst) == 0 {
                return;
            }
            came.await;
        }
    }

    /// Lets held answers go, from now on.
    pub fn release(&self) {
        self.shared.gate.add_permits(1 << 20);
    }

    /// From now on, requests are read and their connections closed without an answer.
    pub fn close(&self) {
        self.shared.closed.store(true, Ordering::SeqCst);
    }

    /// Lets one step of an answer go.
    pub fn step(&self) {
        self.shared.gate.add_permits(1);
    }

    /// How many bytes of large objects it has sent, what is still on the way counted.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.shared.seen.lock().expect("no panic under the lock")
    }
}

async fn one(
    stream: TcpStream,
    shared: &Shared,
    answer: &(dyn Fn(&Seen) -> Answer + Send + Sync),
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    loop {
        let start = head.len();
        if stream.read_line(&mut head).await? == 0 {
            return Ok(());
        }
        if &head[start..] == "\r\n" {
            break;
        }
    }
    let mut first = head.split(' ');
    let (method, target) = (
        first.next().unwrap_or_default().to_owned(),
        first.next().unwrap_or_default().to_owned(),
    );
    let seen = Seen {
        method,
        target,
        head: head.to_lowercase(),
    };
    let length = seen
        .head
        .split("content-length: ")
        .nth(1)
        .and_then(|rest| rest.split('\r').next()?.parse().ok());
    stream.read_exact(&mut vec![0; length.unwrap_or(0)]).await?;
    let answer = if shared.closed.load(Ordering::SeqCst) {
        Answer::Raw(Bytes::new())
    } else {
        answer(&seen)
    };
    shared.busy.fetch_add(1, Ordering::SeqCst);
    let _busy = Busy(shared);
    shared.seen.lock().expect("no panic under the lock").push(seen);
    shared.came.notify_waiters();
    let bytes = match answer {
        Answer::Raw(bytes) => bytes,
        Answer::Held(bytes) => {
            let _permit = shared.gate.acquire().await;
            bytes
        }
        Answer::Reset(bytes) => {
            stream.write_all(&bytes).await?;
            let _permit = shared.gate.acquire().await;
            // Closing then sends RST, not FIN.
            return stream.get_ref().set_zero_linger();
        }
        Answer::Steps(steps) => {
            let (last, first) = steps.split_last().expect("there is a step");
            for step in first {
                stream.write_all(step).await?;
                shared.stepped().await;
            }
            last.clone()
        }
        Answer::Large { head, object, range } => {
            stream.write_all(&head).await?;
            shared.send(&mut stream, &object, range).await?;
            Bytes::new()
        }
    };
    stream.write_all(&bytes).await?;
    stream.shutdown().await
}

impl Shared {
    /// Takes a permit to go on.
    async fn stepped(&self) {
        if let Ok(permit) = self.gate.acquire().await {
            permit.forget();
        }
    }

    async fn send(&self, to: &mut BufReader<TcpStream>, object: &Large, range: Range<u64>) -> std::io::Result<()> {
        const PIECE: u64 = 64 << 10;
        let held_at = range.start.saturating_add(object.at_once).min(range.end);
        let mut at = range.start;
        while at < range.end {
            if at == held_at {
                self.stepped().await;
            }
            let end = if at < held_at { held_at } else { range.end }.min(at + PIECE);
            to.write_all(&object.bytes(at..end)).await?;
            self.sent.fetch_add(end - at, Ordering::SeqCst);
            at = end;
        }
        Ok(())
    }
}
