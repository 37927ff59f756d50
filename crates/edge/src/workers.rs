//! Who serves the connections: a thread a core, each with a runtime of its own (thread-per-core).
//!
//! A connection stays with its thread, so that a request wakes no other one. It goes to the thread with the fewest, which
//! spreads also a few connections evenly; the kernel's choice by address hash (`SO_REUSEPORT`) does not.

use crate::{Edge, listen};
use std::{
    io,
    net::TcpStream as StdStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio::{
    net::TcpStream,
    runtime::{Builder, Runtime},
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How a listener's connections speak.
#[derive(Clone)]
pub(crate) enum Transport {
    Plain,
    Tls(TlsAcceptor),
}

/// A connection on its way to a thread.
struct Accepted {
    stream: StdStream,
    transport: Transport,
    counted: Counted,
}

/// One of a thread's connections, for as long as this lives.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Worker {
    hand: mpsc::UnboundedSender<Accepted>,
    connections: Arc<AtomicUsize>,
}

/// The threads.
pub(crate) struct Workers {
    workers: Vec<Worker>,
    threads: Vec<JoinHandle<()>>,
    tasks: TaskTracker,
    cut: CancellationToken,
}

impl Workers {
    /// Starts a thread a core.
    pub(crate) fn start(edge: &Arc<Edge>) -> io::Result<Self> {
        let count = thread::available_parallelism().map_or(1, usize::from);
        let mut all = Self {
            workers: Vec::with_capacity(count),
            threads: Vec::with_capacity(count),
            tasks: TaskTracker::new(),
            cut: CancellationToken::new(),
        };
        for n in 0..count {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let (hand, accepted) = mpsc::unbounded_channel();
            let (edge, tasks, cut) = (edge.clone(), all.tasks.clone(), all.cut.clone());
            let run = move || run(runtime, &edge, accepted, &tasks, &cut);
            all.threads
                .push(thread::Builder::new().name(format!("edge-{n}")).spawn(run)?);
            all.workers.push(Worker {
                hand,
                connections: Arc::default(),
            });
        }
        Ok(all)
    }

    /// Gives a connection to the thread that has the fewest.
    pub(crate) fn take(&self, stream: TcpStream, transport: &Transport) {
        let fewest = self
            .workers
            .iter()
            .min_by_key(|w| w.connections.load(Ordering::Relaxed));
        // A stream that cannot leave the listener's runtime is closed: it was reset, most likely.
        let (Some(worker), Ok(stream)) = (fewest, stream.into_std()) else {
            return;
        };
        worker.connections.fetch_add(1, Ordering::Relaxed);
        let accepted = Accepted {
            stream,
            transport: transport.clone(),
            counted: Counted(worker.connections.clone()),
        };
        // Threads take connections until `finish`, which consumes this.
        let _ = worker.hand.send(accepted);
    }

    /// Takes no more connections, and waits for those there are, for `limit` at most; whether they all ended.
    pub(crate) async fn finish(self, limit: Duration) -> bool {
        drop(self.workers);
        self.tasks.close();
        let drained = tokio::time::timeout(limit, self.tasks.wait()).await.is_ok();
        self.cut.cancel();
        let join = || self.threads.into_iter().for_each(|thread| drop(thread.join()));
        let _ = tokio::task::spawn_blocking(join).await;
        drained
    }
}

/// A thread's life: connections as they come, then what is left of them until the order to cut.
fn run(
    runtime: Runtime,
    edge: &Arc<Edge>,
    mut accepted: mpsc::UnboundedReceiver<Accepted>,
    tasks: &TaskTracker,
    cut: &CancellationToken,
) {
    runtime.block_on(async {
        while let Some(Accepted {
            stream,
            transport,
            counted,
        }) = accepted.recv().await
        {
            let Ok(stream) = TcpStream::from_std(stream) else {
                continue;
            };
            let edge = edge.clone();
            tasks.spawn(async move {
                match transport {
                    Transport::Plain => listen::plain(edge, stream).await,
                    Transport::Tls(acceptor) => listen::encrypted(edge, acceptor, stream).await,
                }
                drop(counted);
            });
        }
        // Fetches that a connection here began may feed connections of other threads: all wait for all.
        cut.cancelled().await;
    });
    // A file that is being read must not hold up the end.
    runtime.shutdown_background();
}
