//! What is seen of certificates: days left, failures, and a warning when one comes too near its end.

use edgeweir_model::{CertificateRef, Fqdn, Timestamp};
use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::Counter, gauge::ConstGauge},
    registry::Registry,
};
use std::{collections::HashMap, fmt, sync::Arc};

/// In seconds.
const DAY: i64 = 86_400;
/// A certificate should not come nearer to its end than this.
const NEAR: i64 = 14 * DAY;

type Served = Arc<Mutex<Vec<CertificateRef>>>;

/// Counts and warns. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct CertificateMetrics {
    served: Served,
    failures: Counter,
    /// When each domain was warned of.
    warned: Arc<Mutex<HashMap<Fqdn, i64>>>,
}

/// Days are counted when somebody asks.
#[derive(Debug)]
struct DaysLeft(Served);

impl Collector for DaysLeft {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let now = Timestamp::now();
        let name = "edgeweir_certificate_days_left";
        let help = "Days until a domain's certificate ends";
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for certificate in self.0.lock().iter() {
            let days = (certificate.not_after.0 - now.0) as f64 / DAY as f64;
            let labels = [("domain", certificate.host.as_str())];
            ConstGauge::new(days).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

impl CertificateMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(DaysLeft(self.served.clone())));
        registry.register(
            "edgeweir_certificate_failures",
            "Tries to get a certificate that failed",
            self.failures.clone(),
        );
    }

    /// A try has failed.
    pub(crate) fn failed(&self) {
        self.failures.inc();
    }

    /// These certificates serve now.
    pub(crate) fn serve(&self, certificates: &[CertificateRef]) {
        *self.served.lock() = certificates.to_vec();
    }

    /// Warns of what is near its end, once a day.
    pub(crate) fn warn(&self, now: Timestamp) {
        let (served, mut warned) = (self.served.lock(), self.warned.lock());
        let before = std::mem::take(&mut *warned);
        for certificate in served.iter().filter(|c| c.not_after.0 - now.0 < near(c)) {
            let last = before.get(&certificate.host).copied();
            let last = last.filter(|at| (0..DAY).contains(&(now.0 - at)));
            if last.is_none() {
                let (domain, not_after) = (&certificate.host, certificate.not_after);
                tracing::warn!(%domain, %not_after, "a certificate comes near its end");
            }
            warned.insert(certificate.host.clone(), last.unwrap_or(now.0));
        }
    }
}

/// 14 days; for a short life a little less than the third that is left when its renewal is due.
fn near(certificate: &CertificateRef) -> i64 {
    NEAR.min((certificate.not_after.0 - certificate.not_before.0) * 3 / 10)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn certificate(days: i64) -> CertificateRef {
        CertificateRef {
            host: "x.example.com".parse().unwrap(),
            id: 1,
            not_before: Timestamp(0),
            not_after: Timestamp(days * DAY),
        }
    }

    #[test]
    fn near_its_end_is_later_than_the_renewal() {
        for (days, expected) in [(90, 14 * DAY), (10, 3 * DAY)] {
            assert_eq!(near(&certificate(days)), expected);
        }
    }

    #[test]
    fn what_serves_is_seen_and_what_ends_is_warned_of_once_a_day() {
        let metrics = CertificateMetrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        metrics.serve(&[certificate(90)]);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(
            text.contains("edgeweir_certificate_days_left{domain=\"x.example.com\"} -"),
            "{text}"
        );
        assert!(text.contains("edgeweir_certificate_failures_total 0"), "{text}");
        let last = |metrics: &CertificateMetrics| metrics.warned.lock().values().copied().collect::<Vec<_>>();
        for (day, warned) in [(75, None), (77, Some(77)), (77, Some(77)), (79, Some(79))] {
            metrics.warn(Timestamp(day * DAY));
            assert_eq!(
                last(&metrics),
                warned.map(|d: i64| d * DAY).into_iter().collect::<Vec<_>>()
            );
        }
    }
}
