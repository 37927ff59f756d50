//! The edge: the request path.
//!
//! A request walks through typed phases, one file each: `accept` → `site` → `authorize` → `lookup` → `fetch` →
//! `respond`. Each takes the value of the one before, so that none can be left out. What the edge knows of the
//! service's state is the last [`Snapshot`] it was given; it never asks a store.

mod accept;
mod authorize;
mod body;
mod change;
mod connection;
mod cors;
mod date;
mod fetch;
mod gathered;
mod h1;
mod h2;
mod h3;
mod interim;
mod invalidate;
mod limits;
mod listen;
mod live;
mod lookup;
mod metrics;
mod multiplexed;
mod pace;
mod part;
mod refusal;
mod respond;
mod site;
mod stream;
mod upload;

pub use respond::ATTACHED_BYTES;

use accept::{Accepted, Incoming};
use arc_swap::ArcSwap;
use authorize::{Authorized, Verifier};
use body::Body;
use connection::Connection;
use edgeweir_cache::{Cache, Now};
use edgeweir_certs::Resolver;
use edgeweir_model::{Arrivals, Change, Content, Origin, Snapshot};
use edgeweir_origin::{Origins, ingest::Ingest};
use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode,
    header::{ALLOW, ALT_SVC, CACHE_CONTROL, CONTENT_TYPE, EXPECT, LOCATION},
};
use interim::{Later, Progress};
use listen::Connections;
use live::{Live, Push, Pushing, Waiting};
use lookup::{Found, LookedUp};
use metrics::Metrics;
use refusal::{Reason, Refusal};
use rustls::ServerConfig;
use site::{Resolved, Site, Table, is_read};
use std::{
    collections::HashMap,
    net::UdpSocket,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;
use upload::Upload;

/// What plain HTTP serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpMode {
    /// Content.
    Serve,
    /// Redirects to HTTPS.
    Redirect,
}

/// How an edge serves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What plain HTTP serves.
    pub http_mode: HttpMode,
    /// The port that redirects lead to.
    pub https_port: u16,
    /// Whether HTTP/3 is served at `https_port`, which answers over TLS then tell.
    pub h3: bool,
    /// How long requests in flight may take once the edge is told to stop.
    pub drain: Duration,
    /// For how long a connection may idle, or its client not read. It is looked at in steps of this, so that up to twice
    /// as long may pass.
    pub idle: Duration,
    /// How many connections may be open at a time; more are closed as they come.
    pub connections: u64,
}

/// An edge.
#[derive(Debug)]
pub struct Edge {
    settings: Settings,
    table: ArcSwap<Table>,
    verifier: Verifier,
    cache: Arc<Cache>,
    origins: Origins,
    resolver: Arc<Resolver>,
    live: Arc<Live>,
    connections: Connections,
    metrics: Metrics,
    /// Where HTTP/3 is served, as answers over TLS tell it (RFC 7838). Static, so that it has no reference count.
    alternative: Option<HeaderValue>,
}

/// Where an edge serves.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Plain HTTP.
    pub http: Option<TcpListener>,
    /// HTTP/1.1 and HTTP/2 over TLS.
    pub https: Option<(TcpListener, Arc<ServerConfig>)>,
    /// HTTP/3, with the certificates of the former: a socket on the same port, so that it is found by `Alt-Svc`.
    pub h3: Option<UdpSocket>,
}

/// What an edge works with.
#[derive(Debug)]
pub struct Parts {
    /// What was fetched.
    pub cache: Arc<Cache>,
    /// Where it is fetched from.
    pub origins: Origins,
    /// The certificates.
    pub resolver: Arc<Resolver>,
    /// What encoders push.
    pub ingest: Ingest,
    /// Where it is noted what arrives of live streams.
    pub arrivals: Arrivals,
}

impl Edge {
    /// An edge that knows no host until it is given a snapshot.
    pub fn new(settings: Settings, parts: Parts) -> Arc<Self> {
        let Parts {
            cache,
            origins,
            resolver,
            ingest,
            arrivals,
        } = parts;
        let metrics = Metrics::default();
        // Once a process.
        let alternative = settings.h3.then(|| {
            let value = format!("h3=\":{}\"; ma={}", settings.https_port, limits::ALTERNATIVE_SECONDS);
            HeaderValue::from_static(value.leak())
        });
        let live = Live::new(ingest, cache.clone(), origins.clone(), arrivals, metrics.live());
        Arc::new(Self {
            settings,
            table: ArcSwap::from_pointee(Table::empty()),
            verifier: Verifier::new(),
            cache,
            origins,
            resolver,
            live,
            connections: Connections::default(),
            metrics,
            alternative,
        })
    }

