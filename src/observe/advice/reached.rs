//! Which endpoints requests have reached, and which of the others they seem to ask for.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use super::Advice;
use crate::policy::{Policy, Prefix};
use crate::values::Endpoint;

/// The number of requests with the same fault in their paths after which this is reported.
const ALIKE: u32 = 16;
/// The number of examined requests within which they have to come, so that the occasional requests
/// of an old client or a scan are not reported.
const AMONG: u32 = 1000;

/// The endpoints to which a request was charged since the policy was set, and the suspicion about
/// the others.
pub(super) struct Reached {
    /// A bit for each endpoint of the process, whatever the policy: accounts can have their own.
    bits: [AtomicU32; Endpoint::MAX / 32],
    /// The number of requests that were looked at.
    looked_at: AtomicU32,
    suspicion: Mutex<Suspicion>,
}

/// That a prefix of a path is at fault. Of several, the most frequent one prevails.
#[derive(Default)]
struct Suspicion {
    /// The prefix that paths lack, or have in addition.
    prefix: String,
    is_missing: bool,
    count: u32,
    /// The value of `looked_at` at its first request.
    since: u32,
}

impl Default for Reached {
    fn default() -> Self {
        Self {
            bits: [const { AtomicU32::new(0) }; Endpoint::MAX / 32],
            looked_at: AtomicU32::new(0),
            suspicion: Mutex::default(),
        }
    }
}

impl Reached {
    /// Whether a request was charged to the endpoint.
    #[inline]
    pub(super) fn has(&self, endpoint: Endpoint) -> bool {
        let (word, bit) = self.place(endpoint);
        word.load(Ordering::Relaxed) & bit != 0
    }

    pub(super) fn insert(&self, endpoint: Endpoint) {
        let (word, bit) = self.place(endpoint);
        word.fetch_or(bit, Ordering::Relaxed);
    }

    /// Begins anew, with another policy. A request that is still being decided by the old one may
    /// be counted: then an endpoint that is reached no more seems to be.
    pub(super) fn clear(&self) {
        for word in &self.bits {
            word.store(0, Ordering::Relaxed);
        }
        self.forget_suspicion();
    }

    pub(super) fn forget_suspicion(&self) {
        *self.suspicion.lock().unwrap_or_else(PoisonError::into_inner) = Suspicion::default();
    }

    /// Looks at a request that is charged to that endpoint. Returns the advice if its path, like
    /// those before, is that of an endpoint that no request has reached, but for a prefix.
    pub(super) fn look(&self, endpoint: Endpoint, policy: &Policy, path: &str) -> Option<Advice> {
        let now = self.looked_at.fetch_add(1, Ordering::Relaxed);
        if endpoint != Endpoint::DEFAULT {
            return None;
        }
        let (endpoint, template, prefix) = policy.lookalike(path)?;
        if self.has(endpoint) {
            return None;
        }
        let mut suspicion = self.suspicion.lock().unwrap_or_else(PoisonError::into_inner);
        (suspicion.confirm(prefix, now) == ALIKE).then(|| Advice::EndpointNotReached {
            requests: ALIKE,
            endpoint,
            template: template.to_owned(),
            missing: match prefix {
                Prefix::Missing(missing) => Some(missing.to_owned()),
                Prefix::Added(_) => None,
            },
        })
    }

    #[inline]
    fn place(&self, endpoint: Endpoint) -> (&AtomicU32, u32) {
        let number = endpoint.number();
        (&self.bits[number / 32 % (Endpoint::MAX / 32)], 1 << (number % 32))
    }
}

impl Suspicion {
    /// Counts a request whose path has this fault. Returns the number of those with the fault that
    /// is the most frequent by now.
    fn confirm(&mut self, prefix: Prefix<'_>, now: u32) -> u32 {
        let (text, is_missing) = match prefix {
            Prefix::Missing(text) => (text, true),
            Prefix::Added(text) => (text, false),
        };
        if now.wrapping_sub(self.since) >= AMONG {
            self.count = 0;
        }
        if self.count == 0 {
            *self = Self { prefix: text.to_owned(), is_missing, count: 1, since: now };
        } else if (&*self.prefix, self.is_missing) == (text, is_missing) {
            self.count += 1;
        } else {
            // An id in place of a prefix is a different one in each request, and so never prevails.
            self.count -= 1;
        }
        self.count
    }
}
