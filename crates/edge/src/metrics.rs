//! What the edge counts.

use crate::{fetch::Answer, refusal::Reason};
use edgeweir_cache::FetchStatus;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CacheLabel {
    cache: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Outcome {
    Hit,
    Stale,
    Revalidated,
    Miss,
    Collapsed,
    Pass,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabel {
    error: &'static str,
}

/// The edge's counters. Counting a hit is one addition: its counter is at hand, not looked up.
#[derive(Debug)]
pub(crate) struct Metrics {
    answers: Family<CacheLabel, Counter>,
    hits: Counter,
    refusals: Family<ErrorLabel, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let answers = Family::<CacheLabel, Counter>::default();
        let hits = answers.get_or_create(&CacheLabel { cache: Outcome::Hit }).clone();
        Self {
            answers,
            hits,
            refusals: Family::default(),
        }
    }
}

impl Metrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "edgeweir_edge_answers",
            "Answers, by how the cache took part",
            self.answers.clone(),
        );
        registry.register(
            "edgeweir_edge_refusals",
            "Refused requests, by reason",
            self.refusals.clone(),
        );
    }

    pub(crate) fn hit(&self) {
        self.hits.inc();
    }

    pub(crate) fn answered(&self, answer: &Answer) {
        let cache = match answer {
            Answer::Stale(_) | Answer::Fetched(_, FetchStatus::StaleIfError) => Outcome::Stale,
            Answer::Fetched(_, FetchStatus::Revalidated) => Outcome::Revalidated,
            Answer::Fetched(_, FetchStatus::Collapsed) => Outcome::Collapsed,
            Answer::Stream(stream) if stream.status == FetchStatus::Collapsed => Outcome::Collapsed,
            Answer::Fetched(_, FetchStatus::Miss) | Answer::Stream(_) => Outcome::Miss,
            Answer::Own(_) | Answer::Through(_) => Outcome::Pass,
        };
        self.answers.get_or_create(&CacheLabel { cache }).inc();
    }

    pub(crate) fn refused(&self, reason: &Reason) {
        self.refusals
            .get_or_create(&ErrorLabel {
                error: reason.status().1,
            })
            .inc();
    }
}
