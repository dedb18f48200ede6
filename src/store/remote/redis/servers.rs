//! The servers of a store: one that holds all buckets, or the primaries of a cluster.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::address;
use super::cluster::Cluster;
use super::connect::{Connecting, Node};
use super::connection::Live;
use super::error::{RedisStoreError, RedisStoreErrorKind as Kind};
use super::key;
use super::sentinel::Route;
use crate::store::fallback::Ledger;
use crate::store::remote::core::{Core, Greeting, Limits};
use crate::store::remote::corrections::{Corrections, Full, Kind as Correcting};
use crate::store::remote::failure::{Failure, Reason};
use crate::store::remote::handle::{Handle, Shared, Waiting};
use crate::store::remote::home::Home;
use crate::store::remote::pending::Op;
use crate::store::remote::settings::{Settings, WHOLE};
use crate::store::remote::worker::{Surroundings, Worker};
use crate::store::{
    Answer, Capabilities, Charge, Checked, Command, Reply, Store, StoreError, StoreListener,
    StoreReport, nanos,
};
use crate::values::Principal;
use crate::values::clock::{Clock, MonotonicClock};

pub(super) enum Servers {
    One { handle: Handle, parts: Parts },
    Cluster(Arc<Cluster>),
}

/// What all servers of a store have in common.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) settings: Arc<Settings>,
    pub(super) connecting: Arc<Connecting>,
    pub(super) clock: MonotonicClock,
    pub(super) ledger: Option<Arc<Ledger>>,
    pub(super) corrections: Arc<Corrections>,
    pub(super) home: Home,
}

/// The text of the error if the runtime lacks timers or sockets: a panic has ended the task then.
pub(super) const NO_RUNTIME: &str =
    "it was shut down while the store connected, or its timers or sockets are not enabled";

/// The first attempt to connect to a server.
pub(super) type First = Result<(Live, Greeting), Reason>;

impl Servers {
    pub(super) async fn start(
        servers: address::Servers,
        parts: Parts,
        degraded: bool,
    ) -> Result<Self, RedisStoreError> {
        let route = match servers {
            address::Servers::One(address) => Route::Fixed(address),
            address::Servers::Sentinels(sentinels) => Route::by(sentinels),
            address::Servers::Cluster(nodes) => {
                return Cluster::start(nodes, parts, degraded).await.map(Self::Cluster);
            }
        };
        let prefix = parts.connecting.prefix.clone();
        let node = parts.node(route, move |number| key::probe(&prefix, number));
        let first = parts.connect(&node, degraded).await?;
        let handle = parts.spawn(node, WHOLE, Some(first), |_| true, Arc::new(()));
        Ok(Self::One { handle, parts })
    }

    fn parts(&self) -> &Parts {
        match self {
            Self::One { parts, .. } => parts,
            Self::Cluster(cluster) => cluster.parts(),
        }
    }

    fn handle(&self, principal: &Principal) -> Result<Handle, Failure> {
        match self {
            Self::One { handle, .. } => Ok(handle.clone()),
            Self::Cluster(cluster) => cluster.handle(principal),
        }
    }

    fn request(&self, principal: &Principal, op: Op) -> Result<Waiting, Failure> {
        match self {
            Self::One { handle, .. } => handle.request(principal, op),
            Self::Cluster(cluster) => cluster.handle(principal)?.request(principal, op),
        }
    }
}

