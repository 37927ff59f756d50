//! The `edgeweir` binary.
fn main() {}
