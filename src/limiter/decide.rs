//! How the limiter decides about a request.
//!
//! [`Limiter::decide`] finds the rule, charges the buckets and those of the candidate, applies
//! enforcement and reports to observers. The Tower service and every `check` call it.

use std::sync::Arc;
use std::time::Duration;

use super::Limiter;
use super::active::Active;
use super::admission::Held;
use super::bill::{Bill, Rules, Target, TooCostly, Unbillable, rates};
use super::candidate::{TrialCharge, Tried};
use super::deciding::Deciding;
use super::in_flight::Reserved;
use super::pending::{Answers, Pending};
use crate::observe::{Examined, Mark, Observation, Seen};
use crate::policy::{Account, Charged, Policy};
use crate::store::{Answer, Charge, ChargeOutcome, Checked, Entry, Store, StoreError};
use crate::values::{
    Costs, Decision, Decisions, Endpoint, Enforced, Enforcement, OnStoreFailure, OnUnidentified,
    Principal, Ruling, Scope,
};

/// The settings that a layer adds to those of the limiter.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Terms {
    pub(crate) enforcement: Enforcement,
    pub(crate) on_unidentified: OnUnidentified,
    pub(crate) on_store_failure: OnStoreFailure,
    /// Whether what a request pays is noted, so that it can be given back. It is in any case if a
    /// limit of requests in flight counts the request, since that has an admission.
    pub(crate) corrects: bool,
}

/// A request, or other work, to be decided about.
pub(crate) struct Asked<'a> {
    /// `None` if the request has none.
    pub(crate) account: Option<&'a Account>,
    /// The address of a request without an account. `None` for what is not limited by an address.
    pub(crate) address: Option<&'a Principal>,
    pub(crate) target: Target<'a>,
    /// The costs that are not those of the policy.
    pub(crate) costs: Option<&'a Costs>,
}

/// What was decided about a request, at once or when the store has answered.
pub(crate) enum Decided<F: Future> {
    /// The path is exempt, or there is no such endpoint: nothing was decided or counted.
    Exempt,
    Now(Conclusion),
    Later(Deciding<F>),
}

/// A ruling, and what a layer needs besides.
pub(crate) struct Conclusion {
    pub(crate) ruling: Ruling,
    /// Why the store failed. In a box, because admitted requests have this field too.
    pub(crate) error: Option<Box<StoreError>>,
    /// What only few requests need.
    pub(crate) rest: Option<Box<Rest>>,
}

/// What only few requests need, boxed to keep [`Conclusion`] small.
#[derive(Default)]
pub(crate) struct Rest {
    /// A mark to leave in the request, if the request is admitted.
    pub(crate) mark: Option<Box<Mark>>,
    /// What an admitted request has paid, and its places.
    pub(crate) held: Held,
}

/// What a request carries from its charge to its conclusion.
#[derive(Default)]
pub(super) struct Carried {
    /// If a limit of the active policy is of requests in flight.
    pub(super) reserved: Option<Reserved>,
    pub(super) trial: Option<Box<TrialCharge>>,
}

impl<'a> Asked<'a> {
    /// A request of that account, by the policy's costs.
    #[inline]
    pub(crate) const fn of(account: Option<&'a Account>, path: &'a str) -> Self {
        Self { account, address: None, target: Target::Path(path), costs: None }
    }

    /// The same, of that address if there is no account, and with costs of its own.
    pub(crate) const fn with(
        self,
        address: Option<&'a Principal>,
        costs: Option<&'a Costs>,
    ) -> Self {
        Self { address, costs, ..self }
    }

    /// Work of that account that is not an HTTP request.
    pub(super) fn by_name(account: &'a Account, endpoint: Endpoint, costs: &'a Costs) -> Self {
        let costs = (*costs != Costs::default()).then_some(costs);
        Self { account: Some(account), address: None, target: Target::Endpoint(endpoint), costs }
    }
}

