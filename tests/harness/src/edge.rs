//! A real server: its own process, its own folder, free ports.

use crate::{Client, Protocol, Reply, h3::H3};
use bytes::Bytes;
use http::Method;
use serde_json::Value;
use std::{
    fs::File,
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// The project's own folder.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the folder is there")
}

/// The sample video's files: key and content.
pub fn demo() -> Vec<(String, Vec<u8>)> {
    fn collect(folder: &Path, prefix: &str, files: &mut Vec<(String, Vec<u8>)>) {
        for entry in std::fs::read_dir(folder).expect("demo/ is there") {
            let path = entry.expect("demo/ is readable").path();
            let key = format!("{prefix}{}", path.file_name().expect("a name").to_string_lossy());
            if path.is_dir() {
                collect(&path, &format!("{key}/"), files);
            } else {
                files.push((key, std::fs::read(&path).expect("a file")));
            }
        }
    }
    let mut files = Vec::new();
    collect(&repository().join("demo"), "", &mut files);
    files
}

/// Runs a program to its end: whether it succeeded, standard output, standard error.
pub fn command_output(command: &mut Command) -> (bool, String, String) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

/// Where a stream of a server's output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Nobody looks at it.
    Nowhere,
    /// To the log.
    Log,
    /// To a disk that is full.
    Full,
}

/// A server that runs until this is dropped.
#[derive(Debug)]
pub struct Edge {
    binary: PathBuf,
    folder: tempfile::TempDir,
    data_dir: PathBuf,
    settings: Vec<(String, String)>,
    /// How many threads answer requests; `None` for as many as there are cores.
    threads: Option<usize>,
    /// Where standard output and standard error go.
    output: [Output; 2],
    child: Option<Child>,
    addresses: Value,
}

impl Edge {
    /// Starts a server with free ports, private origins allowed, and no key pairs made ahead.
    pub async fn start(binary: &str) -> Self {
        Self::start_with(binary, &[]).await
    }

    /// As [`Edge::start`], with settings of the configuration in addition.
    pub async fn start_with(binary: &str, settings: &[(&str, &str)]) -> Self {
        Self::new(binary, None, settings, None).await
    }

    /// As [`Edge::start_with`], with its data in a folder of the caller's.
    pub async fn start_in(binary: &str, data_dir: &Path, settings: &[(&str, &str)]) -> Self {
        Self::new(binary, Some(data_dir), settings, None).await
    }

    /// As [`Edge::start`], with one thread that answers requests.
    pub async fn start_on_one_thread(binary: &str) -> Self {
        Self::new(binary, None, &[], Some(1)).await
    }

    /// As [`Edge::start`], with standard output and standard error where they are wanted.
    pub async fn start_with_output(binary: &str, output: [Output; 2]) -> Self {
        let mut edge = Self::stopped(binary, None, &[], None);
        edge.output = output;
        edge.run().await;
        edge
    }

    async fn new(binary: &str, data_dir: Option<&Path>, settings: &[(&str, &str)], threads: Option<usize>) -> Self {
        let mut edge = Self::stopped(binary, data_dir, settings, threads);
        edge.run().await;
        edge
    }

    fn stopped(binary: &str, data_dir: Option<&Path>, settings: &[(&str, &str)], threads: Option<usize>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data_dir = data_dir.map_or_else(|| folder.path().join("data"), Path::to_owned);
        let settings = settings
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        Self {
            binary: binary.into(),
            folder,
            data_dir,
            settings,
            threads,
            output: [Output::Nowhere, Output::Log],
            child: None,
            addresses: Value::Null,
        }
    }

    /// The command line program, set up for this server's data.
    pub fn cli(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(args).env("EDGEWEIR_DATA_DIR", &self.data_dir);
        command
    }

