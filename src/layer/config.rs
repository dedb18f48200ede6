//! The settings of a layer, and what happens to a request by them.

use std::fmt;
use std::mem;
use std::sync::Arc;

use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN};
use http::request::Parts;
use http::{Extensions, Method, Request};

use super::identify::Identify;
use super::response::{Fields, Format, Reason, Refusal, RefusalResponse, Renderer};
use crate::limiter::{Conclusion, Decided, Deciding, Limiter, Terms};
use crate::observe::{Mark, Seen};
use crate::policy::Account;
use crate::store::Store;
use crate::values::Ruling;

/// The limiter and the settings that the clones of a layer and all services made from them share.
pub(super) struct Config<St> {
    /// Whether requests are limited at all.
    pub(super) enabled: bool,
    pub(super) limiter: Limiter<St>,
    /// How to find the account. `None`: it is the [`Account`] in the extensions.
    pub(super) identify: Option<Arc<dyn Identify>>,
    pub(super) terms: Terms,
    pub(super) format: Format,
    pub(super) renderer: Option<Renderer>,
    /// Whether responses have the `RateLimit` fields also if the limit is not enforced.
    pub(super) fields_in_shadow: bool,
    pub(super) ruling_in_extensions: bool,
}

/// What happens to a request: known at once, or when the store has answered.
pub(super) enum Step<F: Future> {
    Now(Next),
    Later(Deciding<F>),
}

/// What happens to a request.
pub(super) enum Next {
    /// The inner service is called, and its response gets these fields.
    Call(Fields),
    /// The inner service is not called.
    Refuse(RefusalResponse),
}

impl<St> Config<St> {
    pub(super) fn new(limiter: Limiter<St>) -> Self {
        Self {
            enabled: true,
            limiter,
            identify: None,
            terms: Terms::default(),
            format: Format::default(),
            renderer: None,
            fields_in_shadow: false,
            ruling_in_extensions: false,
        }
    }

    /// What happens to a request with that conclusion.
    #[inline]
    pub(super) fn next<B>(&self, request: &mut Request<B>, conclusion: Conclusion) -> Next {
        let Conclusion { ruling, error, mark } = conclusion;
        if !ruling.is_admitted() {
            let reason = match (ruling.decision(), error.as_deref()) {
                (Some(decision), _) => Reason::Limited(*decision),
                (None, Some(error)) => Reason::StoreFailed(error),
                (None, None) => Reason::Unidentified,
            };
            return Next::Refuse(self.refuse(request, reason));
        }
        if self.ruling_in_extensions || mark.is_some() {
            self.leave_in(request.extensions_mut(), ruling, mark);
        }
        Next::Call(match ruling.decision() {
            Some(decision) if ruling.is_enforced() || self.fields_in_shadow => {
                Fields::new(decision, self.format)
            }
            _ => Fields::default(),
        })
    }

    #[inline(never)]
    fn refuse<B>(&self, request: &Request<B>, reason: Reason<'_>) -> RefusalResponse {
        Refusal::new(request, reason).answer(self.renderer.as_ref(), self.format)
    }

    #[cold]
    fn leave_in(&self, extensions: &mut Extensions, ruling: Ruling, mark: Option<Box<Mark>>) {
        if self.ruling_in_extensions && ruling.decision().is_some() {
            extensions.insert(ruling);
        }
        if let Some(mark) = mark {
            extensions.insert(*mark);
        }
    }
}

impl<St: Store> Config<St> {
    #[inline]
    pub(super) fn decide<B>(&self, request: &mut Request<B>) -> Step<St::Check> {
        if !self.enabled {
            return Step::Now(Next::Call(Fields::default()));
        }
        let found;
        let account = match &self.identify {
            None => request.extensions().get::<Account>(),
            Some(identify) => {
                found = identified(&**identify, request);
                found.as_ref()
            }
        };
        let decided = self.limiter.decide(account, request.uri().path(), &self.terms, request);
        match decided {
            Decided::Exempt => Step::Now(Next::Call(Fields::default())),
            Decided::Now(conclusion) => Step::Now(self.next(request, conclusion)),
            Decided::Later(deciding) => Step::Later(deciding),
        }
    }
}

/// Finds the account of a request. For this the head is taken out of the request, and put back.
fn identified<B>(identify: &dyn Identify, request: &mut Request<B>) -> Option<Account> {
    let (mut head, ()) = Request::new(()).into_parts();
    swap_head(request, &mut head);
    let account = identify.account(&head);
    swap_head(request, &mut head);
    account
}

fn swap_head<B>(request: &mut Request<B>, head: &mut Parts) {
    mem::swap(request.method_mut(), &mut head.method);
    mem::swap(request.uri_mut(), &mut head.uri);
    mem::swap(request.version_mut(), &mut head.version);
    mem::swap(request.headers_mut(), &mut head.headers);
    mem::swap(request.extensions_mut(), &mut head.extensions);
}

impl<B> Seen for Request<B> {
    fn is_preflight(&self) -> bool {
        *self.method() == Method::OPTIONS
            && self.headers().contains_key(ORIGIN)
            && self.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
    }

    fn mark(&self) -> Option<&Mark> {
        self.extensions().get()
    }
}

impl<St> Clone for Config<St> {
    fn clone(&self) -> Self {
        Self {
            limiter: self.limiter.clone(),
            identify: self.identify.clone(),
            renderer: self.renderer.clone(),
            ..*self
        }
    }
}

impl<St: fmt::Debug> fmt::Debug for Config<St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("enabled", &self.enabled)
            .field("limiter", &self.limiter)
            .field("terms", &self.terms)
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}
