//! The data folder: who uses it, the node's secret, the addresses taken.

use crate::Failure;
use edgeweir_api::NodeSecret;
use rustix::fs::{FlockOperation, flock};
use serde::Serialize;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Where the addresses taken are told.
const LISTEN: &str = "listen.json";

/// Makes the folder, for its owner alone.
pub(crate) fn create(dir: &Path) -> Result<(), Failure> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            Failure::Failed(format!("data_dir {} is not a folder", dir.display()))
        }
        _ => Failure::because(&format!("data_dir {}", dir.display()), &e),
    })
}

/// The folder, for as long as this server is the only one that uses it.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    /// Locked until it is closed, however the process ends.
    _lock: File,
}

impl DataDir {
    /// Takes the folder for this server.
    pub(crate) fn take(path: &Path) -> Result<Self, Failure> {
        create(path)?;
        let file = path.join("edgeweir.lock");
        let failed = |e: &dyn std::error::Error| Failure::because(&file.display().to_string(), e);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&file)
            .map_err(|e| failed(&e))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(Failure::Failed(format!(
                    "another server runs on {}: stop it, or give this one a data_dir of its own",
                    path.display()
                )));
            }
            Err(e) => return Err(failed(&e)),
        }
        // A server that was killed left its own behind.
        match fs::remove_file(path.join(LISTEN)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Failure::because(LISTEN, &e)),
            _ => {}
        }
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// The node's secret, made on first use.
    pub(crate) fn secret(&self) -> Result<NodeSecret, Failure> {
        let path = self.path.join("node.secret");
        let failed = |e: &dyn std::error::Error| Failure::because(&path.display().to_string(), e);
        let mut bytes = [0; 32];
        match File::open(&path) {
            Ok(mut file) => {
                let rest = file.read_exact(&mut bytes).and_then(|()| file.read(&mut [0]));
                match rest {
                    Ok(0) => {}
                    Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => return Err(failed(&e)),
                    _ => return Err(Failure::Failed(format!("{} must hold 32 bytes", path.display()))),
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                aws_lc_rs::rand::fill(&mut bytes).map_err(|e| failed(&e))?;
                self.write("node.secret", &bytes).map_err(|e| failed(&e))?;
            }
            Err(e) => return Err(failed(&e)),
        }
        Ok(NodeSecret::new(bytes))
    }

    /// Who this node is, made on first use: what it had taken on before it ended is still its own after a start.
    pub(crate) fn node_id(&self) -> Result<String, Failure> {
        let path = self.path.join("node.id");
        let failed = |e: &dyn std::error::Error| Failure::because(&path.display().to_string(), e);
        match fs::read_to_string(&path) {
            Ok(id) if !id.trim().is_empty() => Ok(id.trim().to_owned()),
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(&e)),
            _ => {
                let id = uuid::Uuid::new_v4().to_string();
                self.write("node.id", id.as_bytes()).map_err(|e| failed(&e))?;
                Ok(id)
            }
        }
    }

    /// Writes a file, whole or not at all, for its owner alone.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let new = self.path.join(format!("{name}.new"));
        let _ = fs::remove_file(&new);
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, self.path.join(name))?;
        File::open(&self.path)?.sync_all()
    }

    /// Tells which addresses were taken, until the value is dropped.
    pub(crate) fn announce(&self, addresses: &Addresses) -> Result<Announced, Failure> {
        let text = serde_json::to_vec(addresses).expect("plain data");
        self.write(LISTEN, &text).map_err(|e| Failure::because(LISTEN, &e))?;
        Ok(Announced(self.path.join(LISTEN)))
    }
}

/// The addresses that the listeners took.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Addresses {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) http: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) https: Option<SocketAddr>,
    /// UDP, on the port of `https`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) h3: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) api: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) admin: Option<SocketAddr>,
}

/// `listen.json`, which goes when the server ends.
#[derive(Debug)]
pub(crate) struct Announced(PathBuf);

impl Drop for Announced {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn message<T>(result: Result<T, Failure>) -> String {
        match result {
            Ok(_) => String::new(),
            Err(failure) => failure.to_string(),
        }
    }

    #[test]
    fn a_file_is_no_folder() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        for path in [&file, &file.join("below")] {
            assert!(message(create(path)).ends_with("is not a folder"), "{}", path.display());
        }
    }

    #[test]
    fn a_secret_has_its_length() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = DataDir::take(dir.path()).unwrap();
        data_dir.secret().unwrap();
        data_dir.secret().unwrap();
        for length in [0, 31, 33] {
            fs::write(dir.path().join("node.secret"), vec![1; length]).unwrap();
            let told = message(data_dir.secret());
            assert!(told.ends_with("node.secret must hold 32 bytes"), "{length}: {told}");
        }
    }
}
