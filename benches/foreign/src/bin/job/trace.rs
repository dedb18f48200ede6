//! When requests were sent and answered, to see why a job took long.

use std::fmt::{Display, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, io};

use http::Response;
use tokio::time::Instant;

/// The requests of the job, or nothing if they are not to be written.
#[derive(Clone)]
pub struct Trace {
    file: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

struct Request {
    sent: Instant,
    answered: Instant,
    /// The status of the response, or the error.
    became: String,
}

impl Trace {
    /// A trace that is written to this file, or to none if its name is empty.
    pub fn new(file: String) -> Self {
        Self { file, requests: Arc::default() }
    }

    /// Waits for the response to a request that is sent now.
    pub async fn follow<B, E: Display>(
        self,
        response: impl Future<Output = Result<Response<B>, E>>,
    ) -> Result<Response<B>, E> {
        let sent = Instant::now();
        let result = response.await;
        if !self.file.is_empty() {
            let became = match &result {
                Ok(response) => response.status().as_u16().to_string(),
                Err(error) => error.to_string(),
            };
            let request = Request { sent, answered: Instant::now(), became };
            self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        }
        result
    }

    /// Writes a line for each request, in the order of their sending: when it was sent and
    /// answered, in seconds since the job began, and the status.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn write(&self, started: Instant) -> io::Result<()> {
        if self.file.is_empty() {
            return Ok(());
        }
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.sort_by_key(|request| request.sent);
        let mut lines = String::new();
        for request in &*requests {
            let [sent, answered] = [request.sent, request.answered].map(|at| at - started);
            let (sent, answered) = (sent.as_secs_f64(), answered.as_secs_f64());
            let _ = writeln!(lines, "{sent:.4} {answered:.4} {}", request.became);
        }
        fs::write(&self.file, lines)
    }
}