    /// The change-log entry up to which nothing that is cached needs to be purged; `None` when nothing is cached from before.
    pub fn position(&self) -> Option<u64> {
        self.cache.position()
    }

    /// Takes the state after `changes`: the next request sees it, and nothing that was purged. Without `changes`, which
    /// means that nobody knows what was purged, nothing that is cached is used again.
    pub fn apply(&self, snapshot: &Snapshot, changes: Option<&[Change]>) {
        // A stream that is gone is so for everybody before its host is; one that is new is there before its host.
        self.live.apply(snapshot);
        // Before hosts are known: a cache that outlived its process must not answer first.
        match changes {
            Some(changes) => self.purge(snapshot, changes),
            None => self.cache.purge_everything(),
        }
        self.table
            .store(Arc::new(Table::new(snapshot, self.alternative.as_ref())));
        self.cache.settle(snapshot.sequence());
    }

    fn purge(&self, snapshot: &Snapshot, changes: &[Change]) {
        let mut purges = changes.iter().filter_map(|change| match change {
            Change::Purge { bucket, purge } => Some((bucket, purge)),
            Change::Rows => None,
        });
        let Some(first) = purges.next() else { return };
        // A server that was away may have many of them to make up for.
        let buckets: HashMap<_, _> = snapshot
            .sites()
            .filter_map(|site| match &site.content {
                Content::Bucket(bucket) => Some((bucket.id, bucket)),
                _ => None,
            })
            .collect();
        for (id, purge) in std::iter::once(first).chain(purges) {
            match buckets.get(id) {
                // An upload purges what it replaces; there may be many.
                Some(bucket) if bucket.origin == Origin::Local => {
                    self.cache.purge_in_memory(id.0, bucket.generation, purge);
                }
                // One that is not there may come back, if its row could not be read, and then in a generation of its own.
                bucket => self
                    .cache
                    .purge_by(id.0, bucket.map_or(0, |bucket| bucket.generation), purge),
            }
        }
    }

    /// Whether a snapshot has been applied.
    pub fn is_ready(&self) -> bool {
        !self.table.load().is_empty()
    }

    /// Makes the edge's metrics known to a registry.
    pub fn register_metrics(&self, registry: &mut prometheus_client::registry::Registry) {
        self.metrics.register(registry);
    }

    /// Serves until `shutdown`, then drains.
    pub async fn serve(self: Arc<Self>, listeners: Listeners, shutdown: CancellationToken) {
        let drain = self.settings.drain;
        let stop = CancellationToken::new();
        let live = tokio::spawn(self.live.clone().run(stop.clone()));
        tokio::spawn(self.live.clone().release(shutdown.clone()));
        listen::serve(self, listeners, shutdown, drain).await;
        stop.cancel();
        let _ = live.await;
    }

    /// Answers a request, whatever comes of it: a hit at once, anything that must be waited for in a future of its own.
    fn handle(self: &Arc<Self>, connection: &Arc<Connection>, request: Incoming) -> Answering {
        let method = request.method.clone();
        match self.at_once(connection, request) {
            Ok(Step::Answer(response)) => Answering::Now(self.told(connection, response)),
            Ok(mut step) => {
                let (edge, connection) = (self.clone(), connection.clone());
                let busy = connection.answering();
                let interims = step.interims();
                let answer = async move {
                    let answer = edge.later(&connection, step).await;
                    drop(busy);
                    let response = answer.unwrap_or_else(|refusal| edge.refuse(refusal, &method));
                    edge.told(&connection, response)
                };
                Answering::Later(Later::new(answer, interims))
            }
            Err(refusal) => Answering::Now(self.told(connection, self.refuse(refusal, &method))),
        }
    }

