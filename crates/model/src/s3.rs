//! An S3 bucket as an origin: where it is, and what opens it.

use crate::{BucketName, OriginUrl, OriginUrlError, SealedSecret};
use std::net::IpAddr;

/// Why something is no S3 origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum S3OriginError {
    /// The endpoint is no URL of an origin.
    #[error("{0}")]
    Endpoint(#[from] OriginUrlError),
    /// The endpoint's path has characters that cannot be signed as they are.
    #[error("may have letters, digits and -._~ only in its path")]
    EndpointPath,
    /// No bucket's name.
    #[error("must be 1 to 255 letters, digits, dots, hyphens and underscores")]
    Bucket,
    /// A bucket that no host name can be made of.
    #[error("makes no host name with that endpoint: set path_style")]
    VirtualHost,
    /// No region's name.
    #[error("must be 1 to 64 letters, digits, hyphens and underscores")]
    Region,
    /// No access key's id.
    #[error("must be 1 to 128 visible ASCII characters without slash, comma and equals sign")]
    AccessKeyId,
}

impl S3OriginError {
    /// The setting that is wrong.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Endpoint(_) | Self::EndpointPath => "endpoint",
            Self::Bucket | Self::VirtualHost => "bucket",
            Self::Region => "region",
            Self::AccessKeyId => "access_key_id",
        }
    }
}

/// The settings of an S3 origin, but for the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Settings {
    /// The server's URL, without the bucket.
    pub endpoint: String,
    /// The bucket's name there.
    pub bucket: String,
    /// The region that requests are signed for.
    pub region: String,
    /// The public half of the credentials.
    pub access_key_id: String,
    /// Whether the bucket is named in the path (`https://host/bucket/key`) rather than in the host
    /// (`https://bucket.host/key`).
    pub path_style: bool,
}

/// An S3 bucket that objects are read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Origin {
    settings: S3Settings,
    base: OriginUrl,
    secret_access_key: SealedSecret,
}

impl S3Origin {
    /// An origin of settings that fit. The secret is sealed for the [`S3Origin::purpose`] of the bucket that has this
    /// origin.
    pub fn new(mut settings: S3Settings, secret_access_key: SealedSecret) -> Result<Self, S3OriginError> {
        let endpoint: OriginUrl = settings.endpoint.parse()?;
        settings.endpoint = endpoint.to_string();
        let unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
        if !endpoint.prefix().bytes().all(unreserved) {
            return Err(S3OriginError::EndpointPath);
        }
        let bucket = &*settings.bucket;
        if !made_of(bucket, 255, |b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) || matches!(bucket, "." | "..") {
            return Err(S3OriginError::Bucket);
        }
        if !made_of(&settings.region, 64, |b| {
            b.is_ascii_alphanumeric() || b"-_".contains(&b)
        }) {
            return Err(S3OriginError::Region);
        }
        // The id stands in a list of name=value, and is followed by a slash there.
        if !made_of(&settings.access_key_id, 128, |b| {
            b.is_ascii_graphic() && !b"/,=".contains(&b)
        }) {
            return Err(S3OriginError::AccessKeyId);
        }
        let base = if settings.path_style {
            format!("{endpoint}/{bucket}")
        } else {
            // A certificate for *.host covers one label (RFC 9525 §6.3).
            let names_a_host = bucket.parse::<BucketName>().is_ok() && endpoint.host().parse::<IpAddr>().is_err();
            if !names_a_host || (endpoint.is_https() && bucket.contains('.')) {
                return Err(S3OriginError::VirtualHost);
            }
            let scheme = if endpoint.is_https() { "https" } else { "http" };
            format!("{scheme}://{bucket}.{}{}", endpoint.authority(), endpoint.prefix())
        };
        let base = base.parse()?;
        Ok(Self {
            settings,
            base,
            secret_access_key,
        })
    }

    /// What the secret of a bucket's S3 origin is sealed for.
    pub fn purpose(bucket: &BucketName) -> String {
        format!("S3 origin of the bucket {bucket}")
    }

    /// The settings, as they were given.
    pub fn settings(&self) -> &S3Settings {
        &self.settings
    }

