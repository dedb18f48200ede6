//! A server that lacks something.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::Server;

mod resp;
mod rules;

pub(crate) use resp::Command;
pub(crate) use rules::{ClockAhead, Password, TIME_RENAMED, no_hello, refuse, refuse_time, say};

/// What becomes of a command.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// The server answers it.
    Pass,
    /// The server answers it. An error `with` these words is replaced by another text.
    Reword { with: &'static str, to: String },
    /// The server is sent other words, and its answer is the answer.
    Ask(Vec<&'static str>),
    /// The server is sent this command instead, and its answer is the answer.
    Instead(Command),
    /// This text is the answer, in RESP.
    Say(String),
    /// The connection is closed.
    Close,
}

/// Decides what becomes of the commands of one connection, in their order.
pub(crate) type Rule = Box<dyn FnMut(&Command) -> Answer + Send>;

/// Listens before a real server, and answers some of the commands itself. It runs on a thread of
/// its own, independent of the test's runtime.
#[derive(Debug)]
pub(crate) struct StandIn {
    port: u16,
    /// How many times all connections have been closed.
    cuts: Option<watch::Sender<usize>>,
    heard: Arc<Mutex<Vec<Command>>>,
    thread: Option<JoinHandle<()>>,
}

impl StandIn {
    /// `rule` is called for each connection, and returns that connection's rule.
    pub(crate) fn to(server: &Server, rule: impl Fn() -> Rule + Send + 'static) -> Self {
        let server = server.port();
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cuts, watched) = watch::channel(0);
        let heard = Arc::default();
        let record = Arc::clone(&heard);
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(listen(listener, server, rule, watched, record));
        });
        Self { port, cuts: Some(cuts), heard, thread: Some(thread) }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Closes all connections. New ones are accepted.
    pub(crate) fn cut(&self) {
        self.cuts.as_ref().unwrap().send_modify(|cuts| *cuts += 1);
    }

    /// All commands so far, on all connections.
    pub(crate) fn heard(&self) -> Vec<Command> {
        self.heard.lock().unwrap().clone()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.cuts = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

async fn listen(
    listener: std::net::TcpListener,
    server: u16,
    rule: impl Fn() -> Rule,
    mut cuts: watch::Receiver<usize>,
    heard: Arc<Mutex<Vec<Command>>>,
) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        tokio::select! {
            biased;
            changed = cuts.changed() => if changed.is_err() {
                return;
            },
            Ok((client, _)) = listener.accept() => {
                let (mut cuts, rule, heard) = (cuts.clone(), rule(), Arc::clone(&heard));
                cuts.mark_unchanged();
                tokio::spawn(async move {
                    tokio::select! {
                        biased;
                        _ = cuts.changed() => {}
                        _ = serve(client, server, rule, &heard) => {}
                    }
                });
            }
        }
    }
}

/// One command after the other, so that the answers come in the order of the commands.
async fn serve(
    client: TcpStream,
    server: u16,
    mut rule: Rule,
    heard: &Mutex<Vec<Command>>,
) -> std::io::Result<()> {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut client, mut server) = (BufReader::new(client), BufReader::new(server));
    while let Some(command) = Command::read(&mut client).await {
        heard.lock().unwrap().push(command.clone());
        let decided = rule(&command);
        let asked = match &decided {
            Answer::Pass | Answer::Reword { .. } => command,
            Answer::Ask(words) => Command::of(words),
            Answer::Instead(command) => command.clone(),
            Answer::Say(text) => {
                client.write_all(text.as_bytes()).await?;
                continue;
            }
            Answer::Close => return Ok(()),
        };
        server.write_all(asked.bytes()).await?;
        let mut answer = resp::answer(&mut server).await?;
        if let Answer::Reword { with, to } = decided {
            let text = String::from_utf8_lossy(&answer);
            if text.starts_with('-') && text.contains(with) {
                answer = format!("-{to}\r\n").into_bytes();
            }
        }
        client.write_all(&answer).await?;
    }
    Ok(())
}