    /// An answer that tells where HTTP/3 is served, if its client trusts a certificate to say so (RFC 7838 §2.1). A hit
    /// has a place for it ready, and one whose head is rendered says it already.
    fn told(&self, connection: &Connection, mut response: Response<Body>) -> Response<Body> {
        if !matches!(response.body(), Body::Rendered(..)) {
            tell(
                self.alternative.as_ref(),
                connection.sni.is_some(),
                response.headers_mut(),
            );
        }
        response
    }

    fn refuse(&self, refusal: Refusal, method: &Method) -> Response<Body> {
        self.metrics.refused(&refusal.reason);
        refusal.into_response(method)
    }

    /// The part of the request path that waits for nothing.
    fn at_once(&self, connection: &Connection, request: Incoming) -> Result<Step, Refusal> {
        connection.asked();
        let request = Accepted::new(request, connection)?;
        let table = self.table.load();
        if is_read(&request.method)
            && let Some(answer) = table.challenge(&request.host, request.path())
        {
            return Ok(Step::Answer(challenge(answer, request.method == Method::HEAD)));
        }
        let site = table.get(&request.host).cloned().ok_or(Reason::UnknownHost)?;
        if let Some(sni) = &connection.sni
            && **sni != *request.host
            && !self.shares_connections(&table, sni, &request.host, &site)
        {
            return Err(Reason::HostNotCovered.into());
        }
        if let Some(reason) = request.too_long() {
            // What is left of it may be long, too.
            return Err(Refusal {
                close: true,
                ..Refusal::at(reason, &site)
            });
        }
        if self.origins.loops(&request.headers) {
            return Err(Refusal::at(Reason::Loop, &site));
        }
        if request.method == Method::OPTIONS
            && (request.is_for_the_server() || cors::is_preflight(&request.headers) || !site.takes(&Method::OPTIONS))
        {
            return Ok(Step::Answer(options(&site, &request)));
        }
        if connection.sni.is_none() && self.settings.http_mode == HttpMode::Redirect {
            return Ok(Step::Answer(self.redirect(&request, &site)));
        }
        if let Content::Ingest(host) = &site.content {
            let expects = request.headers.contains_key(EXPECT);
            return Ok(match Push::authorize(request, host, &site) {
                Ok(push) => Step::Push(self.live.push(push), site),
                // One that asked first sends nothing then (RFC 9110 §10.1.1).
                Err((refusal, _)) if expects => {
                    return Err(Refusal { close: true, ..refusal });
                }
                Err((refusal, body)) => Step::Drain(refusal, body),
            });
        }
        let resolved = Resolved::new(request, site)?;
        let now = Now::now();
        let seconds = now.wall.duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
        let authorized = self.verifier.authorize(resolved, &connection.shown, seconds)?;
        let cached_only = match self.live.find(&authorized, now.mono)? {
            live::Found::Served(served) => {
                self.metrics.hit();
                return live::respond(&authorized, served, false).map(Step::Answer);
            }
            live::Found::Waiting(waiting) => return Ok(Step::Wait(authorized, waiting)),
            live::Found::Cached => false,
            live::Found::CachedOnly => true,
        };
        if !is_read(&authorized.resolved().request.method) {
            return Ok(Step::PassOn(authorized));
        }
        match LookedUp::find(authorized, &self.cache, now) {
            Found::Hit(authorized, entry, ttl) => {
                self.metrics.hit();
                respond::hit(&authorized, &entry, ttl, now).map(Step::Answer)
            }
            Found::LookedUp(looked_up) if cached_only => {
                Err(Refusal::at(Reason::NotFound, &looked_up.authorized.resolved().site))
            }
            Found::LookedUp(looked_up) => Ok(Step::Fetch(looked_up)),
        }
    }

    /// The part that asks an origin.
    async fn later(self: &Arc<Self>, connection: &Arc<Connection>, step: Step) -> Result<Response<Body>, Refusal> {
        match step {
            Step::Answer(response) => Ok(response),
            Step::PassOn(authorized) => {
                let (response, site) = change::pass_on(self, authorized, connection.uploading()).await?;
                let mut response = respond::passed_on(response);
                site.cors.apply(response.headers_mut());
                Ok(response)
            }
            Step::Push(pushing, site) => pushing.answer(&site).await,
            Step::Drain(refusal, body) => {
                live::drain(body).await;
                Err(refusal)
            }
            Step::Wait(authorized, waiting) => {
                let served = self.live.wait(waiting).await;
                let served = served.map_err(|reason| Refusal::at(reason, &authorized.resolved().site))?;
                live::respond(&authorized, served, true)
            }
            Step::Fetch(looked_up) => {
                let site = looked_up.authorized.resolved().site.clone();
                let gone = self.live.gone(&looked_up.authorized);
                let (authorized, answer, now) = tokio::select! {
                    answer = looked_up.answer(self) => answer?,
                    () = gone => return Err(Refusal::at(Reason::NotLive, &site)),
                };
                self.metrics.answered(&answer);
                match respond::respond(self, &authorized, answer, now).await {
                    Err(refusal) if matches!(refusal.reason, Reason::ObjectChanged) => self.once_more(authorized).await,
                    answer => answer,
                }
            }
        }
    }