impl<St: Store> Limiter<St> {
    /// Decides about a request. A path is as it came over the wire.
    #[inline]
    pub(crate) fn decide(
        &self,
        asked: &Asked<'_>,
        terms: &Terms,
        seen: &impl Seen,
    ) -> Decided<St::Check> {
        let active = self.active();
        let billed = asked.account.and_then(|account| Some((account, account.principal()?)));
        let Some((account, principal)) = billed else {
            return self.decide_unidentified(&active, asked, terms, seen);
        };
        let own = account.policy();
        let policy = own.unwrap_or(&active.policy);
        let charged = asked.target.charged(policy);
        let rule = if let Charged::One(index) = charged { policy.rules().get(index) } else { None };
        let by_active_too = own.is_some() && active.policy.has_everyones();
        let is_simple = asked.costs.is_none() && !by_active_too;
        let only = rule.filter(|_| is_simple).and_then(|rule| Some((rule, rule.only()?)));
        let Some((rule, entry)) = only else {
            return self
                .decide_otherwise(&active, &charged, account, principal, asked, terms, seen);
        };
        let answer = self.store().check(Charge::of_one(principal, entry));
        let enforced_on_all =
            (terms.enforcement, rule.enforcement()) == (Enforcement::FULL, Enforcement::FULL);
        if active.is_plain() && enforced_on_all && !terms.corrects {
            let endpoint = rule.endpoint();
            return match answer {
                // Apart from the others, since the decisions are moved only once.
                Answer::Now(Ok(decisions)) if decisions.agrees() => {
                    let ruling = Ruling::of_one(endpoint, decisions);
                    Decided::Now(Conclusion { ruling, error: None, rest: None })
                }
                Answer::Now(answer) => Decided::Now(Conclusion::plain(answer, endpoint, terms)),
                Answer::Later(check) => Decided::Later(Deciding::plain(check, endpoint, *terms)),
            };
        }
        let enforcement = active.enforcement.and(rule.enforcement()).and(terms.enforcement);
        let request = Request {
            policy,
            endpoint: Some(rule.endpoint()),
            charge: Charge::of_one(principal, entry),
            enforced: Enforced::all_if(enforcement.applies_to(principal)),
            waited: None,
        };
        let answer = match answer {
            // Observers only, the common case in production. Apart from the others, since the
            // decisions are moved only once.
            Answer::Now(Ok(decisions))
                if active.candidate.is_none() && !terms.corrects && decisions.agrees() =>
            {
                let (endpoint, enforced) = (rule.endpoint(), request.enforced);
                let ruling = Ruling::of_decisions(endpoint, decisions, enforced, None);
                let mark = active.report_decision(&request, endpoint, &ruling, None, seen);
                let rest = mark.map(|mark| Box::new(Rest { mark: Some(mark), ..Rest::default() }));
                return Decided::Now(Conclusion { ruling, error: None, rest });
            }
            answer => answer,
        };
        self.decide_in_full(&active, &request, asked, answer, None, terms, seen)
    }

    /// Decides about a request with several limits, of one endpoint or of several, or its own
    /// costs, and about one whose path is exempt.
    #[inline(never)]
    #[expect(clippy::too_many_arguments, reason = "all of them are needed")]
    fn decide_otherwise(
        &self,
        active: &Arc<Active>,
        charged: &Charged,
        account: &Account,
        principal: &Principal,
        asked: &Asked<'_>,
        terms: &Terms,
        seen: &impl Seen,
    ) -> Decided<St::Check> {
        let policy = account.policy().unwrap_or(&active.policy);
        let rules = &Rules::new(policy, charged);
        let Some(endpoint) = rules.endpoint() else {
            active.report_exempt(account, asked.target);
            return Decided::Exempt;
        };
        let (target, costs) = (asked.target, asked.costs);
        let bill = active.bill(account, principal, rules, target, costs, terms.enforcement);
        let mut bill = match bill {
            // This must not become a failure of the store: under `OnStoreFailure::Admit` callers
            // could then escape their limits by sending such paths.
            Ok(bill) if bill.of_several && !self.charges_together(&bill.entries) => {
                return Decided::Now(active.refuse_path(endpoint, principal));
            }
            Ok(bill) => bill,
            Err(Unbillable::TooCostly(too_costly)) => {
                return Decided::Now(active.refuse_cost(endpoint, account, principal, too_costly));
            }
            Err(Unbillable::TooAmbiguous) => {
                return Decided::Now(active.refuse_path(endpoint, principal));
            }
        };
        if let (Some(it), Some(observers)) = (bill.too_costly, &active.observers) {
            observers.found_too_costly(it.limit, it.cost);
        }
        let (reserved, answer) = if bill.entries.iter().any(Entry::is_concurrent) {
            let (reserved, answer) = self.charge_in_flight(&mut bill, principal);
            (Some(reserved), answer)
        } else {
            (None, self.store().check(bill.charge(principal)))
        };
        let (charge, enforced) = (bill.charge(principal), bill.enforced);
        let request = Request { policy, endpoint: Some(endpoint), charge, enforced, waited: None };
        self.decide_in_full(active, &request, asked, answer, reserved, terms, seen)
    }

