//! A real ACME server: Debian's `pebble`, a process of its own on ports of its own.
//!
//! Pebble keeps its state in memory. What survives [`Pebble::restart`] are its addresses and the certificate of its own
//! listener; accounts, orders, nonces and the CA's keys are new, as if the CA had lost everything.

use crate::{Client, Dns, Protocol, loopback::own_address, program::Program};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::json;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// How a pebble is to be.
#[derive(Debug, Clone)]
pub struct PebbleOptions {
    /// Where HTTP-01 is validated: the port of the edge's plain listener.
    pub http_port: u16,
    /// Where TLS-ALPN-01 is validated: the port of the edge's TLS listener.
    pub https_port: u16,
    /// How long a certificate lasts, in whole seconds.
    pub validity: Duration,
    /// Of a hundred good nonces, how many are refused.
    pub nonces_refused: u8,
    /// Of a hundred orders, how many find the name's last authorization still valid.
    pub authorizations_reused: u8,
    /// Key id and MAC key (base64url) that a new account must show (RFC 8555 §7.3.4).
    pub eab: Option<(String, String)>,
    /// Names that the CA refuses.
    pub blocked: Vec<String>,
}

impl Default for PebbleOptions {
    fn default() -> Self {
        Self {
            http_port: 80,
            https_port: 443,
            validity: Duration::from_secs(90 * 86_400),
            nonces_refused: 0,
            authorizations_reused: 0,
            eab: None,
            blocked: Vec::new(),
        }
    }
}

/// The server; dropped, it ends.
#[derive(Debug)]
pub struct Pebble {
    folder: tempfile::TempDir,
    options: PebbleOptions,
    dns: SocketAddr,
    directory: SocketAddr,
    management: SocketAddr,
    program: Option<Program>,
}

impl Pebble {
    /// Starts a server that looks names up at `dns`.
    pub async fn start(options: PebbleOptions, dns: &Dns) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        ServerIdentity::new().write(folder.path());
        let mut pebble = Self {
            folder,
            options,
            dns: dns.address(),
            directory: own_address(),
            management: own_address(),
            program: None,
        };
        pebble.run().await;
        pebble
    }

    /// Ends the server.
    pub fn stop(&mut self) {
        self.program = None;
    }

    /// Ends the server and starts it again at the same addresses, with other options.
    pub async fn restart_with(&mut self, options: PebbleOptions) {
        self.stop();
        self.options = options;
        self.run().await;
    }

    /// Ends the server, if it runs, and starts it again at the same addresses.
    pub async fn restart(&mut self) {
        self.restart_with(self.options.clone()).await;
    }

    /// Where ACME is spoken.
    pub fn address(&self) -> SocketAddr {
        self.directory
    }

    /// The URL of its directory.
    pub fn directory_url(&self) -> String {
        format!("https://{}/dir", self.directory)
    }

    /// The root, in PEM, of the certificate that its own listener shows.
    pub fn listener_root(&self) -> PathBuf {
        self.folder.path().join("listener-root.pem")
    }

    /// The root, in PEM, of the certificates that it issues now. Another after a restart.
    pub async fn issuance_root(&self) -> PathBuf {
        let client = Client::tls(self.management, Protocol::H1, &self.listener_root());
        let reply = client.get(&self.management.ip().to_string(), "/roots/0").await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let file = self.folder.path().join("issuance-root.pem");
        std::fs::write(&file, &reply.body).expect("the folder can be written");
        file
    }

    /// What it has written.
    pub fn output(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("pebble.log")
    }

    async fn run(&mut self) {
        let folder = self.folder.path();
        let mac_keys = self.options.eab.iter().cloned().collect();
        let mac_keys: std::collections::HashMap<String, String> = mac_keys;
        let config = json!({"pebble": {
            "listenAddress": self.directory.to_string(),
            "managementListenAddress": self.management.to_string(),
            "certificate": folder.join("listener.pem"),
            "privateKey": folder.join("listener.key"),
            "httpPort": self.options.http_port,
            "tlsPort": self.options.https_port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": self.options.eab.is_some(),
            "externalAccountMACKeys": mac_keys,
            "domainBlocklist": self.options.blocked,
            "certificateValidityPeriod": self.options.validity.as_secs(),
        }});
        let file = folder.join("pebble.json");
        std::fs::write(&file, config.to_string()).expect("the folder can be written");
        let mut command = Command::new("pebble");
        command
            .arg("-config")
            .arg(&file)
            .args(["-dnsserver", &self.dns.to_string()])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_WFE_NONCEREJECT", self.options.nonces_refused.to_string())
            .env("PEBBLE_AUTHZREUSE", self.options.authorizations_reused.to_string());
        let addresses = [self.directory, self.management];
        self.program = Some(Program::start(&mut command, self.log_file(), &addresses).await);
    }
}

/// A certificate for this process's loopback address, signed by a root of its own, in PEM: for servers that a client
/// finds by URL.
pub(crate) struct ServerIdentity {
    pub(crate) root: String,
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl ServerIdentity {
    pub(crate) fn new() -> Self {
        let root_key = KeyPair::generate().expect("a key");
        let mut root = CertificateParams::default();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root_certificate = root.self_signed(&root_key).expect("a root");
        let key = KeyPair::generate().expect("a key");
        let names = [crate::loopback::own_ip().to_string(), "localhost".to_owned()];
        let mut params = CertificateParams::new(names).expect("names");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let issuer = Issuer::from_params(&root, &root_key);
        Self {
            root: root_certificate.pem(),
            chain: params.signed_by(&key, &issuer).expect("a certificate").pem(),
            key: key.serialize_pem(),
        }
    }

    fn write(&self, folder: &Path) {
        let write =
            |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("the folder can be written");
        write("listener-root.pem", &self.root);
        write("listener.pem", &self.chain);
        write("listener.key", &self.key);
    }
}
