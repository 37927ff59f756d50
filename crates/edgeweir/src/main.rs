//! The `edgeweir` binary: command line, configuration, wiring. The only crate that knows all the others.

mod admin;
mod assets;
mod bind;
mod cache_metrics;
mod certificates;
mod certs_list;
mod cli;
mod config;
mod credentials;
mod data_dir;
mod feed;
mod issuance;
mod quickstart;
mod routes;
mod serve;
mod sign;

use clap::Parser;
use cli::{CertsCommand, Cli, Command, ConfigCommand, ProjectCommand};
use config::{Config, ConfigError};
use secrecy::ExposeSecret;
use sign::SignError;
use std::{io::Write, process::ExitCode, time::Duration};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: edgeweir_allocator::MiMalloc = edgeweir_allocator::MiMalloc;

/// How long freed memory is kept for what is allocated next.
const FREED_KEPT: Duration = Duration::from_secs(20);

/// Why a command did not do its work.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The configuration is wrong: exit code 2.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The command line is wrong: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// Anything else: exit code 1.
    #[error("{0}")]
    Failed(String),
}

impl Failure {
    /// A failure with its cause and the causes of that.
    fn because(what: &str, error: &dyn std::error::Error) -> Self {
        let mut text = format!("{what}: {error}");
        let mut cause = error.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        Self::Failed(text)
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::Usage(_) => ExitCode::from(2),
            Self::Failed(_) => ExitCode::FAILURE,
        }
    }
}

fn main() -> ExitCode {
    edgeweir_allocator::keep_freed(FREED_KEPT);
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tell(&failure);
            failure.exit_code()
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Quickstart { dir } => {
            let config = quickstart::config(dir.as_deref())?;
            log_to_stderr(&config)?;
            runtime()?.block_on(quickstart::run(config))
        }
        Command::Serve { role, config } => {
            let config = config.load()?;
            log_to_stderr(&config)?;
            runtime()?.block_on(serve::run(config, role))
        }
        Command::Project {
            command: ProjectCommand::Create { name, json, config },
        } => {
            let config = config.load()?;
            runtime()?.block_on(create_project(&config, &name, json))
        }
        Command::Certs {
            command: CertsCommand::List { json, config },
        } => {
            let config = config.load()?;
            print(runtime()?.block_on(certs_list::list(&config, json))?.trim_end())
        }
        Command::Sign(args) => {
            let failure = |e: SignError| {
                let text = e.to_string();
                if e.is_usage() {
                    Failure::Usage(text)
                } else {
                    Failure::Failed(text)
                }
            };
            print(&sign::from_args(&args).map_err(failure)?)
        }
        Command::Config {
            command: ConfigCommand::Check { config },
        } => print(config.load()?.to_toml().trim_end()),
    }
}

/// To standard output; a reader that went away is no failure of ours.
fn print(text: &str) -> Result<(), Failure> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::because("standard output", &e)),
        _ => Ok(()),
    }
}

/// To standard error. One that cannot be written to is no reason to fail in another way: `eprintln` would panic.
fn tell(what: &dyn std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "edgeweir: {what}");
}

async fn create_project(config: &Config, name: &str, json: bool) -> Result<(), Failure> {
    if name.is_empty() || name.chars().count() > 255 || name.chars().any(char::is_control) {
        return Err(Failure::Usage(
            "a project's name has 1 to 255 characters, and no control characters".to_owned(),
        ));
    }
    data_dir::create(&config.data_dir)?;
    let store = serve::open_store(config).await?;
    let project = store
        .create_project(name)
        .await
        .map_err(|e| Failure::because("the project cannot be made", &e))?;
    store.close().await;
    let api_key = project.api_key.expose_secret();
    if json {
        let body = serde_json::json!({ "project_id": project.project_id.0, "name": project.name, "api_key": api_key });
        print(&body.to_string())
    } else {
        print(&format!(
            "project  {} ({})\nAPI key  {api_key}\n\nThe key is shown this once: keep it safe.",
            project.project_id, project.name
        ))
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    raise_file_limit();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        // Where it is not allowed, they are as other threads are: a little slower.
        .on_thread_start(|| drop(edgeweir_schedule::as_batch()))
        .build()
        .map_err(|e| Failure::because("the runtime cannot start", &e))
}

/// Connections are file descriptors, and the usual soft limit is 1024.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if setrlimit(Resource::Nofile, raised).is_err() {
        tell(&"the limit of open files stays as it is");
    }
}

fn log_to_stderr(config: &Config) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&config.log.filter)
        .map_err(|e| ConfigError::value("log.filter", &format!("is no log filter: {e}")))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A line that cannot be written would be told of where it cannot be written, and that panics.
        .log_internal_errors(false);
    match config.log.format {
        config::LogFormat::Text => log.with_ansi(false).init(),
        config::LogFormat::Json => log.json().init(),
    }
    Ok(())
}