    /// The bucket's own URL; an object's is this, a slash, and the encoded key.
    pub fn base(&self) -> &OriginUrl {
        &self.base
    }

    /// The secret half of the credentials.
    pub fn secret_access_key(&self) -> &SealedSecret {
        &self.secret_access_key
    }
}

fn made_of(text: &str, most: usize, allowed: impl Fn(u8) -> bool) -> bool {
    (1..=most).contains(&text.len()) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(
        endpoint: &str,
        bucket: &str,
        region: &str,
        id: &str,
        path_style: bool,
    ) -> Result<S3Origin, S3OriginError> {
        let settings = S3Settings {
            endpoint: endpoint.to_owned(),
            bucket: bucket.to_owned(),
            region: region.to_owned(),
            access_key_id: id.to_owned(),
            path_style,
        };
        S3Origin::new(settings, SealedSecret(Box::default()))
    }

    #[test]
    fn a_bucket_is_named_in_the_path_or_in_the_host() {
        for (endpoint, bucket, path_style, base) in [
            (
                "https://s3.example.com",
                "videos",
                false,
                "https://videos.s3.example.com",
            ),
            (
                "https://s3.example.com",
                "videos",
                true,
                "https://s3.example.com/videos",
            ),
            (
                "http://s3.example.com:9000/",
                "a.b",
                false,
                "http://a.b.s3.example.com:9000",
            ),
            (
                "https://s3.example.com/v1/s3",
                "videos",
                false,
                "https://videos.s3.example.com/v1/s3",
            ),
            (
                "https://s3.example.com/v1/s3",
                "Old_Name",
                true,
                "https://s3.example.com/v1/s3/Old_Name",
            ),
            ("http://[::1]:9000", "videos", true, "http://[::1]:9000/videos"),
        ] {
            let made = origin(endpoint, bucket, "eu-west-1", "AKIA", path_style);
            assert_eq!(
                made.map(|o| o.base().to_string()),
                Ok(base.to_owned()),
                "{endpoint} {bucket}"
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        const HOST: &str = "https://s3.example.com";
        for (endpoint, bucket, region, id, path_style, error) in [
            (
                "s3.example.com",
                "videos",
                "r",
                "k",
                true,
                OriginUrlError::Scheme.into(),
            ),
            (
                "https://s3.example.com/?x",
                "videos",
                "r",
                "k",
                true,
                OriginUrlError::Query.into(),
            ),
            (
                "https://s3.example.com/a%20b",
                "videos",
                "r",
                "k",
                true,
                S3OriginError::EndpointPath,
            ),
            (HOST, "", "r", "k", true, S3OriginError::Bucket),
            (HOST, "..", "r", "k", true, S3OriginError::Bucket),
            (HOST, "a/b", "r", "k", true, S3OriginError::Bucket),
            (HOST, "Old_Name", "r", "k", false, S3OriginError::VirtualHost),
            (HOST, "a.b", "r", "k", false, S3OriginError::VirtualHost),
            (
                "http://127.0.0.1:9000",
                "videos",
                "r",
                "k",
                false,
                S3OriginError::VirtualHost,
            ),
            (HOST, "videos", "", "k", true, S3OriginError::Region),
            (HOST, "videos", "eu/west", "k", true, S3OriginError::Region),
            (HOST, "videos", "r", "", true, S3OriginError::AccessKeyId),
            (HOST, "videos", "r", "k/../s3", true, S3OriginError::AccessKeyId),
            (HOST, "videos", "r", "k, Signature=0", true, S3OriginError::AccessKeyId),
            (HOST, "videos", "r", "k\r\nx: y", true, S3OriginError::AccessKeyId),
        ] {
            let made = origin(endpoint, bucket, region, id, path_style);
            assert_eq!(made, Err(error), "{endpoint} {bucket} {region} {id:?}");
        }
    }

    #[test]
    fn nothing_of_the_secret_is_shown() {
        let mut made = origin("https://s3.example.com", "videos", "r", "k", true).expect("it fits");
        made.secret_access_key = SealedSecret(b"secret".to_vec().into());
        let shown = format!("{made:?}");
        assert!(shown.contains("SealedSecret") && !shown.contains("115"), "{shown}");
    }
}
