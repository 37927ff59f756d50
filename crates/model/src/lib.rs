//! The vocabulary that every part of Edgeweir shares: ids, names, object keys, policies, signed tokens and the
//! [`Snapshot`] that the edge serves from.
//!
//! Nothing here does I/O or waits. A `String` from outside becomes one of these types at the door, once; what holds a
//! value of such a type need not check it again.

mod access;
mod cors;
pub mod entity_tag;
mod fqdn;
mod id;
mod key;
mod live;
mod name;
mod origin;
mod purge;
mod query;
mod s3;
mod secret;
mod snapshot;
mod timestamp;
pub mod token;

pub use access::AccessPolicy;
pub use cors::{CorsError, CorsHeader, CorsOrigin, CorsPolicy};
pub use fqdn::{Fqdn, FqdnError};
pub use id::{BucketId, DomainId, IdError, ProjectId, SigningKeyId, StreamId, SubscriptionId};
pub use key::{KeyError, ObjectKey};
pub use live::{Arrival, Arrivals, LiveOrigin, PullUrl, PullUrlError, StreamKeyHash, StreamStatus};
pub use name::{BucketName, NameError};
pub use origin::{HttpOrigin, Origin, OriginUrl, OriginUrlError};
pub use purge::{KeyPrefix, PrefixError, Purge, Purged, SurrogateKey, SurrogateKeyError};
pub use query::{Query, QueryError};
pub use s3::{S3Origin, S3OriginError, S3Settings};
pub use secret::{Seal, SealedSecret};
pub use snapshot::{
    Bucket, CertificateRef, Challenge, Change, Content, IngestHost, KeyRing, LiveDomain, LiveStream, PublicKey, Site,
    Snapshot, SnapshotBuilder,
};
pub use timestamp::Timestamp;
