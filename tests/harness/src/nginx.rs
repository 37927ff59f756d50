//! A real nginx with a configuration of its own, that serves a folder of live video and writes down who asked.

use crate::{loopback::own_address, program::Program};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

/// A line of the access log: an answer that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// The status.
    pub status: u16,
    /// The method.
    pub method: String,
    /// Path and query as they came.
    pub target: String,
    /// What else could hold a secret: `Authorization`, `Cookie` and `Referer`, one after another.
    pub secrets: String,
}

/// A server of one folder; it ends when it is dropped.
#[derive(Debug)]
pub struct Nginx {
    folder: tempfile::TempDir,
    address: SocketAddr,
    program: Option<Program>,
}

impl Nginx {
    /// Starts a server of this folder on a port of its own.
    pub async fn serve(root: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let address = own_address();
        let config = configuration(address, root, folder.path());
        std::fs::write(folder.path().join("nginx.conf"), config).expect("a file");
        let mut nginx = Self {
            folder,
            address,
            program: None,
        };
        nginx.restart().await;
        nginx
    }

    /// Its base URL, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Kills it without warning: connections break, and new ones are refused.
    pub fn kill(&mut self) {
        self.program = None;
    }

    /// Starts it again on the same port.
    pub async fn restart(&mut self) {
        self.program = None;
        let mut command = Command::new("nginx");
        command.arg("-p").arg(self.folder.path());
        command.arg("-c").arg(self.folder.path().join("nginx.conf"));
        let log = self.folder.path().join("nginx.log");
        self.program = Some(Program::start(&mut command, log, &[self.address]).await);
    }

    fn access_log(&self) -> PathBuf {
        self.folder.path().join("access.log")
    }

    /// Everything that was answered, in order.
    pub fn served(&self) -> Vec<Served> {
        let log = std::fs::read_to_string(self.access_log()).unwrap_or_default();
        log.lines()
            .map(|line| {
                let mut fields = line.splitn(4, ' ');
                let mut field = || fields.next().expect("the log's format").to_owned();
                Served {
                    status: field().parse().expect("a status"),
                    method: field(),
                    target: field(),
                    secrets: field(),
                }
            })
            .collect()
    }
}

/// One process, so that killing it kills all; temporary files in its own folder.
fn configuration(address: SocketAddr, root: &Path, folder: &Path) -> String {
    let (root, folder) = (root.display(), folder.display());
    format!(
        r"daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 512; }}
http {{
  types {{
    application/vnd.apple.mpegurl m3u8;
    application/dash+xml mpd;
    video/mp2t ts;
    video/mp4 mp4 m4s;
  }}
  log_format asked '$status $request_method $request_uri $http_authorization$http_cookie$http_referer';
  access_log {folder}/access.log asked;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen {address};
    root {root};
  }}
}}
"
    )
}
