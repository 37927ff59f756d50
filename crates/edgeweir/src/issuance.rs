//! The worker that gets certificates and keeps them: finds what is due, takes the lease of each name, and drives its life
//! cycle, a few at a time. Nothing waits for it; it may be killed at any point, and goes on where the store says.

mod account;
mod configured;
mod job;

use crate::certificates::CertificateMetrics;
use account::AccountKeeper;
use edgeweir_certs::{
    Sealer,
    acme::{Acme, Proof, in_millis},
    dns::{Dns, Wanted},
    lifecycle::{Millis, Moment},
};
use edgeweir_model::{SubscriptionId, Timestamp};
use edgeweir_store::{ChangeFeed, Store, StoreError};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How many names are worked on at a time.
const PARALLEL: usize = 8;
/// How many due names are looked for at a time.
const BATCH: u32 = 64;
/// The longest sleep: the wall clock may jump (a sleep is by the monotonic one).
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// How long a name rests of which another node has the lease, or whose state could not be written.
const REST: Duration = Duration::from_secs(2);
/// How long what the CA calls itself is remembered, and how soon it is asked again when it did not say.
const IDENTITIES: Duration = Duration::from_secs(24 * 3600);
const IDENTITIES_RETRY: Duration = Duration::from_secs(10);

/// What the worker works with.
#[derive(Debug)]
struct Parts {
    store: Store,
    acme: Acme,
    dns: Dns,
    sealer: Arc<Sealer>,
    /// The directory's URL.
    directory: String,
    /// Where names must lead.
    wanted: Wanted,
    proof: Proof,
    /// Who this node is.
    holder: String,
    metrics: CertificateMetrics,
}

/// The worker.
#[derive(Debug)]
pub(crate) struct Issuance {
    parts: Parts,
    account: AccountKeeper,
    /// What the CA calls itself in CAA records, and until when that is taken for true.
    identities: tokio::sync::Mutex<Option<(Instant, Vec<String>)>>,
    running: Mutex<HashSet<SubscriptionId>>,
    resting: Mutex<HashMap<SubscriptionId, Instant>>,
    /// A place is free again.
    ended: Notify,
}

/// The time, and a random number.
fn moment() -> Moment {
    let mut bytes = [0; 4];
    // Without randomness there is no jitter, and nothing else is lost.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    Moment {
        now: now(),
        random: f64::from(u32::from_ne_bytes(bytes)) / (f64::from(u32::MAX) + 1.0),
    }
}

fn now() -> Millis {
    in_millis(SystemTime::now())
}

impl Issuance {
    fn new(parts: Parts) -> Arc<Self> {
        let account = AccountKeeper::new(&parts);
        Arc::new(Self {
            parts,
            account,
            identities: tokio::sync::Mutex::default(),
            running: Mutex::default(),
            resting: Mutex::default(),
            ended: Notify::new(),
        })
    }

    /// Works until `shutdown`.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let (jobs, places) = (TaskTracker::new(), Arc::new(Semaphore::new(PARALLEL)));
        let mut feed = None;
        loop {
            let mut sleep = LONGEST_SLEEP;
            match self.round(&mut feed, &jobs, &places, &shutdown).await {
                Ok(next) => sleep = sleep.min(next),
                Err(e) => {
                    tracing::warn!(
                        error = &e as &dyn std::error::Error,
                        "certificates cannot be looked after"
                    );
                    sleep = REST;
                }
            }
            self.parts.metrics.warn(Timestamp::now());
            let committed = async {
                match &mut feed {
                    Some(feed) => ChangeFeed::next(feed).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = committed => {}
                () = self.ended.notified() => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
        jobs.close();
        jobs.wait().await;
    }

    /// Starts what is due; how long nothing else will be.
    async fn round(
        self: &Arc<Self>,
        feed: &mut Option<ChangeFeed>,
        jobs: &TaskTracker,
        places: &Arc<Semaphore>,
        shutdown: &CancellationToken,
    ) -> Result<Duration, StoreError> {
        if feed.is_none() {
            // Before looking, so that nothing falls between.
            *feed = Some(self.parts.store.feed().await?);
        }
        let at = now();
        let occupied = lock(&self.running).len() + lock(&self.resting).len();
        let due = self.parts.store.due_issuances(at, BATCH + occupied as u32).await?;
        for id in due {
            if lock(&self.running).contains(&id) || self.rests(id) {
                continue;
            }
            let Ok(place) = places.clone().try_acquire_owned() else {
                break;
            };
            lock(&self.running).insert(id);
            let (this, shutdown) = (self.clone(), shutdown.clone());
            jobs.spawn(async move {
                let done = tokio::select! {
                    () = shutdown.cancelled() => true,
                    done = this.work_on(id) => done,
                };
                if !done {
                    lock(&this.resting).insert(id, Instant::now() + REST);
                }
                lock(&this.running).remove(&id);
                drop(place);
                this.ended.notify_one();
            });
        }
        let next = self.parts.store.next_issuance(at).await?;
        let wait = next.map_or(LONGEST_SLEEP, |due| Duration::from_millis((due - at).max(0) as u64));
        let rests = lock(&self.resting).values().min().copied();
        Ok(rests.map_or(wait, |until| {
            wait.min(until.duration_since(Instant::now()) + Duration::from_millis(1))
        }))
    }

    fn rests(&self, id: SubscriptionId) -> bool {
        let mut resting = lock(&self.resting);
        let now = Instant::now();
        resting.retain(|_, until| *until > now);
        resting.contains_key(&id)
    }

    /// Where names must lead, with what the CA calls itself, as far as it says so: it looks at CAA records itself, too.
    async fn wanted(&self) -> Wanted {
        let mut identities = self.identities.lock().await;
        let issuers = match &*identities {
            Some((until, names)) if Instant::now() < *until => names.clone(),
            before => {
                let before = before.as_ref().map_or_else(Vec::new, |(_, names)| names.clone());
                let (kept, names) = match self.parts.acme.caa_identities().await {
                    Ok(names) => (IDENTITIES, names),
                    Err(_) => (IDENTITIES_RETRY, before),
                };
                identities.insert((Instant::now() + kept, names)).1.clone()
            }
        };
        Wanted {
            issuers,
            ..self.parts.wanted.clone()
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
