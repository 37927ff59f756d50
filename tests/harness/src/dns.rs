//! A real DNS server whose records a test sets: `pebble-challtestsrv`, its challenge servers off.

use crate::{Client, Protocol, loopback::own_address, program::Program};
use http::Method;
use serde_json::{Value, json};
use std::{net::SocketAddr, process::Command, time::Duration};
use tokio::{net::UdpSocket, time::timeout};

/// The server. A name that nobody set has no address.
#[derive(Debug)]
pub struct Dns {
    address: SocketAddr,
    management: SocketAddr,
    program: Program,
    _folder: tempfile::TempDir,
}

impl Dns {
    /// Starts a server without records.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (address, management) = (own_address(), own_address());
        let mut command = Command::new("pebble-challtestsrv");
        command.args(["-http01", "", "-https01", "", "-tlsalpn01", ""]);
        command.args(["-defaultIPv4", "", "-defaultIPv6", ""]);
        command.args(["-dns01", &address.to_string(), "-management", &management.to_string()]);
        let program = Program::start(&mut command, folder.path().join("dns.log"), &[address, management]).await;
        let dns = Self {
            address,
            management,
            program,
            _folder: folder,
        };
        // It listens on TCP now; UDP may take a moment more.
        while dns.query("ready.example", 1).await.is_none() {}
        dns
    }

    /// Where it answers, over UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A name's A records, in place of those it has.
    pub async fn set_a(&self, name: &str, addresses: &[&str]) {
        self.manage("clear-a", json!({ "host": fqdn(name) })).await;
        if !addresses.is_empty() {
            self.manage("add-a", json!({"host": fqdn(name), "addresses": addresses}))
                .await;
        }
    }

    /// A name's AAAA records, in place of those it has.
    pub async fn set_aaaa(&self, name: &str, addresses: &[&str]) {
        self.manage("clear-aaaa", json!({ "host": fqdn(name) })).await;
        if !addresses.is_empty() {
            self.manage("add-aaaa", json!({"host": fqdn(name), "addresses": addresses}))
                .await;
        }
    }

    /// Makes a name an alias.
    pub async fn set_cname(&self, name: &str, target: &str) {
        self.manage("set-cname", json!({"host": fqdn(name), "target": fqdn(target)}))
            .await;
    }

    /// Takes an alias away.
    pub async fn clear_cname(&self, name: &str) {
        self.manage("clear-cname", json!({ "host": fqdn(name) })).await;
    }

    /// Who may issue for a name (RFC 8659): `issue` with each of these values, in place of those it has.
    pub async fn set_caa(&self, name: &str, issue: &[&str]) {
        self.manage("clear-caa", json!({ "host": fqdn(name) })).await;
        if !issue.is_empty() {
            let policies: Vec<Value> = issue
                .iter()
                .map(|value| json!({"tag": "issue", "value": value}))
                .collect();
            self.manage("add-caa", json!({"host": fqdn(name), "policies": policies}))
                .await;
        }
    }

    /// Lets every question about a name fail (SERVFAIL), or mends that.
    pub async fn set_failing(&self, name: &str, failing: bool) {
        let call = if failing { "set-servfail" } else { "clear-servfail" };
        self.manage(call, json!({ "host": fqdn(name) })).await;
    }

    /// Asks over UDP: the response code and the number of answers, or nothing when none came within a tenth of a second.
    pub async fn query(&self, name: &str, record_type: u16) -> Option<(u8, u16)> {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).await.ok()?;
        socket.connect(self.address).await.ok()?;
        // RFC 1035 §4.1: id 1, recursion desired, one question.
        let mut question = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            question.push(label.len() as u8);
            question.extend_from_slice(label.as_bytes());
        }
        question.push(0);
        question.extend_from_slice(&record_type.to_be_bytes());
        question.extend_from_slice(&[0, 1]);
        socket.send(&question).await.ok()?;
        let mut answer = [0; 512];
        let read = timeout(Duration::from_millis(100), socket.recv(&mut answer));
        let length = read.await.ok()?.ok()?;
        (length >= 12).then(|| (answer[3] & 15, u16::from_be_bytes([answer[6], answer[7]])))
    }

    /// What the server has written.
    pub fn output(&self) -> String {
        self.program.output()
    }

    async fn manage(&self, call: &str, body: Value) {
        let client = Client::plain(self.management, Protocol::H1);
        let path = format!("/{call}");
        let reply = client
            .send(Method::POST, "localhost", &path, &[], body.to_string().into())
            .await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    }
}

fn fqdn(name: &str) -> String {
    format!("{name}.")
}
