//! The CA, spoken to by ACME (RFC 8555): accounts, orders, challenges, certificates, renewal windows (RFC 9773).
//!
//! Each call is one step that can be repeated; nothing is kept here. What went wrong is told by what can be done about it.

mod client;
mod problem;

use crate::{
    issued,
    lifecycle::{Millis, Progress},
};
use client::Http;
use http::StatusCode;
use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeStatus, ChallengeType, ExternalAccountKey,
    Identifier, NewAccount, NewOrder, Order, OrderStatus,
};
use problem::{Stage, failure, is_unauthorized};
use serde::Deserialize;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use zeroize::Zeroizing;

/// Which CA, and as whom.
#[derive(Clone, Default)]
pub struct AcmeConfig {
    /// The directory's URL.
    pub directory: String,
    /// Whom the CA may write to, as in `mailto:ops@example.com`.
    pub contact: Option<String>,
    /// Roots to trust beside the public ones, PEM.
    pub roots: Option<String>,
    /// The id and the HMAC key of an external account (RFC 8555 §7.3.4).
    pub external_account: Option<(String, Zeroizing<Vec<u8>>)>,
    /// The certificate profile to ask for.
    pub profile: Option<String>,
}

impl std::fmt::Debug for AcmeConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AcmeConfig({})", self.directory)
    }
}

/// How the CA is shown that a name is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// A text at a URL on port 80 (RFC 8555 §8.3).
    Http01,
    /// A certificate on port 443 (RFC 8737).
    TlsAlpn01,
}

impl Proof {
    fn kind(self) -> ChallengeType {
        match self {
            Self::Http01 => ChallengeType::Http01,
            Self::TlsAlpn01 => ChallengeType::TlsAlpn01,
        }
    }
}

/// What every node must answer to a challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChallengeAnswer {
    /// The challenge's token.
    pub token: String,
    /// The answer.
    pub key_authorization: String,
}

/// Why a step was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AcmeError {
    /// The CA has refused; the order is over.
    #[error("{reason}")]
    Refused {
        /// Its reason, in plain words.
        reason: String,
        /// When it may be asked again, if it said so.
        retry_at: Option<Millis>,
    },
    /// The CA does not know the account any more, or has revoked it.
    #[error("{0}")]
    AccountGone(String),
    /// The CA does not know the order any more.
    #[error("{0}")]
    OrderGone(String),
    /// The CA has no such feature.
    #[error("the CA has no {0}")]
    Unsupported(&'static str),
    /// The CA cannot be reached, or is in trouble itself.
    #[error("{reason}")]
    Unreachable {
        /// What went wrong.
        reason: String,
        /// When it may be asked again, if it said so.
        retry_at: Option<Millis>,
    },
}

/// A CA.
#[derive(Debug, Clone)]
pub struct Acme {
    config: AcmeConfig,
    http: Http,
}

#[derive(Deserialize)]
struct Directory {
    #[serde(default)]
    meta: Meta,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Meta {
    #[serde(default)]
    caa_identities: Vec<String>,
}

impl Acme {
    /// A CA that is not asked anything yet.
    pub fn new(config: AcmeConfig) -> Result<Self, crate::Error> {
        let http = Http::new(config.roots.as_deref())?;
        Ok(Self { config, http })
    }

    /// The names that the CA goes by in CAA records (RFC 8555 §7.1.1).
    pub async fn caa_identities(&self) -> Result<Vec<String>, AcmeError> {
        let answer = self.http.get(&self.config.directory).await;
        let (status, body) = answer.map_err(|e| failure(e, Stage::Other, None))?;
        names(status, &body)
    }

    /// Makes an account; its credentials, to be kept secret.
    pub async fn register(&self) -> Result<Zeroizing<Vec<u8>>, AcmeError> {
        let http = self.http.for_one_job();
        let contact: Vec<&str> = self.config.contact.as_deref().into_iter().collect();
        let account = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let external = self
            .config
            .external_account
            .as_ref()
            .map(|(id, key)| ExternalAccountKey::new(id.clone(), key));
        let made = Account::builder_with_http(Box::new(http.clone()))
            .create(&account, self.config.directory.clone(), external.as_ref())
            .await;
        let (_, credentials) = made.map_err(|e| failure(e, Stage::Account, http.retry_at()))?;
        let json = serde_json::to_vec(&credentials).expect("credentials are plain");
        Ok(Zeroizing::new(json))
    }

