//! Certificates that a CA issues: the request for one, what is read out of it, and the one that answers a TLS-ALPN-01
//! challenge (RFC 8737).

use crate::{Error, lifecycle::Millis};
use aws_lc_rs::digest;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::{crypto::aws_lc_rs::sign::any_ecdsa_type, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::sync::Arc;
use x509_parser::{extensions::GeneralName, parse_x509_certificate};
use zeroize::Zeroizing;

/// A key made for one certificate (ECDSA P-256), and the request for that.
#[derive(Debug)]
pub struct Request {
    /// The key: PKCS#8, DER.
    pub private_key: Zeroizing<Vec<u8>>,
    /// The request: PKCS#10, DER.
    pub csr: Vec<u8>,
}

impl Request {
    /// A new key and its request.
    pub fn new(name: &str) -> Result<Self, Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new([name.to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        let csr = params.serialize_request(&key)?.der().to_vec();
        Ok(Self {
            private_key: Zeroizing::new(key.serialize_der()),
            csr,
        })
    }
}

/// The certificates of a chain, the server's own first.
pub fn chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let blocks = ::pem::parse_many(pem).map_err(|_| Error::Chain("it is no PEM"))?;
    let certificates = blocks.into_iter().filter(|block| block.tag() == "CERTIFICATE");
    let chain: Vec<_> = certificates.map(|block| block.into_contents().into()).collect();
    if chain.is_empty() {
        return Err(Error::Chain("it holds no certificate"));
    }
    Ok(chain)
}

/// A chain and its key, ready for TLS.
pub fn certified(pem: &str, private_key: &[u8]) -> Result<Arc<CertifiedKey>, Error> {
    let key = any_ecdsa_type(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(private_key)))?;
    let certified = CertifiedKey::new(chain(pem)?, key);
    certified.keys_match()?;
    Ok(Arc::new(certified))
}

/// From when until when a chain's first certificate is valid, if it is `name`'s.
pub fn validity(pem: &str, name: &str) -> Result<(Millis, Millis), Error> {
    let chain = chain(pem)?;
    let (_, parsed) =
        parse_x509_certificate(&chain[0]).map_err(|_| Error::Chain("its first certificate is damaged"))?;
    let names = parsed.subject_alternative_name().ok().flatten();
    let covered = names.is_some_and(|names| {
        let is_it = |n: &GeneralName<'_>| matches!(n, GeneralName::DNSName(dns) if dns.eq_ignore_ascii_case(name));
        names.value.general_names.iter().any(is_it)
    });
    if !covered {
        return Err(Error::Chain("it is not for the name"));
    }
    let validity = parsed.validity();
    // The last second belongs to it (RFC 5280 §4.1.2.5).
    Ok((
        validity.not_before.timestamp() * 1000,
        validity.not_after.timestamp() * 1000,
    ))
}

/// The certificate that shows a key authorization to the CA (RFC 8737 §3).
pub fn challenge(name: &str, key_authorization: &str) -> Result<Arc<CertifiedKey>, Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    let hash = digest::digest(&digest::SHA256, key_authorization.as_bytes());
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(hash.as_ref())];
    let certificate = params.self_signed(&key)?;
    let signing = any_ecdsa_type(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())))?;
    Ok(Arc::new(CertifiedKey::new(vec![certificate.der().clone()], signing)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_requested_can_serve() {
        let request = Request::new("x.example.com").unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(request.private_key.to_vec()));
        let key = KeyPair::try_from(&key).unwrap();
        let pem = CertificateParams::new(["x.example.com".to_owned()])
            .unwrap()
            .self_signed(&key)
            .unwrap()
            .pem();
        assert_eq!(certified(&pem, &request.private_key).unwrap().cert.len(), 1);
        let (from, until) = validity(&pem, "x.example.com").unwrap();
        assert!(from < until);
        assert!(validity(&pem, "y.example.com").is_err());
        let other = Request::new("x.example.com").unwrap();
        assert!(certified(&pem, &other.private_key).is_err());
        assert!(chain("").is_err());
    }

    #[test]
    fn a_challenge_is_shown_as_the_standard_has_it() {
        let certified = challenge("x.example.com", "token.thumbprint").unwrap();
        let (_, parsed) = parse_x509_certificate(&certified.cert[0]).unwrap();
        let extension = parsed
            .extensions()
            .iter()
            .find(|e| e.oid.to_id_string() == "1.3.6.1.5.5.7.1.31")
            .unwrap();
        assert!(extension.critical);
        let hash = digest::digest(&digest::SHA256, b"token.thumbprint");
        assert_eq!(extension.value, [&[4, 32], hash.as_ref()].concat());
    }
}