    /// Takes the places first, then asks the store about the rates. Rates that are not to be
    /// charged are taken off the bill: all of them if a limit of requests in flight refuses the
    /// request; those in shadow mode if only one in shadow mode has no room.
    #[inline(never)]
    fn charge_in_flight(
        &self,
        bill: &mut Bill,
        principal: &Principal,
    ) -> (Reserved, Answer<St::Check>) {
        let reserved = self.shared.in_flight.reserve(&bill.charge(principal));
        let look = &reserved.look;
        if look.outcome() == ChargeOutcome::Refused {
            bill.retain(Entry::is_concurrent);
        } else if look.shadow_lacks() {
            bill.retain(|entry| entry.is_concurrent() || entry.is_binding());
        }
        let answer = match bill.rates() {
            [] => Answer::Now(Ok(look.alone(true))),
            rates => self.store().check(bill.charge(principal).with_entries(rates)),
        };
        (reserved, answer)
    }

    /// Whether the store can charge these entries, which are those of several endpoints, at once.
    #[cold]
    fn charges_together(&self, entries: &[Entry]) -> bool {
        self.store().capabilities().permits_together(entries)
    }

    /// When there is more to do than to decide by one limit: several limits, a candidate or
    /// corrections; or observers or enforcement on some, if the store does not answer at once.
    #[inline(never)]
    #[expect(clippy::too_many_arguments, reason = "all of them are needed")]
    fn decide_in_full(
        &self,
        active: &Arc<Active>,
        request: &Request<'_>,
        asked: &Asked<'_>,
        answer: Answer<St::Check>,
        reserved: Option<Reserved>,
        terms: &Terms,
        seen: &impl Seen,
    ) -> Decided<St::Check> {
        let mut carried = reserved.map(|it| Box::new(Carried { reserved: Some(it), trial: None }));
        let Some(candidate) = &active.candidate else {
            return match answer {
                Answer::Now(answer) => {
                    Decided::Now(active.conclude(request, answer, None, carried, terms, seen))
                }
                Answer::Later(check) => {
                    let pending = Pending::One { check };
                    Decided::Later(Deciding::full(pending, active, request, carried, terms))
                }
            };
        };
        // A block holds under any policy, and blocked requests are not charged.
        let is_blocked = || {
            let blocks = |it: &Decisions| it.as_slice().iter().any(Decision::is_blocked);
            matches!(&answer, Answer::Now(Ok(decisions)) if blocks(decisions))
        };
        let account = asked.account.filter(|it| it.policy().is_none() && !is_blocked());
        let corrects = terms.corrects || carried.is_some();
        let try_it = |account| candidate.check(&self.shared, account, request, asked, corrects);
        let Tried { answer: tried, user, charge: trial } = account.map(try_it).unwrap_or_default();
        if trial.is_some() {
            carried.get_or_insert_default().trial = trial;
        }
        // Observers see the user that a limit of the candidate counts, too.
        let request = &Request { charge: request.charge.or_user(user.as_ref()), ..*request };
        match Pending::both(answer, tried) {
            Ok(Answers { active: answer, candidate }) => {
                Decided::Now(active.conclude(request, answer, candidate, carried, terms, seen))
            }
            Err(pending) => {
                Decided::Later(Deciding::full(pending, active, request, carried, terms))
            }
        }
    }

    /// Decides about an unidentified request: by the layer's choice, and if the policy limits such
    /// requests, by its address. Enforcement is about that limit only.
    #[inline(never)]
    fn decide_unidentified(
        &self,
        active: &Arc<Active>,
        asked: &Asked<'_>,
        terms: &Terms,
        seen: &impl Seen,
    ) -> Decided<St::Check> {
        let admits = terms.on_unidentified == OnUnidentified::Admit;
        let is_plain = active.policy.unidentified().is_none() && active.observers.is_none();
        if !(is_plain && admits) && asked.target.is_exempt(&active.policy) {
            return Decided::Exempt;
        }
        if is_plain {
            let ruling = Ruling::without_account(admits);
            return Decided::Now(Conclusion { ruling, error: None, rest: None });
        }
        self.decide_by_address(active, asked, terms, seen)
    }

