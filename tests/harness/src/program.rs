//! Another program that runs beside a test, and ends with it.

use std::{
    fs::File,
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A program; dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Program {
    /// Starts a program whose output is appended to `log`, and waits until it listens at `addresses`.
    pub(crate) async fn start(command: &mut Command, log: PathBuf, addresses: &[SocketAddr]) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let out = File::options().create(true).append(true).open(&log).expect("a log");
        let err = out.try_clone().expect("a log");
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn();
        let child = child.unwrap_or_else(|e| panic!("{name} (scripts/test installs it): {e}"));
        let mut program = Self { child, name, log };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !addresses.iter().all(|address| TcpStream::connect(address).is_ok()) {
            let exited = program.child.try_wait().expect("it is a child");
            assert!(
                exited.is_none() && Instant::now() < deadline,
                "{} did not start ({exited:?}):\n{}",
                program.name,
                program.output()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        program
    }

    /// What it has written.
    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let output = self.output();
            let lines: Vec<_> = output.lines().rev().take(25).collect();
            eprintln!("the last lines of {}:", self.name);
            lines.into_iter().rev().for_each(|line| eprintln!("  {line}"));
        }
    }
}
