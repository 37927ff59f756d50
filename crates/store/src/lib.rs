//! Control state in SQL: projects, domains, subscriptions, signing keys, buckets, streams, and the change log.
//!
//! Every write and its change-log entry are one transaction. An id of another project answers exactly as an unknown one.

mod backend;
mod buckets;
mod certificates;
mod changes;
mod domains;
mod error;
mod leases;
mod page;
mod projects;
mod secret;
mod signing_keys;
mod snapshot;
mod streams;
mod subscriptions;
#[cfg(test)]
mod tests;

pub use backend::{Store, is_supported};
pub use buckets::{BucketInfo, LockedBucket, NewBucket};
pub use certificates::{Issuance, Learned, Progress, StoredCertificate, StoredOrder};
pub use changes::ChangeFeed;
pub use domains::{Domain, DomainKind, NewDomain};
pub use error::StoreError;
pub use page::Page;
pub use projects::{API_KEYS, ApiKeyId, ApiKeyInfo, LiveApiKey, NewProject};
pub use signing_keys::{KeyScope, SigningKey};
pub use streams::{Stream, StreamOrigin};
pub use subscriptions::{Subscription, SubscriptionStatus};
