//! The settings of a layer, and what happens to a request by them.

use std::fmt;
use std::mem;
use std::sync::Arc;

use http::header::{ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, ORIGIN};
use http::request::Parts;
use http::{Extensions, Method, Request, StatusCode};

use super::address::ClientAddress;
use super::after::{After, Corrections};
use super::cost::CostOf;
use super::identify::Identify;
use super::refused_body::Bounds;
use super::response::{Fields, Format, Refusal, RefusalResponse, Renderer, is_grpc};
use crate::limiter::{Asked, Conclusion, Decided, Deciding, Limiter, Rest, Terms};
use crate::observe::{Mark, Seen};
use crate::policy::Account;
use crate::store::{Store, StoreError};
use crate::values::{Costs, Principal, Ruling};

/// The limiter and the settings that the clones of a layer and all services made from them share.
pub(super) struct Config<St> {
    /// Whether requests are limited at all.
    pub(super) enabled: bool,
    pub(super) limiter: Limiter<St>,
    /// How to find the account. `None`: it is the [`Account`] in the extensions.
    pub(super) identify: Option<Arc<dyn Identify>>,
    /// How to find the address of an unidentified request.
    pub(super) client_address: Option<ClientAddress>,
    /// The costs that requests have themselves.
    pub(super) costs: Vec<CostOf>,
    /// The status of a request that costs more than a limit can ever allow.
    pub(super) too_costly: StatusCode,
    pub(super) terms: Terms,
    pub(super) format: Format,
    pub(super) renderer: Option<Renderer>,
    /// What is read of the bodies of refused requests.
    pub(super) refused_bodies: Bounds,
    /// Whether responses have the `RateLimit` fields also if the limit is not enforced.
    pub(super) fields_in_shadow: bool,
    pub(super) ruling_in_extensions: bool,
    pub(super) admission_in_extensions: bool,
    /// The rules by which charges are corrected.
    pub(super) corrections: Option<Arc<Corrections>>,
}

/// What happens to a request: known at once, or when the store has answered.
pub(super) enum Step<F: Future> {
    Now(Next),
    Later(Deciding<F>),
}

/// What happens to a request.
pub(super) enum Next {
    /// The inner service is called, and its response gets these fields.
    Call(Fields, Option<Box<After>>),
    /// The inner service is not called.
    Refuse(RefusalResponse),
}

impl<St> Config<St> {
    pub(super) fn new(limiter: Limiter<St>) -> Self {
        Self {
            enabled: true,
            limiter,
            identify: None,
            client_address: None,
            costs: Vec::new(),
            too_costly: StatusCode::PAYLOAD_TOO_LARGE,
            terms: Terms::default(),
            format: Format::default(),
            renderer: None,
            refused_bodies: Bounds::default(),
            fields_in_shadow: false,
            ruling_in_extensions: false,
            admission_in_extensions: false,
            corrections: None,
        }
    }

    #[inline(never)]
    fn refuse<B>(
        &self,
        request: &Request<B>,
        ruling: &Ruling,
        error: Option<&StoreError>,
    ) -> RefusalResponse {
        if is_grpc(request.method(), request.headers()) {
            let refusal = Refusal::new(request, ruling, error, self.too_costly, self.format);
            return refusal.answer_grpc();
        }
        if self.renderer.is_none() && *request.method() != Method::HEAD {
            if let Some(usual) = RefusalResponse::usual(ruling, self.format) {
                return usual;
            }
        }
        let refusal = Refusal::new(request, ruling, error, self.too_costly, self.format);
        refusal.answer(self.renderer.as_ref())
    }

    /// Whether the request's head has to be looked at, apart from the account in its extensions.
    #[inline]
    fn reads_head(&self) -> bool {
        self.identify.is_some() || !self.costs.is_empty()
    }
}

impl<St: Store> Config<St> {
    /// What happens to a request with that conclusion.
    #[inline]
    pub(super) fn next<B>(&self, request: &mut Request<B>, conclusion: &mut Conclusion) -> Next {
        // Not by value: a ruling is large, and each move would copy it.
        let Conclusion { ruling, error, rest } = conclusion;
        if !ruling.is_admitted() {
            return Next::Refuse(self.refuse(request, ruling, error.as_deref()));
        }
        let mut after = None;
        if self.ruling_in_extensions || rest.is_some() {
            after = self.leave_in(request.extensions_mut(), ruling, rest.take());
        }
        Next::Call(Fields::new(ruling, self.format, self.fields_in_shadow), after)
    }

