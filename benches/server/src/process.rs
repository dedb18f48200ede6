//! Servers as processes, and the cores that they and the load generator run on.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fmt};

use crate::subject::{Case, Subject};

/// A server that runs. Ended, by its own process id, when it is dropped.
pub struct Server {
    pub port: u16,
    child: Child,
}

impl Server {
    pub fn start(
        subject: Subject,
        case: Case,
        lifetime: Duration,
        cores: Cores,
    ) -> Result<Self, String> {
        let program =
            env::current_exe().map_err(|error| format!("this program's own path: {error}"))?;
        let mut command = cores.command(0, program);
        command.args([
            "serve",
            &subject.to_string(),
            &case.to_string(),
            &lifetime.as_secs().to_string(),
        ]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{subject}: {error}"))?;
        let output = child.stdout.take();
        let mut server = Self { port: 0, child };
        let mut line = String::new();
        if let Some(output) = output {
            BufReader::new(output)
                .read_line(&mut line)
                .map_err(|error| format!("{subject}: {error}"))?;
        }
        server.port =
            line.trim().parse().map_err(|_| format!("{subject}: the server did not start"))?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether servers and the load generator can be kept apart.
#[derive(Clone, Copy)]
pub enum Cores {
    Pinned,
    Shared,
}

impl Cores {
    pub fn find() -> Self {
        let works = |core| {
            Self::Pinned
                .command(core, "true")
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|s| s.success())
        };
        if works(0) && works(1) { Self::Pinned } else { Self::Shared }
    }

    /// The command that runs the program on that core, if it can be had. `taskset` becomes the
    /// program: their process ids are one.
    pub fn command(self, core: usize, program: impl AsRef<OsStr>) -> Command {
        match self {
            Self::Pinned => {
                let mut command = Command::new("taskset");
                command.arg("-c").arg(core.to_string()).arg(program);
                command
            }
            Self::Shared => Command::new(program),
        }
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pinned => "the server on core 0, wrk on core 1",
            Self::Shared => {
                "the server and wrk wherever the system puts them (no taskset, or one core)"
            }
        })
    }
}
