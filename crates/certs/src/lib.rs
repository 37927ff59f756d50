//! Certificates: an internal CA for development and for the time before a public certificate is there, and the
//! resolver that chooses one by SNI (RFC 6066 §3).

mod internal;
pub mod lifecycle;
mod resolver;

pub use internal::{InternalCa, InternalIssuer};
pub use resolver::{CertificateTable, Resolver, server_config};

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
    /// A key cannot be used by TLS.
    #[error("a key cannot be used: {0}")]
    Key(#[from] rustls::Error),
}
