//! Ids: lower-case UUIDv4 (RFC 9562) for what the API names, integers for what only the service counts.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use uuid::Uuid;

/// The text is not a lower-case, hyphenated UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a lower-case UUID")]
pub struct IdError;

/// Takes exactly the spelling that [`Uuid`]'s `Display` gives, so that an id has one text form.
fn parse_uuid(s: &str) -> Result<Uuid, IdError> {
    let shape = s.len() == 36 && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-'));
    if !shape {
        return Err(IdError);
    }
    Uuid::try_parse(s).map_err(|_| IdError)
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new random id (UUIDv4).
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(s: &str) -> Result<Self, IdError> {
                parse_uuid(s).map(Self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

uuid_id!(
    /// A playback domain.
    DomainId
);
uuid_id!(
    /// A TLS subscription of a playback domain.
    SubscriptionId
);
uuid_id!(
    /// A signing key; the `kid` of the tokens that it signs.
    SigningKeyId
);
uuid_id!(
    /// A live stream.
    StreamId
);

impl StreamId {
    /// The two halves of its 128 bits, the high one first.
    pub fn as_u64_pair(self) -> (u64, u64) {
        self.0.as_u64_pair()
    }
}

macro_rules! integer_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

integer_id!(
    /// A project: the owner of everything else, and the `sub` of an access token.
    ProjectId
);
integer_id!(
    /// A bucket. Never used again after the bucket is deleted, so that a cache key of the old one cannot meet a new one.
    BucketId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_spelling_is_an_id() {
        let id = SigningKeyId::random();
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in [
            "",
            "ec25a6a6b31e4ac9af01711460421c6b",
            "EC25A6A6-B31E-4AC9-AF01-711460421C6B",
            "{ec25a6a6-b31e-4ac9-af01-711460421c6b}",
            "../../../../../../etc/passwd-aaaaaaa",
            "' or 1=1 --                         ",
            "ec25a6a6-b31e-4ac9-af01-711460421c6b\0",
            "ec25a6a6b31e-4ac9-af01-711460421-c6b",
        ] {
            assert_eq!(bad.parse::<SigningKeyId>(), Err(IdError), "{bad:?}");
        }
    }
}
