//! Which cryptography a server's TLS uses: aws-lc-rs, and for the records' AES-GCM what is fastest on this processor.
//!
//! aws-lc has a wide AES-GCM for AVX-512 alone; ring has one for AVX2 too (VAES and VPCLMULQDQ, so on AMD's Zen 3 and on
//! Intel's client processors since Alder Lake), of 1.9 times the speed there: 6.6 for 3.6 GB/s of 16 KiB records. Of 1 MiB
//! over TLS more than a third of the time is this cipher. Handshakes, keys and tickets are aws-lc's everywhere.

use rustls::{
    CipherSuite, SupportedCipherSuite,
    crypto::{CryptoProvider, aws_lc_rs, ring},
};

/// The provider of the TLS that this process serves.
pub(crate) fn provider() -> CryptoProvider {
    with_records_of(wide_aes_gcm_is_rings())
}

/// aws-lc-rs's suites in its order, those of AES-GCM ring's if `ring`.
fn with_records_of(ring: bool) -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    if ring {
        for suite in &mut provider.cipher_suites {
            *suite = rings(suite.suite()).unwrap_or(*suite);
        }
    }
    provider
}

/// ring's suite of this name, if it is one of AES-GCM.
fn rings(name: CipherSuite) -> Option<SupportedCipherSuite> {
    use CipherSuite as Name;
    matches!(
        name,
        Name::TLS13_AES_256_GCM_SHA384
            | Name::TLS13_AES_128_GCM_SHA256
            | Name::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
            | Name::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | Name::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
            | Name::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    )
    .then(|| ring::ALL_CIPHER_SUITES.iter().find(|suite| suite.suite() == name))?
    .copied()
}

/// Whether this processor has the instructions of ring's wide AES-GCM but not those of aws-lc's.
#[cfg(target_arch = "x86_64")]
fn wide_aes_gcm_is_rings() -> bool {
    use std::arch::is_x86_feature_detected as has;
    let vector_aes = has!("vaes") && has!("vpclmulqdq") && has!("avx2");
    let aws_lcs = has!("avx512f") && has!("avx512dq") && has!("avx512bw") && has!("avx512vl");
    vector_aes && !aws_lcs
}

#[cfg(not(target_arch = "x86_64"))]
fn wide_aes_gcm_is_rings() -> bool {
    false
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::resolver::{
        CertificateTable, Resolver, config_with,
        tests::{Anything, self_signed, shake_hands},
    };
    use rustls::ClientConfig;
    use std::{
        io::{Read, Write},
        sync::Arc,
    };

    #[test]
    fn both_libraries_give_the_same_suites_in_the_same_order() {
        let names = |ring| {
            with_records_of(ring)
                .cipher_suites
                .iter()
                .map(SupportedCipherSuite::suite)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(true), names(false));
        let exchanged = names(true).into_iter().filter_map(rings).count();
        assert_eq!(exchanged, 6, "the AES-GCM of TLS 1.2 and 1.3");
    }

    /// Whatever processor this is: a client of aws-lc-rs understands a server of either, and the other way round.
    #[test]
    fn both_libraries_understand_each_other() {
        let resolver = Resolver::new();
        let mut table = CertificateTable::default();
        table.insert(["x.example.com"], &self_signed("x.example.com"));
        resolver.replace(table);
        let content: Vec<u8> = (0..40_000_u32).map(|i| (i % 251) as u8).collect();
        let mut tried = 0;
        for ring in [true, false] {
            for suite in aws_lc_rs::default_provider().cipher_suites {
                let mut provider = aws_lc_rs::default_provider();
                provider.cipher_suites = vec![suite];
                let client = ClientConfig::builder_with_provider(Arc::new(provider))
                    .with_protocol_versions(&[suite.version()])
                    .unwrap()
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(Anything))
                    .with_no_client_auth();
                let server = config_with(with_records_of(ring), resolver.clone());
                // The certificate's key is ECDSA: RSA's suites of TLS 1.2 have nothing to be shown.
                let Ok((mut client, mut server)) = shake_hands(client, server, "x.example.com") else {
                    assert!(format!("{suite:?}").contains("_RSA_"), "{suite:?}");
                    continue;
                };
                let mut wire = Vec::new();
                client.writer().write_all(&content).unwrap();
                client.write_tls(&mut wire).unwrap();
                let mut rest = &wire[..];
                let mut read = Vec::new();
                while !rest.is_empty() {
                    server.read_tls(&mut rest).unwrap();
                    server.process_new_packets().unwrap();
                    let _ = server.reader().read_to_end(&mut read);
                }
                assert!(read == content, "to the server: {suite:?}, {ring}");
                server.writer().write_all(&read).unwrap();
                wire.clear();
                while server.wants_write() {
                    server.write_tls(&mut wire).unwrap();
                }
                let mut rest = &wire[..];
                read.clear();
                while !rest.is_empty() {
                    client.read_tls(&mut rest).unwrap();
                    client.process_new_packets().unwrap();
                    let _ = client.reader().read_to_end(&mut read);
                }
                assert!(read == content, "to the client: {suite:?}, {ring}");
                tried += 1;
            }
        }
        assert_eq!(tried, 2 * (3 + 3), "each suite of TLS 1.3, and those of ECDSA of 1.2");
    }
}