    #[inline(never)]
    fn decide_by_address(
        &self,
        active: &Arc<Active>,
        asked: &Asked<'_>,
        terms: &Terms,
        seen: &impl Seen,
    ) -> Decided<St::Check> {
        let limited = active.policy.unidentified().zip(asked.address);
        let Some((rule, principal)) = limited else {
            let admits = terms.on_unidentified == OnUnidentified::Admit;
            let ruling = Ruling::without_account(admits);
            return Decided::Now(active.report_unidentified(ruling, None, None, None, seen));
        };
        if let Some(observers) = &active.observers {
            observers.check_address(principal);
        }
        let enforcement = active.enforcement.and(rule.enforcement()).and(terms.enforcement);
        let own = rule.own();
        let cost = asked.costs.map_or(own.cost(), |costs| costs.units(own));
        let entry = own.with_cost(cost.min(own.quota().burst())).unwrap_or(*own);
        let charge = Charge::of_one(principal, &entry);
        let enforced = Enforced::all_if(enforcement.applies_to(principal));
        let answer = self.store().check(charge);
        let policy = &active.policy;
        let request = Request { policy, endpoint: None, charge, enforced, waited: None };
        match answer {
            Answer::Now(answer) => {
                Decided::Now(active.conclude(&request, answer, None, None, terms, seen))
            }
            Answer::Later(check) => {
                let pending = Pending::One { check };
                Decided::Later(Deciding::full(pending, active, &request, None, terms))
            }
        }
    }
}

/// A request that is charged to a principal.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) policy: &'a Policy,
    /// `None` if the request is unidentified, and charged to its address.
    pub(super) endpoint: Option<Endpoint>,
    pub(super) charge: Charge<'a>,
    /// Which of the charge's limits are enforced.
    pub(super) enforced: Enforced,
    /// How long the store took, if it did not answer at once.
    pub(super) waited: Option<Duration>,
}

impl Active {
    /// Draws the conclusion from the store's answer: applies enforcement, counts for the candidate,
    /// notes what the request has paid and its places, and reports to observers.
    #[inline(always)]
    pub(super) fn conclude(
        &self,
        request: &Request<'_>,
        answer: Checked,
        candidate: Option<Decisions>,
        carried: Option<Box<Carried>>,
        terms: &Terms,
        seen: &impl Seen,
    ) -> Conclusion {
        let Request { charge, enforced, .. } = *request;
        let Some(endpoint) = request.endpoint else {
            let answer = verified(answer, charge.entries());
            return self.conclude_unidentified(request, answer, terms, seen);
        };
        let mut rest: Option<Box<Rest>> = None;
        let (ruling, error) = match answer {
            // Apart from the others, since the decisions are moved only once.
            Ok(decisions)
                if !terms.corrects
                    && carried.is_none()
                    && candidate.is_none()
                    && agrees(&decisions, charge.entries()) =>
            {
                (Ruling::of_decisions(endpoint, decisions, enforced, None), None)
            }
            answer => self.judge(answer, candidate, carried, endpoint, request, terms, &mut rest),
        };
        if let Some(mark) = self.report_decision(request, endpoint, &ruling, error.as_deref(), seen)
        {
            rest.get_or_insert_default().mark = Some(mark);
        }
        Conclusion { ruling, error, rest }
    }

    /// Reports a decision about a request of an account to the observers, if there are any.
    #[inline]
    fn report_decision(
        &self,
        request: &Request<'_>,
        endpoint: Endpoint,
        ruling: &Ruling,
        error: Option<&StoreError>,
        seen: &impl Seen,
    ) -> Option<Box<Mark>> {
        let observers = self.observers.as_ref()?;
        let principal = request.charge.principal();
        let observation = Observation::new(Some(principal), ruling, error, request.waited);
        observers.on_decision(&observation.with_user(request.charge.user()));
        let (active, policy) = (&self.policy, request.policy);
        observers.check(seen, Examined { active, policy, principal, endpoint, ruling })
    }