impl Parts {
    pub(super) fn node(
        &self,
        route: Route,
        probe: impl Fn(u32) -> String + Send + Sync + 'static,
    ) -> Node {
        Node {
            settings: Arc::clone(&self.connecting),
            route: Arc::new(route),
            probe: Arc::new(probe),
            lacks_hello: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Tries to connect for the first time. A failure is an error, unless `degraded`.
    pub(super) async fn connect(
        &self,
        node: &Node,
        degraded: bool,
    ) -> Result<First, RedisStoreError> {
        // On the home's runtime, which drives the sockets that are made there.
        let first = self.home.run(node.clone().greet(self.clock)).await;
        match first {
            Some(Ok(first)) => Ok(Ok(first)),
            Some(Err(error)) if degraded && error.kind() != Kind::Setting => {
                Ok(Err(Reason::from(&error)))
            }
            Some(Err(error)) => Err(error),
            None => Err(RedisStoreError::setting("the runtime", NO_RUNTIME)),
        }
    }

    /// Starts the worker of a server. Its losses are reported under `number`.
    pub(super) fn spawn(
        &self,
        node: Node,
        number: u64,
        first: Option<First>,
        holds: impl Fn(&Principal) -> bool + Send + 'static,
        surroundings: Arc<dyn Surroundings>,
    ) -> Handle {
        let settings = &self.settings;
        let shared = Arc::new(Shared::new(Arc::clone(settings), number, self.clock));
        let (handle, inbox) = Handle::new(Arc::clone(&shared));
        let limits = Limits {
            deadline: nanos(settings.deadline),
            patience: nanos(settings.connect_timeout),
            most: settings.most_waiting,
        };
        let (name, ledger) = (node.name(), self.ledger.clone());
        let corrections = Arc::clone(&self.corrections);
        let mut core = Core::new(name, limits, ledger, corrections, holds, super::random());
        let now = nanos(self.clock.now());
        let connection = match first {
            Some(Ok((connection, greeting))) => {
                core.connected(now, greeting);
                Some(connection)
            }
            Some(Err(reason)) => {
                core.refused(now, &reason);
                None
            }
            None => None,
        };
        let mut worker = Worker { core, protocol: node, connection, shared, inbox, surroundings };
        // A store that starts degraded reports that before its first request.
        worker.emit();
        self.home.spawn(worker.run());
        handle
    }
}

impl Store for Servers {
    type Check = RemoteCheck;

    fn check(&self, charge: Charge<'_>) -> Answer<RemoteCheck> {
        match self.request(charge.principal(), Op::check(&charge)) {
            Ok(waiting) => Answer::Later(RemoteCheck { waiting }),
            Err(failure) => Answer::Now(Err(failure.into())),
        }
    }

    async fn command(&self, command: Command<'_>) -> Result<Reply, StoreError> {
        if let Command::Reset(bucket) = command {
            self.parts().corrections.forget(bucket);
        }
        let handle = self.handle(command.principal())?;
        handle.request(command.principal(), Op::of(&command))?.await
    }

    /// Takes refunds and settlements. While the server is lost, a settlement fails if the ledger
    /// has room, so that `LocalFallback` notes it there.
    fn submit(&self, command: Command<'_>) -> Result<(), StoreError> {
        let (charge, kind) = match command {
            Command::Refund(charge) => (charge, Correcting::Refund),
            Command::Settle(charge) => (charge, Correcting::Settlement),
            other => return Err(StoreError::not_submitted(&other)),
        };
        let Parts { ledger, corrections, .. } = self.parts();
        // Without a server for the slot, corrections wait for the one that gets it.
        let handle = self.handle(charge.principal());
        if kind == Correcting::Settlement
            && !handle.as_ref().is_ok_and(Handle::is_up)
            && ledger.as_ref().is_some_and(|ledger| ledger.has_room(&charge))
        {
            return Err(Failure::Lost.into());
        }
        let added = corrections.add(&charge, kind);
        if let Ok(handle) = handle {
            handle.correct(charge.principal());
            if charge.buckets().any(|bucket| bucket.principal().is_everyone()) {
                handle.correct(Principal::everyone());
            }
        }
        added.map_err(|Full { most }| Failure::TooManyCorrections(most).into())
    }

    /// No call may need more than these: see [`Request::buckets`]. `LocalFallback` makes sure of
    /// that before each call.
    fn capabilities(&self) -> Capabilities {
        Capabilities { everyone: matches!(self, Self::One { .. }), ..Capabilities::ALL }
    }

    fn report(&self) -> StoreReport {
        let report = match self {
            Self::One { handle, .. } => handle.report(),
            Self::Cluster(cluster) => cluster.report(),
        };
        let corrections = &self.parts().corrections;
        StoreReport {
            waiting_corrections: corrections.len(),
            lost_corrections: corrections.lost(),
            ..report
        }
    }

    fn subscribe(&self, listener: StoreListener) {
        self.parts().settings.subscribe(listener);
    }
}

pin_project! {
    /// A check that waits for a server.
    pub struct RemoteCheck {
        #[pin]
        waiting: Waiting,
    }
}

impl Future for RemoteCheck {
    type Output = Checked;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Checked> {
        self.project().waiting.poll(cx).map(|answer| {
            let unexpected = || StoreError::new("the answer to a check has no decisions");
            answer?.into_decisions().ok_or_else(unexpected)
        })
    }
}
