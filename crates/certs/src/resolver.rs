//! Which certificate answers to which name. No I/O in the handshake, and nothing is made for a name that is not known.

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::{collections::HashMap, sync::Arc};

/// Names and their certificates. A name `*.a.b` stands for every name one label below `a.b` (RFC 6125 §6.4.3).
#[derive(Debug, Default)]
pub struct CertificateTable(HashMap<Box<str>, Arc<CertifiedKey>>);

impl CertificateTable {
    /// Lets `key` answer for `names` (lower-case).
    pub fn insert<'a>(&mut self, names: impl IntoIterator<Item = &'a str>, key: &Arc<CertifiedKey>) {
        for name in names {
            self.0.insert(name.into(), key.clone());
        }
    }

    /// An exact name before the wildcard of its parent.
    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        self.0.get(name).or_else(|| {
            let (_, parent) = name.split_once('.')?;
            // Too long for the buffer is too long for a name (RFC 1035 §2.3.4).
            let mut buffer = [0; 256];
            let wildcard = buffer.get_mut(..parent.len() + 2)?;
            wildcard[..2].copy_from_slice(b"*.");
            wildcard[2..].copy_from_slice(parent.as_bytes());
            self.0.get(std::str::from_utf8(wildcard).ok()?)
        })
    }
}

/// Chooses the certificate of a handshake by its server name; the table is swapped whole.
#[derive(Debug, Default)]
pub struct Resolver {
    table: ArcSwap<CertificateTable>,
}

impl Resolver {
    /// A resolver that knows no name.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Puts a new table in place; the next handshake sees it.
    pub fn replace(&self, table: CertificateTable) {
        self.table.store(Arc::new(table));
    }

    /// Whether the certificate that answers to `sni` also covers `host` (both lower-case): else a request for `host` on
    /// such a connection is misdirected (RFC 9110 §15.5.20).
    pub fn covers(&self, sni: &str, host: &str) -> bool {
        let table = self.table.load();
        match (table.find(sni), table.find(host)) {
            (Some(served), Some(own)) => Arc::ptr_eq(served, own),
            _ => false,
        }
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls gives the name in lower case.
        self.table.load().find(hello.server_name()?).cloned()
    }
}

/// The TLS settings of a server: 1.2 with AEAD suites and 1.3, HTTP/2 and HTTP/1.1 by ALPN, tickets whose keys rotate.
pub fn server_config(resolver: Arc<Resolver>) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider speaks TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.send_tls13_tickets = 1;
    if let Ok(ticketer) = aws_lc_rs::Ticketer::new() {
        config.ticketer = ticketer;
    }
    Arc::new(config)
}