    /// Leaves in a request what its handler or another limiter reads, and returns what is to be
    /// done when the response is there.
    #[cold]
    fn leave_in(
        &self,
        extensions: &mut Extensions,
        ruling: &Ruling,
        rest: Option<Box<Rest>>,
    ) -> Option<Box<After>> {
        if self.ruling_in_extensions && !ruling.decisions().is_empty() {
            extensions.insert(ruling.clone());
        }
        let Rest { mark, mut held } = *rest?;
        if let Some(mark) = mark {
            extensions.insert(*mark);
        }
        let is_in_flight = held.is_in_flight();
        let is_left = held.is_counted() || self.admission_in_extensions;
        if held.is_empty() || !(is_in_flight || is_left || self.corrections.is_some()) {
            return None;
        }
        if is_left {
            // The handler finds only one, and may keep it for an upgraded connection.
            held.keep_outer(extensions.remove());
        }
        let admission = self.limiter.admission(held);
        if is_left {
            extensions.insert(admission.clone());
        }
        Some(Box::new(After::new(admission, self.corrections.clone(), is_in_flight)))
    }

    #[inline]
    pub(super) fn decide<B>(&self, request: &mut Request<B>) -> Step<St::Check> {
        if !self.enabled {
            return Step::Now(Next::Call(Fields::default(), None));
        }
        if self.reads_head() {
            return self.decide_by_head(request);
        }
        let account = request.extensions().get::<Account>();
        let mut asked = Asked::of(account, request.uri().path());
        if account.and_then(Account::principal).is_none() {
            // Whether the policy limits addresses is not known before it decides.
            if self.client_address.is_some() {
                return self.decide_by_head(request);
            }
            asked = asked.with(Some(Principal::unknown_address()), None);
        }
        let decided = self.limiter.decide(&asked, &self.terms, request);
        self.step(request, decided)
    }

    #[inline(never)]
    fn decide_by_head<B>(&self, request: &mut Request<B>) -> Step<St::Check> {
        let Found { account, costs, address } = self.find(request);
        let asked = Asked::of(account.as_ref(), request.uri().path());
        let asked = asked.with(address.as_ref(), costs.as_ref());
        let decided = self.limiter.decide(&asked, &self.terms, request);
        self.step(request, decided)
    }

    #[inline]
    fn step<B>(
        &self,
        request: &mut Request<B>,
        mut decided: Decided<St::Check>,
    ) -> Step<St::Check> {
        match decided {
            Decided::Exempt => Step::Now(Next::Call(Fields::default(), None)),
            Decided::Now(ref mut conclusion) => Step::Now(self.next(request, conclusion)),
            Decided::Later(deciding) => Step::Later(deciding),
        }
    }

    /// Looks at the head, which is taken out of the request for that, and put back.
    fn find<B>(&self, request: &mut Request<B>) -> Found {
        let (mut head, ()) = Request::new(()).into_parts();
        swap_head(request, &mut head);
        let account = match &self.identify {
            Some(identify) => identify.account(&head),
            None => head.extensions.get::<Account>().cloned(),
        };
        let costs = (!self.costs.is_empty()).then(|| CostOf::all(&self.costs, &head));
        let is_billed = account.as_ref().and_then(Account::principal).is_some();
        let address = (!is_billed).then(|| {
            let client = self.client_address.as_ref();
            client.map_or_else(|| Principal::unknown_address().clone(), |it| it.principal(&head))
        });
        swap_head(request, &mut head);
        Found { account, costs, address }
    }
}

/// What was found in a request's head.
struct Found {
    account: Option<Account>,
    costs: Option<Costs>,
    /// Of an unidentified request.
    address: Option<Principal>,
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

    fn has_credentials(&self) -> bool {
        // A cookie may be one of analytics.
        let fields = [AUTHORIZATION.as_str(), "x-api-key", "api-key"];
        let has = |field| self.headers().get(field).is_some_and(|value| !value.is_empty());
        fields.into_iter().any(has)
    }

    fn path(&self) -> Option<&str> {
        Some(self.uri().path())
    }

    fn can_be_marked(&self) -> bool {
        true
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
            client_address: self.client_address.clone(),
            costs: self.costs.clone(),
            renderer: self.renderer.clone(),
            refused_bodies: self.refused_bodies.clone(),
            corrections: self.corrections.clone(),
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