    async fn run(&mut self) {
        let [stdout, stderr] = self.output.map(|output| match output {
            Output::Nowhere => Stdio::null(),
            Output::Log => {
                let log = File::options().create(true).append(true).open(self.log_file());
                log.expect("a log").into()
            }
            Output::Full => File::create("/dev/full").expect("Linux").into(),
        });
        let mut command = self.cli(&["serve"]);
        for listener in ["HTTP", "HTTPS", "API", "ADMIN"] {
            command.env(format!("EDGEWEIR_LISTEN__{listener}"), "127.0.0.1:0");
        }
        command
            .env("EDGEWEIR_ORIGINS__ALLOW_PRIVATE", "true")
            .env("EDGEWEIR_KEYS__POOL", "0")
            .env("EDGEWEIR_LOG__FILTER", "debug");
        if let Some(threads) = self.threads {
            command.env("TOKIO_WORKER_THREADS", threads.to_string());
        }
        for (key, value) in &self.settings {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        // One that was killed leaves its addresses behind.
        let file = self.data_dir.join("listen.json");
        let written = || std::fs::metadata(&file).and_then(|m| m.modified()).ok();
        let stale = written();
        let child = command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn();
        self.child = Some(child.expect("the server starts"));
        let deadline = Instant::now() + Duration::from_secs(60);
        self.addresses = loop {
            let read = || std::fs::read(&file).ok().and_then(|t| serde_json::from_slice(&t).ok());
            if written() != stale
                && let Some(addresses) = read()
            {
                break addresses;
            }
            let exited = self.child.as_mut().and_then(|c| c.try_wait().ok()?);
            assert!(
                exited.is_none() && Instant::now() < deadline,
                "the server did not start ({exited:?}):\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    /// Everything that the server has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// The data folder.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// A listener's address: `http`, `https`, `api` or `admin`.
    pub fn address(&self, listener: &str) -> SocketAddr {
        let address = self.addresses[listener].as_str().expect("the listener is on");
        address.parse().expect("an address")
    }

    /// A client of the plain listener, in HTTP/1.1.
    pub fn http(&self) -> Client {
        Client::plain(self.address("http"), Protocol::H1)
    }

    /// A client of the TLS listener.
    pub fn https(&self, protocol: Protocol) -> Client {
        Client::tls(self.address("https"), protocol, &self.data_dir.join("ca.pem"))
    }

    /// A connection of HTTP/3 for a name.
    pub async fn h3(&self, name: &str) -> H3 {
        self.try_h3(name, None).await.expect("a connection")
    }

    /// The same, with the window of its streams in bytes; an error when the handshake fails.
    pub async fn try_h3(&self, name: &str, window: Option<u32>) -> Result<H3, String> {
        H3::connect(self.address("h3"), &self.data_dir.join("ca.pem"), name, window).await
    }

    /// A new project.
    pub async fn project(&self) -> Project {
        let (ok, out, err) = command_output(&mut self.cli(&["project", "create", "test", "--json"]));
        assert!(ok, "{err}");
        let project: Value = serde_json::from_str(&out).expect("JSON");
        let api_key = project["api_key"].as_str().expect("a key").to_owned();
        let mut project = Project {
            api: Client::plain(self.address("api"), Protocol::H1),
            api_key,
            token: String::new(),
        };
        project.refresh(self.address("api")).await;
        project
    }

    /// Kills the server without warning.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it runs");
            child.wait().expect("it ends");
        }
    }

    /// Has the server end in order.
    pub async fn stop(&mut self) {
        self.signal("TERM");
        assert_eq!(self.exited().await.code(), Some(0));
    }

    /// Sets an option of the configuration, from the next start on.
    pub fn set(&mut self, key: &str, value: &str) {
        self.settings.push((key.to_owned(), value.to_owned()));
    }

    /// A figure of the server's metrics, its labels with its name; 0 if it is not there.
    pub async fn metric(&self, name: &str) -> u64 {
        let admin = Client::plain(self.address("admin"), Protocol::H1);
        let reply = admin.get("localhost", "/metrics").await;
        let value = reply
            .text()
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().expect("a whole number"))
    }

    /// Waits until a figure is as it should be, and tells it.
    pub async fn until(&self, name: &str, is_right: impl Fn(u64) -> bool) -> u64 {
        loop {
            let value = self.metric(name).await;
            if is_right(value) {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Starts the server again on the same data.
    pub async fn restart(&mut self) {
        self.run().await;
    }

    /// The bytes of bodies that lie where the kernel sends them from.
    pub fn in_pages(&self) -> u64 {
        let id = self.child.as_ref().expect("it runs").id();
        let files = std::fs::read_dir(format!("/proc/{id}/fd")).expect("Linux");
        let is_pool = |file: &PathBuf| {
            std::fs::read_link(file).is_ok_and(|name| name.to_string_lossy().starts_with("/memfd:edgeweir-pages"))
        };
        let pool = files.filter_map(Result::ok).map(|file| file.path()).find(is_pool);
        pool.map_or(0, |pool| std::fs::metadata(pool).expect("it stays open").blocks() * 512)
    }

    /// The memory that the server holds, in bytes.
    pub fn resident(&self) -> u64 {
        let id = self.child.as_ref().expect("it runs").id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("Linux");
        let kib = status
            .lines()
            .find_map(|l| l.strip_prefix("VmRSS:")?.strip_suffix("kB"));
        kib.and_then(|n| n.trim().parse::<u64>().ok()).expect("a number of KiB") * 1024
    }

    /// The CPU time that the server has taken so far, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        let id = self.child.as_ref().expect("it runs").id();
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).expect("Linux");
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        // utime and stime, in hundredths of a second on Linux (proc(5)).
        let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).expect("a number");
        (ticks(11) + ticks(12)) / 100.0
    }

    /// Sends a signal by name, as in `TERM`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        let (ok, _, err) = command_output(Command::new("kill").args(["-s", name, &pid]));
        assert!(ok, "{err}");
    }

