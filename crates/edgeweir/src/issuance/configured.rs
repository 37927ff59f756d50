//! The worker as a configuration wants it.

use super::{Issuance, Parts};
use crate::{
    Failure,
    certificates::CertificateMetrics,
    config::{ChallengeKind, Config, ConfigError},
};
use edgeweir_certs::{
    Sealer,
    acme::{Acme, AcmeConfig, Proof},
    dns::{Dns, Wanted},
};
use edgeweir_store::Store;
use std::sync::Arc;

impl Issuance {
    /// The worker that gets certificates, where a CA is configured. Nothing is asked yet.
    pub(crate) fn configured(
        config: &Config,
        store: &Store,
        sealer: Arc<Sealer>,
        holder: String,
        metrics: CertificateMetrics,
    ) -> Result<Option<Arc<Self>>, Failure> {
        let acme = &config.acme;
        if acme.directory.is_empty() {
            return Ok(None);
        }
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let roots = match given(&acme.ca_bundle) {
            Some(path) => {
                let text = std::fs::read_to_string(&path);
                Some(text.map_err(|e| ConfigError::value("acme.ca_bundle", &format!("{path}: {e}")))?)
            }
            None => None,
        };
        let contact = given(&acme.contact).map(|contact| {
            let is_uri = contact.starts_with("mailto:");
            if is_uri { contact } else { format!("mailto:{contact}") }
        });
        let external_account = given(&acme.eab_key_id).zip(config.eab_hmac_key());
        let ca = Acme::new(AcmeConfig {
            directory: acme.directory.clone(),
            contact,
            roots,
            external_account,
            profile: given(&acme.profile),
        })
        .map_err(|e| ConfigError::value("acme.ca_bundle", &format!("cannot be used: {e}")))?;
        let dns = Dns::new(config.dns.resolver.0).map_err(|e| {
            Failure::Failed(format!(
                "the system's DNS servers are not known ({e}): set dns.resolver"
            ))
        })?;
        let proof = match acme.challenge {
            ChallengeKind::Http01 => Proof::Http01,
            ChallengeKind::Auto if config.listen.http.0.is_some() => Proof::Http01,
            ChallengeKind::Auto | ChallengeKind::TlsAlpn01 => Proof::TlsAlpn01,
        };
        Ok(Some(Self::new(Parts {
            store: store.clone(),
            acme: ca,
            dns,
            sealer,
            directory: acme.directory.clone(),
            wanted: Wanted {
                target: config.edge_target().trim_end_matches('.').to_ascii_lowercase(),
                addresses: config.dns.addresses.clone(),
                issuers: Vec::new(),
            },
            proof,
            holder,
            metrics,
        })))
    }
}
