//! What the README tells to type, typed.

use crate::BINARY;
use edgeweir_harness::{command_output, repository};
use std::{net::TcpListener, os::unix::fs::symlink, process::Command};

#[test]
fn the_walk_through_runs_as_it_is_written() {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let section = readme.split("## From nothing to a private video").nth(1).unwrap();
    let mut block = section
        .split("```")
        .nth(1)
        .unwrap()
        .strip_prefix("bash\n")
        .unwrap()
        .to_owned();
    // A clone after its build.
    let clone = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(clone.path().join("target/release")).unwrap();
    symlink(BINARY, clone.path().join("target/release/edgeweir")).unwrap();
    symlink(repository().join("demo"), clone.path().join("demo")).unwrap();
    let mut bash = Command::new("bash");
    // Ports that are free; those of the README may be in use here.
    let listeners = ["HTTP", "HTTPS", "API", "ADMIN"].map(|name| (name, TcpListener::bind("127.0.0.1:0").unwrap()));
    for ((name, listener), documented) in listeners.iter().zip(["8080", "8443", "8090", "8091"]) {
        let address = listener.local_addr().unwrap();
        block = block.replace(documented, &address.port().to_string());
        bash.env(format!("EDGEWEIR_LISTEN__{name}"), address.to_string());
    }
    drop(listeners);
    let script = format!("set -e\ntrap 'kill $(jobs -p)' EXIT\n{block}\ncmp out.mp4 demo/video.mp4");
    let (ok, out, err) = command_output(bash.arg("-c").arg(script).current_dir(clone.path()));
    assert!(ok, "{out}{err}");
}
