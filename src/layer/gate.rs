use std::fmt;
use std::sync::Arc;

use http::Request;

use crate::account::Account;
use crate::decision::Decision;
use crate::identity::Identify;
use crate::limiter::Limiter;
use crate::policy::{Class, Table};
use crate::store::{self, Bucket, Store, StoreError};
use crate::wire::{Answer, Cause, Fields, Format, Kept, Refusal, Renderer};

/// What becomes of a request about which nothing can be decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Fallback {
    /// It is refused.
    #[default]
    Refuse,
    /// It goes on, uncounted. Whoever can bring the situation about has no limit.
    AdmitWithoutLimit,
}

/// The limiter and how it is set up: what every clone of a layer, and every service that it makes, has in common.
pub(super) struct Gate<St> {
    pub(super) limiter: Limiter<St>,
    /// `None`: an [`Account`] in the extensions.
    pub(super) identify: Option<Arc<dyn Identify>>,
    pub(super) unidentified: Fallback,
    pub(super) store_failed: Fallback,
    pub(super) format: Format,
    pub(super) renderer: Option<Renderer>,
}

/// What becomes of a request: known at once, or when the store has answered.
pub(super) enum Judgement<F> {
    Now(Verdict),
    Later(F, Question),
}

pub(super) enum Verdict {
    /// It goes on, and its response gets the fields.
    Admit(Fields),
    Refuse(Answer),
}

/// What the store was asked. The request is judged by that policy, even if another comes into force meanwhile.
pub(super) struct Question {
    policy: Arc<Table>,
    class: usize,
}

impl<St> Gate<St> {
    pub(super) fn new(limiter: Limiter<St>) -> Self {
        Self {
            limiter,
            identify: None,
            unidentified: Fallback::Refuse,
            store_failed: Fallback::Refuse,
            format: Format::default(),
            renderer: None,
        }
    }

    #[inline(never)]
    fn refuse<B>(&self, request: &Request<B>, cause: Cause<'_>) -> Verdict {
        Verdict::Refuse(Refusal::new(request, cause).answer(self.renderer.as_ref(), self.format))
    }
}

impl<St: Store> Gate<St> {
    pub(super) fn judge<B>(&self, request: &Request<B>) -> Judgement<St::Check> {
        let found;
        let account = match &self.identify {
            None => request.extensions().get::<Account>(),
            Some(identify) => {
                found = identify.account(request.extensions());
                found.as_ref()
            }
        };
        let in_force;
        let policy = match account.and_then(Account::policy) {
            Some(own) => own.table(),
            None => {
                in_force = self.limiter.load_policy();
                &*in_force
            }
        };
        let path = request.uri().path();
        let Some(principal) = account.and_then(Account::principal) else {
            // Asked first whether the path is exempt: a stranger is not worth the cost of reading an odd path.
            return Judgement::Now(match self.unidentified {
                Fallback::Refuse if !policy.exempts(path) => self.refuse(request, Cause::Unidentified),
                _ => Verdict::Admit(Fields::default()),
            });
        };
        let Some(index) = policy.class_index_of(path) else {
            return Judgement::Now(Verdict::Admit(Fields::default()));
        };
        let class = policy.class(index);
        let (endpoint, quota) = (class.endpoint, class.quota);
        match self.limiter.store().check(Bucket { principal, endpoint, quota }) {
            store::Answer::Now(answer) => Judgement::Now(self.conclude(request, class, &answer)),
            store::Answer::Later(check) => {
                Judgement::Later(check, Question { policy: Arc::clone(policy), class: index })
            }
        }
    }

    pub(super) fn conclude_later<B>(
        &self,
        request: &Request<B>,
        question: &Question,
        answer: &Result<Decision, StoreError>,
    ) -> Verdict {
        self.conclude(request, question.policy.class(question.class), answer)
    }

    fn conclude<B>(&self, request: &Request<B>, class: &Class, answer: &Result<Decision, StoreError>) -> Verdict {
        let decision = match answer {
            Ok(decision) => decision,
            Err(error) => {
                return match self.store_failed {
                    Fallback::Refuse => self.refuse(request, Cause::StoreFailed(error)),
                    Fallback::AdmitWithoutLimit => Verdict::Admit(Fields::default()),
                };
            }
        };
        let kept = if decision.quota() == class.quota && decision.endpoint() == class.endpoint {
            class.kept
        } else {
            // A store may decide by another quota than it was asked to, such as a stricter one when it is cut off.
            Kept::of(decision.endpoint(), decision.quota())
        };
        if decision.is_allowed() {
            Verdict::Admit(Fields::new(kept, decision, self.format))
        } else {
            self.refuse(request, Cause::Limited(*decision, kept))
        }
    }
}

impl<St> Clone for Gate<St> {
    fn clone(&self) -> Self {
        Self {
            limiter: self.limiter.clone(),
            identify: self.identify.clone(),
            renderer: self.renderer.clone(),
            ..*self
        }
    }
}

impl<St: fmt::Debug> fmt::Debug for Gate<St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("limiter", &self.limiter)
            .field("unidentified", &self.unidentified)
            .field("store_failed", &self.store_failed)
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}
