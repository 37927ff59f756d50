//! What is seen of certificates: days left, failures, and a warning when one comes too near its end.

use super::lock;
use edgeweir_certs::lifecycle::{Certificate, Millis, State};
use edgeweir_store::Store;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, atomic::AtomicU64},
};

const DAY: Millis = 86_400_000;
/// A certificate should not come nearer to its end than this.
const NEAR: Millis = 14 * DAY;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DomainLabel {
    domain: String,
}

/// Counts and warns. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct CertificateMetrics {
    days_left: Family<DomainLabel, Gauge<f64, AtomicU64>>,
    failures: Counter,
    /// When each domain was warned of.
    warned: Arc<Mutex<HashMap<String, Millis>>>,
}

impl CertificateMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "edgeweir_certificate_days_left",
            "Days until a domain's certificate ends",
            self.days_left.clone(),
        );
        registry.register(
            "edgeweir_certificate_failures",
            "Tries to get a certificate that failed",
            self.failures.clone(),
        );
    }

    pub(super) fn failed(&self) {
        self.failures.inc();
    }

    /// Brings the days left up to date, and warns of what is near its end, once a day.
    pub(super) async fn measure(&self, store: &Store, now: Millis) {
        let Ok(states) = store.issuance_states().await else {
            return;
        };
        self.days_left.clear();
        let mut warned = lock(&self.warned);
        let before = std::mem::take(&mut *warned);
        for (domain, json) in states {
            let state = serde_json::from_str::<State>(&json).ok();
            let Some(certificate) = state.and_then(|state| state.certificate) else {
                continue;
            };
            let left = certificate.not_after - now;
            if left < near(&certificate) {
                let last = before.get(&domain).copied().filter(|at| (0..DAY).contains(&(now - at)));
                if last.is_none() {
                    tracing::warn!(
                        domain,
                        hours_left = left / 3_600_000,
                        "a certificate comes near its end"
                    );
                }
                warned.insert(domain.clone(), last.unwrap_or(now));
            }
            let gauge = self.days_left.get_or_create_owned(&DomainLabel { domain });
            gauge.set(left as f64 / DAY as f64);
        }
    }
}

/// 14 days; for a short life a little less than the third that is left when its renewal is due.
fn near(certificate: &Certificate) -> Millis {
    NEAR.min((certificate.not_after - certificate.not_before) * 3 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_its_end_is_later_than_the_renewal() {
        for (days, expected) in [(90, 14 * DAY), (10, 3 * DAY)] {
            let certificate = Certificate {
                not_before: 0,
                not_after: days * DAY,
                renew_at: 0,
                window: None,
                look_at: None,
            };
            assert_eq!(near(&certificate), expected);
        }
    }
}
