//! The whole state, as the edge serves from it. A row that cannot be read is left out, with what hangs on it, so that
//! its host is unknown: everything else goes on being served, and changed.

use crate::{
    Store, StoreError,
    buckets::{cors, origin},
    changes::{last, policy},
    page::parse,
};
use edgeweir_model::{
    Bucket, BucketId, CertificateRef, Challenge, Content, Fqdn, KeyRing, LiveDomain, LiveOrigin, LiveStream, ProjectId,
    PublicKey, SigningKeyId, Site, Snapshot, SnapshotBuilder, StreamKeyHash, Timestamp,
};
use sqlx::{SqliteConnection, query_as};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

/// Keys by what they open.
struct Rings<K>(HashMap<K, Vec<(SigningKeyId, PublicKey)>>);

impl<K: Eq + Hash> Rings<K> {
    fn add(&mut self, owner: K, id: SigningKeyId, key: PublicKey) {
        self.0.entry(owner).or_default().push((id, key));
    }

    fn take(&mut self, owner: &K) -> KeyRing {
        self.0.remove(owner).unwrap_or_default().into_iter().collect()
    }
}

/// What a snapshot lacks, and why.
#[derive(Default)]
struct LeftOut(BTreeMap<String, StoreError>);

impl LeftOut {
    fn add(&mut self, error: StoreError, what: String) {
        self.0.insert(what, error);
    }

    /// What was read, unless it was not: then it is noted.
    fn unless_read<T>(&mut self, read: Result<T, StoreError>, what: impl FnOnce() -> String) -> Option<T> {
        read.map_err(|e| self.add(e, what())).ok()
    }

    /// Logs what was not left out the last time already.
    fn report(self, before: &Mutex<BTreeSet<String>>) {
        let mut before = before.lock().unwrap_or_else(PoisonError::into_inner);
        for (what, error) in self.0.iter().filter(|(what, _)| !before.contains(*what)) {
            tracing::error!(what, %error, "left out of what is served: its row cannot be read");
        }
        *before = self.0.into_keys().collect();
    }
}

type StreamRow = (String, i64, String, Option<String>, Option<Vec<u8>>, String);

fn live_origin(pull: Option<String>, key: Option<Vec<u8>>) -> Result<LiveOrigin, StoreError> {
    match (pull, key) {
        (Some(url), None) => parse(&url, "pull URL").map(|url| LiveOrigin::Pull(Arc::new(url))),
        (None, Some(hash)) => {
            let hash = hash.try_into().map_err(|_| StoreError::Corrupt("stream key"))?;
            Ok(LiveOrigin::Ingest(StreamKeyHash(hash)))
        }
        _ => Err(StoreError::Corrupt("stream origin")),
    }
}

type KeyRow = (String, Option<String>, Option<String>, Option<i64>, Vec<u8>);

