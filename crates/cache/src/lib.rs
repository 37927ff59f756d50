//! An HTTP cache as a library: RFC 9111 decisions as pure functions ([`policy`], [`conditional`], [`range`]), apart
//! from storage and fills ([`Cache`]).
//!
//! It knows no hosts, tokens or sockets. Concurrent misses of a key share one fetch (collapsed forwarding), and read
//! from it while it is under way. A purge wins over a fill that began before it.

mod cache;
pub mod conditional;
mod entry;
mod fill;
mod key;
mod leader;
pub mod policy;
#[cfg_attr(not(test), expect(dead_code, reason = "look-ups do not ask it yet"))]
mod purges;
pub mod range;
mod stored;

pub use cache::{Cache, CacheConfig, Lookup, Mark, Stats};
pub use entry::{Entry, Now, Revalidation, Validators};
pub use fill::{
    BodyError, BoxBody, FetchError, FetchStatus, Fetched, FetchedResponse, FillBody, ResponseHead, SharedStream,
};
pub use key::{Key, KeyRef};
