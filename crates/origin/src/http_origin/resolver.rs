//! The system's resolver, less the addresses that may not be connected to.
//!
//! It asks in a thread, and may wait long for a name server that does not answer (getaddrinfo(3)). So a name has one thread
//! at a time, and all names together only some, that files and disks need, too; who asked gives up sooner than they do.

use crate::address::is_open;
use hyper_util::client::legacy::connect::dns::Name;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    fmt,
    future::Future,
    io,
    net::{SocketAddr, ToSocketAddrs},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, watch};
use tower::Service;

#[derive(Debug, thiserror::Error)]
#[error("the address is not public")]
pub(super) struct NotPublic;

/// How names are asked for.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Names that are asked for at a time.
    threads: usize,
    /// How long the first answer is waited for: twice what the system waits for a name server, which may have another.
    patience: Duration,
    /// How long addresses, or that there are none, are taken for the present answer.
    fresh: Duration,
    /// How long addresses are used after that, while the name is asked for again, or where that fails.
    stale: Duration,
    /// Names that are remembered beside those of now.
    names: usize,
}

const LIMITS: Limits = Limits {
    threads: 64,
    patience: Duration::from_secs(12),
    fresh: Duration::from_secs(5),
    stale: Duration::from_secs(600),
    names: 4096,
};

type Addresses = Arc<[SocketAddr]>;
type Lookup = fn(&str) -> io::Result<Vec<SocketAddr>>;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Resolver {
    names: Arc<Names>,
    allow_private: bool,
}

struct Names {
    limits: Limits,
    lookup: Lookup,
    known: Mutex<HashMap<String, Known>>,
    threads: Arc<Semaphore>,
}

/// What is known of a name.
#[derive(Debug, Default)]
struct Known {
    /// The last addresses, and when they came.
    addresses: Option<(Addresses, Instant)>,
    /// When there was last an answer without any: there is no such name, or it cannot be told.
    failed: Option<Instant>,
    /// Closes when the next answer is there.
    asking: Option<watch::Receiver<()>>,
}

impl Known {
    /// The last addresses, if they are no older.
    fn within(&self, age: Duration) -> Option<Addresses> {
        let (addresses, at) = self.addresses.as_ref()?;
        (at.elapsed() < age).then(|| addresses.clone())
    }

    /// Whether an answer, of whatever kind, is no older.
    fn was_told_within(&self, age: Duration) -> bool {
        self.within(age).is_some() || self.failed.is_some_and(|at| at.elapsed() < age)
    }
}

impl Resolver {
    pub(super) fn new(allow_private: bool) -> Self {
        Self::with(allow_private, LIMITS, |name| Ok((name, 0).to_socket_addrs()?.collect()))
    }

    fn with(allow_private: bool, limits: Limits, lookup: Lookup) -> Self {
        let names = Names {
            limits,
            lookup,
            known: Mutex::default(),
            threads: Arc::new(Semaphore::new(limits.threads)),
        };
        Self {
            names: Arc::new(names),
            allow_private,
        }
    }

    async fn resolve(self, name: &str) -> io::Result<std::vec::IntoIter<SocketAddr>> {
        let found = self.names.addresses(name).await?;
        // Each time: what is remembered is not what is allowed.
        let allowed = |a: &&SocketAddr| self.allow_private || is_open(a.ip());
        let allowed: Vec<_> = found.iter().filter(allowed).copied().collect();
        if allowed.is_empty() {
            return Err(io::Error::other(NotPublic));
        }
        Ok(allowed.into_iter())
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolver = self.clone();
        Box::pin(async move { resolver.resolve(name.as_str()).await })
    }
}

impl Names {
    /// The addresses of a name; never none. Known ones serve while it is asked for again.
    async fn addresses(self: &Arc<Self>, name: &str) -> io::Result<Addresses> {
        let Limits {
            patience, fresh, stale, ..
        } = self.limits;
        let (mut answer, asking) = {
            let mut known = self.known.lock();
            self.make_room(&mut known);
            let known = known.entry(name.to_owned()).or_default();
            let asking = (!known.was_told_within(fresh)).then(|| {
                let asking = known.asking.get_or_insert_with(|| self.ask(name.to_owned()));
                asking.clone()
            });
            (known.within(stale), asking)
        };
        if let (None, Some(mut asking)) = (&answer, asking) {
            // Nothing is ever sent: this waits for its end.
            if tokio::time::timeout(patience, asking.changed()).await.is_err() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            answer = self.known.lock().get(name).and_then(|known| known.within(stale));
        }
        answer.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
    }

    /// Forgets what need not be known, where much is.
    fn make_room(&self, known: &mut HashMap<String, Known>) {
        if known.len() >= self.limits.names {
            known.retain(|_, known| known.asking.is_some() || known.was_told_within(self.limits.fresh));
        }
    }

