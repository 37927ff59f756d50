//! The cache's figures, read when they are asked for.

use edgeweir_cache::{Cache, disk::DiskStats};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};
use std::{fmt, sync::Arc};

#[derive(Debug)]
pub(crate) struct CacheMetrics(pub(crate) Arc<Cache>);

impl Collector for CacheMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let stats = self.0.stats();
        let mut gauge = |name, help, value: u64| one(&mut encoder, name, help, &ConstGauge::new(value as i64));
        gauge(
            "edgeweir_cache_memory_entries",
            "Keys with responses in memory",
            stats.entries,
        )?;
        gauge(
            "edgeweir_cache_memory_bytes",
            "Bytes of responses in memory",
            stats.bytes,
        )?;
        let on = stats.disk.as_ref().is_some_and(|disk| disk.on);
        gauge("edgeweir_cache_disk_on", "Whether the disk tier is in use", on.into())?;
        stats.disk.map_or(Ok(()), |disk| of_disk(&mut encoder, &disk))
    }
}

fn of_disk(encoder: &mut DescriptorEncoder, disk: &DiskStats) -> fmt::Result {
    for (name, help, value) in [
        ("entries", "Responses and slices on disk", disk.entries),
        ("bytes", "Bytes of the disk tier's files", disk.bytes),
        ("limit_bytes", "Most bytes of the disk tier's files", disk.limit),
        (
            "queued_bytes",
            "Bytes that wait to be written to disk",
            disk.queued_bytes,
        ),
        (
            "index_bytes",
            "Bytes of memory that the disk tier's index takes",
            disk.index_bytes,
        ),
    ] {
        one(
            encoder,
            &format!("edgeweir_cache_disk_{name}"),
            help,
            &ConstGauge::new(value as i64),
        )?;
    }
    for (name, help, value) in [
        (
            "reads_at_hand",
            "Reads that the system had in memory",
            disk.reads_at_hand,
        ),
        ("reads_waited", "Reads that waited for the disk", disk.reads_waited),
        ("reads_given_up", "Reads that took too long", disk.reads_given_up),
        ("writes", "Records written to disk", disk.writes),
        ("written_bytes", "Bytes written to disk", disk.written_bytes),
        ("copied", "Records kept when their file went", disk.copied),
        ("dropped", "Records not kept as the writer was behind", disk.dropped),
        (
            "refused",
            "Records not kept as they were new to a full disk",
            disk.refused,
        ),
        ("too_large", "Records that no file can hold", disk.too_large),
        ("corrupt", "Records that failed their checksum", disk.corrupt),
        ("errors", "Failures of the disk", disk.errors),
        ("turned_off", "Times that the disk tier was turned off", disk.turned_off),
    ] {
        one(
            encoder,
            &format!("edgeweir_cache_disk_{name}"),
            help,
            &ConstCounter::new(value),
        )?;
    }
    Ok(())
}

fn one(encoder: &mut DescriptorEncoder, name: &str, help: &str, metric: &impl EncodeMetric) -> fmt::Result {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}
