//! What the edge counts.

use crate::{fetch::Answer, refusal::Reason};
use edgeweir_cache::FetchStatus;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CacheLabel {
    cache: Outcome,
}

/// How the cache took part in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Outcome {
    Hit,
    Stale,
    Revalidated,
    Miss,
    Collapsed,
    Pass,
}

impl Outcome {
    pub(crate) fn of(answer: &Answer) -> Self {
        match answer {
            Answer::Fresh(..) | Answer::Part(_) => Self::Hit,
            Answer::Stale(_) => Self::Stale,
            Answer::Fetched(_, how, ..) => match how {
                FetchStatus::Miss => Self::Miss,
                FetchStatus::Collapsed | FetchStatus::Confirmed => Self::Collapsed,
                FetchStatus::Stored => Self::Hit,
                FetchStatus::Revalidated | FetchStatus::Unkept => Self::Revalidated,
                FetchStatus::StaleIfError(_) => Self::Stale,
            },
            Answer::Stream(stream, _) if stream.status == FetchStatus::Collapsed => Self::Collapsed,
            Answer::Stream(..) => Self::Miss,
            Answer::Own(..) | Answer::Through(..) => Self::Pass,
        }
    }
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
    live: LiveMetrics,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SuccessLabel {
    ok: &'static str,
}

/// What is counted of live streams. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct LiveMetrics {
    pushes: Family<SuccessLabel, Counter>,
    polls: Family<SuccessLabel, Counter>,
    held: Gauge,
}

/// A request that is held, until this is dropped.
pub(crate) struct Held(Gauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl LiveMetrics {
    pub(crate) fn pushed(&self, ok: bool) {
        count(&self.pushes, ok);
    }

    pub(crate) fn polled(&self, ok: bool) {
        count(&self.polls, ok);
    }

    pub(crate) fn held(&self) -> Held {
        self.held.inc();
        Held(self.held.clone())
    }
}

fn count(family: &Family<SuccessLabel, Counter>, ok: bool) {
    let ok = if ok { "true" } else { "false" };
    family.get_or_create(&SuccessLabel { ok }).inc();
}

impl Default for Metrics {
    fn default() -> Self {
        let answers = Family::<CacheLabel, Counter>::default();
        let hits = answers.get_or_create(&CacheLabel { cache: Outcome::Hit }).clone();
        Self {
            answers,
            hits,
            refusals: Family::default(),
            live: LiveMetrics::default(),
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
        let live = &self.live;
        registry.register(
            "edgeweir_live_pushes",
            "Files that encoders pushed",
            live.pushes.clone(),
        );
        registry.register("edgeweir_live_polls", "Polls of pulled playlists", live.polls.clone());
        registry.register(
            "edgeweir_live_held",
            "Requests that wait for a live playlist",
            live.held.clone(),
        );
    }

    /// The part that live streams count with.
    pub(crate) fn live(&self) -> LiveMetrics {
        self.live.clone()
    }

    pub(crate) fn hit(&self) {
        self.hits.inc();
    }

    pub(crate) fn answered(&self, cache: Outcome) {
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
