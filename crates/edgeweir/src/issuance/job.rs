//! One name's turn: under its lease, step after step, each written down before the next is taken.

use super::{
    Issuance,
    account::{AccountError, Credentials},
    moment, now,
};
use crate::certificates::key_purpose;
use edgeweir_certs::{
    acme::{AcmeError, Session},
    issued::{self, Request},
    lifecycle::{Action, Event, Millis, Phase, Progress, State, Status, step},
};
use edgeweir_model::{Fqdn, SubscriptionId, Timestamp};
use edgeweir_store::{Learned, StoreError, StoredOrder, SubscriptionStatus};
use std::time::Duration;

/// How long a lease lasts, in milliseconds, and how much of it a turn may take.
const LEASE: Millis = 120_000;
const TURN: Duration = Duration::from_secs(100);
/// Nodes other than this one follow the change log within this time.
const SPREAD: Duration = Duration::from_millis(150);

/// One name.
struct Turn<'a> {
    worker: &'a Issuance,
    id: SubscriptionId,
    domain: Fqdn,
}

type Outcome = (Event, Learned);

/// What the CA's failure is to the life cycle.
fn failure(error: AcmeError) -> Event {
    match error {
        AcmeError::Refused { reason, retry_at } => Event::OrderFailed { reason, retry_at },
        AcmeError::Unreachable { reason, retry_at } => Event::CaUnreachable { reason, retry_at },
        AcmeError::OrderGone(reason) => Event::OrderLost(reason),
        AcmeError::AccountGone(reason) => Event::OrderFailed { reason, retry_at: None },
        e @ AcmeError::Unsupported(_) => Event::OrderFailed {
            reason: format!("{e}."),
            retry_at: None,
        },
    }
}

impl Issuance {
    /// Does what is due for a subscription; `false` when it should rest a little.
    pub(super) async fn work_on(&self, id: SubscriptionId) -> bool {
        let (store, holder) = (&self.parts.store, &self.parts.holder);
        let lease = format!("certificate {id}");
        let at = now();
        let done = match store.take_lease(&lease, holder, at, at + LEASE).await {
            Ok(true) => tokio::time::timeout(TURN, self.turn(id)).await,
            Ok(false) => return false,
            Err(e) => Ok(Err(e)),
        };
        let done = match done {
            // Goes on in the next turn.
            Err(_elapsed) => true,
            Ok(Ok(()) | Err(StoreError::NotFound)) => true,
            Ok(Err(e)) => {
                let error = &e as &dyn std::error::Error;
                tracing::warn!(subscription = %id, error, "a certificate's state cannot be kept");
                false
            }
        };
        if let Err(e) = store.release_lease(&lease, holder).await {
            tracing::debug!(error = %e, "a lease is left to end by itself");
        }
        done
    }

    async fn turn(&self, id: SubscriptionId) -> Result<(), StoreError> {
        // Read under the lease: another node may have done it all.
        let issuance = self.parts.store.issuance(id).await?;
        let stored = issuance.state.as_deref().and_then(|json| match serde_json::from_str(json) {
            Ok(state) => Some(state),
            Err(e) => {
                tracing::error!(domain = %issuance.domain, error = %e, "a certificate's state cannot be read; it starts anew");
                None
            }
        });
        let turn = Turn {
            worker: self,
            id,
            domain: issuance.domain,
        };
        turn.drive(stored.unwrap_or_else(|| State::new(now()))).await
    }
}