    /// Waits for the server's end.
    pub async fn exited(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        tokio::task::spawn_blocking(move || child.wait().expect("it ends"))
            .await
            .expect("no panic")
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().rev().take(40).collect();
            eprintln!("the server's last lines:");
            lines.into_iter().rev().for_each(|line| eprintln!("  {line}"));
        }
    }
}

/// A project, and its owner's client of the control API.
#[derive(Debug, Clone)]
pub struct Project {
    api: Client,
    /// The API key.
    pub api_key: String,
    /// An access token.
    pub token: String,
}

impl Project {
    /// Gets a new access token from an API at this address.
    pub async fn refresh(&mut self, api: SocketAddr) {
        self.api = Client::plain(api, Protocol::H1);
        let path = format!("/v1/access_token/{}", self.api_key);
        let reply = self.api.send(Method::POST, "localhost", &path, &[], Bytes::new()).await;
        reply.json()["access_token"]
            .as_str()
            .expect("a token")
            .clone_into(&mut self.token);
    }

    /// Any call.
    pub async fn call(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Reply {
        let authorization = format!("Bearer {}", self.token);
        let headers = [("authorization", authorization.as_str())];
        self.api.send(method, "localhost", path, &headers, body.into()).await
    }

    /// A call that must succeed.
    pub async fn ok(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Value {
        let reply = self.call(method.clone(), path, body).await;
        assert_eq!(reply.status, 200, "{method} {path}: {}", reply.text());
        reply.json()
    }

    /// A POST of JSON that must succeed.
    pub async fn post(&self, path: &str, body: Value) -> Value {
        self.ok(Method::POST, path, body.to_string()).await
    }

    /// Makes a local bucket, and tells its host.
    pub async fn bucket(&self, name: &str) -> String {
        self.bucket_at(name, serde_json::json!({"type": "local"})).await
    }

    /// Makes a bucket with an origin, and tells its host.
    pub async fn bucket_at(&self, name: &str, origin: Value) -> String {
        let made = self
            .post("/v1/buckets", serde_json::json!({"name": name, "origin": origin}))
            .await;
        made["bucket"]["host"].as_str().expect("a host").to_owned()
    }

    /// Puts an object.
    pub async fn put(&self, bucket: &str, key: &str, content: impl Into<Bytes>) {
        self.ok(Method::PUT, &format!("/v1/buckets/{bucket}/objects/{key}"), content)
            .await;
    }

    /// Sets a bucket's policy.
    pub async fn policy(&self, bucket: &str, policy: &str) {
        let path = format!("/v1/buckets/{bucket}/policy/{policy}");
        self.ok(Method::PUT, &path, Bytes::new()).await;
    }

    /// Makes a signing key: its id and its private half.
    pub async fn signing_key(&self, scope: &str, id: &str) -> (String, String) {
        let made = self.post("/v1/signing-keys", serde_json::json!({ scope: id })).await;
        let text = |name: &str| made["signing_key"][name].as_str().expect("it is there").to_owned();
        (text("id"), text("private_key"))
    }
}