    /// Uses an account.
    pub async fn session(&self, credentials: &[u8]) -> Result<Session, AcmeError> {
        let http = self.http.for_one_job();
        let credentials = serde_json::from_slice(credentials)
            .map_err(|_| AcmeError::AccountGone("the account's credentials cannot be read".to_owned()))?;
        let account = Account::builder_with_http(Box::new(http.clone()))
            .from_credentials(credentials)
            .await
            .map_err(|e| failure(e, Stage::Other, http.retry_at()))?;
        Ok(Session {
            account,
            http,
            contact: self.config.contact.clone(),
            profile: self.config.profile.clone(),
        })
    }
}

/// What the CA's directory says that it is called, in lower case. An error page says nothing of that.
fn names(status: StatusCode, body: &[u8]) -> Result<Vec<String>, AcmeError> {
    let unreadable = |why: String| AcmeError::Unreachable {
        reason: format!("The CA's directory cannot be read: {why}."),
        retry_at: None,
    };
    if status != StatusCode::OK {
        return Err(unreadable(status.to_string()));
    }
    let directory: Directory = serde_json::from_slice(body).map_err(|e| unreadable(e.to_string()))?;
    let names = directory.meta.caa_identities.into_iter();
    Ok(names.map(|name| name.to_ascii_lowercase()).collect())
}

/// An account in use, for one name's order.
pub struct Session {
    account: Account,
    http: Http,
    contact: Option<String>,
    profile: Option<String>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({})", self.account.id())
    }
}

impl Session {
    fn failed(&self, error: instant_acme::Error, stage: Stage) -> AcmeError {
        failure(error, stage, self.http.retry_at())
    }

    /// Opens an order; its URL. `replaced` is the chain that its certificate is to replace (RFC 9773 §5).
    pub async fn place(&self, name: &str, replaced: Option<&str>) -> Result<String, AcmeError> {
        let names = [Identifier::Dns(name.to_owned())];
        let order = || {
            let order = NewOrder::new(&names);
            match &self.profile {
                Some(profile) => order.profile(profile),
                None => order,
            }
        };
        let chain = replaced.and_then(|pem| issued::chain(pem).ok());
        let replaces = chain.as_ref().and_then(|c| CertificateIdentifier::try_from(&c[0]).ok());
        if let Some(replaces) = replaces {
            match self.open(&order().replaces(replaces)).await {
                // It was replaced already, or the CA is another one by now: an order like any other will do.
                Ok(None) | Err(AcmeError::Refused { retry_at: None, .. }) => {}
                Ok(Some(url)) => return Ok(url),
                Err(other) => return Err(other),
            }
        }
        let opened = self.open(&order()).await?;
        opened.ok_or(AcmeError::Unsupported("orders of this kind"))
    }

    /// Opens an order; `None` when the CA has no such orders.
    async fn open(&self, order: &NewOrder<'_>) -> Result<Option<String>, AcmeError> {
        match self.account.new_order(order).await {
            Ok(order) => Ok(Some(order.url().to_owned())),
            Err(instant_acme::Error::Unsupported(_)) => Ok(None),
            // It is open, though the answer was not to the library's liking: as from a CA that does not repeat what the
            // order replaces (RFC 9773 §5). Another one would be one too many.
            Err(e) => match self.http.created() {
                Some(url) => Ok(Some(url)),
                None => Err(self.not_opened(e).await),
            },
        }
    }

    /// Why an order is not open.
    async fn not_opened(&self, error: instant_acme::Error) -> AcmeError {
        let is_unauthorized = is_unauthorized(&error);
        match self.failed(error, Stage::Placing) {
            AcmeError::Refused { reason, .. } if is_unauthorized && self.is_gone().await => {
                AcmeError::AccountGone(reason)
            }
            other => other,
        }
    }

    /// Whether the CA does not take the account any more: it is told the contact that it has, which it takes from an
    /// account that is valid. An order may be refused in the same words for reasons of its own, and a new account would
    /// change nothing.
    async fn is_gone(&self) -> bool {
        let contact: Vec<&str> = self.contact.as_deref().into_iter().collect();
        match self.account.update_contacts(&contact).await {
            Err(e) => is_unauthorized(&e) || matches!(self.failed(e, Stage::Other), AcmeError::AccountGone(_)),
            Ok(()) => false,
        }
    }

    async fn order(&self, url: &str) -> Result<Order, AcmeError> {
        let order = self.account.order(url.to_owned()).await;
        order.map_err(|e| self.failed(e, Stage::Order))
    }

    /// How far an order is, and when the CA wants it looked at again.
    pub async fn look(&self, url: &str) -> Result<(Progress, Option<Millis>), AcmeError> {
        let mut order = self.order(url).await?;
        // Only what the order itself said counts from here.
        let retry_at = self.http.retry_at();
        let progress = match order.state().status {
            OrderStatus::Pending => Progress::Pending,
            OrderStatus::Ready => Progress::Ready,
            OrderStatus::Processing => Progress::Processing,
            OrderStatus::Valid => Progress::Valid,
            OrderStatus::Invalid => return Err(self.why_invalid(order).await),
        };
        Ok((progress, retry_at))
    }