impl Store {
    /// The state of the service at `zone`, read in one transaction, with the change-log entry that it stands at.
    pub async fn snapshot(&self, zone: &Fqdn) -> Result<Snapshot, StoreError> {
        let mut db = self.begin_read().await?;
        let mut builder = SnapshotBuilder::new(zone.clone(), last(&mut db).await?);
        let mut left_out = LeftOut::default();

        let (mut of_domains, mut of_streams, mut of_buckets) =
            (Rings(HashMap::new()), Rings(HashMap::new()), Rings(HashMap::new()));
        let rows: Vec<KeyRow> = query_as("SELECT id, domain_id, stream_id, bucket_id, public_key FROM signing_keys")
            .fetch_all(&mut *db)
            .await?;
        for (id, domain, stream, bucket, key) in rows {
            let read = parse(&id, "signing key id");
            let Some(kid) = left_out.unless_read(read, || format!("signing key {id}")) else {
                continue;
            };
            let key = PublicKey(key.into());
            match (domain, stream, bucket) {
                (Some(owner), None, None) => of_domains.add(owner, kid, key),
                (None, Some(owner), None) => of_streams.add(owner, kid, key),
                (None, None, Some(owner)) => of_buckets.add(owner, kid, key),
                _ => left_out.add(StoreError::Corrupt("signing key"), format!("signing key {id}")),
            }
        }

        let mut buckets = HashMap::new();
        let rows: Vec<(i64, i64, String, String, String, String, String, i64)> =
            query_as("SELECT id, project_id, name, region, origin, policy, cors, generation FROM buckets")
                .fetch_all(&mut *db)
                .await?;
        for (id, project, name, region, from, access, headers, generation) in rows {
            let read = || {
                Ok(Arc::new(Bucket {
                    id: BucketId(id),
                    name: parse(&name, "bucket name")?,
                    project: ProjectId(project),
                    region,
                    generation: generation as u64,
                    origin: origin(&from)?,
                    policy: policy(&access)?,
                    cors: cors(&headers)?,
                    keys: of_buckets.take(&id),
                }))
            };
            let Some(bucket) = left_out.unless_read(read(), || format!("bucket {name}")) else {
                continue;
            };
            builder.bucket(&bucket);
            buckets.insert(id, bucket);
        }

        let mut streams: HashMap<i64, Vec<Arc<LiveStream>>> = HashMap::new();
        let rows: Vec<StreamRow> =
            query_as("SELECT id, project_id, playback_id, pull_url, key_hash, policy FROM streams")
                .fetch_all(&mut *db)
                .await?;
        for (id, project, playback_id, pull, key, access) in rows {
            let read = || {
                Ok(Arc::new(LiveStream {
                    id: parse(&id, "stream id")?,
                    project: ProjectId(project),
                    playback_id: playback_id.into(),
                    origin: live_origin(pull, key)?,
                    policy: policy(&access)?,
                    keys: of_streams.take(&id),
                }))
            };
            let Some(stream) = left_out.unless_read(read(), || format!("live stream {id}")) else {
                continue;
            };
            builder.stream(&stream);
            streams.entry(project).or_default().push(stream);
        }

        let rows: Vec<(String, i64, String, Option<i64>, String)> =
            query_as("SELECT id, project_id, name, bucket_id, policy FROM domains")
                .fetch_all(&mut *db)
                .await?;
        for (id, project, name, bucket, access) in rows {
            let mut read = || {
                let content = match bucket {
                    Some(id) => Content::Bucket(buckets.get(&id).cloned().ok_or(StoreError::Corrupt("bucket"))?),
                    None => Content::LiveDomain(LiveDomain {
                        streams: streams
                            .get(&project)
                            .into_iter()
                            .flatten()
                            .map(|s| (s.playback_id.clone(), s.clone()))
                            .collect(),
                    }),
                };
                Ok(Site {
                    host: parse(&name, "domain name")?,
                    project: ProjectId(project),
                    content,
                    policy: policy(&access)?,
                    keys: of_domains.take(&id),
                })
            };
            if let Some(site) = left_out.unless_read(read(), || format!("playback domain {name}")) {
                builder.domain(site);
            }
        }
        certificates(&mut db, &mut builder, &mut left_out).await?;
        left_out.report(&self.0.left_out);
        Ok(builder.build())
    }
}

/// What CAs have issued, and what they are to be answered.
async fn certificates(
    db: &mut SqliteConnection,
    builder: &mut SnapshotBuilder,
    left_out: &mut LeftOut,
) -> Result<(), StoreError> {
    let rows: Vec<(String, i64, i64, i64)> = query_as(
        "SELECT d.name, c.id, c.not_before, c.not_after FROM certificates c JOIN subscriptions s ON s.id = c.subscription_id
         JOIN domains d ON d.id = s.domain_id",
    )
    .fetch_all(&mut *db)
    .await?;
    for (name, id, not_before, not_after) in rows {
        if let Some(host) = left_out.unless_read(parse(&name, "domain name"), || format!("certificate of {name}")) {
            builder.certificate(CertificateRef {
                host,
                id,
                not_before: Timestamp(not_before),
                not_after: Timestamp(not_after),
            });
        }
    }
    let rows: Vec<(String, String, String)> = query_as(
        "SELECT d.name, c.token, c.key_authorization FROM challenges c JOIN subscriptions s ON s.id = c.subscription_id
         JOIN domains d ON d.id = s.domain_id",
    )
    .fetch_all(&mut *db)
    .await?;
    for (name, token, key_authorization) in rows {
        if let Some(host) = left_out.unless_read(parse(&name, "domain name"), || format!("challenge of {name}")) {
            builder.challenge(Challenge {
                host,
                token: token.into(),
                key_authorization: key_authorization.into(),
            });
        }
    }
    Ok(())
}
