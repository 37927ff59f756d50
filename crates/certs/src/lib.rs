//! Certificates: their life cycle, the public CA that they come from (ACME), what the DNS must say first, an internal CA
//! for development, and the resolver that chooses one by SNI (RFC 6066 §3).

pub mod acme;
pub mod dns;
mod internal;
pub mod issued;
pub mod lifecycle;
mod provider;
mod resolver;
mod seal;
mod tickets;

pub use internal::{InternalCa, InternalIssuer};
pub use resolver::{ACME_TLS, CertificateTable, Resolver, server_config};
pub use seal::{Sealer, Unopened};

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the CA cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What went wrong.
        source: std::io::Error,
    },
    /// A file of the CA does not hold what it should; it is left as it is.
    #[error(
        "{path} is damaged or belongs to another key: restore it, or remove ca.pem and ca.key to begin with a new CA"
    )]
    Damaged {
        /// The file.
        path: String,
    },
    /// A certificate cannot be made.
    #[error("a certificate cannot be made: {0}")]
    Issue(#[from] rcgen::Error),
    /// What a CA sent is no certificate that can be used.
    #[error("the certificate cannot be used: {0}")]
    Chain(&'static str),
    /// A key cannot be used by TLS.
    #[error("a key cannot be used: {0}")]
    Key(#[from] rustls::Error),
}