    /// The ruling, where there is a candidate, a limit of requests in flight or something to note,
    /// or the store failed.
    #[inline(never)]
    #[expect(clippy::too_many_arguments, reason = "all of them are needed")]
    fn judge(
        &self,
        answer: Checked,
        candidate: Option<Decisions>,
        carried: Option<Box<Carried>>,
        endpoint: Endpoint,
        request: &Request<'_>,
        terms: &Terms,
        rest: &mut Option<Box<Rest>>,
    ) -> (Ruling, Option<Box<StoreError>>) {
        let Carried { mut reserved, mut trial } = carried.map(|it| *it).unwrap_or_default();
        let entries = request.charge.entries();
        let answer = match &mut reserved {
            Some(reserved) => merged(answer, entries, reserved),
            None => verified(answer, entries),
        };
        let judged = self.candidate.as_ref().zip(candidate).and_then(|(candidate, decisions)| {
            let decisions =
                candidate.count(decisions, answer.as_ref().ok(), trial.as_deref_mut())?;
            Some((candidate, decisions))
        });
        let outcome = answer.as_ref().ok().map(Decisions::outcome);
        let (tried, counted) = judged.unzip();
        let tried = tried.zip(counted.as_ref().map(Decisions::outcome));
        let (ruling, error) = rule_on(answer, counted, endpoint, request.enforced, terms);
        if ruling.is_admitted() {
            let mut held = Held::default();
            let corrects = terms.corrects || reserved.is_some();
            let by_active = request.policy.is_same(&self.policy);
            if let Some(outcome) = outcome.filter(|_| corrects) {
                held.pay(
                    by_active,
                    &request.charge,
                    |it| outcome.charges(it.is_binding()),
                    |name| name,
                );
            }
            if let Some(reserved) = reserved {
                held.keep(reserved.into_places());
            }
            if let (Some((candidate, outcome)), Some(trial)) = (tried, trial) {
                candidate.pay(*trial, outcome, corrects, &mut held);
            }
            if !held.is_empty() {
                *rest = Some(Box::new(Rest { mark: None, held }));
            }
        }
        (ruling, error)
    }

    #[inline(never)]
    fn conclude_unidentified(
        &self,
        request: &Request<'_>,
        answer: Checked,
        terms: &Terms,
        seen: &impl Seen,
    ) -> Conclusion {
        let admits = terms.on_unidentified == OnUnidentified::Admit;
        let enforced = request.enforced;
        let has_paid = answer.as_ref().is_ok_and(|it| it.outcome().is_admitted());
        let (ruling, error) = match answer {
            Ok(decisions) => (Ruling::unidentified(admits, Some(decisions), enforced), None),
            Err(error) if terms.on_store_failure == OnStoreFailure::Admit => {
                (Ruling::unidentified(admits, None, enforced), Some(error))
            }
            // The limit is in shadow mode, so a failed store changes nothing.
            Err(error) if !enforced.has(0) => {
                (Ruling::unidentified(admits, None, enforced), Some(error))
            }
            Err(error) => (Ruling::store_failed(None, enforced, false, None), Some(error)),
        };
        let (address, waited) = (Some(request.charge.principal()), request.waited);
        let mut conclusion = self.report_unidentified(ruling, error, address, waited, seen);
        if terms.corrects && has_paid && conclusion.ruling.is_admitted() {
            let mut held = Held::default();
            held.pay(true, &request.charge, |_| true, |name| name);
            conclusion.rest = Some(Box::new(Rest { mark: None, held }));
        }
        conclusion
    }

    fn report_unidentified(
        &self,
        ruling: Ruling,
        error: Option<StoreError>,
        address: Option<&Principal>,
        waited: Option<Duration>,
        seen: &impl Seen,
    ) -> Conclusion {
        let error = error.map(Box::new);
        if let Some(observers) = &self.observers {
            let observation = Observation::new(address, &ruling, error.as_deref(), waited);
            observers.on_decision(&observation);
            observers.check_unidentified(&self.policy, seen, !ruling.is_admitted());
        }
        Conclusion { ruling, error, rest: None }
    }