    /// The order's own error, else that of the challenge that was not met.
    async fn why_invalid(&self, mut order: Order) -> AcmeError {
        let mut problem = None;
        let mut authorizations = order.authorizations();
        while let Some(Ok(authorization)) = authorizations.next().await {
            if let Some(error) = authorization.challenges.iter().find_map(|c| c.error.clone()) {
                problem = Some(error);
            }
        }
        let problem = problem.or_else(|| order.state().error.clone());
        let reason = problem.map_or_else(
            || "The CA has ended the order without a reason.".to_owned(),
            |problem| problem::in_words(&problem),
        );
        AcmeError::Refused { reason, retry_at: None }
    }

    /// What is to be answered to an order's challenges that are not met yet.
    pub async fn challenges(&self, url: &str, proof: Proof) -> Result<Vec<ChallengeAnswer>, AcmeError> {
        let mut order = self.order(url).await?;
        let mut answers = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(|e| self.failed(e, Stage::Order))?;
            if authorization.status != AuthorizationStatus::Pending {
                continue;
            }
            let challenge = authorization
                .challenge(proof.kind())
                .ok_or_else(|| AcmeError::Refused {
                    reason: format!("The CA offers no {proof:?} challenge."),
                    retry_at: None,
                })?;
            answers.push(ChallengeAnswer {
                token: challenge.token.clone(),
                key_authorization: challenge.key_authorization().as_str().to_owned(),
            });
        }
        Ok(answers)
    }

    /// Tells the CA that it may look. Whether that met the challenges, the order shows.
    pub async fn ready(&self, url: &str, proof: Proof) -> Result<(), AcmeError> {
        let mut order = self.order(url).await?;
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(|e| self.failed(e, Stage::Order))?;
            if authorization.status != AuthorizationStatus::Pending {
                continue;
            }
            let Some(mut challenge) = authorization.challenge(proof.kind()) else {
                continue;
            };
            if challenge.status != ChallengeStatus::Pending {
                continue;
            }
            match challenge.set_ready().await.map_err(|e| self.failed(e, Stage::Order)) {
                // It had been told before, and knows by now.
                Err(AcmeError::Refused { retry_at: None, .. } | AcmeError::OrderGone(_)) | Ok(()) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(())
    }

    /// Sends the request; how far the order is then.
    pub async fn finalize(&self, url: &str, csr: &[u8]) -> Result<(Progress, Option<Millis>), AcmeError> {
        let mut order = self.order(url).await?;
        if order.state().status == OrderStatus::Ready {
            order
                .finalize_csr(csr)
                .await
                .map_err(|e| self.failed(e, Stage::Order))?;
        }
        self.look(url).await
    }

    /// The certificate's chain, PEM; `None` while it is being made.
    pub async fn download(&self, url: &str) -> Result<Option<String>, AcmeError> {
        let mut order = self.order(url).await?;
        order.certificate().await.map_err(|e| self.failed(e, Stage::Order))
    }

    /// When the CA wants a certificate renewed, from when until when; and when to ask again.
    pub async fn window(&self, chain: &str) -> Result<(Millis, Millis, Millis), AcmeError> {
        let certificates = issued::chain(chain).map_err(|_| AcmeError::Unsupported("renewal windows"))?;
        let id =
            CertificateIdentifier::try_from(&certificates[0]).map_err(|_| AcmeError::Unsupported("renewal windows"))?;
        let (info, wait) = self
            .account
            .renewal_info(&id)
            .await
            .map_err(|e| self.failed(e, Stage::Other))?;
        let millis = |t: time::OffsetDateTime| t.unix_timestamp() * 1000;
        let window = info.suggested_window;
        Ok((
            millis(window.start),
            millis(window.end),
            in_millis(SystemTime::now() + wait),
        ))
    }
}

/// A point in time as the life cycle counts.
pub fn in_millis(time: SystemTime) -> Millis {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    since.as_millis() as Millis
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_directory_tells_what_the_ca_is_called() {
        let named = br#"{"newNonce": "https://ca/n", "meta": {"caaIdentities": ["CA.example.net", "b"]}}"#;
        for (status, body, expected) in [
            (StatusCode::OK, &named[..], Some("ca.example.net b")),
            (StatusCode::OK, br#"{"newNonce": "https://ca/n"}"#, Some("")),
            (StatusCode::OK, b"<html>Back soon</html>", None),
            (StatusCode::OK, b"", None),
            (StatusCode::SERVICE_UNAVAILABLE, br#"{"type": "about:blank"}"#, None),
            (StatusCode::NOT_FOUND, named, None),
        ] {
            let told = names(status, body).map(|names| names.join(" "));
            let told = told.map_err(|e| matches!(e, AcmeError::Unreachable { .. }));
            let expected = expected.map(str::to_owned).ok_or(true);
            assert_eq!(told, expected, "{status} {}", String::from_utf8_lossy(body));
        }
    }
}
