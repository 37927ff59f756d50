//! The command line: exit codes, messages, and that nothing secret is printed.

use crate::BINARY;
use std::{
    ffi::OsString,
    fs::File,
    os::unix::ffi::OsStringExt,
    process::{Command, Output},
};

const KEY_ID: &str = "ec25a6a6-b31e-4ac9-af01-711460421c6b";

fn run(args: &[&str], environment: &[(&str, &str)]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    Command::new(BINARY)
        .args(args)
        .current_dir(dir.path())
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

#[test]
fn exit_codes_tell_failure_from_wrong_usage() {
    let sign = |more: &[&'static str]| [&["sign", "--key", "none.pem", "--uri", "a"], more].concat();
    let missing_key = sign(&["--key-id", KEY_ID]);
    for (args, environment, code, wanted) in [
        (&["--version"][..], &[][..], 0, "edgeweir 0."),
        (&["--help"][..], &[], 0, "quickstart"),
        (&["config", "check"][..], &[], 0, "zone = \"edgeweir.localhost\""),
        (&[][..], &[], 2, "Usage"),
        (&["serve", "--no-such-flag"][..], &[], 2, "--no-such-flag"),
        (&["serve", "--config", "none.toml"][..], &[], 2, "none.toml"),
        (
            &["serve", "--set", "listen.api=0.0.0.0:0"][..],
            &[],
            2,
            "api.behind_tls_proxy",
        ),
        (&["config", "check", "--set", "zon=x"][..], &[], 2, "did you mean zone?"),
        (
            &["config", "check"][..],
            &[("EDGEWEIR_LISTEN__HTTPP", "x")],
            2,
            "did you mean listen.http",
        ),
        (
            &["serve", "--set", "store.url=postgres://u:hunter2@h/d"][..],
            &[],
            2,
            "PostgreSQL is not supported yet",
        ),
        (&["serve", "--set", "data_dir=/dev/null/x"][..], &[], 1, "data_dir"),
        (
            &["config", "check", "--set", "store.url=postgres://u:hunter2@h/d"][..],
            &[],
            2,
            "PostgreSQL is not supported yet",
        ),
        (
            &["serve", "--set", "listen.admin=0.0.0.0:0"][..],
            &[],
            2,
            "listen.admin is not a loopback",
        ),
        (&["project", "create", ""][..], &[], 2, "1 to 255 characters"),
        (&["project", "create", "a\tb"][..], &[], 2, "no control characters"),
        (&sign(&["--key-id", "x"])[..], &[], 2, "--key-id"),
        (
            &sign(&["--key-id", KEY_ID, "--not-before", "soon"])[..],
            &[],
            2,
            "--not-before",
        ),
        (
            &sign(&["--key-id", KEY_ID, "--expires-in", "18446744073709551615"])[..],
            &[],
            2,
            "--expires-in",
        ),
        (&missing_key[..], &[], 1, "none.pem"),
    ] {
        let output = run(args, environment);
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
        assert!(text.contains(wanted), "{args:?}: {text}");
        assert!(!text.contains("hunter2"), "{args:?}: a password is printed");
    }
}

#[test]
fn a_token_is_all_that_sign_prints_and_a_prefix_without_a_slash_is_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key.pem");
    let made = Command::new("openssl")
        .args(["genrsa", "-traditional", "-out"])
        .arg(&key)
        .arg("2048")
        .output()
        .unwrap();
    assert!(made.status.success());
    let id = KEY_ID;
    let base = ["sign", "--key-id", id, "--key", key.to_str().unwrap(), "--uri"];
    let sign = |uri: &str, rest: &[&str]| run(&[&base[..], &[uri], rest].concat(), &[]);
    let output = sign("video", &["--expires-in", "0", "--not-before", "2026-01-31T12:00:00Z"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("\"video2\" too"));
    let token = String::from_utf8(output.stdout).unwrap();
    let token = token.trim_end();
    let header = jsonwebtoken::decode_header(token).unwrap();
    assert_eq!(
        (header.alg, header.kid.as_deref()),
        (jsonwebtoken::Algorithm::RS256, Some(id))
    );
    let claims: serde_json::Value = jsonwebtoken::dangerous::insecure_decode(token).unwrap().claims;
    assert_eq!(claims, serde_json::json!({"uri": "video", "nbf": 1_769_860_800}));
    let output = sign("video/", &[]);
    assert!(output.stderr.is_empty());
    let claims: serde_json::Value =
        jsonwebtoken::dangerous::insecure_decode(String::from_utf8(output.stdout).unwrap().trim_end())
            .unwrap()
            .claims;
    assert!(claims["exp"].is_i64() && claims.get("nbf").is_none());
}

#[test]
fn what_is_not_utf8_is_refused_where_it_is_ours() {
    let bytes = OsString::from_vec(vec![b'a', 0xff]);
    let mut check = Command::new(BINARY);
    check.args(["config", "check"]).env("OTHER", &bytes);
    assert_eq!(check.output().unwrap().status.code(), Some(0));
    for (command, wanted) in [
        (check.env("EDGEWEIR_ZONE", &bytes), "EDGEWEIR_ZONE must be UTF-8"),
        (
            Command::new(BINARY).args(["config", "check", "--data-dir"]).arg(&bytes),
            "--data-dir must be UTF-8",
        ),
        (
            Command::new(BINARY).args(["quickstart", "--dir"]).arg(&bytes),
            "--dir must be UTF-8",
        ),
    ] {
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(wanted), "{text}");
    }
}

#[test]
fn output_that_cannot_be_written_is_a_failure_and_no_crash() {
    let full = || File::create("/dev/full").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let quickstart = |listen: &str| {
        let mut command = Command::new(BINARY);
        command.args(["quickstart", "--dir"]).arg(dir.path());
        for listener in ["HTTP", "HTTPS", "API", "ADMIN"] {
            command.env(format!("EDGEWEIR_LISTEN__{listener}"), listen);
        }
        command
    };
    let output = quickstart("127.0.0.1:0").stdout(full()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("edgeweir: standard output: "), "{text}");
    // Nobody hears why it fails.
    let output = quickstart("192.0.2.1:0").stderr(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
