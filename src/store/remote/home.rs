//! The runtime that the tasks of a store run on.

use std::io;
use std::sync::Arc;
use std::thread;

use tokio::runtime::{Builder, Handle, RuntimeFlavor};
use tokio::sync::oneshot;

/// A runtime that is driven as long as the store lives.
#[derive(Clone)]
pub(super) struct Home(Arc<Inner>);

struct Inner {
    handle: Handle,
    /// Ends the thread when it is dropped, if the store has one of its own.
    _thread: Option<oneshot::Sender<()>>,
}

impl Home {
    /// The current runtime if it is multi-threaded, so that its own threads drive it. Otherwise a
    /// new runtime on a new thread: a current-thread runtime is driven only while it blocks on a
    /// future, and a check that is made elsewhere must get its answer in time.
    ///
    /// # Errors
    /// If a thread can't be started.
    pub(super) fn find() -> io::Result<Self> {
        match Handle::try_current() {
            Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
                Ok(Self(Arc::new(Inner { handle, _thread: None })))
            }
            _ => Self::with_thread(),
        }
    }

    fn with_thread() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        thread::Builder::new().name("bolna-rate-limit".to_owned()).spawn(move || {
            // The store was dropped. Its tasks end with the runtime.
            let _ = runtime.block_on(ended);
        })?;
        Ok(Self(Arc::new(Inner { handle, _thread: Some(end) })))
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.handle.spawn(task);
    }

    /// Runs a future on the runtime and waits for it. `None` if the runtime is shut down meanwhile.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        self.0.handle.spawn(future).await.ok()
    }
}
