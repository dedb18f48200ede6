//! A client middleware that keeps requests within the limits and retries refused requests.
//!
//! Bolna's page on its rate limits (of 7 February 2026) tells callers of the API to spread their
//! requests, to back off after a refusal, to watch their usage and to limit themselves. This
//! middleware does all four, with the same [`Policy`](crate::Policy) that the server enforces:
//!
//! ```
//! use bolna_rate_limit::client::BolnaClientLayer;
//! use bytes::Bytes;
//! use http::{Request, header::AUTHORIZATION};
//! use http_body_util::Full;
//! use hyper_util::{client::legacy::Client, rt::TokioExecutor};
//! use tower::{BoxError, ServiceBuilder, ServiceExt};
//!
//! async fn dial(leads: &[&'static str]) -> Result<(), BoxError> {
//!     let client = ServiceBuilder::new()
//!         .layer(BolnaClientLayer::new())
//!         .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());
//!     for lead in leads {
//!         let call = Request::post("http://127.0.0.1:3000/call")
//!             .header(AUTHORIZATION, "Bearer bn-...")
//!             .body(Full::from(*lead))?;
//!         // Many tasks may send at once through clones of the client: they share the limit.
//!         let response = client.clone().oneshot(call).await?;
//!         println!("{lead}: {}", response.status());
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # How a request waits
#![doc = include_str!("../guide/client.svg")]
//!
//! Each endpoint of the policy has its own pace. Requests are sent in bursts, as large as the quota
//! allows, or [evenly](PacerBuilder::evenly), one per
//! [`emission_interval`](crate::Quota::emission_interval). The first burst [begins
//! small](#what-is-learned-from-refusals), in case the server is stricter than the policy. A
//! request that can't be sent yet waits in the endpoint's queue. Requests are dispatched in the
//! order of arrival: a dispatched request has its units reserved, gets the inner service ready, and
//! is sent.
//!
//! A request may have a [`Priority`] in its extensions. While requests of both priorities wait for
//! the same units, interactive ones are dispatched before those of a bulk job, which keeps [one of
//! ten](PacerBuilder::bulk_share) dispatches. Within a priority, retries are dispatched first. All
//! requests are interactive unless marked otherwise.
//!
//! An endpoint with several limits keeps to all of them, except to rates for everyone: a request is
//! sent when each limit has the units that it costs by the policy. A single request can't have
//! another cost: where the server charges requests differently, put the largest cost into the
//! client's policy. Endpoints that share a limit take from the same bucket, in one order of all
//! their requests.
//!
//! Both the length of the queue ([10,000 requests](PacerBuilder::max_waiting) by default) and the
//! wait ([5 minutes](PacerBuilder::max_wait) by default) are bounded, and a request may have a
//! bound of its own, a [`MaxWait`], for example to be sent at once or not at all. A request that
//! would exceed a bound fails at once with a [`WaitError`], which contains the wait that would have
//! been necessary. Dropping the future of a request removes the request from the queue.
//!
//! While the process does not run, because it is stopped, its container is paused or the machine is
//! suspended, time does not count as a wait. A request that is due after that is sent.
//!
//! A request that waits in the queue holds nothing of the inner service, neither a permit nor a
//! connection. One case is different: a dispatched request that is ready, but comes too soon after
//! others, keeps its ready service for at most 250 ms.
//!
//! While requests wait for an endpoint, one task with one timer, the worker, dispatches them.
//! Endpoints that share a limit have one worker. It runs on the tokio runtime of the first request
//! that waits, and ends when no request waits. A request that need not wait starts no task.
//!
//! # Requests in flight
//! If an endpoint has a limit of [requests in
//! flight](crate::policy::PolicyBuilder::concurrent), a request that would be one too many waits in
//! the same queue, in the same order and within the same bounds, until another one has ended. A
//! request has ended
//! * when the body of its response, a [`ResponseBody`], has ended, has failed or was dropped;
//! * when it has failed or was refused;
//! * when its future was dropped.
//!
//! A waiting request takes neither a unit of a rate nor a place, and gets all that it needs at once
//! when it is dispatched. It is not known when another one ends, so a request fails only after it
//! has waited as long as it may. A caller that keeps many responses without reading them, for
//! example by joining many futures before it reads the first body, may wait for itself until the
//! longest wait is over. Limits for everyone count too, since one caller can't have more in flight
//! than everyone.
//!
//! A phone call lasts longer than the request that starts it. For a limit of calls, a [`Permit`]
//! keeps the place of the request until the call has ended; see there for an example. A permit can
//! also be had [without a request](Pacer::acquire), and for [what runs already](Pacer::occupy).
//!
//! # Layers in which requests wait
//! By the contract of [`tower::Service`], the client is ready when the wrapped service is. A
//! wrapped service in which requests wait to be ready, such as tower's `ConcurrencyLimit`, makes a
//! request wait before it reaches the queue. There it has no [`Priority`], its [`MaxWait`] and the
//! bounds of the pacer do not count, and [`Usage`] and [`Waited`] do not know of it. A request that
//! has waited in the queue waits there once more after its dispatch.
//!
//! So limit requests in flight in the policy: by [`concurrent`] for one endpoint, or by [`shared`]
//! for several together. Requests wait for such a place in the queue:
//!
//! ```
//! use bolna_rate_limit::client::BolnaClientLayer;
//! use bolna_rate_limit::policy::LimitBuilder;
//! use bolna_rate_limit::{Policy, Quota};
//!
//! let all = ["call", "agent", "executions", "default"];
//! let policy = Policy::bolna()
//!     .shared(LimitBuilder::account("connections", Quota::concurrent(50)), all)
//!     .build()?;
//! let layer = BolnaClientLayer::with_policy(policy);
//! # Ok::<(), bolna_rate_limit::PolicyError>(())
//! ```
//!
//! [`concurrent`]: crate::policy::PolicyBuilder::concurrent
//! [`shared`]: crate::policy::PolicyBuilder::shared
//!
//! # What is learned from responses
//! Other clients may spend units from the same bucket, for example other processes with the same
//! API key. Responses show this in `RateLimit` and `RateLimit-Policy` ([draft 11][draft-11] and the
//! earlier ones), or in `X-RateLimit-Limit`, `-Remaining` and `-Reset`. The client adopts the
//! remaining units that the server reports, and a quota that is stricter than that of the policy. A
//! quota is forgotten if it is not reported for an hour. A client that is alone loses nothing by
//! this, and no field makes the client send more than its policy allows.
//!
//! If a response reports several limits, each report is used for the limit of the endpoint that has
//! this name. If the endpoint's own limit, which has the name of the endpoint, is not reported, the
//! report with the fewest units left of those with unknown names stands for it. If any of the
//! reported limits is exhausted for longer than one unit takes to come back, the endpoint is paused
//! until that limit has units again. So are the endpoints that share the limit.
//!
//! A limit of requests in flight has the unit `concurrent-requests` in `RateLimit-Policy`, and no
//! window. Its `q` is adopted for the limit of that name, or else for the endpoint, where it is
//! smaller than in the policy, and is forgotten if it is not reported for an hour. Replicas of a
//! server may each report [their share](crate::policy::PolicyBuilder::concurrent): the client then
//! has no more in flight than one of them allows. Limits of other units, such as `content-bytes`,
//! are ignored. If a response with the status 429 reports such a limit with `r=0`, and no exhausted
//! rate, other clients have the rest of the places. The endpoint is not paused then:
//! * No more requests are in flight than were when the refusal arrived, for as long as a pause
//!   would last. If there were none, no request is sent in that time.
//! * After that, one more is sent. If it is admitted, as many may be in flight as are then, and one
//!   more again; or as many more as the server reports to be left.
//!
//! # What is learned from refusals
//! A response with the status 429 that is not due to a limit of requests in flight pauses its
//! endpoint for all callers, and the endpoints that share a limit which it reports as exhausted:
//! * The pause is the time that the response names, in [any form](#how-times-are-read). Without one
//!   that is understood it lasts until an exhausted limit has units again, or else 1 s; or, if the
//!   server's rate has been learned, for the time of one request at that rate, at most 1 s. It is
//!   at most [an hour](PacerBuilder::max_pause).
//! * If requests that were sent after a pause are refused too, the pause is at least 1 s, then 2 s,
//!   and doubles from then on, but to no more than a quarter of the time in which nothing was
//!   admitted, and to no more than a minute. So a client that other clients with the same key have
//!   beaten to it several times is not left behind. Once the server's rate has been learned, the
//!   series begins with less than 1 s if the rate is fast, doubles, and ends at about the time of
//!   40 requests at that rate. If the server reports when its window begins anew, the series is
//!   1 s, 2 s, 4 s and so on, up to a minute.
//! * A random time is added: at most the time in which one unit comes back, and at most 1 s; or a
//!   quarter of what the pause is longer than the response asked for, or than 1 s.
//! * After the pause one request is sent, as a probe, and the next one when it has been answered;
//!   or after 30 s, so that a lost answer stops nothing.
//!
//! Many servers are stricter than the client's policy and do not say so. So the client measures: it
//! knows how many requests were admitted between two refusals, and thus at which rate the server
//! really admits them, whatever its algorithm. From then on it paces the endpoint by CUBIC ([RFC
//! 9438][cubic]) around the measured rate: after a refusal somewhat slower, soon near the measured
//! rate, and faster when nothing is refused for long, up to what the policy allows. Of several
//! processes with one key, each learns its own part of the rate. The slowest measured rate that is
//! used is one request in 60 s, or that of the policy if it is slower: a server that admits fewer
//! goes on to refuse some. What was learned is forgotten an hour after the last refusal.
//!
//! A refusal by an endpoint's own limit that reports when its window begins anew teaches no rate.
//! But if the client was refused although it had sent less than nine tenths of the window, other
//! clients share the limit: it then takes each new window evenly, a 32nd at once and the rest in at
//! most four fifths of the window, until two windows have passed without a refusal. So the first
//! client that comes does not take all of it. A window that would be taken in steps of more than 10
//! s is not.
//!
//! What is learned only delays requests: none fails earlier because of it than at its [longest
//! wait](PacerBuilder::max_wait), since the rate may turn out to be higher. For a large job at a
//! slow server, allow a longer wait and a longer [time for
//! retries](RetryPolicyBuilder::total_time).
//!
//! A burst of hundreds of requests to a strict server would be refused as a whole. So a new client
//! begins as TCP does, with a small window ([RFC 5681][slow-start]): a tenth of the burst, at least
//! 10 requests, may be without an answer. The window grows by half a request with each one that is
//! admitted, and doubles with each second without an answer, until it is as large as the burst.
//! While it grows, it is filled at most once in 100 ms, so that a client that is next to the server
//! leaves something to others. It begins small again after a pause until a reported window, and
//! after [`Pacer::resume`]. With Bolna's 500 calls a minute, 50 are sent at once, and all 495
//! within six round trips, or half a second.
//!
//! [cubic]: https://www.rfc-editor.org/rfc/rfc9438
//! [slow-start]: https://www.rfc-editor.org/rfc/rfc5681
//!
//! Some servers refuse with another status. By choice, a 503 with `Retry-After` (or each 503) and a
//! 403 with `X-RateLimit-Remaining: 0` are refusals too, and pause as a 429 does: see [`Refusals`].
//!
//! A response that comes from a cache, with an `Age` of more than 0, reports nothing about the
//! present: its limits are ignored ([draft 11][draft-11], section 7.3), and its wait is shortened
//! by its age.
//!
//! [draft-11]: https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/11/
//!
//! # How times are read
//! Servers say in many ways when a request may be sent again. The first of these fields that is
//! understood counts:
//! 1. `retry-after-ms` and `x-ms-retry-after-ms`, in milliseconds;
//! 2. `Retry-After`;
//! 3. `x-retry-after`, `x-ratelimit-after`, `x-ratelimit-retry-after`,
//!    `x-rate-limit-retry-after-seconds`, `x-ratelimit-reset-after` and `x-ratelimit-reset-ms`;
//! 4. the time at which an exhausted limit has units again, in one of the fields of limits;
//! 5. `RateLimit-Reset`, `X-RateLimit-Reset`, `X-Rate-Limit-Reset` or `x-ratelimit-reset-requests`
//!    alone.
//!
//! A field may have several values, in a list or on several lines: the longest that is understood
//! counts. These are understood:
//!
//! | form | examples |
//! |---|---|
//! | a number of seconds, with or without a fraction | `120`, `2.863` |
//! | a time with units | `6m0s`, `20ms`, `120 seconds`, `PT1M30S`, `P1DT2H`, `0:01:30` |
//! | a Unix time, in seconds to nanoseconds by its magnitude | `1764412345`, `1764412345.678`, `1764412345678` |
//! | an HTTP-date (RFC 9110, section 5.6.7), also with another offset or a zone of RFC 5322 | `Sun, 06 Nov 1994 08:49:37 GMT`, `Sun, 06 Nov 1994 09:49:37 +0100` |
//! | a date as JavaScript writes it | `Sun Nov 06 1994 09:49:37 GMT+0100 (CET)` |
//! | a date of RFC 3339; in UTC, if it has no offset | `1994-11-06T08:49:37.5Z` |
//!
//! A number is a Unix time if it would be a wait of more than 31 years. A fraction is rounded up to
//! the nanosecond. A `Retry-After` that is far too long in seconds, but in milliseconds fits the
//! reset that the same response reports, is taken for milliseconds. What is not understood counts
//! as absent, never as no wait.
//!
//! A point in time is compared with the server's clock. `Date` tells its second. So each response
//! with a point in time bounds the difference between the server's clock and the system's, and all
//! responses to one [`Pacer`] together give narrower bounds. If the system's clock is within them,
//! it is taken to be right, and the wait is at most a tenth of a second too long. If it is not, the
//! earliest time within the bounds counts: the wait is not too short, and too long by at most a
//! second and the time of one exchange. Without a `Date`, the system's clock counts.
//!
//! # What is sent again
//! The client assumes that a request refused with 429 had no effect, as is the case with [this
//! crate's layer](crate::BolnaRateLimitLayer). It therefore retries such a request whatever its
//! method, and dispatches retries before new requests of their priority. A refused request is
//! retried until its [total time](RetryPolicyBuilder::total_time) is over, 5 minutes by default,
//! however often it is refused. After that, the caller gets the last refusal unchanged, or a
//! [`WaitError`] if a retry was in the queue.
//! [`RetryPolicy`] has the settings, for example a bound on the number of attempts and a budget for
//! all requests together. It is a [`tower::retry::Policy`] and can also be used without the rest of
//! the client.
//!
//! A request whose connection broke is sent again if its method is idempotent, and otherwise only
//! [on demand](RetryPolicyBuilder::retry_broken_uploads) and if it was not sent to its end. The
//! units that it took stay spent, because the server may have counted it. After five
//! attempts in a row that were closed without a response, the caller gets the error.
//!
//! The body of a refusal is read before the response is handed on, up to 64 KiB and for at most
//! 1 s. Over HTTP/1 a connection is used again only if the response was read to its end, so that a
//! retry would need a new connection otherwise.
//!
//! # How much is left
//! For each endpoint, [`Pacer::usage`] returns how many units are left, how many requests wait and
//! for how long, and how many were sent and refused. [`Pacer::peek`] returns the same for one path,
//! before a request is sent there. With the feature `metrics`, `Metrics` reports these numbers to
//! any recorder. [`Usage::concurrency`] is about requests in flight.
//!
//! Each response says in its extensions for how long its request has [`Waited`], and how often it
//! was sent.
//!
//! # In the operator's hands
//! While requests run,
//! * [`Pacer::set_policy`] and [`Pacer::set_quota`] change limits, for requests that wait as well;
//! * [`Pacer::resume`] ends a pause, for example after a nonsense `Retry-After`, and
//!   [`Pacer::forget`] also forgets what was learned. [`PacerBuilder::max_pause`] bounds all pauses
//!   in advance.
//!
//! # What is logged
//! With the feature `tracing`, the client logs under the target `bolna_rate_limit::client`. Nothing
//! is logged of a request that is admitted, and no line has an id or a path. The field `event` is
//! one of these:
//!
//! | `event` | level | what has happened | fields |
//! |---|---|---|---|
//! | `paused` | `info`, or `debug` for less than 1 s | a pause begins, or turns out to last more than twice as long | `endpoint`, `pause_ms`, `status`, `named_ms` (the wait that the refusal names), `in_a_row` (refusals) |
//! | `resumed` | `info` | a pause is ended [by hand](Pacer::resume) | `endpoint`, `early_ms` (how much earlier than it was to end) |
//! | `lowered` | as `paused` | a refusal lowers the requests in flight | `endpoint`, `most`, `for_ms`, `status`, `in_a_row` |
//! | `learned` | `info`, then `debug` | the server admits fewer requests than the policy | `limit`, `per_minute` (the rate now), `plateau_per_minute` (to which it grows at first), `measured_per_minute`, `from_requests`, `from_ms` |
//! | `not_stricter` | `info` | the server admits as many requests as the policy after all | `limit` |
//! | `rate_forgotten` | `info` | nothing was refused for an hour, or the rate is [forgotten](Pacer::forget) by hand | `limit` |
//! | `quota_adopted` | `info` | the server reports a quota that is stricter than the policy | `limit`, `burst`, `window_ms` |
//! | `quota_dropped` | `info` | it reports no stricter one any more, or none for an hour, or it is forgotten by hand | `limit` |
//! | `concurrency_adopted` | `info` | it reports another limit of requests in flight | `endpoint`, `limit`, `most` |
//! | `retry` | `debug` | a retry is planned | `endpoint`, `status`, `attempt`, `delay_ms`, `left_ms` (of the total time) |
//! | `unsent` | `debug` | requests fail with a [`WaitError`] | `endpoint`, `requests`, `wait_ms` (of one more), `limit` |
//!
//! A pause is logged once, however many requests are refused before it. Of each event there are at
//! most ten lines at once and one a second after that, for all endpoints that share a limit, or, of
//! `retry`, for all clones of a [`RetryPolicy`]. The field `left_out` of the next line is the
//! number of those that were left out before it. What is forgotten after an hour is logged when the
//! next request is answered or waits.
//!
//! # Where to put the layer
//! From the outside in:
//! 1. the layers that complete the request, such as its headers, and the layer that follows
//!    redirects, because each redirect is a request of its own;
//! 2. **this layer**;
//! 3. a timeout for each attempt: outside of this layer, the timeout would include the time in the
//!    queue;
//! 4. the client.
//!
//! A burst of 500 requests opens 500 connections of HTTP/1. To bound them, limit the requests in
//! flight [by the policy](#layers-in-which-requests-wait), and not by a layer.
//!
//! # HTTP clients
//! The inner service may be any service of `http::Request` that can be cloned. The body of its
//! responses has to be a [`Body`](https://docs.rs/http-body/1/http_body/trait.Body.html), and
//! becomes a [`ResponseBody`], which is a body of the same data and errors. hyper-util's client
//! speaks https with a connector such as the one of hyper-rustls.
//! [reqwest](https://docs.rs/reqwest) has types of its own, which have to be converted:
//!
//! ```
//! use bolna_rate_limit::client::BolnaClientLayer;
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use tower::util::BoxCloneSyncService;
//! use tower::{BoxError, ServiceBuilder};
//!
//! type Api = BoxCloneSyncService<Request<Bytes>, reqwest::Response, BoxError>;
//!
//! fn api(client: reqwest::Client) -> Api {
//!     BoxCloneSyncService::new(
//!         ServiceBuilder::new()
//!             .map_response(|response: Response<_>| {
//!                 reqwest::Response::from(response.map(reqwest::Body::wrap))
//!             })
//!             .layer(BolnaClientLayer::new())
//!             .map_request(|request: Request<Bytes>| {
//!                 reqwest::Request::try_from(request).expect("an absolute URI")
//!             })
//!             .map_response(Response::<reqwest::Body>::from)
//!             .service(client),
//!     )
//! }
//! ```
//!
//! reqwest follows redirects by itself, and those requests are not paced.
//!
//! # Requirements
//! * One [`Pacer`] stands for one principal: one API key, or all keys of one organization. Use one
//!   pacer per customer if the customers have keys of their own, and one per user if the policy
//!   limits each user.
//! * The inner service sends to one API only, or the pacer knows the [hosts](PacerBuilder::hosts)
//!   of the API. Otherwise it looks at paths alone, and a refusal by another host, such as a store
//!   of recordings, pauses the API.
//! * Buckets are taken to be full at the start. Units spent before the process started are known
//!   only from the first response; requests of a burst sent before that may be refused, and are
//!   retried.
//! * A tokio runtime with timers is needed. A request that has to wait, is refused or is retried
//!   may panic without one. The worker of an endpoint runs on the runtime of the first request that
//!   waits: if several runtimes share a client, keep each of them running while requests wait.

mod hints;
mod layer;
mod log;
mod max_wait;
#[cfg(feature = "metrics")]
mod metrics;
mod pace;
mod priority;
mod refusals;
mod retry;
mod service;
mod usage;
mod waited;

pub use layer::BolnaClientLayer;
pub use max_wait::{MaxWait, WaitOptions};
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub use metrics::Metrics;
pub use pace::{
    Pace, PaceFuture, PaceLayer, Pacer, PacerBuilder, PacerError, Permit, ResponseBody, WaitError,
};
pub use priority::Priority;
pub use refusals::Refusals;
pub use retry::{
    CloneBodies, CloneBody, RetryDelay, RetryPolicy, RetryPolicyBuilder, RetryPolicyError, SendOnce,
};
pub use service::BolnaClient;
pub use usage::{Concurrency, LearnedRate, Usage};
pub use waited::Waited;
