//! End-to-end tests: the real server, real clients, real sockets. Each is named after what a user would notice.

#![allow(clippy::unwrap_used, missing_docs)]

mod cache;
mod cache_suite;
mod cli;
mod conditions;
mod control_api;
mod crowds;
mod curl_examples;
mod disk;
mod durability;
mod floods;
mod heads;
mod hot;
mod http3;
mod http_semantics;
mod interim;
mod live;
mod main_job;
mod paths;
mod protocol;
mod pulled;
mod purges;
mod readme;
mod s3;
mod shield;
mod signing_samples;
mod slices;
mod slow;
mod tls;
mod tokens;
mod versions;

/// The server under test.
const BINARY: &str = env!("CARGO_BIN_EXE_edgeweir");

/// Signs a token offline with the program itself, from a key that the API gave.
fn sign(edge: &edgeweir_harness::Edge, key: &(String, String), uri: &str) -> String {
    let file = edge.data_dir().join(format!("{}.pem", key.0));
    std::fs::write(&file, &key.1).unwrap();
    let args = [
        "sign",
        "--key-id",
        &key.0,
        "--key",
        file.to_str().unwrap(),
        "--uri",
        uri,
    ];
    let (ok, out, err) = edgeweir_harness::command_output(&mut edge.cli(&args));
    assert!(ok, "{err}");
    out.trim().to_owned()
}
