//! The internal CA: signs for the service's own names, and for customers' domains as long as they have no public
//! certificate. Its root is `<data_dir>/ca.pem`; whoever is to trust it, installs that.

use crate::{CertificateTable, Error};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use rustls::{crypto::aws_lc_rs::sign::any_ecdsa_type, sign::CertifiedKey};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::{
    collections::HashMap,
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);
const LEAF_LIFETIME: Duration = Duration::from_secs(90 * 86_400);
/// A leaf is made anew when this much is left of its time.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 86_400);
/// Clocks of clients may be behind.
const BACKDATE: Duration = Duration::from_secs(3600);

/// A CA of this installation alone: ECDSA P-256.
#[derive(Debug)]
pub struct InternalCa {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl InternalCa {
    /// Opens the CA in `data_dir`, or makes one: `ca.pem`, and `ca.key` that its owner alone may read.
    pub fn open(data_dir: &Path) -> Result<Self, Error> {
        let (cert_path, key_path) = (data_dir.join("ca.pem"), data_dir.join("ca.key"));
        let damaged = |path: &Path| Error::Damaged {
            path: path.display().to_string(),
        };
        let (cert, key) = (read(&cert_path)?, read(&key_path)?);
        let (pem, key) = match (cert, key) {
            (Some(cert), Some(key)) => (cert, KeyPair::from_pem(&key).map_err(|_| damaged(&key_path))?),
            (Some(_), None) => return Err(damaged(&key_path)),
            // A key alone is what a start that was cut short left: the certificate is made from it.
            (None, key) => {
                let key = match key {
                    Some(key) => KeyPair::from_pem(&key).map_err(|_| damaged(&key_path))?,
                    None => {
                        let key = KeyPair::generate()?;
                        create(&key_path, &key.serialize_pem(), 0o600)?;
                        key
                    }
                };
                let pem = ca_params().self_signed(&key)?.pem();
                create(&cert_path, &pem, 0o644)?;
                (pem, key)
            }
        };
        let der = ::pem::parse(&pem).map_err(|_| damaged(&cert_path))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(der.contents()).map_err(|_| damaged(&cert_path))?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(damaged(&cert_path));
        }
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(|_| damaged(&cert_path))?;
        Ok(Self { issuer, pem })
    }

    /// The root certificate.
    pub fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for these names, and its key, ready for TLS.
    pub fn issue(&self, names: &[String]) -> Result<Arc<CertifiedKey>, Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = DistinguishedName::new();
        if let Some(name) = names.first().filter(|name| name.len() <= 64) {
            params.distinguished_name.push(DnType::CommonName, name.as_str());
        }
        let now = SystemTime::now();
        params.not_before = (now - BACKDATE).into();
        params.not_after = (now + LEAF_LIFETIME).into();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let cert = params.signed_by(&key, &self.issuer)?;
        let signing = any_ecdsa_type(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())))?;
        Ok(Arc::new(CertifiedKey::new(vec![cert.der().clone()], signing)))
    }
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "Edgeweir internal CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let now = SystemTime::now();
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + CA_LIFETIME).into();
    params
}

fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File {
            path: path.display().to_string(),
            source,
        }),
    }
}

/// Writes a file whole or not at all.
fn create(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let write = || {
        let part = path.with_extension("part");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&part)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, path)
    };
    write().map_err(|source| Error::File {
        path: path.display().to_string(),
        source,
    })
}

/// Keeps a certificate for everything that is served, made by the internal CA.
#[derive(Debug)]
pub struct InternalIssuer {
    ca: InternalCa,
    issued: HashMap<Vec<String>, (Arc<CertifiedKey>, SystemTime)>,
}

impl InternalIssuer {
    /// An issuer that has issued nothing.
    pub fn new(ca: InternalCa) -> Self {
        Self {
            ca,
            issued: HashMap::new(),
        }
    }

