//! The sample video and the player page of `demo/`, built in.

include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// `(key, content)` of every file.
pub(crate) fn all() -> impl Iterator<Item = (&'static str, &'static [u8])> {
    ASSETS.iter().copied()
}
