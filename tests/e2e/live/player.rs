//! A player in a browser, watched while it plays.

use super::PATIENCE;
use crate::main_job::tools;
use edgeweir_harness::repository;
use serde_json::Value;
use std::{net::IpAddr, process::Stdio};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

/// A browser that plays one stream; it is killed when this is dropped.
pub(super) struct Player {
    child: Child,
    stop: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Player {
    /// Opens a URL with `hls` (hls.js) or `shaka` (shaka-player), where every host name leads to `address`.
    pub(super) fn start(engine: &str, url: &str, address: IpAddr, options: &Value) -> Self {
        let mut node = Command::new("node");
        node.arg(repository().join("tests/e2e/browser/live.cjs"))
            .args([engine, url, &address.to_string(), &options.to_string()])
            .env("NODE_PATH", tools().join("node/node_modules"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = node.spawn().expect("node (scripts/test installs it)");
        let out = child.stdout.take().unwrap();
        Self {
            stop: child.stdin.take(),
            lines: BufReader::new(out).lines(),
            child,
        }
    }

    /// The next state that it tells: `currentTime`, `frames`, `stalls`, `errors`, `fatal`, `parts`, `segments`,
    /// `discontinuities`, `latency`.
    async fn state(&mut self) -> Option<Value> {
        let line = self.lines.next_line().await.unwrap()?;
        Some(serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}")))
    }

    /// Waits until the player is as it should be.
    pub(super) async fn until(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let look = async {
            loop {
                last = self.state().await.expect("the browser runs");
                if wanted(&last) {
                    return;
                }
                assert!(last["fatal"].is_null(), "not {what}: {last}");
            }
        };
        let found = tokio::time::timeout(PATIENCE, look).await;
        assert!(found.is_ok(), "not {what}: {last}");
        last
    }

    /// Waits until it has played on for so many seconds from now.
    pub(super) async fn plays_on(&mut self, seconds: f64) -> Value {
        let time = |state: &Value| state["currentTime"].as_f64().unwrap();
        let begun = self
            .until("begun", |state| time(state) > 0.0 && state["playing"] == true)
            .await;
        let (from, frames) = (time(&begun), begun["frames"].as_f64().unwrap());
        let enough = |state: &Value| time(state) > from + seconds && state["frames"].as_f64().unwrap() > frames;
        self.until("playing on", enough).await
    }

    /// Stops it: how it went, with all `requests`.
    pub(super) async fn stop(mut self) -> Value {
        drop(self.stop.take());
        let mut last = Value::Null;
        while let Some(state) = self.state().await {
            last = state;
        }
        let _ = self.child.wait().await;
        last
    }
}