    /// Asks for a name, whoever goes on waiting for the answer.
    fn ask(self: &Arc<Self>, name: String) -> watch::Receiver<()> {
        let (answered, asking) = watch::channel(());
        let names = self.clone();
        tokio::spawn(async move {
            let thread = names.threads.clone().acquire_owned().await;
            let (lookup, of) = (names.lookup, name.clone());
            let found = tokio::task::spawn_blocking(move || {
                let _thread = thread;
                lookup(&of)
            });
            let found = found.await.ok().and_then(Result::ok).unwrap_or_default();
            if let Some(known) = names.known.lock().get_mut(&name) {
                if found.is_empty() {
                    known.failed = Some(Instant::now());
                } else {
                    known.addresses = Some((found.into(), Instant::now()));
                }
                known.asking = None;
            }
            drop(answered);
        });
        asking
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    const SHORT: Limits = Limits {
        threads: 2,
        patience: Duration::from_millis(50),
        fresh: Duration::from_secs(600),
        ..LIMITS
    };

    fn address() -> Vec<SocketAddr> {
        vec!["192.0.2.1:0".parse().unwrap()]
    }

    fn kind(found: io::Result<std::vec::IntoIter<SocketAddr>>) -> Result<usize, io::ErrorKind> {
        found.map(|found| found.len()).map_err(|e| e.kind())
    }

    #[tokio::test]
    async fn a_name_server_that_is_dead_takes_a_thread_a_name_and_not_all_of_them() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        static IS_DOWN: AtomicBool = AtomicBool::new(true);
        let resolver = Resolver::with(true, SHORT, |name| {
            if name.starts_with("dead") {
                ASKED.fetch_add(1, Ordering::SeqCst);
                while IS_DOWN.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
            }
            Ok(address())
        });
        let ask = |name: &'static str| {
            let resolver = resolver.clone();
            tokio::spawn(async move { kind(resolver.resolve(name).await) })
        };
        assert_eq!(ask("known").await.unwrap(), Ok(1));
        let asking: Vec<_> = (0..50).map(|_| ask("dead")).collect();
        for asking in asking {
            assert_eq!(asking.await.unwrap(), Err(io::ErrorKind::TimedOut));
        }
        assert_eq!(ask("alive").await.unwrap(), Ok(1));
        for name in ["dead 2", "dead 3", "dead 4", "new"] {
            assert_eq!(ask(name).await.unwrap(), Err(io::ErrorKind::TimedOut), "{name}");
        }
        assert_eq!(ASKED.load(Ordering::SeqCst), 2);
        IS_DOWN.store(false, Ordering::SeqCst);
        while ask("dead").await.unwrap() != Ok(1) {}
        assert_eq!(ask("new").await.unwrap(), Ok(1));
    }

    #[tokio::test]
    async fn the_last_answer_stands_in_for_one_that_does_not_come() {
        static IS_DOWN: AtomicBool = AtomicBool::new(false);
        let limits = Limits {
            fresh: Duration::ZERO,
            ..SHORT
        };
        let resolver = Resolver::with(true, limits, |_| {
            while IS_DOWN.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            Ok(address())
        });
        assert_eq!(kind(resolver.clone().resolve("a").await), Ok(1));
        IS_DOWN.store(true, Ordering::SeqCst);
        assert_eq!(kind(resolver.clone().resolve("a").await), Ok(1));
        assert_eq!(kind(resolver.clone().resolve("b").await), Err(io::ErrorKind::TimedOut));
        IS_DOWN.store(false, Ordering::SeqCst);
    }

    #[tokio::test]
    async fn a_look_up_that_fails_takes_away_no_answer_that_was_good() {
        static FAILS: AtomicBool = AtomicBool::new(false);
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let limits = Limits {
            fresh: Duration::ZERO,
            ..SHORT
        };
        let resolver = Resolver::with(true, limits, |_| {
            ASKED.fetch_add(1, Ordering::SeqCst);
            if FAILS.load(Ordering::SeqCst) {
                return Err(io::ErrorKind::Other.into());
            }
            Ok(address())
        });
        assert_eq!(kind(resolver.clone().resolve("a").await), Ok(1));
        FAILS.store(true, Ordering::SeqCst);
        while ASKED.load(Ordering::SeqCst) < 5 {
            assert_eq!(kind(resolver.clone().resolve("a").await), Ok(1));
            tokio::task::yield_now().await;
        }
        assert_eq!(kind(resolver.clone().resolve("b").await), Err(io::ErrorKind::NotFound));
    }

    #[tokio::test]
    async fn answers_are_asked_for_once_and_checked_each_time() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let lookup = |name: &str| {
            ASKED.fetch_add(1, Ordering::SeqCst);
            if name == "none" {
                return Err(io::ErrorKind::Other.into());
            }
            Ok(address())
        };
        let resolver = Resolver::with(false, Limits { names: 1, ..SHORT }, lookup);
        for _ in 0..3 {
            // Reserved for documentation.
            let refused = resolver.clone().resolve("private").await.unwrap_err();
            assert!(refused.get_ref().unwrap().is::<NotPublic>());
            assert_eq!(
                kind(resolver.clone().resolve("none").await),
                Err(io::ErrorKind::NotFound)
            );
        }
        assert_eq!(ASKED.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn names_of_before_are_forgotten() {
        let limits = Limits {
            fresh: Duration::ZERO,
            names: 10,
            ..SHORT
        };
        let resolver = Resolver::with(true, limits, |_| Ok(address()));
        for n in 0..100 {
            assert_eq!(kind(resolver.clone().resolve(&n.to_string()).await), Ok(1));
            assert!(resolver.names.known.lock().len() <= 10);
        }
    }
}
