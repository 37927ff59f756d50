//! The configuration: TOML, then `EDGEWEIR_*` variables (`__` between the parts of a key), then flags.
//!
//! The defaults, written out, are the list of the keys that there are; whatever names another is refused, with the
//! nearest one that is known.

mod sources;
mod values;

pub(crate) use sources::Setting;
use sources::{is_ours, merge, set, syntax};
use values::as_text;
pub(crate) use values::{Address, Size};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use edgeweir_model::Fqdn;
use serde::{Deserialize, Serialize};
use std::{
    ffi::OsString,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};
use toml::Table;
use zeroize::Zeroizing;

/// What is wrong with a configuration, and where.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ConfigError(String);

impl ConfigError {
    pub(crate) fn value(key: &str, problem: &str) -> Self {
        Self(format!("{key} {problem}"))
    }
}

/// The smallest disk tier, in bytes: a few of the cache's slices fit into each of its files.
const MIN_DISK: u64 = 16 << 20;

/// The configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Config {
    #[serde(with = "as_text")]
    pub(crate) zone: Fqdn,
    pub(crate) data_dir: PathBuf,
    pub(crate) regions: Vec<String>,
    pub(crate) listen: Listen,
    pub(crate) http: Http,
    pub(crate) api: Api,
    pub(crate) store: Store,
    pub(crate) cache: Cache,
    pub(crate) origins: Origins,
    pub(crate) keys: Keys,
    pub(crate) limits: Limits,
    pub(crate) live: Live,
    pub(crate) acme: Acme,
    pub(crate) dns: Dns,
    pub(crate) log: Log,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Listen {
    pub(crate) http: Address,
    pub(crate) https: Address,
    /// HTTP/3 on the port of `https`.
    pub(crate) h3: bool,
    pub(crate) api: Address,
    pub(crate) admin: Address,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Http {
    pub(crate) mode: HttpMode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum HttpMode {
    Serve,
    Redirect,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Api {
    pub(crate) tls: bool,
    pub(crate) behind_tls_proxy: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Store {
    pub(crate) url: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Cache {
    pub(crate) memory: Size,
    pub(crate) disk: Size,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Origins {
    pub(crate) allow_private: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Keys {
    pub(crate) pool: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Limits {
    pub(crate) domains: usize,
    pub(crate) failed_attempts_per_minute: u32,
    pub(crate) object: Size,
    pub(crate) idle_seconds: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Live {
    /// What the windows of all pushed streams may hold.
    pub(crate) memory: Size,
    /// The same of one stream.
    pub(crate) stream: Size,
    /// The largest file that an encoder may push.
    pub(crate) segment: Size,
    /// For how long a file is kept that no playlist lists.
    pub(crate) window_seconds: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Acme {
    pub(crate) directory: String,
    pub(crate) contact: String,
    pub(crate) ca_bundle: String,
    pub(crate) eab_key_id: String,
    pub(crate) eab_hmac_key: String,
    pub(crate) profile: String,
    pub(crate) challenge: ChallengeKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ChallengeKind {
    /// HTTP-01 when there is a plain HTTP listener, else TLS-ALPN-01.
    #[serde(rename = "auto")]
    Auto,
    #[serde(rename = "http-01")]
    Http01,
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Dns {
    pub(crate) resolver: Address,
    pub(crate) target: String,
    pub(crate) addresses: Vec<IpAddr>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Log {
    pub(crate) filter: String,
    pub(crate) format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    Text,
    Json,
}

impl Default for Config {
    fn default() -> Self {
        let loopback = |port| Address(Some(SocketAddr::from(([127, 0, 0, 1], port))));
        Self {
            zone: "edgeweir.localhost".parse().expect("a valid name"),
            data_dir: "edgeweir-data".into(),
            regions: vec!["local".to_owned()],
            listen: Listen {
                http: loopback(8080),
                https: loopback(8443),
                h3: true,
                api: loopback(8090),
                admin: loopback(8091),
            },
            http: Http { mode: HttpMode::Serve },
            api: Api {
                tls: false,
                behind_tls_proxy: false,
            },
            store: Store {
                url: "sqlite".to_owned(),
            },
            cache: Cache {
                memory: Size(256 << 20),
                disk: Size(10 << 30),
            },
            origins: Origins { allow_private: false },
            keys: Keys { pool: 4 },
            limits: Limits {
                domains: 20,
                failed_attempts_per_minute: 10,
                object: Size(1 << 40),
                idle_seconds: 30,
            },
            live: Live {
                memory: Size(1 << 30),
                stream: Size(256 << 20),
                segment: Size(64 << 20),
                window_seconds: 60,
            },
            acme: Acme {
                directory: String::new(),
                contact: String::new(),
                ca_bundle: String::new(),
                eab_key_id: String::new(),
                eab_hmac_key: String::new(),
                profile: String::new(),
                challenge: ChallengeKind::Auto,
            },
            dns: Dns {
                resolver: Address(None),
                target: String::new(),
                addresses: Vec::new(),
            },
            log: Log {
                filter: "info".to_owned(),
                format: LogFormat::Text,
            },
        }
    }
}

impl Config {
    /// The configuration that comes of `base`, a file, the process's environment and flags, checked.
    pub(crate) fn load(
        base: Self,
        file: Option<&Path>,
        environment: impl Iterator<Item = (OsString, OsString)>,
        flags: Vec<Setting>,
    ) -> Result<Self, ConfigError> {
        let mut table = Table::try_from(base).expect("defaults are plain");
        if let Some(path) = file {
            let origin = path.display().to_string();
            let text = std::fs::read_to_string(path).map_err(|e| ConfigError(format!("{origin}: {e}")))?;
            let given: Table = toml::from_str(&text).map_err(|e| ConfigError(syntax(&origin, &text, &e)))?;
            merge(&mut table, given, "", &origin)?;
        }
        let mut variables = Vec::new();
        for (name, value) in environment {
            // Another's may be anything.
            let Some(name) = name.to_str().filter(|name| is_ours(name)) else {
                continue;
            };
            let value = value
                .into_string()
                .map_err(|_| ConfigError::value(name, "must be UTF-8"))?;
            variables.push((name.to_owned(), value));
        }
        variables.sort_unstable();
        let settings = variables.into_iter().map(|(name, value)| {
            let key = name["EDGEWEIR_".len()..].to_ascii_lowercase().replace("__", ".");
            Setting::new(&key, &value, &name)
        });
        for setting in settings.chain(flags) {
            set(&mut table, &setting)?;
        }
        // Section by section, so that a message names the key.
        let config: Self = table
            .try_into()
            .map_err(|e: toml::de::Error| ConfigError(e.to_string().trim().replace('\n', " ")))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let label = |s: &str| {
            !s.is_empty()
                && s.len() <= 63
                && s.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !s.starts_with('-')
                && !s.ends_with('-')
        };
        if self.regions.is_empty() || !self.regions.iter().all(|r| label(r)) {
            return Err(ConfigError::value(
                "regions",
                "must be one or more DNS labels: lower-case letters, digits and inner hyphens",
            ));
        }
        if !self.dns.target.is_empty() && self.dns.target.parse::<Fqdn>().is_err() {
            return Err(ConfigError::value("dns.target", "must be a domain name, or empty"));
        }
        if !self.acme.directory.is_empty() && !self.acme.directory.starts_with("https://") {
            return Err(ConfigError::value(
                "acme.directory",
                "must be the https:// URL of a CA's directory, or empty",
            ));
        }
        if self.acme.eab_key_id.is_empty() != self.acme.eab_hmac_key.is_empty() || self.eab_hmac_key().is_none() {
            return Err(ConfigError::value(
                "acme.eab_hmac_key",
                "and acme.eab_key_id must be given together, the key in base64url as the CA shows it",
            ));
        }
        if self.keys.pool > 64 {
            return Err(ConfigError::value("keys.pool", "must be at most 64"));
        }
        if self.limits.failed_attempts_per_minute == 0 {
            return Err(ConfigError::value(
                "limits.failed_attempts_per_minute",
                "must be at least 1",
            ));
        }
        if !(1..=3600).contains(&self.limits.idle_seconds) {
            return Err(ConfigError::value("limits.idle_seconds", "must be 1 to 3600"));
        }
        if !(5..=86400).contains(&self.live.window_seconds) {
            return Err(ConfigError::value("live.window_seconds", "must be 5 to 86400"));
        }
        if self.live.segment.0 > self.live.stream.0 || self.live.stream.0 > self.live.memory.0 {
            return Err(ConfigError::value(
                "live.stream",
                "must be at least live.segment, and at most live.memory",
            ));
        }
        if (1..MIN_DISK).contains(&self.cache.disk.0) {
            return Err(ConfigError::value("cache.disk", "must be 0, or at least 16MiB"));
        }
        if self.cache.memory.0 < 1 << 20 {
            return Err(ConfigError::value("cache.memory", "must be at least 1MiB"));
        }
        if self.log.filter.parse::<tracing_subscriber::EnvFilter>().is_err() {
            return Err(ConfigError::value(
                "log.filter",
                "must be a log level or filter, as in info or edgeweir=debug",
            ));
        }
        if !edgeweir_store::is_supported(&self.store.url) {
            return Err(ConfigError::value(
                "store.url",
                "must be \"sqlite\" or \"sqlite:PATH\": PostgreSQL is not supported yet",
            ));
        }
        let public = |address: Address| address.0.is_some_and(|a| !a.ip().to_canonical().is_loopback());
        if public(self.listen.admin) && !self.api.behind_tls_proxy {
            return Err(ConfigError::value(
                "listen.admin",
                "is not a loopback address, and the admin listener asks nobody who they are: set \
                 api.behind_tls_proxy = true when a proxy or network of yours keeps others out",
            ));
        }
        if public(self.listen.api) && !self.api.tls && !self.api.behind_tls_proxy {
            return Err(ConfigError::value(
                "listen.api",
                "is not a loopback address, and the API would speak plain HTTP there: set api.tls = true, or \
                 api.behind_tls_proxy = true when a proxy of yours does the TLS",
            ));
        }
        Ok(())
    }

    /// The key of the external account (RFC 8555 §7.3.4), empty for none; `None` when it is no base64url.
    pub(crate) fn eab_hmac_key(&self) -> Option<Zeroizing<Vec<u8>>> {
        let text = self.acme.eab_hmac_key.trim_end_matches('=').as_bytes();
        URL_SAFE_NO_PAD.decode(text).ok().map(Zeroizing::new)
    }

    /// What customers' CNAMEs must point to.
    pub(crate) fn edge_target(&self) -> String {
        if self.dns.target.is_empty() {
            format!("edge.{}", self.zone)
        } else {
            self.dns.target.clone()
        }
    }

    /// The whole of it in TOML, secrets masked.
    pub(crate) fn to_toml(&self) -> String {
        let mut shown = self.clone();
        shown.store.url = masked(&shown.store.url);
        if !shown.acme.eab_hmac_key.is_empty() {
            shown.acme.eab_hmac_key = "***".to_owned();
        }
        toml::to_string(&shown).expect("the configuration is plain")
    }
}

/// A URL without its passwords: in the authority, and as a parameter.
fn masked(url: &str) -> String {
    let (address, query) = url.split_once('?').map_or((url, None), |(a, q)| (a, Some(q)));
    let mut shown = address.to_owned();
    if let Some((scheme, rest)) = address.split_once("://")
        && let Some((user, _)) = rest.split('/').next().unwrap_or_default().rsplit_once('@')
    {
        let name = user.split(':').next().unwrap_or_default();
        shown = format!("{scheme}://{name}:***{}", &rest[user.len()..]);
    }
    let parameter = |pair: &str| match pair.split_once('=') {
        Some((name, _)) if name.to_ascii_lowercase().contains("password") => format!("{name}=***"),
        _ => pair.to_owned(),
    };
    if let Some(query) = query {
        let pairs: Vec<_> = query.split('&').map(parameter).collect();
        shown = format!("{shown}?{}", pairs.join("&"));
    }
    shown
}

#[cfg(test)]
mod tests;
