//! The samples of examples/signing against a running edge, with the real libraries; PHP's is stood in for (see
//! tests/e2e/php/autoload.php), and C# has none here.

use crate::{BINARY, main_job::tools};
use edgeweir_harness::{Edge, command_output, repository};
use std::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_every_sample_open_what_they_name() {
    let edge = Edge::start(BINARY).await;
    let project = edge.project().await;
    let host = project.bucket("videos").await;
    project.put("videos", "a/1.mp4", "content").await;
    project.policy("videos", "authenticated").await;
    let (id, pem) = project.signing_key("bucket_name", "videos").await;
    let key = edge.data_dir().join("sample.pem");
    std::fs::write(&key, pem).unwrap();
    let (samples, tools) = (repository().join("examples/signing"), tools());
    let python = tools.join("venv/bin/python");
    let commands: [(&str, Vec<String>); 5] = [
        ("python", vec![python.display().to_string(), "python/sign.py".into()]),
        ("javascript", vec!["node".into(), "javascript/sign.js".into()]),
        ("php", vec!["php".into(), "php/sign.php".into()]),
        ("ruby", vec!["ruby".into(), "ruby/sign.rb".into()]),
        ("java", vec!["java".into(), "java/Sign.java".into()]),
    ];
    for (language, command) in commands {
        let sign = |uri: &str, more: &[&str]| {
            let mut process = Command::new(&command[0]);
            process
                .args(&command[1..])
                .args([id.as_str(), key.to_str().unwrap(), uri])
                .args(more)
                .current_dir(&samples)
                .env("NODE_PATH", tools.join("node/node_modules"))
                .env("JWT_AUTOLOAD", repository().join("tests/e2e/php/autoload.php"));
            let (ok, out, err) = command_output(&mut process);
            assert!(ok, "{language}: {err}");
            assert_eq!(out.trim().split('.').count(), 3, "{language}: {out}");
            out.trim().to_owned()
        };
        let get = async |token: &str| edge.http().get(&host, &format!("/a/1.mp4?auth={token}")).await;
        let reply = get(&sign("a/", &[])).await;
        assert_eq!((reply.status.as_u16(), reply.text()), (200, "content"), "{language}");
        assert_eq!(get(&sign("", &["0"])).await.status, 200, "{language}");
        assert_eq!(get(&sign("b/", &[])).await.error(), "token_uri_mismatch", "{language}");
        assert_eq!(
            get(&sign("a/", &["3600", "4000000000"])).await.error(),
            "token_not_yet_valid",
            "{language}"
        );
    }
}
