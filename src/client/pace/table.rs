//! The policy of a pacer and its endpoints, which can be replaced while requests run.
//!
//! A policy is replaced in one step, under the locks of all groups. Everything of the old groups
//! goes into new ones: [the heirs](super::heirs). The old groups are left empty, and point to the
//! replacement. All that keeps an endpoint of an old group, such as a request that waits or was
//! sent, finds this when it takes the group's lock, looks up its endpoint here, and goes on there:
//! a waiting request by its path, and what was sent by the name of its endpoint.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use tokio::time::Instant;

use super::bucket::nanos;
use super::common::Common;
use super::endpoint::PacedEndpoint;
use super::endpoints::{Member, paced_endpoints};
use super::heirs::inherit;
use super::known::Known;
use super::settings::Settings;
use super::state::Counts;
use crate::client::log::Pending;
#[cfg(feature = "metrics")]
use crate::client::usage::Counted;
use crate::policy::Policy;
use crate::values::Endpoint;

pub(super) struct Table {
    /// The policy with which the pacer was made. It is not behind the pointer, because most pacers
    /// keep their policy, and a flag is read faster.
    first: Active,
    is_replaced: AtomicBool,
    pub(super) replacement: Arc<Replacement>,
    /// What is known of limits that are not in the policy. Held while the policy is replaced.
    gone: Mutex<Known>,
    pub(super) settings: Settings,
    pub(super) origin: Instant,
    pub(super) common: Arc<Common>,
}

/// What has replaced the first policy. Old groups point to this and not to the table, which owns
/// the first groups: they would own each other, and never be freed.
#[derive(Default)]
pub(super) struct Replacement(ArcSwapOption<Active>);

impl Replacement {
    /// The endpoint of this name, if there is still one.
    pub(super) fn named(&self, endpoint: Endpoint) -> Option<Arc<PacedEndpoint>> {
        let active = self.0.load();
        let active = active.as_ref()?;
        let index = active.members.iter().position(|member| member.endpoint == endpoint)?;
        Some(Arc::clone(&active.endpoints[index]))
    }

    /// The endpoint to which a path belongs as it is written, unless the path is exempt.
    pub(super) fn of_path(&self, path: &str) -> Option<Arc<PacedEndpoint>> {
        self.0.load().as_ref()?.of_path(path).cloned()
    }
}

impl fmt::Debug for Replacement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replacement").finish_non_exhaustive()
    }
}

/// A policy and its endpoints.
pub(super) struct Active {
    pub(super) policy: Policy,
    /// In the order of the policy's endpoints. After those come endpoints of policies before, to
    /// which requests were sent that share limits and are still in flight.
    pub(super) members: Vec<Member>,
    pub(super) endpoints: Box<[Arc<PacedEndpoint>]>,
    /// What endpoints of policies before have counted, unless they are among the members.
    pub(super) counts: HashMap<Endpoint, Counts>,
}

impl Table {
    pub(super) fn new(policy: Policy, settings: Settings) -> Self {
        let origin = Instant::now();
        let common = Arc::new(Common::new(origin));
        let members: Vec<_> = policy.rules().iter().map(Member::of).collect();
        let endpoints = paced_endpoints(&members, settings, origin, &common);
        Self {
            first: Active { policy, members, endpoints, counts: HashMap::new() },
            is_replaced: AtomicBool::new(false),
            replacement: Arc::default(),
            gone: Mutex::default(),
            settings,
            origin,
            common,
        }
    }

    /// Calls `read` with what is active now.
    #[inline]
    pub(super) fn read<T>(&self, read: impl FnOnce(&Active) -> T) -> T {
        if !self.is_replaced.load(Ordering::Acquire) {
            return read(&self.first);
        }
        let replacement = self.replacement.0.load();
        read(replacement.as_ref().map_or(&self.first, |active| active))
    }

    /// The endpoint to which a path belongs as it is written, unless the path is exempt.
    pub(super) fn of_path(&self, path: &str) -> Option<Arc<PacedEndpoint>> {
        self.read(|active| active.of_path(path).cloned())
    }

    /// Replaces the policy by the one that `change` makes of it.
    pub(super) fn replace<E>(
        &self,
        change: impl FnOnce(&Policy) -> Result<Policy, E>,
    ) -> Result<(), E> {
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        let policy = self.read(|active| change(&active.policy))?;
        let woken = self.read(|active| {
            inherit(self, &mut gone, active, policy, |active| {
                self.replacement.0.store(Some(Arc::new(active)));
                self.is_replaced.store(true, Ordering::Release);
            })
        });
        drop(gone);
        woken.into_iter().for_each(std::task::Waker::wake);
        Ok(())
    }

    /// Ends all pauses, also of endpoints and limits that are not in the policy. If it `forgets`,
    /// nothing is left of what responses have taught.
    pub(super) fn resume_all(&self, forgets: bool) {
        // No limit leaves the policy or comes back in the middle.
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        let endpoints = self.read(|active| active.endpoints.to_vec());
        let mut events: Vec<_> =
            endpoints.into_iter().filter_map(|it| Some(it.resume(forgets)?.1)).collect();
        events.push(gone.resume(forgets, self.now()));
        drop(gone);
        events.into_iter().for_each(Pending::log);
    }

    /// The time now.
    pub(super) fn now(&self) -> u64 {
        nanos(self.origin.elapsed())
    }
}

impl Active {
    /// A ticket waits in the queue of one endpoint, so others of the path are not waited for.
    #[inline]
    pub(super) fn of_path(&self, path: &str) -> Option<&Arc<PacedEndpoint>> {
        self.policy.index_of(path).map(|index| &self.endpoints[index])
    }

    /// The endpoints of the policy.
    pub(super) fn in_policy(&self) -> &[Arc<PacedEndpoint>] {
        &self.endpoints[..self.policy.rules().len()]
    }

    /// What endpoints have counted that are not in the policy.
    #[cfg(feature = "metrics")]
    pub(super) fn counted_by_others(&self) -> Vec<(Endpoint, Counted)> {
        let in_flight = self.endpoints[self.policy.rules().len()..].iter();
        let in_flight =
            in_flight.filter_map(|it| Some((it.endpoint, Arc::clone(it).usage()?.counted)));
        let gone = self.counts.iter().map(|(endpoint, counts)| (*endpoint, counts.now()));
        in_flight.chain(gone).collect()
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::sleep;

    use super::*;
    use crate::client::max_wait::MaxWait;
    use crate::values::Quota;

    #[tokio::test(start_paused = true)]
    async fn what_makes_no_difference_is_dropped() {
        let table = Table::new(Policy::default(), Settings::default());
        let kept = || table.gone.lock().expect("no panic").len();
        let activate = |name: &str, sends: bool| {
            let limit = Quota::per_minute(60).burst(10);
            let policy = Policy::builder().endpoint(name, limit, ["/a"]).concurrent(name, 3);
            table.replace(|_| policy.build()).expect("a policy");
            if sends {
                let endpoint = table.of_path("/a").expect("in the policy");
                drop(endpoint.enter("/a", None, || MaxWait::ZERO.into()));
            }
        };
        for number in 0..100 {
            activate(&format!("unused-{number}"), false);
        }
        assert_eq!(kept(), 0);
        for number in 0..100 {
            activate(&format!("used-{number}"), true);
        }
        // The last one is in the policy.
        assert_eq!(kept(), 99);
        sleep(Duration::from_secs(2)).await;
        activate("another", false);
        assert_eq!(kept(), 0);
    }
}
