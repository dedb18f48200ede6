//! Sends each request when the limits of its endpoint allow it.
//!
//! This page is for maintainers: what happens to a request from its arrival to its answer, who
//! holds which lock, and where to look.
//!
//! # From arrival to answer
//! ```text
//! request -> endpoint -> units and permits left? -> inner service -> response
//!                            | no           ^                           |
//!                            v              | dispatch                  v
//!                          queue <------- worker <-------- buckets and pools <- what it reports
//! ```
//!
//! 1. [`Pace`] finds the endpoint of the path, and the request [enters](endpoint) it. If all
//!    limits have its units and permits and no request is before it, it takes them, counts as sent,
//!    and the inner service is called. This is the common case: one lock, one reading of the clock,
//!    no task, and the priority is not looked at.
//! 2. Otherwise it gets a [ticket](queue) and [waits](state), or fails with a [`WaitError`] if too
//!    many wait or it would have to wait for too long, by its place in the order of dispatch.
//! 3. When its future is [polled](queued) and no [worker] runs, it starts one. The worker
//!    sleeps until the next request is due, dispatches all that are, and wakes their futures.
//! 4. A dispatched request gets the inner service ready, and is [sent](state) if the buckets still
//!    allow it at that moment.
//! 5. Its response corrects the buckets and pools by what it reports; a refusal pauses the endpoint
//!    ([`Sent::answered`](endpoint::Sent::answered)). Permits are given back when the body has
//!    ended.
//!
//! # The stages of a request that waits
//! ```text
//!                          arrives
//!                             |
//!            polled           v         expires              polled
//! Lapsed --------------->  Waiting  --------------> Expired --------> fails
//!   ^                         |
//!   |                         | dispatched
//!   |       lapses            v
//!   +---------------------  Dispatched  <------------+
//!   |                         |                      |
//!   |       lapses            | polled               | dispatched again
//!   |                         v                      |
//!   +---------------------  Readying                 |
//!   |                         |                      |
//!   |       lapses            | held                 |
//!   |                         v                      |
//!   +---------------------  Held  -------------------+
//! ```
//! A request is sent from `Readying`, or from `Dispatched` or `Held` if its service is still ready
//! from before, and may be held again from there. It may be dropped in each stage.
//!
//! Each request is in one map, from its ticket to its stage, waker and deadline, and
//! [`Queue::change`](queue::Queue) is the only function that changes a stage. Which arrows there
//! are is written once, in [`Stage`](queue::Stage). The queue knows no limits: the [state] of the
//! endpoint decides when an event takes place.
//!
//! * **Units are reserved at dispatch**, not when the request is sent. Otherwise all waiting
//!   requests would be woken for one unit, and the fastest would get it. But the inner service may
//!   take long to get ready, or the future may not be polled: after 250 ms without a poll the
//!   request *lapses*, and its units serve others. When its future is polled, it waits again, with
//!   its old ticket.
//! * **A request is held** if it is ready and others were sent just before it: dispatched requests
//!   that get ready all at once must not be sent all at once. It keeps its ready service for at
//!   most 250 ms, and else lapses. Held requests are sent in the order of their dispatch.
//! * **A request expires** as soon as it is known that it will be due after its deadline. Nothing
//!   expires that is due: a late timer loses no request.
//!
//! # The order of dispatch
//! Tickets order the requests of one [priority](crate::client::Priority): retries first, then by
//! arrival. [`Order`](queue::Order) merges the two priorities, by a credit of the bulk requests. It
//! belongs to the group, so that it holds for all endpoints that share a limit. From it also follow
//! how many requests are ahead of a new one, and so the wait that is predicted.
//!
//! # Groups
//! Endpoints that share a limit, directly or by way of others, are a *group*: they have one lock,
//! one worker, one order, and one pair of buckets or one pool of permits for each shared limit.
//! Most endpoints are a group of one. A request takes its cost from both buckets of all its rates
//! (one for the policy, one for what the server reports) and its permits from all its pools, all at
//! once when it is dispatched, or waits. If an earlier request of another endpoint lacks a permit,
//! it [claims](permits) those that it needs, so that later ones do not take them for ever.
//!
//! # What refusals teach
//! The own limit of an endpoint has two bounds besides its buckets, which delay requests but never
//! make one expire, since both may open at any answer:
//! * the [window](window) of requests without an answer, small at first, and one request, a probe,
//!   after a refusal. The probe does not wait for answers to requests that were sent before the
//!   refusal;
//! * the [learned pace](learned), if the server has refused requests in the last hour: the rate
//!   that it was measured to admit, by CUBIC.
//!
//! If a limit reports its window, and other clients share it, there is a third one: the
//! [part](share) that this client takes of the next windows.
//!
//! A request that waits only for one of them is looked at again when an answer arrives, when what
//! was learned is to be forgotten, and at its deadline. The law was chosen by the table of
//! simulated servers in `tests/client/foreign`, which shows what a change of a constant does.
//!
//! # Another policy
//! [`Pacer::set_policy`] replaces all groups by new ones in one step, under all their locks. The
//! [heirs](heirs) of limits and endpoints are those with the same names. The old groups are empty
//! from then on and point to the [table](table) of the endpoints. Whatever has an endpoint of an
//! old group, a waiting request, a sent one or a permit, finds this under the lock, and goes on
//! with the endpoint that the table has for its path or for its name. Tickets are numbered for all
//! groups together, so that requests keep their order when groups are merged, and are not counted
//! again. What is reserved or in flight is counted anew from the endpoints, since an endpoint may
//! have other limits now. An endpoint that is gone stays in its group while requests to it are in
//! flight, because they count against the limits that it shared. After that, the table keeps what
//! it has counted, for a policy that has it again.
//!
//! What is [known](known) of a limit that is gone is kept too: otherwise a policy without the limit
//! and one with it, one after the other, would fill its bucket and end its pause. It is dropped
//! when it makes no difference any more, because the bucket is full again and what was learned is
//! out of date.
//!
//! # The worker
//! One task for each group, with one timer, and only while requests wait. Timers of the requests
//! themselves would not do: the request that is due next may not be polled, because its caller does
//! something else, and would delay all behind it. And when one request leaves, all behind it are
//! due earlier, so all of their timers would have to be moved. [The three rules](shared) by which
//! no request is without a worker are checked by loom.
//!
//! If the worker is woken more than a second late, the process has not run in the meantime (it was
//! stopped, its container paused, the machine suspended), and all deadlines move by that time.
//!
//! # Locks
//! There is one lock for each group, around a [`Group`](group), which is plain data: it reads no
//! clock, wakes nothing and does no input or output. Only the replacement of a policy holds several
//! of them at a time. Three rules keep it so:
//! * No waker is woken or dropped under the lock, because either may run any code, even the drop of
//!   another request of the group. Wakers are returned or collected, and woken after the lock.
//! * No event is logged under the lock, because a subscriber of `tracing` may run any code too.
//!   Events are collected in [`Pairs`](pairs::Pairs), and logged by what held the lock.
//! * A panic leaves the state whole: no code of others runs under the lock, and nothing panics in
//!   the middle of a change. So a poisoned lock is used on.
//!
//! # What costs what
//! With n waiting requests, an event costs at most log n for each request that it changes. All
//! deadlines are checked in one walk, only if a request may be due later than at the last check,
//! and not more often than once in n microseconds.
//!
//! # Where is the answer to ...
//! | question | file |
//! |---|---|
//! | May a request be sent now? | `state/arrival.rs` (`pass`), `limits.rs`, `pair.rs`, `bucket.rs` |
//! | Does it wait or fail, and how long would it wait? | `state/arrival.rs` (`wait`), `queue/order.rs` |
//! | Which stage follows which? | `queue/stage.rs` |
//! | How are requests of a stage found? | `queue/index.rs` |
//! | Which request comes next? | `queue/ticket.rs`, `queue/order.rs`, `group.rs` (`next`) |
//! | When does the worker run next? | `state/dispatch.rs` (`next`), `group.rs` |
//! | Who starts and wakes the worker? | `shared.rs`, `queued.rs` |
//! | When is a dispatched request sent, held, or sent back? | `state/sending.rs` |
//! | Which requests are too late? | `state/deadlines.rs` |
//! | What if the process did not run? | `group.rs` (`notice_time`) |
//! | What does a response change? | `state/answers.rs`, `pair.rs`, `pool.rs` |
//! | What does a refusal change, and how long is the pause? | `state/answers.rs` (`refuse`), `learned.rs` |
//! | How fast is a server that says nothing? | `learned.rs` |
//! | How many requests may be without an answer? | `window.rs` |
//! | How do several clients share a window? | `share.rs` |
//! | How are requests in flight limited? | `state/in_flight.rs`, `permits.rs`, `pool.rs`, `permit.rs` |
//! | Which endpoints are a group? | `endpoints.rs` |
//! | What happens when the policy is replaced? | `table.rs`, `heirs.rs`, `known.rs`, `queued.rs` (`follow`), `endpoint.rs` (`with`) |
//! | How is a pause ended by hand? | `pair.rs` (`resume`), `pacer.rs`, `retry/resumed.rs` |
//! | To which hosts is a request paced? | `hosts.rs` |
//! | What do users see? | `pacer.rs`, `service.rs`, `future.rs`, `body.rs`, `error.rs` |
//!
//! # Tests
//! `queue/model_tests.rs` compares the queue with a naive one after any events. `loom_tests.rs`
//! runs the lock and the worker in every order of steps. `tests/client/laws.rs` and
//! `in_flight_laws.rs` hold the whole against an independent model of the limits, `live.rs` while
//! policies are replaced, and `foreign` against servers with other algorithms that are stricter
//! than the policy.

mod ahead;
mod body;
mod bucket;
mod common;
mod endpoint;
mod endpoints;
mod error;
mod future;
mod group;
mod heirs;
mod hosts;
mod known;
mod layer;
mod learned;
mod limits;
#[cfg(all(test, bolna_loom))]
mod loom_tests;
mod pacer;
mod pair;
mod pairs;
mod permit;
mod permits;
mod pool;
mod queue;
mod queued;
mod readable;
mod service;
mod settings;
mod share;
mod shared;
mod state;
mod sync;
mod table;
mod window;
mod worker;

pub use body::ResponseBody;
pub use error::{PacerError, WaitError};
pub use future::PaceFuture;
pub use layer::PaceLayer;
pub use pacer::{Pacer, PacerBuilder};
pub use permit::Permit;
pub use service::Pace;
