//! The server: what is opened, bound and started, in which order, and how it ends.

use crate::{
    Failure, admin,
    bind::{Ports, address, bind, bind_tls},
    cache_metrics::CacheMetrics,
    certificates::{CertificateMetrics, Certificates},
    cli::Role,
    config::{Address, Config, ConfigError, HttpMode},
    credentials::Credentials,
    data_dir::{Addresses, Announced, DataDir},
    feed::Feed,
    issuance::Issuance,
    print, routes,
};
use axum::Router;
use edgeweir_api::{ApiConfig, KeyPool, Parts};
use edgeweir_cache::{
    Cache, CacheConfig,
    disk::{self, DiskConfig},
};
use edgeweir_certs::{InternalCa, InternalIssuer, Resolver, Sealer};
use edgeweir_edge::{Edge, Listeners, Settings};
use edgeweir_model::Arrivals;
use edgeweir_origin::{
    Origins, OriginsConfig, Timeouts,
    ingest::{Ingest, IngestConfig},
};
use edgeweir_store::{Store, StoreError};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long requests in flight may take after the order to stop.
const DRAIN: Duration = Duration::from_secs(30);

/// How many connections the edge may hold: three quarters of the files that may be open, since the store, the API,
/// origins and objects need some.
fn connection_limit() -> u64 {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    files.map_or(u64::MAX, |files| files / 4 * 3)
}

/// A server that runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) addresses: Addresses,
    /// The control API, to be called without a socket.
    pub(crate) api: Option<Router>,
    /// The data folder.
    pub(crate) data_dir: DataDir,
    store: Store,
    cache: Arc<Cache>,
    status: Arc<admin::Status>,
    /// Listeners, connections and what requests began.
    tasks: TaskTracker,
    shutdown: CancellationToken,
    /// The feed, which goes on until the API has answered its last request.
    feed: (JoinHandle<()>, CancellationToken),
    signals: Signals,
    _announced: Option<Announced>,
}