impl Turn<'_> {
    async fn drive(&self, mut state: State) -> Result<(), StoreError> {
        let mut outcome = (Event::Tick, Learned::Nothing);
        let mut session = None;
        loop {
            let (event, learned) = outcome;
            let (next, actions) = step(state.clone(), event, moment());
            if next != state || learned != Learned::Nothing {
                self.save(&state, &next, learned).await?;
            }
            state = next;
            let Some(action) = actions.into_iter().next() else {
                return Ok(());
            };
            tracing::debug!(domain = %self.domain, ?action, "certificate");
            outcome = self.perform(action, &mut session).await?;
        }
    }

    async fn save(&self, before: &State, after: &State, learned: Learned) -> Result<(), StoreError> {
        let (at, target) = (now(), &self.worker.parts.wanted.target);
        self.tell(before, after, at);
        let learned = match learned {
            Learned::Nothing if before.order.is_some() && after.order.is_none() => Learned::OrderOver,
            learned => learned,
        };
        let progress = edgeweir_store::Progress {
            state: serde_json::to_string(after).expect("a state is plain"),
            due: after.due(),
            status: match after.status(at) {
                Status::Pending => SubscriptionStatus::Pending,
                Status::Processing => SubscriptionStatus::Processing,
                Status::Issued => SubscriptionStatus::Issued,
                Status::Renewing => SubscriptionStatus::Renewing,
                Status::Failed => SubscriptionStatus::Failed,
            },
            message: after.message(self.domain.as_str(), target),
            not_after: after.certificate.as_ref().map(|c| seconds(c.not_after)),
        };
        self.worker
            .parts
            .store
            .save_issuance(self.id, &progress, &learned)
            .await
    }

    fn tell(&self, before: &State, after: &State, at: Millis) {
        let domain = &self.domain;
        match &after.phase {
            Phase::Failed { reason, next } => {
                self.worker.parts.metrics.failed();
                let next_try = seconds(*next);
                tracing::warn!(%domain, reason, %next_try, serves = after.serves(at), "no certificate this time");
            }
            Phase::Issued if before.phase != Phase::Issued => {
                let until = after.certificate.as_ref().map_or(0, |c| c.not_after);
                tracing::info!(%domain, not_after = %seconds(until), "a certificate has been issued");
            }
            _ => {}
        }
    }

    async fn perform(
        &self,
        action: Action,
        session: &mut Option<(Session, Credentials)>,
    ) -> Result<Outcome, StoreError> {
        if action == Action::CheckDns {
            let wanted = self.worker.wanted().await;
            let verdict = self.worker.parts.dns.check(self.domain.as_str(), &wanted).await;
            return Ok((Event::DnsSeen(verdict), Learned::Nothing));
        }
        if let Action::LookAtOrder(_, at) = &action {
            let wait = (at - now()).clamp(0, LEASE) as u64;
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
        match self.with_account(&action, session).await {
            Ok(outcome) => Ok(outcome),
            Err(AccountError::Store(e)) => Err(e),
            // A certificate serves; only the date is not known.
            Err(_) if action == Action::AskForWindow => Ok((Event::NoWindow { never: false }, Learned::Nothing)),
            Err(AccountError::Acme(e)) => Ok((failure(e), Learned::Nothing)),
        }
    }

    /// Asks the CA; on a new account, when it does not take the one there was. An order can then go out at once; one that
    /// was open is lost with the old account.
    async fn with_account(
        &self,
        action: &Action,
        session: &mut Option<(Session, Credentials)>,
    ) -> Result<Outcome, AccountError> {
        for first in [true, false] {
            let (asked, credentials) = match session {
                Some(session) => session,
                None => session.insert(self.worker.account.session().await?),
            };
            match self.ask(asked, action).await {
                Err(AccountError::Acme(AcmeError::AccountGone(reason))) if first => {
                    tracing::warn!(reason, "the CA does not take the ACME account any more");
                    self.worker.account.replace(credentials).await?;
                    *session = None;
                    if *action != Action::PlaceOrder {
                        return Err(AcmeError::OrderGone(reason).into());
                    }
                }
                done => return done,
            }
        }
        unreachable!("the second round returns")
    }

    async fn ask(&self, session: &Session, action: &Action) -> Result<Outcome, AccountError> {
        let (store, proof) = (&self.worker.parts.store, self.worker.parts.proof);
        let seen = |(progress, retry_at)| Ok((Event::OrderSeen(progress, retry_at), Learned::Nothing));
        match action {
            Action::CheckDns => unreachable!("no CA is asked about that"),
            Action::PlaceOrder => self.place(session).await,
            Action::LookAtOrder(url, _) => seen(session.look(url).await?),
            Action::ShowChallenges(url) => {
                let answers = session.challenges(url, proof).await?.into_iter();
                let shown = answers.map(|a| (a.token, a.key_authorization)).collect();
                Ok((Event::ChallengesShown, Learned::Challenges(shown)))
            }
            Action::TellReady(url) => {
                // What was written down before this step must be in effect everywhere.
                store.settled().await;
                tokio::time::sleep(SPREAD).await;
                session.ready(url, proof).await?;
                Ok((Event::ToldReady, Learned::Nothing))
            }
            Action::Finalize(url) => match store.order(self.id).await?.filter(|order| order.url == *url) {
                Some(order) => seen(session.finalize(url, &order.csr).await?),
                None => Err(AcmeError::OrderGone("The order's key is not in the store.".to_owned()).into()),
            },
            Action::Download(url) => match session.download(url).await? {
                Some(chain) => self.take(url, chain).await,
                None => seen((Progress::Processing, None)),
            },
            Action::AskForWindow => {
                let never = (Event::NoWindow { never: true }, Learned::Nothing);
                let Some(chain) = store.chain_of(self.id).await? else {
                    return Ok(never);
                };
                match session.window(&chain).await {
                    Ok((start, end, look_at)) => Ok((Event::WindowSeen { start, end, look_at }, Learned::Nothing)),
                    Err(AcmeError::Unsupported(_)) => Ok(never),
                    Err(e) => Err(e.into()),
                }
            }
        }
    }

    /// Opens an order. Its URL and the key are written down together, before anything else happens with either.
    async fn place(&self, session: &Session) -> Result<Outcome, AccountError> {
        let unusable = |e: edgeweir_certs::Error| AcmeError::Refused {
            reason: format!("No request can be made: {e}."),
            retry_at: None,
        };
        let request = Request::new(self.domain.as_str()).map_err(unusable)?;
        let replaced = self.worker.parts.store.chain_of(self.id).await?;
        let url = session.place(self.domain.as_str(), replaced.as_deref()).await?;
        let order = StoredOrder {
            url: url.clone(),
            private_key: self
                .worker
                .parts
                .sealer
                .seal(&key_purpose(&self.domain), &request.private_key),
            csr: request.csr,
        };
        Ok((Event::OrderPlaced(url), Learned::Order(order)))
    }

    /// Takes a certificate, if it can serve.
    async fn take(&self, url: &str, chain: String) -> Result<Outcome, AccountError> {
        let unusable = |e: &dyn std::error::Error| AcmeError::Refused {
            reason: format!("What the CA has issued cannot be used: {e}."),
            retry_at: None,
        };
        let Some(order) = self
            .worker
            .parts
            .store
            .order(self.id)
            .await?
            .filter(|order| order.url == url)
        else {
            return Err(AcmeError::OrderGone("The order's key is not in the store.".to_owned()).into());
        };
        let purpose = key_purpose(&self.domain);
        let key = self
            .worker
            .parts
            .sealer
            .open(&purpose, &order.private_key)
            .map_err(|e| unusable(&e))?;
        issued::certified(&chain, &key).map_err(|e| unusable(&e))?;
        let (not_before, not_after) = issued::validity(&chain, self.domain.as_str()).map_err(|e| unusable(&e))?;
        let learned = Learned::Certificate {
            chain,
            not_before: seconds(not_before),
            not_after: seconds(not_after),
        };
        Ok((Event::CertificateStored { not_before, not_after }, learned))
    }
}

fn seconds(at: Millis) -> Timestamp {
    Timestamp(at.div_euclid(1000))
}
