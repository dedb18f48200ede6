use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};

use crate::account::Account;
use crate::decision::Decision;
use crate::endpoint::Endpoint;
use crate::identity::Identify;
use crate::limiter::Limiter;
use crate::policy::{Class, Table};
use crate::store::{Answer, Bucket, Store, StoreError};
use crate::wire::{Fields, Format, Reason, Refusal, Renderer};

/// What becomes of a request about which nothing can be decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Undecided {
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
    pub(super) unidentified: Undecided,
    pub(super) store_failed: Undecided,
    pub(super) format: Format,
    pub(super) renderer: Option<Renderer>,
}

/// What becomes of a request: known at once, or when the store has answered.
pub(super) enum Judgement<F> {
    Now(Verdict),
    Later(F, Question),
}

pub(super) enum Verdict {
    /// It goes on, and its response gets the fields if it was counted.
    Admit(Option<Fields>),
    Refuse(Response<Bytes>),
}

/// What the store was asked. The request is judged by that policy, even if another comes into force meanwhile.
pub(super) struct Question {
    policy: Arc<Table>,
    endpoint: Endpoint,
}

impl<St> Gate<St> {
    pub(super) fn new(limiter: Limiter<St>) -> Self {
        Self {
            limiter,
            identify: None,
            unidentified: Undecided::Refuse,
            store_failed: Undecided::Refuse,
            format: Format::default(),
            renderer: None,
        }
    }

    fn refuse<B>(&self, request: &Request<B>, reason: Reason<'_>, class: Option<&Class>) -> Response<Bytes> {
        Refusal::new(request, reason, class.map(|class| &class.rendered))
            .into_response(self.renderer.as_ref(), self.format)
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
        let Some(class) = policy.class_of(request.uri().path()) else {
            return Judgement::Now(Verdict::Admit(None));
        };
        let Some(principal) = account.and_then(Account::principal) else {
            return Judgement::Now(match self.unidentified {
                Undecided::Refuse => Verdict::Refuse(self.refuse(request, Reason::Unidentified, None)),
                Undecided::AdmitWithoutLimit => Verdict::Admit(None),
            });
        };
        let (endpoint, quota) = (class.endpoint, class.quota);
        match self.limiter.store().check(Bucket { principal, endpoint, quota }) {
            Answer::Now(answer) => Judgement::Now(self.conclude(request, Some(class), &answer)),
            Answer::Later(check) => Judgement::Later(check, Question { policy: Arc::clone(policy), endpoint }),
        }
    }

    pub(super) fn conclude_later<B>(
        &self,
        request: &Request<B>,
        question: &Question,
        answer: &Result<Decision, StoreError>,
    ) -> Verdict {
        self.conclude(request, question.policy.class(question.endpoint), answer)
    }

    fn conclude<B>(
        &self,
        request: &Request<B>,
        class: Option<&Class>,
        answer: &Result<Decision, StoreError>,
    ) -> Verdict {
        match answer {
            Ok(decision) if decision.is_allowed() => {
                Verdict::Admit(class.map(|class| class.rendered.fields(decision, self.format)))
            }
            Ok(decision) => Verdict::Refuse(self.refuse(request, Reason::Limited(*decision), class)),
            Err(error) => match self.store_failed {
                Undecided::Refuse => Verdict::Refuse(self.refuse(request, Reason::StoreFailed(error), class)),
                Undecided::AdmitWithoutLimit => Verdict::Admit(None),
            },
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
