//! Who may read a bucket, a stream or a domain.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Whether a signed token is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessPolicy {
    /// Anyone may read.
    Public,
    /// A request needs a signed token (`?auth=`).
    Authenticated,
}

impl AccessPolicy {
    /// The name used in URLs, JSON and the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Authenticated => "authenticated",
        }
    }
}

impl fmt::Display for AccessPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for AccessPolicy {
    type Err = ();

    fn from_str(s: &str) -> Result<Self, ()> {
        match s {
            "public" => Ok(Self::Public),
            "authenticated" => Ok(Self::Authenticated),
            _ => Err(()),
        }
    }
}
