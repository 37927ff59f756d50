//! The command line.

use crate::{
    Failure,
    config::{Config, ConfigError, Setting},
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// A content delivery service that you run yourself: HLS, DASH and MP4 from your storage, with signed URLs.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Everything on embedded defaults: a demo project, bucket and sample video, then the server; Ctrl-C stops.
    Quickstart {
        /// Where the demo keeps its data, if not in edgeweir-quickstart; a second run goes on with it.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// The server.
    Serve {
        /// Which parts run here.
        #[arg(long, value_enum, default_value = "all")]
        role: Role,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Projects: what owns domains, buckets, keys and streams.
    Project {
        #[command(subcommand)]
        command: ProjectCommand,
    },
    /// Certificates of the TLS subscriptions.
    Certs {
        #[command(subcommand)]
        command: CertsCommand,
    },
    /// Prints a signed token, made from the private key alone, offline.
    ///
    /// Example: edgeweir sign --key-id ec25a6a6-b31e-4ac9-af01-711460421c6b --key key.pem --uri videos/42/
    Sign(SignArgs),
    /// The configuration.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// The control API and the edge.
    All,
    /// The control API.
    Api,
    /// The edge.
    Edge,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProjectCommand {
    /// Makes a project and its API key, which is shown this once; works beside a running server.
    Create {
        /// The project's name.
        name: String,
        /// Prints {"project_id", "name", "api_key"}.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum CertsCommand {
    /// Lists every project's: domain, status, end and what its owner is told; works beside a running server.
    List {
        /// Prints [{"domain", "status", "not_after", "message"}].
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Validates a configuration and prints it, defaults filled in, secrets masked.
    Check {
        #[command(flatten)]
        config: ConfigArgs,
    },
}

/// Where the configuration comes from: a TOML file, then EDGEWEIR_* variables, then flags.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// The configuration file; ./edgeweir.toml when there is one.
    #[arg(long, env = "EDGEWEIR_CONFIG")]
    config: Option<PathBuf>,
    /// The same as --set data_dir=DIR.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Sets one key, as in --set listen.http=127.0.0.1:80 (may be repeated).
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl ConfigArgs {
    pub(crate) fn load(&self) -> Result<Config, Failure> {
        let mut flags = Vec::new();
        if let Some(dir) = &self.data_dir {
            flags.push(Setting::data_dir(dir, "--data-dir")?);
        }
        for pair in &self.set {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| ConfigError::value("--set", &format!("{pair:?} is not KEY=VALUE")))?;
            flags.push(Setting::new(key, value, "--set"));
        }
        let file = match &self.config {
            Some(path) => Some(path.clone()),
            None => Some(PathBuf::from("edgeweir.toml")).filter(|path| path.exists()),
        };
        Ok(Config::load(
            Config::default(),
            file.as_deref(),
            std::env::vars_os(),
            flags,
        )?)
    }
}

#[derive(Debug, Args)]
pub(crate) struct SignArgs {
    /// The signing key's id.
    #[arg(long)]
    pub(crate) key_id: String,
    /// The private key's PEM file; - is standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
    /// The object's key, or a prefix of keys (end folders with a slash; "" is the whole bucket); a stream's playback id.
    #[arg(long)]
    pub(crate) uri: String,
    /// For how many seconds the token is valid; 0 is for ever.
    #[arg(long, default_value_t = 3600)]
    pub(crate) expires_in: u64,
    /// From when on the token is valid: Unix seconds, or as in 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "T")]
    pub(crate) not_before: Option<String>,
}