/// The orders to stop.
#[derive(Debug)]
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From here on a signal is kept until it is asked for, and ends nothing by itself.
    fn install() -> Result<Self, Failure> {
        let failed = |e: std::io::Error| Failure::because("signals", &e);
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// `edgeweir serve`.
pub(crate) async fn run(config: Config, role: Role) -> Result<(), Failure> {
    let running = start(&config, role, Ports::AsConfigured).await?;
    let Addresses {
        http,
        https,
        h3,
        api,
        admin,
    } = running.addresses;
    let listeners = [
        ("http", http),
        ("https", https),
        ("h3", h3),
        ("api", api),
        ("admin", admin),
    ];
    let told = listeners
        .into_iter()
        .filter_map(|(name, address)| Some((name, address?)))
        .try_for_each(|(name, address)| print(&format!("{name:<6} {address}")));
    // They are in listen.json, too.
    if let Err(error) = told {
        tracing::warn!(%error, "the addresses taken cannot be printed");
    }
    running.until_stopped().await
}

/// Opens the store that the configuration names.
pub(crate) async fn open_store(config: &Config) -> Result<Store, Failure> {
    match Store::open(&config.store.url, &config.data_dir).await {
        Err(e @ StoreError::Unsupported(_)) => Err(ConfigError::value("", &e.to_string()).into()),
        other => other.map_err(|e| Failure::because("the store cannot be opened", &e)),
    }
}

/// Starts a server. When this returns, it answers.
pub(crate) async fn start(config: &Config, role: Role, ports: Ports) -> Result<Running, Failure> {
    let data_dir = DataDir::take(&config.data_dir)?;
    let secret = data_dir.secret()?;
    let store = open_store(config).await?;
    let sealer = Arc::new(Sealer::new(secret.bytes()));
    let seal = Arc::new(Credentials(sealer.clone()));
    let origins = OriginsConfig {
        data_dir: config.data_dir.clone(),
        allow_private: config.origins.allow_private,
        timeouts: Timeouts::default(),
    };
    let origins =
        Origins::new(&origins, seal.clone()).map_err(|e| Failure::because("the local storage cannot be opened", &e))?;
    let ca = InternalCa::open(&config.data_dir).map_err(|e| Failure::because("the internal CA", &e))?;
    let resolver = Resolver::new();
    let tls = edgeweir_certs::server_config(resolver.clone());

    let edge_role = role != Role::Api;
    let only = |wanted: bool, address: Address| if wanted { address } else { Address(None) };
    let http = bind("http", only(edge_role, config.listen.http), ports).await?;
    let (https, h3) = bind_tls(only(edge_role, config.listen.https), config.listen.h3, ports).await?;
    let api = bind("api", only(role != Role::Edge, config.listen.api), ports).await?;
    let admin = bind("admin", config.listen.admin, ports).await?;
    let addresses = Addresses {
        http: address(http.as_ref()),
        https: address(https.as_ref()),
        h3: h3.as_ref().and_then(|socket| socket.local_addr().ok()),
        api: address(api.as_ref()),
        admin: address(admin.as_ref()),
    };

    let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let mut status = admin::Status::default();

    let settings = Settings {
        http_mode: match config.http.mode {
            HttpMode::Serve => edgeweir_edge::HttpMode::Serve,
            HttpMode::Redirect => edgeweir_edge::HttpMode::Redirect,
        },
        https_port: addresses.https.map_or(443, |a| a.port()),
        h3: h3.is_some(),
        drain: DRAIN,
        idle: Duration::from_secs(config.limits.idle_seconds.into()),
        connections: connection_limit(),
    };
    let cache = open_cache(config, edge_role);
    status
        .registry
        .register_collector(Box::new(CacheMetrics(cache.clone())));
    let ingest = Ingest::open(IngestConfig {
        data_dir: config.data_dir.clone(),
        memory_bytes: config.live.memory.0,
        stream_bytes: config.live.stream.0,
        file_bytes: config.live.segment.0,
        window: Duration::from_secs(config.live.window_seconds.into()),
        ..IngestConfig::default()
    })
    .map_err(|e| Failure::because("the windows of live streams cannot be opened", &e))?;
    let arrivals = Arrivals::default();
    let parts = edgeweir_edge::Parts {
        cache: cache.clone(),
        origins: origins.clone(),
        resolver: resolver.clone(),
        ingest,
        arrivals: arrivals.clone(),
    };
    let edge = Edge::new(settings, parts);
    edge.register_metrics(&mut status.registry);
    let certificates = Certificates::new(
        InternalIssuer::new(ca),
        sealer.clone(),
        config.zone.clone(),
        &config.regions,
        config.acme.directory.is_empty(),
    );
    let metrics = CertificateMetrics::default();
    metrics.register(&mut status.registry);
    // The API's own TLS needs the zone's certificate, so a node of either role follows the log.
    let feed = Feed::start(
        store.clone(),
        edge.clone(),
        cache.clone(),
        certificates,
        metrics.clone(),
        resolver,
        config.zone.clone(),
    )
    .await
    .map_err(|e| Failure::because("the state cannot be loaded", &e))?;
    if role != Role::Edge
        && let Some(worker) = Issuance::configured(config, &store, sealer, data_dir.node_id()?, metrics)?
    {
        tasks.spawn(worker.run(shutdown.clone()));
    }
    let end_of_feed = CancellationToken::new();
    let feed = tokio::spawn(feed.run(end_of_feed.clone()));
    if edge_role {
        let https = https.map(|listener| (listener, tls.clone()));
        let listeners = Listeners { http, https, h3 };
        tasks.spawn(edge.serve(listeners, shutdown.clone()));
    }

    let mut router = None;
    if let Some(listener) = api {
        let keys = KeyPool::start(config.keys.pool);
        keys.register_metrics(&mut status.registry);
        let parts = Parts {
            store: store.clone(),
            storage: origins.local().clone(),
            config: api_config(config, &addresses),
            keys,
            secret,
            seal,
            tasks: tasks.clone(),
            arrivals,
        };
        let api = edgeweir_api::router(parts);
        router = Some(api.clone());
        let tls = config.api.tls.then_some(tls);
        tasks.spawn(routes::serve(listener, tls, api, shutdown.clone()));
    }
    status.ready.store(true, Ordering::Release);
    let status = Arc::new(status);
    if let Some(listener) = admin {
        let router = admin::router(status.clone());
        tasks.spawn(routes::serve(listener, None, router, shutdown.clone()));
    }
    tasks.close();
    // Whoever reads the addresses may send a signal.
    let signals = Signals::install()?;
    // Without it the server serves all the same.
    let announced = data_dir
        .announce(&addresses)
        .inspect_err(|error| tracing::warn!(%error, "the addresses taken are not told"))
        .ok();
    Ok(Running {
        cache,
        addresses,
        api: router,
        data_dir,
        store,
        status,
        tasks,
        shutdown,
        feed: (feed, end_of_feed),
        signals,
        _announced: announced,
    })
}

/// The cache: with a disk tier on nodes that serve, if one is wanted and can be had. One that cannot is no reason not to
/// serve.
fn open_cache(config: &Config, serves: bool) -> Arc<Cache> {
    let memory = CacheConfig {
        attached_bytes: edgeweir_edge::ATTACHED_BYTES,
        ..CacheConfig::with_memory(config.cache.memory.0)
    };
    if !serves {
        return Cache::new(memory);
    }
    let (dir, bytes) = (config.data_dir.join("cache"), config.cache.disk.0);
    if bytes > 0 {
        match Cache::with_disk(memory, DiskConfig::new(&dir, bytes)) {
            Ok(cache) => return cache,
            Err(error) => tracing::error!(%error, "the disk cache cannot be opened; only memory is used"),
        }
    }
    // What clients change from now on would be served from there by a later process.
    if let Err(error) = disk::abandon(&dir) {
        tracing::error!(
            dir = %dir.display(), %error,
            "the disk cache is not used, and cannot be marked so: remove the folder before it is used again, or what clients \
             delete meanwhile may be served from it"
        );
    }
    Cache::new(memory)
}

fn api_config(config: &Config, addresses: &Addresses) -> ApiConfig {
    // A node without an edge tells where the configuration has it.
    let here = addresses.https.or(addresses.http).is_some();
    let (https, http) = if here {
        (addresses.https, addresses.http)
    } else {
        (config.listen.https.0, config.listen.http.0)
    };
    let (edge_scheme, edge_port) = match (https, http) {
        (Some(https), _) => ("https", https.port()),
        (None, Some(http)) => ("http", http.port()),
        (None, None) => ("https", 443),
    };
    ApiConfig {
        zone: config.zone.clone(),
        regions: config.regions.clone(),
        domain_limit: config.limits.domains,
        failed_attempts_per_minute: config.limits.failed_attempts_per_minute,
        object_limit: config.limits.object.0,
        allow_private_origins: config.origins.allow_private,
        edge_target: config.edge_target(),
        edge_scheme,
        edge_port,
        // Where the API does the TLS itself, no proxy is in front of it: the setting is there for another listener.
        behind_proxy: config.api.behind_tls_proxy && !config.api.tls,
    }
}

impl Running {
    /// Serves until SIGTERM or SIGINT, then drains; a second signal ends it at once.
    pub(crate) async fn until_stopped(mut self) -> Result<(), Failure> {
        self.signals.next().await;
        tracing::info!("stopping: requests in flight finish");
        self.status.ready.store(false, Ordering::Release);
        self.shutdown.cancel();
        let drained = async {
            // A little more than the edge itself takes, so that it can say which connections it cuts.
            let _ = tokio::time::timeout(DRAIN + Duration::from_secs(1), self.tasks.wait()).await;
            // Writes in flight wait for the feed, so it ends after them.
            let (feed, end) = self.feed;
            end.cancel();
            let _ = feed.await;
            self.store.close().await;
            let cache = self.cache;
            let _ = tokio::task::spawn_blocking(move || cache.shutdown()).await;
        };
        tokio::select! {
            () = drained => Ok(()),
            () = self.signals.next() => Err(Failure::Failed("stopped at once by a second signal".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    #[test]
    fn urls_lead_to_the_edge_here_or_where_the_configuration_has_one() {
        let mut config = Config::default();
        let at = |port| Some(SocketAddr::from(([127, 0, 0, 1], port)));
        let told = |config: &Config, https, http| {
            let addresses = Addresses {
                http,
                https,
                ..Addresses::default()
            };
            let api = api_config(config, &addresses);
            (api.edge_scheme, api.edge_port)
        };
        assert_eq!(told(&config, at(1), at(2)), ("https", 1));
        assert_eq!(told(&config, None, at(2)), ("http", 2));
        assert_eq!(told(&config, None, None), ("https", 8443));
        config.listen.https = Address(None);
        assert_eq!(told(&config, None, None), ("http", 8080));
    }

    #[test]
    fn only_a_proxy_that_does_the_tls_is_believed_about_the_source() {
        let mut config = Config::default();
        for (proxy, tls, believed) in [
            (false, false, false),
            (true, false, true),
            // For the sake of another listener.
            (true, true, false),
        ] {
            (config.api.behind_tls_proxy, config.api.tls) = (proxy, tls);
            let api = api_config(&config, &Addresses::default());
            assert_eq!(api.behind_proxy, believed, "{proxy} {tls}");
        }
    }

    #[tokio::test]
    async fn a_server_that_cannot_tell_its_addresses_starts() {
        let dir = tempfile::tempdir().unwrap();
        // As on a full disk, the file cannot be made.
        std::fs::create_dir(dir.path().join("listen.json.new")).unwrap();
        let any = Address(Some(SocketAddr::from(([127, 0, 0, 1], 0))));
        let mut config = Config {
            data_dir: dir.path().to_owned(),
            ..Config::default()
        };
        config.keys.pool = 0;
        (config.listen.http, config.listen.https) = (any, Address(None));
        (config.listen.api, config.listen.admin) = (Address(None), Address(None));
        let running = start(&config, Role::All, Ports::AsConfigured).await.unwrap();
        let connected = tokio::net::TcpStream::connect(running.addresses.http.unwrap()).await;
        assert!(connected.is_ok());
        assert!(!dir.path().join("listen.json").exists());
    }
}
