//! Purges, and changes that went through the cache. A purge wins over a fetch that began before it.

use super::{Cache, Shard};
use crate::{
    entry::{Came, Content, Entry, Now},
    fill::{Fill, ResponseHead},
    key::KeyRef,
    policy::{self, Settings},
    purges::{Rule, Scope, SurrogateKeys, Verdict},
};
use bytes::Bytes;
use edgeweir_model::{Purge, Purged};
use http::{HeaderMap, Method};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

/// A change of an object that is under way: see [`Cache::mark`].
#[derive(Debug, Clone)]
pub struct Mark {
    /// Whether the object was purged by its path since.
    purged: Arc<AtomicBool>,
    /// The number of the last purge when it began.
    born: u64,
}

impl Mark {
    fn purge(&self) {
        self.purged.store(true, Ordering::Release);
    }

    /// Whether whoever made the change has ended it.
    fn is_over(&self) -> bool {
        Arc::strong_count(&self.purged) == 1
    }
}

impl Cache {
    /// Forgets a path: every query and variant of it in this generation. Fetches of it under way finish for those who
    /// read them, and are not stored.
    pub fn purge(&self, site: i64, generation: u64, path: &str) {
        let key = of_path(site, generation, path);
        self.purge_in(&mut self.shard(key).lock(), key);
    }

    /// Purges what is named of a site, whose present generation this is. Costs the same however much is stored.
    pub fn purge_by(&self, site: i64, generation: u64, purge: &Purge) {
        match &purge.what {
            Purged::Object(key) if !purge.soft => self.purge(site, generation, key.as_str()),
            _ => Rule::of(site, purge).for_each(|rule| self.add(&rule)),
        }
    }

    /// The same of a site of which nothing is kept on disk, see [`Settings::memory_only`]: the purge of an object leaves
    /// nothing behind.
    pub fn purge_in_memory(&self, site: i64, generation: u64, purge: &Purge) {
        match &purge.what {
            Purged::Object(key) if !purge.soft => {
                let key = of_path(site, generation, key.as_str());
                self.forget(&mut self.shard(key).lock(), key);
            }
            _ => self.purge_by(site, generation, purge),
        }
    }

    /// Forgets everything, as [`Cache::purge`] does it for one path.
    pub fn purge_everything(&self) {
        let record = self.purges.add_everything();
        if let Some(tier) = &self.tier {
            tier.note(record);
            tier.clear();
        }
        for shard in &self.shards {
            let mut shard = shard.lock();
            for fill in shard.fills.values().chain(&shard.superseded) {
                fill.doom();
            }
            shard.changes.iter().for_each(|(_, mark)| mark.purge());
            *shard = Shard::default();
        }
        self.stored.clear();
    }

    /// Notes a change of an object before it is asked for, so that a purge until [`Cache::replace`] is known to it.
    pub fn mark(&self, key: KeyRef<'_>) -> Mark {
        let mark = Mark {
            purged: Arc::default(),
            born: self.purges.now(),
        };
        let mut shard = self.shard(key).lock();
        shard.changes.retain(|(_, mark)| !mark.is_over());
        shard.changes.push((key.resource().to_owned(), mark.clone()));
        mark
    }

    /// Purges a path, and stores under one query of it what a request that changed it was answered with, unless somebody
    /// else purged it since `mark` or it may not be stored. `request` holds the fields that choose a variant.
    pub fn replace(
        &self,
        key: KeyRef<'_>,
        mark: &Mark,
        request: &HeaderMap,
        head: ResponseHead,
        body: &[u8],
        settings: &Settings,
    ) {
        let now = Now::now();
        let explicit = policy::is_explicit(&head.headers)
            && policy::storable(&Method::GET, request, head.status, &head.headers, settings);
        let fits = body.len() as u64 <= self.config.max_object_bytes;
        let mut shard = self.shard(key).lock();
        let purged = mark.purged.load(Ordering::Acquire)
            || self.verdict(key, mark.born, &SurrogateKeys::of(&head.headers)) != Verdict::Kept;
        self.purge_in(&mut shard, key.resource());
        if !explicit || !fits || purged {
            return;
        }
        let came = Came {
            now,
            delay: Duration::ZERO,
            born: self.purges.now(),
        };
        // A copy: what came is a window on a large read buffer.
        let content = Content::Whole(Bytes::copy_from_slice(body).into());
        if let Some(entry) = Entry::new(head, content, request, came, settings) {
            self.store(&mut shard, &key.to_owned(), Arc::new(entry));
        }
    }

    /// The change-log entry up to which everything that outlives this process is purged; `None` when nothing is held from
    /// before.
    pub fn position(&self) -> Option<u64> {
        self.purges.position()
    }

    /// Notes that what the change log purges up to this entry is purged, so that a later process goes on after it.
    pub fn settle(&self, sequence: u64) {
        if let Some(tier) = &self.tier {
            tier.settle(&self.purges, sequence);
        }
    }

    /// Waits until what was purged and noted before is written down. Purges themselves never wait for a disk.
    pub async fn persist(self: &Arc<Self>) {
        if let Some(tier) = &self.tier {
            let (cache, writer) = (self.clone(), tier.clone());
            tier.persist(move || writer.flush(&cache.purges)).await;
        }
    }

    /// Writes what is to be kept on disk, and what was purged; nothing more is kept there after that. Blocks.
    pub fn shutdown(&self) {
        if let Some(tier) = &self.tier {
            tier.shutdown(&self.purges);
        }
    }

    fn add(&self, rule: &Rule<'_>) {
        let record = self.purges.add(rule, SystemTime::now());
        if let Some(tier) = &self.tier {
            tier.note(record);
        }
    }

    fn purge_in(&self, shard: &mut Shard, path: KeyRef<'_>) {
        if let Some(tier) = &self.tier {
            // Queries and what is read at this moment are out of reach by hash.
            self.add(&Rule {
                site: path.site,
                scope: Scope::Path(path.path),
                soft: false,
            });
            tier.forget(path);
        }
        self.forget(shard, path);
    }

    /// Forgets what memory has of a path, and what is under way to it.
    fn forget(&self, shard: &mut Shard, path: KeyRef<'_>) {
        shard.changes.retain(|(changing, mark)| {
            let purged = changing.borrow() == path;
            if purged {
                mark.purge();
            }
            !purged && !mark.is_over()
        });
        let stays = |fill: &Arc<Fill>| {
            let purged = fill.key.borrow().resource() == path;
            if purged {
                fill.doom();
            }
            !purged
        };
        shard.fills.retain(|_, fill| stays(fill));
        shard.superseded.retain(stays);
        self.stored.purge(&mut shard.index, path);
    }
}

fn of_path(site: i64, generation: u64, path: &str) -> KeyRef<'_> {
    KeyRef {
        site,
        generation,
        path,
        query: "",
    }
}

#[cfg(test)]
mod tests;
