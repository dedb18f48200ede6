use std::future::pending;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::process::free_port;

/// What happens to the connections through a [`Proxy`], both existing and new ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mode {
    Pass,
    /// All bytes arrive this much later, both ways.
    Delay(Duration),
    /// Connections open and stay, but no byte arrives until the mode is another one.
    Blackhole,
    /// Every connection is closed at once.
    Cut,
    /// Every connection is closed, and no new one is accepted.
    Refuse,
}

impl Mode {
    fn closes(self) -> bool {
        matches!(self, Self::Cut | Self::Refuse)
    }
}

/// A proxy to a server that simulates faults of the network. It runs on a thread of its own,
/// independent of the test's runtime.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    mode: Option<watch::Sender<Mode>>,
    /// How many times all connections have been closed.
    cuts: watch::Sender<usize>,
    heard: std::sync::mpsc::Receiver<()>,
    accepted: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// A proxy to this port on 127.0.0.1, which passes everything at first.
    pub(crate) fn to(server: u16) -> Self {
        let port = free_port();
        let (mode, watched) = watch::channel(Mode::Pass);
        let (cuts, cut) = watch::channel(0);
        let (hear, heard) = std::sync::mpsc::channel();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(listen(port, server, watched, cut, &hear, &count));
        });
        heard.recv().unwrap();
        Self { port, mode: Some(mode), cuts, heard, accepted, thread: Some(thread) }
    }

    /// When this returns, the listener is in the new mode.
    pub(crate) fn set(&self, mode: Mode) {
        self.mode.as_ref().unwrap().send(mode).unwrap();
        self.heard.recv().unwrap();
    }

    /// Closes all connections. New ones are made as the mode says.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    /// How many connections have been made to the proxy so far, including those that it cut.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.mode = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

async fn listen(
    port: u16,
    server: u16,
    mut mode: watch::Receiver<Mode>,
    cuts: watch::Receiver<usize>,
    hear: &std::sync::mpsc::Sender<()>,
    accepted: &AtomicUsize,
) {
    let mut listener = None;
    loop {
        let now = *mode.borrow_and_update();
        if now == Mode::Refuse {
            listener = None;
        } else if listener.is_none() {
            listener = Some(bind(port).await);
        }
        let _ = hear.send(());
        loop {
            let accept = async {
                match &listener {
                    Some(listener) => listener.accept().await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                changed = mode.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                Ok((client, _)) = accept => {
                    accepted.fetch_add(1, Ordering::SeqCst);
                    if !now.closes() {
                        let mut cuts = cuts.clone();
                        cuts.mark_unchanged();
                        tokio::spawn(connect(client, server, mode.clone(), cuts));
                    }
                }
            }
        }
    }
}

async fn bind(port: u16) -> TcpListener {
    loop {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            Ok(listener) => return listener,
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Ends, and with it both connections, when either side ends or the mode demands it.
async fn connect(
    client: TcpStream,
    server: u16,
    mut mode: watch::Receiver<Mode>,
    mut cuts: watch::Receiver<usize>,
) {
    let mut closing = mode.clone();
    let close = async {
        tokio::select! {
            _ = closing.wait_for(|mode| mode.closes()) => {}
            _ = cuts.changed() => {}
        }
    };
    let pass = async {
        let _ = mode.wait_for(|mode| *mode != Mode::Blackhole).await.is_ok();
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let ((from_client, to_client), (from_server, to_server)) =
            (client.into_split(), server.into_split());
        tokio::select! {
            () = carry(from_client, to_server, mode.clone()) => {}
            () = carry(from_server, to_client, mode) => {}
        }
    };
    tokio::select! {
        biased;
        () = close => {}
        () = pass => {}
    }
}

/// Continues to read while what was read waits for its time.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mode: watch::Receiver<Mode>) {
    let (send, mut receive) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let mut reading = mode.clone();
    let read = async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let due = match *reading.borrow_and_update() {
                Mode::Delay(delay) => Instant::now() + delay,
                _ => Instant::now(),
            };
            let _ = send.send((due, buffer[..length].to_vec()));
        }
    };
    let mut writing = mode;
    let write = async move {
        while let Some((due, bytes)) = receive.recv().await {
            sleep_until(due).await;
            let passes = writing.wait_for(|mode| *mode != Mode::Blackhole).await.is_ok();
            if !passes || to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    // When the reader ends, what it read is still to be delivered.
    tokio::join!(read, write);
}
