//! The whole state, as the edge serves from it.

use crate::{
    Store, StoreError,
    buckets::{cors, origin},
    changes::{last, policy},
    page::parse,
};
use edgeweir_model::{
    AccessPolicy, Bucket, BucketId, Content, Fqdn, KeyRing, LiveDomain, LiveStream, ProjectId, PublicKey, SigningKeyId,
    Site, Snapshot, SnapshotBuilder,
};
use sqlx::query_as;
use std::{collections::HashMap, hash::Hash, sync::Arc};

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

type KeyRow = (String, Option<String>, Option<String>, Option<i64>, Vec<u8>);

impl Store {
    /// The state of the service at `zone`, read in one transaction, with the change-log entry that it stands at.
    pub async fn snapshot(&self, zone: &Fqdn) -> Result<Snapshot, StoreError> {
        let mut db = self.begin_read().await?;
        let mut builder = SnapshotBuilder::new(zone.clone(), last(&mut db).await?);

        let (mut of_domains, mut of_streams, mut of_buckets) =
            (Rings(HashMap::new()), Rings(HashMap::new()), Rings(HashMap::new()));
        let rows: Vec<KeyRow> = query_as("SELECT id, domain_id, stream_id, bucket_id, public_key FROM signing_keys")
            .fetch_all(&mut *db)
            .await?;
        for (id, domain, stream, bucket, key) in rows {
            let (id, key) = (parse(&id, "signing key id")?, PublicKey(key.into()));
            match (domain, stream, bucket) {
                (Some(owner), None, None) => of_domains.add(owner, id, key),
                (None, Some(owner), None) => of_streams.add(owner, id, key),
                (None, None, Some(owner)) => of_buckets.add(owner, id, key),
                _ => return Err(StoreError::Corrupt("signing key")),
            }
        }

        let mut buckets = HashMap::new();
        let rows: Vec<(i64, i64, String, String, String, String, String, i64)> =
            query_as("SELECT id, project_id, name, region, origin, policy, cors, generation FROM buckets")
                .fetch_all(&mut *db)
                .await?;
        for (id, project, name, region, from, access, headers, generation) in rows {
            let bucket = Arc::new(Bucket {
                id: BucketId(id),
                name: parse(&name, "bucket name")?,
                project: ProjectId(project),
                region,
                generation: generation as u64,
                origin: origin(&from)?,
                policy: policy(&access)?,
                cors: cors(&headers)?,
                keys: of_buckets.take(&id),
            });
            builder.bucket(&bucket);
            buckets.insert(id, bucket);
        }

        let mut streams: HashMap<i64, Vec<Arc<LiveStream>>> = HashMap::new();
        let rows: Vec<(String, i64, String, String)> =
            query_as("SELECT id, project_id, playback_id, policy FROM streams")
                .fetch_all(&mut *db)
                .await?;
        for (id, project, playback_id, access) in rows {
            let stream = Arc::new(LiveStream {
                id: parse(&id, "stream id")?,
                project: ProjectId(project),
                playback_id: playback_id.into(),
                policy: policy(&access)?,
                keys: of_streams.take(&id),
            });
            builder.stream(&stream);
            streams.entry(project).or_default().push(stream);
        }

        let rows: Vec<(String, i64, String, Option<i64>, String)> =
            query_as("SELECT id, project_id, name, bucket_id, policy FROM domains")
                .fetch_all(&mut *db)
                .await?;
        for (id, project, name, bucket, access) in rows {
            let content = match bucket {
                Some(id) => Content::Bucket(buckets.get(&id).cloned().ok_or(StoreError::Corrupt("bucket id"))?),
                None => Content::LiveDomain(LiveDomain {
                    streams: streams
                        .get(&project)
                        .into_iter()
                        .flatten()
                        .map(|s| (s.playback_id.clone(), s.clone()))
                        .collect(),
                }),
            };
            let policy: AccessPolicy = policy(&access)?;
            let (host, project, keys) = (parse(&name, "domain name")?, ProjectId(project), of_domains.take(&id));
            builder.domain(Site {
                host,
                project,
                content,
                policy,
                keys,
            });
        }
        Ok(builder.build())
    }
}