    /// Refuses a request that no wait would help, or admits it in shadow mode. Nothing is charged.
    #[cold]
    #[inline(never)]
    fn refuse_cost(
        &self,
        endpoint: Endpoint,
        account: &Account,
        principal: &Principal,
        it: TooCostly,
    ) -> Conclusion {
        let ruling = Ruling::too_costly(endpoint, it.limit, it.cost, it.is_enforced);
        if let Some(observers) = &self.observers {
            let counts_users = it.limit.scope() == Scope::User;
            let user = account.user_principal().filter(|_| counts_users);
            let observation = Observation::new(Some(principal), &ruling, None, None);
            observers.on_decision(&observation.with_user(user.as_ref()));
            observers.found_reached(endpoint);
            observers.found_too_costly(it.limit, it.cost);
        }
        Conclusion { ruling, error: None, rest: None }
    }

    /// Refuses a request whose path is charged to more limits than fit into one charge, in shadow
    /// mode too. To admit it uncounted would let callers escape by such paths.
    #[cold]
    #[inline(never)]
    fn refuse_path(&self, endpoint: Endpoint, principal: &Principal) -> Conclusion {
        let ruling = Ruling::too_ambiguous(endpoint);
        if let Some(observers) = &self.observers {
            observers.on_decision(&Observation::new(Some(principal), &ruling, None, None));
            observers.found_reached(endpoint);
        }
        Conclusion { ruling, error: None, rest: None }
    }

    /// A request of an account whose path is exempt. It is not observed, but it counts for advice.
    #[inline]
    fn report_exempt(&self, account: &Account, target: Target<'_>) {
        if let (Some(observers), Target::Path(path)) = (&self.observers, target) {
            observers.check_exempt(&self.policy, account, path);
        }
    }
}

/// A check without Tower, of which no more is known than its path.
impl Seen for Target<'_> {
    fn path(&self) -> Option<&str> {
        match self {
            Self::Path(path) => Some(path),
            Self::Endpoint(_) => None,
        }
    }
}

impl Conclusion {
    /// For a check without Tower: the ruling, or why the store failed, if the request is refused
    /// for that.
    pub(super) fn into_result(self) -> Result<Ruling, StoreError> {
        match self.error {
            Some(error) if !self.ruling.is_admitted() => Err(*error),
            _ => Ok(self.ruling),
        }
    }

    /// The conclusion for a request that only has to be decided about by one limit.
    pub(super) fn plain(answer: Checked, endpoint: Endpoint, terms: &Terms) -> Self {
        let (ruling, error) = rule_on(of_one(answer), None, endpoint, Enforced::ALL, terms);
        Self { ruling, error, rest: None }
    }
}

fn rule_on(
    answer: Checked,
    candidate: Option<Decisions>,
    endpoint: Endpoint,
    enforced: Enforced,
    terms: &Terms,
) -> (Ruling, Option<Box<StoreError>>) {
    match answer {
        Ok(decisions) => (Ruling::of_decisions(endpoint, decisions, enforced, candidate), None),
        Err(error) => {
            let admits = terms.on_store_failure == OnStoreFailure::Admit;
            let ruling = Ruling::store_failed(Some(endpoint), enforced, admits, candidate);
            (ruling, Some(Box::new(error)))
        }
    }
}

/// The answer about a charge of one binding bucket. A store that contradicts itself must not cause
/// an admission.
fn of_one(answer: Checked) -> Checked {
    match answer {
        Ok(decisions) if !decisions.agrees() => Err(contradiction()),
        answer => answer,
    }
}

/// The answer about a charge of these entries. A store that contradicts itself must not cause an
/// admission.
pub(super) fn verified(answer: Checked, entries: &[Entry]) -> Checked {
    match answer {
        Ok(decisions) if !agrees(&decisions, entries) => Err(contradiction()),
        answer => answer,
    }
}

/// The answer about the rates of a charge, and what its limits of requests in flight say.
fn merged(answer: Checked, entries: &[Entry], reserved: &mut Reserved) -> Checked {
    let rates = rates(entries);
    if rates.is_empty() {
        // The store was not asked.
        return answer;
    }
    let decisions = verified(answer, rates)?;
    Ok(reserved.merge(rates, &decisions))
}

#[inline]
fn agrees(decisions: &Decisions, entries: &[Entry]) -> bool {
    match entries {
        [entry] if entry.is_binding() => decisions.agrees(),
        entries => decisions.agrees_with(entries),
    }
}

#[cold]
fn contradiction() -> StoreError {
    StoreError::of_request("the store's outcome contradicts its decisions")
}
