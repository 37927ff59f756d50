//! Which certificate answers to which name. No I/O in the handshake, and nothing is made for a name that is not known.

use crate::{provider, tickets};
use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::CryptoProvider,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::{collections::HashMap, sync::Arc};

/// The protocol of a TLS-ALPN-01 challenge (RFC 8737 §6.2). A connection that speaks it ends with its handshake.
pub const ACME_TLS: &[u8] = b"acme-tls/1";

type Names = HashMap<Box<str>, Arc<CertifiedKey>, foldhash::fast::RandomState>;

/// Names and their certificates. A name `*.a.b` stands for every name one label below `a.b` (RFC 6125 §6.4.3).
#[derive(Debug, Default)]
pub struct CertificateTable {
    names: Names,
    /// What answers to the CA only.
    challenges: Names,
}

impl CertificateTable {
    /// Lets `key` answer for `names` (lower-case).
    pub fn insert<'a>(&mut self, names: impl IntoIterator<Item = &'a str>, key: &Arc<CertifiedKey>) {
        for name in names {
            self.names.insert(name.into(), key.clone());
        }
    }

    /// Shows `key` to a CA that looks at `name`.
    pub fn insert_challenge(&mut self, name: &str, key: Arc<CertifiedKey>) {
        self.challenges.insert(name.into(), key);
    }

    /// An exact name before the wildcard of its parent.
    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        self.names.get(name).or_else(|| {
            let (_, parent) = name.split_once('.')?;
            // Too long for the buffer is too long for a name (RFC 1035 §2.3.4).
            let mut buffer = [0; 256];
            let wildcard = buffer.get_mut(..parent.len() + 2)?;
            wildcard[..2].copy_from_slice(b"*.");
            wildcard[2..].copy_from_slice(parent.as_bytes());
            self.names.get(std::str::from_utf8(wildcard).ok()?)
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
        let (table, name) = (self.table.load(), hello.server_name()?);
        // The CA offers this one protocol (RFC 8737 §3): whoever offers others too gets what everybody gets.
        if hello
            .alpn()
            .is_some_and(|mut offered| offered.next() == Some(ACME_TLS) && offered.next().is_none())
        {
            return table.challenges.get(name).cloned();
        }
        table.find(name).cloned()
    }
}

/// The TLS settings of a server: 1.2 with AEAD suites and 1.3, HTTP/2 and HTTP/1.1 by ALPN, tickets whose keys rotate.
pub fn server_config(resolver: Arc<Resolver>) -> Arc<ServerConfig> {
    config_with(provider::provider(), resolver)
}

pub(crate) fn config_with(provider: CryptoProvider, resolver: Arc<Resolver>) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .expect("the provider speaks TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec(), ACME_TLS.to_vec()];
    config.send_tls13_tickets = 1;
    if let Ok(ticketer) = tickets::ticketer() {
        config.ticketer = ticketer;
    }
    Arc::new(config)
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::issued::{self, Request};
    use rustls::{
        ClientConfig, ClientConnection, DigitallySignedStruct, Error, ProtocolVersion, ServerConnection,
        SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::aws_lc_rs,
    };
    use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

    /// Takes any certificate: which one came is what is looked at.
    #[derive(Debug)]
    pub(crate) struct Anything;

    impl ServerCertVerifier for Anything {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            aws_lc_rs::default_provider()
                .signature_verification_algorithms
                .supported_schemes()
        }
    }

    /// Both ends of a handshake with a server.
    pub(crate) fn shake_hands(
        config: ClientConfig,
        server: Arc<ServerConfig>,
        name: &'static str,
    ) -> Result<(ClientConnection, ServerConnection), Error> {
        let mut client = ClientConnection::new(Arc::new(config), name.try_into().unwrap())?;
        let mut server = ServerConnection::new(server)?;
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            server.read_tls(&mut &wire[..]).unwrap();
            server.process_new_packets()?;
            wire.clear();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            client.read_tls(&mut &wire[..]).unwrap();
            client.process_new_packets()?;
        }
        Ok((client, server))
    }

    /// The certificate and the protocol that a client of this offer gets.
    fn handshake(
        resolver: &Arc<Resolver>,
        name: &'static str,
        alpn: &[&[u8]],
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Result<(Vec<u8>, Option<Vec<u8>>), Error> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anything))
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        let (client, server) = shake_hands(config, server_config(resolver.clone()), name)?;
        if server.protocol_version() == Some(ProtocolVersion::TLSv1_2) {
            let suite = format!("{:?}", server.negotiated_cipher_suite().unwrap().suite());
            assert!(suite.contains("GCM") || suite.contains("CHACHA20"), "{suite}");
        }
        let certificate = client.peer_certificates().unwrap()[0].to_vec();
        Ok((certificate, server.alpn_protocol().map(<[u8]>::to_vec)))
    }

    pub(crate) fn self_signed(name: &str) -> Arc<CertifiedKey> {
        let request = Request::new(name).unwrap();
        let der = rustls_pki_types::PrivateKeyDer::Pkcs8(request.private_key.to_vec().into());
        let key = rcgen::KeyPair::try_from(&der).unwrap();
        let params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        issued::certified(&params.self_signed(&key).unwrap().pem(), &request.private_key).unwrap()
    }

    #[test]
    fn the_ca_sees_the_challenge_and_everybody_else_the_certificate() {
        let own = self_signed("x.example.com");
        let wildcard = self_signed("*.example.com");
        let challenge = issued::challenge("x.example.com", "t.k").unwrap();
        let mut table = CertificateTable::default();
        table.insert(["*.example.com"], &wildcard);
        table.insert(["x.example.com"], &own);
        table.insert_challenge("x.example.com", challenge.clone());
        let resolver = Resolver::new();
        resolver.replace(table);
        let both = rustls::ALL_VERSIONS;
        let der = |key: &Arc<CertifiedKey>| key.cert[0].to_vec();
        for (name, alpn, expected) in [
            (
                "x.example.com",
                &[ACME_TLS][..],
                Some((der(&challenge), Some(ACME_TLS))),
            ),
            (
                "x.example.com",
                &[b"h2", b"http/1.1"],
                Some((der(&own), Some(&b"h2"[..]))),
            ),
            ("x.example.com", &[b"h2", ACME_TLS], Some((der(&own), Some(b"h2")))),
            ("x.example.com", &[], Some((der(&own), None))),
            (
                "y.example.com",
                &[b"http/1.1"],
                Some((der(&wildcard), Some(b"http/1.1"))),
            ),
            ("y.example.com", &[ACME_TLS], None),
            ("x.example.net", &[b"h2"], None),
        ] {
            for version in both {
                let seen = handshake(&resolver, name, alpn, &[version]).ok();
                let expected = expected.clone().map(|(der, alpn)| (der, alpn.map(<[u8]>::to_vec)));
                assert_eq!(seen, expected, "{name} {alpn:?} {version:?}");
            }
        }
    }
}
