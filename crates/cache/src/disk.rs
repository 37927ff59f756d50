//! The disk tier.

pub mod journal;
