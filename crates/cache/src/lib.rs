//! An HTTP cache as a library: RFC 9111 decisions as pure functions ([`policy`], [`conditional`], [`range`]), apart
//! from storage and fills ([`Cache`]).
//!
//! It knows no hosts, tokens or sockets. Concurrent misses of a key share one fetch (collapsed forwarding), and read
//! from it while it is under way. A purge wins over a fill that began before it.

mod cache;
pub mod conditional;
pub mod disk;
mod end;
mod entry;
mod fields;
mod fill;
mod held;
mod key;
mod leader;
pub mod policy;
mod purges;
pub mod range;
mod record;
mod sliced;
mod slices;
mod span;
mod stored;
mod tier;

pub use cache::{Cache, CacheConfig, Lookup, Mark, SLICE_BYTES, Stats};
pub use end::End;
pub use entry::{Content, Entry, Now, Revalidation, Validators};
pub use fields::{unshared, unshared_value};
pub use fill::{
    BodyError, BoxBody, FetchError, FetchStatus, Fetched, FetchedResponse, FillBody, ResponseHead, SharedStream,
};
pub use held::Held;
pub use key::{Key, KeyRef};
pub use purges::SURROGATE_KEYS;
pub use sliced::{Fetching, SliceSource, SlicedBody};
pub use slices::{SliceError, Slices, Validator, first_slice};
pub use span::Ahead;
pub use tier::OnDisk;
