//! One run of the load generator, and whether the server answered as it had to.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::process::{Cores, Server};
use crate::subject::Case;

pub const CONNECTIONS: u32 = 32;

const PATH: &str = "/v2/agent/5bc97541-e320-4d95-a3a5-242cfe45621d";

/// What `wrk` counted.
pub struct Measurement {
    pub per_second: f64,
    requests: u64,
    refused: u64,
    failed: bool,
}

pub fn find_wrk() -> Result<(), String> {
    let found =
        Command::new("wrk").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    found.map(|_| ()).map_err(|_| {
        "wrk is missing: install it with your system's packages (`apt-get install wrk`, `brew install wrk`)".into()
    })
}

/// Loads the server for that time.
pub fn wrk(server: &Server, seconds: u64, cores: Cores) -> Result<Measurement, String> {
    let mut wrk = cores
        .command(1, "wrk")
        .args([
            "--threads",
            "1",
            "--connections",
            &CONNECTIONS.to_string(),
            "--duration",
            &format!("{seconds}s"),
        ])
        .arg(format!("http://127.0.0.1:{}{PATH}", server.port))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("wrk: {error}"))?;
    let start = Instant::now();
    // What it prints fits into a pipe.
    while wrk.try_wait().map_err(|error| format!("wrk: {error}"))?.is_none() {
        if start.elapsed() > Duration::from_secs(seconds + 20) {
            let _ = wrk.kill();
            let _ = wrk.wait();
            return Err("wrk did not end in time".into());
        }
        sleep(Duration::from_millis(20));
    }
    let output = wrk.wait_with_output().map_err(|error| format!("wrk: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Measurement::parse(&text)
        .ok_or_else(|| format!("wrk printed something else than usual:\n{text}"))
}

/// Uses up the one request that a refusing server admits, and sees to it that the next is answered
/// as it has to be.
pub fn check(server: &Server, case: Case) -> Result<(), String> {
    let expected: &[&str] = match case {
        Case::Admit => &["200"],
        Case::Refuse => &["200", "429"],
    };
    for expected in expected {
        let status = ask(server.port).map_err(|error| error.to_string())?;
        if status != *expected {
            return Err(format!("answered {status}, not {expected}"));
        }
    }
    Ok(())
}

/// The status of the answer to one request.
fn ask(port: u16) -> Result<String, std::io::Error> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split(' ').nth(1).unwrap_or_default().to_owned())
}

impl Measurement {
    /// `None` if it is not what `wrk` prints.
    fn parse(text: &str) -> Option<Self> {
        let after = |label: &str| text.lines().find_map(|line| line.trim().strip_prefix(label));
        let requests =
            text.lines().find(|line| line.contains(" requests in "))?.split_whitespace().next()?;
        Some(Self {
            per_second: after("Requests/sec:")?.trim().parse().ok()?,
            requests: requests.parse().ok()?,
            refused: after("Non-2xx or 3xx responses:")
                .map_or(Some(0), |number| number.trim().parse().ok())?,
            failed: text.contains("Socket errors:"),
        })
    }

    /// Itself, if all requests were answered, and as the case says.
    pub fn check(self, case: Case) -> Result<Self, String> {
        let Self { requests, refused, .. } = self;
        // One a second is admitted.
        let as_expected = match case {
            Case::Admit => refused == 0,
            Case::Refuse => refused * 1000 >= requests * 999,
        };
        if self.failed {
            Err("connections failed under load".into())
        } else if requests == 0 || !as_expected {
            Err(format!("{refused} of {requests} requests were refused"))
        } else {
            Ok(self)
        }
    }
}
