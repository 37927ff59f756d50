//! A request's way through the phases: as far as it comes without waiting, and the rest in a future of its own.

use crate::{
    Edge, HttpMode,
    accept::{Accepted, Incoming},
    authorize::Authorized,
    body::Body,
    change,
    connection::Connection,
    cors,
    interim::{self, Later},
    live::{self, Push, Pushing, Waiting},
    lookup::{Found, LookedUp, is_origins_to_refuse},
    metrics::Outcome,
    own,
    refusal::{Reason, Refusal},
    respond,
    site::{Resolved, Site, Table, is_read},
    upload::Upload,
};
use edgeweir_cache::Now;
use edgeweir_model::Content;
use http::{Method, Response, header::EXPECT};
use std::{sync::Arc, time::UNIX_EPOCH};
use tokio::sync::mpsc;

/// An answer that is there, or under way. The hit path makes no future and allocates none.
pub(crate) enum Answering {
    Now(Response<Body>),
    Later(Later),
}

impl Edge {
    /// Answers a request, whatever comes of it: a hit at once, anything that must be waited for in a future of its own.
    pub(crate) fn handle(self: &Arc<Self>, connection: &Arc<Connection>, request: Incoming) -> Answering {
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
            own::tell(
                self.alternative.as_ref(),
                connection.sni.is_some(),
                response.headers_mut(),
            );
        }
        response
    }

    pub(crate) fn refuse(&self, refusal: Refusal, method: &Method) -> Response<Body> {
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
            return Ok(Step::Answer(own::challenge(answer, request.method == Method::HEAD)));
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
            return Ok(Step::Answer(own::options(&site, &request)));
        }
        if connection.sni.is_none() && self.settings.http_mode == HttpMode::Redirect {
            return Ok(Step::Answer(own::redirect(self.settings.https_port, &request, &site)));
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
            Found::Hit(authorized, entry, ttl) => match respond::hit(&authorized, &entry, ttl, now) {
                Err(refusal) if !cached_only && is_origins_to_refuse(&authorized, &refusal) => {
                    Ok(Step::Fetch(LookedUp::without_match(authorized)))
                }
                answer => {
                    self.metrics.hit();
                    answer.map(Step::Answer)
                }
            },
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
                let mut fetched = self.fetched(looked_up).await?;
                if let Err(Refusal {
                    reason: Reason::ObjectChanged,
                    ..
                }) = fetched.answer
                {
                    fetched = self.once_more(fetched.authorized).await?;
                }
                if let Err(refusal) = &fetched.answer
                    && is_origins_to_refuse(&fetched.authorized, refusal)
                {
                    fetched = self.fetched(LookedUp::without_match(fetched.authorized)).await?;
                }
                self.metrics.answered(fetched.outcome);
                fetched.answer
            }
        }
    }

    async fn fetched(self: &Arc<Self>, looked_up: LookedUp) -> Result<Fetched, Refusal> {
        let site = looked_up.authorized.resolved().site.clone();
        let gone = self.live.gone(&looked_up.authorized);
        let (authorized, answer, now) = tokio::select! {
            answer = looked_up.answer(self) => answer?,
            () = gone => return Err(Refusal::at(Reason::NotLive, &site)),
        };
        Ok(Fetched {
            outcome: Outcome::of(&answer),
            answer: respond::respond(self, &authorized, answer, now).await,
            authorized,
        })
    }

    /// Answers a request of whose object an older representation was found, which has been forgotten since.
    async fn once_more(self: &Arc<Self>, authorized: Authorized) -> Result<Fetched, Refusal> {
        let now = Now::now();
        match LookedUp::find(authorized, &self.cache, now) {
            Found::Hit(authorized, entry, ttl) => Ok(Fetched {
                outcome: Outcome::Hit,
                answer: respond::hit(&authorized, &entry, ttl, now),
                authorized,
            }),
            Found::LookedUp(looked_up) => self.fetched(looked_up).await,
        }
    }

    /// Whether a request for `host` may come on a connection made for `sni`: one certificate answers to both, and they
    /// are not two projects' (RFC 9110 §15.5.20).
    fn shares_connections(&self, table: &Table, sni: &str, host: &str, site: &Site) -> bool {
        self.resolver.covers(sni, host) && table.get(sni).is_none_or(|own| own.project == site.project)
    }
}

/// What came of a request that was looked up, or fetched for.
struct Fetched {
    authorized: Authorized,
    outcome: Outcome,
    answer: Result<Response<Body>, Refusal>,
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
