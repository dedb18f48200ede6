//! The example `restart`, in processes of its own that are stopped by SIGTERM.
#![cfg(unix)]

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[path = "../../../examples/restart.rs"]
#[expect(dead_code, reason = "the example's `main` is not called")]
mod example;

const SNAPSHOT: &str = "BOLNA_TEST_SNAPSHOT";

/// Serves until SIGTERM if it is started by [`Server::start`], and else does nothing.
#[tokio::test]
async fn serve() {
    if let Some(path) = env::var_os(SNAPSHOT) {
        example::serve("127.0.0.1:0", Path::new(&path)).await.unwrap();
    }
}

/// A process that serves.
struct Server {
    process: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    address: String,
    /// How many buckets it has restored.
    restored: Option<usize>,
}

impl Server {
    fn start(path: &Path) -> Self {
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["--exact", "snapshots::restart::serve", "--nocapture"])
            .env(SNAPSHOT, path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut restored = None;
        let address = loop {
            let line = lines.next().unwrap().unwrap();
            // The harness may have begun the line.
            if let Some((_, buckets)) = line.split_once("restored ") {
                restored = Some(buckets.strip_suffix(" buckets").unwrap().parse().unwrap());
            }
            if let Some((_, address)) = line.split_once("http://") {
                break address.to_owned();
            }
        };
        Self { process, lines, address, restored }
    }

    /// The status of each of that many calls over one connection.
    async fn calls(&self, caller: &str, calls: usize) -> Vec<u16> {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let head = format!(
            "POST /call HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\
             Authorization: Bearer {caller}\r\n"
        );
        let mut requests = format!("{head}\r\n").repeat(calls - 1);
        requests.push_str(&format!("{head}Connection: close\r\n\r\n"));
        stream.write_all(requests.as_bytes()).await.unwrap();
        let mut responses = String::new();
        stream.read_to_string(&mut responses).await.unwrap();
        let heads = responses.split("HTTP/1.1 ").skip(1);
        heads.map(|response| response[..3].parse().unwrap()).collect()
    }

    /// Stops it by that signal, and waits for its end.
    fn stop(mut self, signal: &str) -> bool {
        // The shell has it built in, where there is no program of that name.
        let kill = format!("kill {signal} {}", self.process.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        let ended = self.process.wait().unwrap().success();
        self.lines.by_ref().for_each(drop);
        ended
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already, unless the test has failed.
        let _ = self.process.kill();
    }
}

/// A file in a folder of its own, which is removed with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let folder = env::temp_dir().join(format!("bolna-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.join("limits.snapshot")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn refused(statuses: &[u16]) -> usize {
    statuses.iter().filter(|status| **status == 429).count()
}

#[tokio::test]
async fn a_caller_that_has_spent_its_units_is_refused_after_a_restart() {
    let scratch = Scratch::new("restart");
    let server = Server::start(&scratch.file());
    assert_eq!(server.restored, Some(0));
    let statuses = server.calls("ana@acme", 1000).await;
    let refused_before = refused(&statuses);
    assert_eq!(statuses.len(), 1000);
    assert!(refused_before > 300, "{refused_before}");
    assert!(server.stop("-TERM"), "it ends in good order");
    let mode = fs::metadata(scratch.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "no other user can read the key");

    // A third process, so that the key goes from each to the next.
    let server = Server::start(&scratch.file());
    assert_eq!(server.restored, Some(1));
    assert!(server.stop("-TERM"));
    let server = Server::start(&scratch.file());
    assert_eq!(server.restored, Some(1));
    // A full bucket would hold 500. 250 come back in 30 s, so this is no matter of speed.
    let statuses = server.calls("ben@acme", 500).await;
    assert!(refused(&statuses) > 250, "{} of 500 are refused", refused(&statuses));
    assert_eq!(refused(&server.calls("ana@other", 500).await), 0, "another caller is not");
    assert!(server.stop("-INT"), "Ctrl-C is the same");
}

#[tokio::test]
async fn a_file_that_is_damaged_does_not_keep_the_server_from_starting() {
    let scratch = Scratch::new("damaged");
    fs::write(scratch.file(), "bolna-rl, but no more").unwrap();
    let server = Server::start(&scratch.file());
    assert_eq!(server.restored, None);
    assert_eq!(server.calls("ana@acme", 1).await, [200]);
    assert!(server.stop("-TERM"));
    let server = Server::start(&scratch.file());
    assert_eq!(server.restored, Some(1), "the damaged file was replaced");
    assert!(server.stop("-TERM"));
    // It may be the file of a later release, which another start needs.
    let kept = fs::read_to_string(scratch.0.join("limits.snapshot.unread")).unwrap();
    assert_eq!(kept, "bolna-rl, but no more");
}

#[tokio::test]
async fn a_client_that_never_ends_its_request_does_not_keep_the_snapshot_from_being_saved() {
    let scratch = Scratch::new("stalled");
    let server = Server::start(&scratch.file());
    let mut stalled = TcpStream::connect(&server.address).await.unwrap();
    stalled.write_all(b"POST /call HTTP/1.1\r\nHost: a\r\n").await.unwrap();
    assert_eq!(server.calls("ana@acme", 500).await, [200; 500]);
    assert!(server.stop("-TERM"), "it ends, although the client is still there");
    let server = Server::start(&scratch.file());
    assert_eq!(server.restored, Some(1));
    assert!(server.stop("-TERM"));
}
