//! The requests of the attacker, of the customer, and of the person before the page.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::header::AUTHORIZATION;
use axum::http::{Method, Request};
use bolna_rate_limit::client::{BolnaClientLayer, Pacer};
use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::watch;
use tokio::time::sleep;
use tower::{ServiceBuilder, ServiceExt};

use crate::tally::{ATTACKER, CUSTOMER, Tally, YOU};

/// As many connections, each of which sends the next request a while after the last answer: 480
/// requests a second if they are refused.
const CONNECTIONS: usize = 96;
const PAUSE: Duration = Duration::from_millis(200);

/// What both the attacker and the customer do all the time. Both ask for two endpoints in turn.
const REQUESTS: [(Method, &str); 2] = [CALL, (Method::GET, "/v2/agent/17")];
const CALL: (Method, &str) = (Method::POST, "/call");
/// How many requests of the customer to each endpoint may be unanswered at once.
const AT_ONCE: usize = 4;

type Http = Client<HttpConnector, Empty<Bytes>>;

/// All that sends requests to the API.
#[derive(Clone)]
pub(crate) struct Traffic {
    api: SocketAddr,
    http: Http,
    attack: watch::Sender<bool>,
    pacer: Pacer,
}

impl Traffic {
    pub(crate) fn start(api: SocketAddr, tally: &Arc<Tally>) -> Result<Self, Box<dyn Error>> {
        let traffic = Self {
            api,
            http: Client::builder(TokioExecutor::new()).build_http(),
            attack: watch::Sender::new(true),
            pacer: Pacer::builder().evenly().build()?,
        };
        for first in 0..CONNECTIONS {
            tokio::spawn(traffic.clone().hammer(first));
        }
        for request in REQUESTS.iter().cycle().take(REQUESTS.len() * AT_ONCE) {
            tokio::spawn(traffic.clone().keep_to_the_limit(request, Arc::clone(tally)));
        }
        Ok(traffic)
    }

    pub(crate) fn set_attack(&self, on: bool) {
        self.attack.send_replace(on);
    }

    pub(crate) fn is_attacked(&self) -> bool {
        *self.attack.borrow()
    }

    /// The customer's client.
    pub(crate) fn pacer(&self) -> &Pacer {
        &self.pacer
    }

    /// Sends that many calls at once as the person before the page.
    pub(crate) async fn call(&self, calls: usize) {
        join_all((0..calls).map(|_| self.send(YOU, &CALL))).await;
    }

    /// The attacker: does not care what it is answered.
    async fn hammer(self, first: usize) {
        let mut attack = self.attack.subscribe();
        for request in REQUESTS.iter().cycle().skip(first) {
            if attack.wait_for(|on| *on).await.is_err() {
                return;
            }
            self.send(ATTACKER, request).await;
            sleep(PAUSE).await;
        }
    }

    /// The customer: an endless job, through the client of this crate. It keeps to Bolna's limits,
    /// and to stricter ones if the API's answers report them.
    async fn keep_to_the_limit(self, request: &(Method, &str), tally: Arc<Tally>) {
        let client = ServiceBuilder::new()
            .layer(BolnaClientLayer::with_pacer(self.pacer.clone()))
            // Below the layer, so that a wait for the pace is no part of the latency.
            .map_future(move |answer| {
                let (tally, sent) = (Arc::clone(&tally), Instant::now());
                async move {
                    let answer = answer.await;
                    tally.answered(sent.elapsed());
                    answer
                }
            })
            .service(self.http.clone());
        loop {
            let request = self.request(CUSTOMER, request);
            match client.clone().oneshot(request).await {
                Ok(response) => drop(response.into_body().collect().await),
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    async fn send(&self, caller: &str, request: &(Method, &str)) {
        if let Ok(response) = self.http.request(self.request(caller, request)).await {
            drop(response.into_body().collect().await);
        }
    }

    fn request(&self, caller: &str, (method, path): &(Method, &str)) -> Request<Empty<Bytes>> {
        Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.api))
            .header(AUTHORIZATION, format!("Bearer {caller}"))
            .body(Empty::new())
            .expect("the address is one")
    }
}