    /// A table for the service's own names, on one certificate, and each of the domains, on one of its own. What was
    /// made before and still has its time is used again; what is not asked for any more is forgotten.
    pub fn refresh<'a>(
        &mut self,
        zone_names: &[String],
        domains: impl Iterator<Item = &'a str>,
    ) -> Result<CertificateTable, Error> {
        let now = SystemTime::now();
        let mut kept = HashMap::new();
        let mut table = CertificateTable::default();
        let wanted = std::iter::once(zone_names.to_vec()).chain(domains.map(|d| vec![d.to_owned()]));
        for names in wanted {
            let (key, made) = match self.issued.remove(&names) {
                Some((key, made)) if now + RENEW_BEFORE < made + LEAF_LIFETIME => (key, made),
                _ => (self.ca.issue(&names)?, now),
            };
            table.insert(names.iter().map(String::as_str), &key);
            kept.insert(names, (key, made));
        }
        self.issued = kept;
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Resolver, resolver::tests::shake_hands, server_config};
    use rustls::{ClientConfig, RootCertStore};
    use std::os::unix::fs::PermissionsExt;

    fn handshake(ca: &str, resolver: &Arc<Resolver>, name: &'static str) -> Result<(), rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(::pem::parse(ca).unwrap().into_contents().into()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        shake_hands(client, server_config(resolver.clone()), name).map(drop)
    }

    #[test]
    fn a_name_gets_its_certificate_and_an_unknown_one_none() {
        let dir = tempfile::tempdir().unwrap();
        let ca = InternalCa::open(dir.path()).unwrap();
        let root = ca.certificate_pem().to_owned();
        let resolver = Resolver::new();
        let zone = ["edge.example.com".to_owned(), "*.media.edge.example.com".to_owned()];
        let mut issuer = InternalIssuer::new(ca);
        resolver.replace(issuer.refresh(&zone, ["video.customer.example"].into_iter()).unwrap());
        for (name, served) in [
            ("edge.example.com", true),
            ("a.media.edge.example.com", true),
            ("video.customer.example", true),
            ("media.edge.example.com", false),
            ("a.b.media.edge.example.com", false),
            ("other.customer.example", false),
            ("customer.example", false),
        ] {
            assert_eq!(handshake(&root, &resolver, name).is_ok(), served, "{name}");
        }
        for (sni, host, covered) in [
            ("edge.example.com", "a.media.edge.example.com", true),
            ("edge.example.com", "video.customer.example", false),
            ("video.customer.example", "edge.example.com", false),
            ("other.example", "other.example", false),
        ] {
            assert_eq!(resolver.covers(sni, host), covered, "{sni} {host}");
        }
        // A domain that is gone has no certificate any more.
        resolver.replace(issuer.refresh(&zone, std::iter::empty()).unwrap());
        assert!(handshake(&root, &resolver, "video.customer.example").is_err());
        assert!(handshake(&root, &resolver, "edge.example.com").is_ok());
    }

    #[test]
    fn the_ca_stays_the_same_and_its_key_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = InternalCa::open(dir.path()).unwrap().certificate_pem().to_owned();
        assert_eq!(InternalCa::open(dir.path()).unwrap().certificate_pem(), first);
        let mode = fs::metadata(dir.path().join("ca.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_ca_is_told_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        InternalCa::open(dir.path()).unwrap();
        fs::remove_file(dir.path().join("ca.key")).unwrap();
        assert!(matches!(InternalCa::open(dir.path()), Err(Error::Damaged { .. })));
        fs::write(dir.path().join("ca.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
        assert!(matches!(InternalCa::open(dir.path()), Err(Error::Damaged { .. })));
        fs::write(dir.path().join("ca.pem"), "garbage").unwrap();
        assert!(matches!(InternalCa::open(dir.path()), Err(Error::Damaged { .. })));
        assert_eq!(fs::read_to_string(dir.path().join("ca.pem")).unwrap(), "garbage");
    }
}
