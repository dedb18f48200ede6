//! A program that runs no longer than this process.

use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::{env, fs, process};

/// A port on which no program listens, neither there nor on the port 10,000 above, where a
/// cluster's node has its bus. Never the same twice.
///
/// Both are below the ports that Linux uses for outgoing connections.
pub(crate) fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 10_000;
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    // Test processes that run at the same time begin far apart.
    let start = process::id().wrapping_mul(997) % u32::from(COUNT);
    loop {
        let taken = TAKEN.fetch_add(1, Ordering::Relaxed);
        assert!(taken < COUNT, "no port is free");
        let port = FIRST + u16::try_from((start + u32::from(taken)) % u32::from(COUNT)).unwrap();
        if [port, port + 10_000]
            .iter()
            .all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        {
            return port;
        }
    }
}

/// A program's own directory, removed on drop.
#[derive(Debug)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn of(port: u16) -> Self {
        let path = env::temp_dir().join(format!("bolna-rate-limit-{}-{port}", process::id()));
        // The directory of a process with the same id that was killed.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// What the program wrote.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.0.join("log")).unwrap_or_default()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The shell becomes the program, so that the child's id is the program's id. A second process
/// waits for the end of its standard input, which ends whenever this process does, and then kills
/// the program.
const WATCHED: &str =
    r#"exec 3<&0; (read -r _ || kill -9 $$) <&3 >/dev/null 2>&1 & exec "$@" 3<&- </dev/null"#;

/// A running program, killed on drop.
#[derive(Debug)]
pub(super) struct Process(Child);

impl Process {
    pub(super) fn start(program: &str, args: &[String], directory: &Directory) -> Self {
        let mut version = Command::new(program);
        version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        if let Err(error) = version.status() {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{program}: {error}");
            panic!(
                "{program} is missing: scripts/set-up installs it. Or name other servers in \
                 VALKEY_SERVER or REDIS_SERVER, and in REDIS_SENTINEL"
            );
        }
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(directory.path().join("log"))
            .unwrap();
        let child = Command::new("sh")
            .args(["-c", WATCHED, "sh", program])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        Self(child.unwrap())
    }

    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(super) fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    pub(super) fn signal(&self, name: &str) {
        // The `kill` of the shell: not every system has the program.
        let sent = Command::new("sh")
            .args(["-c", r#"kill -s "$0" "$1""#, name, &self.0.id().to_string()])
            .status();
        assert!(sent.unwrap().success(), "{name}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let mut watched = self.0.stdin.take();
        if self.has_ended() {
            // The program's id may be in use by another process now: the watching process has to
            // end without killing.
            let _ = watched.as_mut().map(|watched| watched.write_all(b"\n"));
        }
        drop(watched);
        let _ = self.0.wait();
    }
}