    /// Answers a request of whose object an older representation was found, which has been forgotten since.
    async fn once_more(self: &Arc<Self>, authorized: Authorized) -> Result<Response<Body>, Refusal> {
        let now = Now::now();
        match LookedUp::find(authorized, &self.cache, now) {
            Found::Hit(authorized, entry, ttl) => respond::hit(&authorized, &entry, ttl, now),
            Found::LookedUp(looked_up) => {
                let (authorized, answer, now) = looked_up.answer(self).await?;
                respond::respond(self, &authorized, answer, now).await
            }
        }
    }

    /// Whether a request for `host` may come on a connection made for `sni`: one certificate answers to both, and they
    /// are not two projects' (RFC 9110 §15.5.20).
    fn shares_connections(&self, table: &Table, sni: &str, host: &str, site: &Site) -> bool {
        self.resolver.covers(sni, host) && table.get(sni).is_none_or(|own| own.project == site.project)
    }

    fn redirect(&self, request: &Accepted, site: &Site) -> Response<Body> {
        let port = if self.settings.https_port == 443 {
            String::new()
        } else {
            format!(":{}", self.settings.https_port)
        };
        let location = format!("https://{}{port}{}", request.host, request.path_and_query());
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
        if let Ok(location) = HeaderValue::from_str(&location) {
            response.headers_mut().insert(LOCATION, location);
        }
        // A token in the URL must not be kept with it.
        response
            .headers_mut()
            .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        site.cors.apply(response.headers_mut());
        response
    }
}

/// How far a request comes without waiting.
enum Step {
    /// To its answer.
    Answer(Response<Body>),
    /// To an origin that takes its method.
    PassOn(Authorized),
    /// To an origin, for what the cache lacks.
    Fetch(LookedUp),
    /// To a live playlist that is still to come.
    Wait(Authorized, Waiting),
    /// To a live stream, from its encoder.
    Push(Pushing, Arc<Site>),
    /// To a refusal, once what its client sends meanwhile is read.
    Drain(Refusal, Upload),
}

impl Step {
    /// The interim responses of the origin that it asks, where it asks one for this request.
    fn interims(&mut self) -> Option<mpsc::Receiver<Response<()>>> {
        let (Self::PassOn(authorized) | Self::Fetch(LookedUp { authorized, .. })) = self else {
            return None;
        };
        let (interim, interims) = interim::channel();
        authorized.tell_interims(interim);
        Some(interims)
    }
}

/// An answer that is there, or under way. The hit path makes no future and allocates none.
enum Answering {
    Now(Response<Body>),
    Later(Later),
}

/// The answer to a CA.
fn challenge(answer: &str, head_only: bool) -> Response<Body> {
    let mut response = Response::new(Body::full(answer.to_owned().into(), head_only));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Says where else the client is served, if it `trusts` that; takes out what else says so.
fn tell(alternative: Option<&HeaderValue>, trusts: bool, headers: &mut HeaderMap) {
    match alternative {
        Some(alternative) if trusts => drop(headers.insert(ALT_SVC, alternative.clone())),
        Some(_) => drop(headers.remove(ALT_SVC)),
        None => {}
    }
}

/// The answer to OPTIONS: a preflight's headers where one is asked for (Fetch Standard), else the methods.
fn options(site: &Site, request: &Accepted) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(
        ALLOW,
        HeaderValue::from_str(&site.allow()).expect("made of method tokens"),
    );
    if cors::is_preflight(&request.headers) {
        site.cors.apply_preflight(&request.headers, headers);
    } else {
        site.cors.apply(headers);
    }
    response
}
