use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use http::{Extensions, Request};

use crate::account::Account;
use crate::decision::Decision;
use crate::enforcement::Enforcement;
use crate::identity::Identify;
use crate::insight::{Mark, Mode, Observation, Outcome};
use crate::limiter::{self, Answers, InForce, Limiter, Pending, Watched};
use crate::policy::{Class, Table};
use crate::principal::Principal;
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

/// The limiter and how it is set up: what every clone of a layer, and every service that it makes,
/// has in common.
pub(super) struct Gate<St> {
    pub(super) limiter: Limiter<St>,
    /// `None`: an [`Account`] in the extensions.
    pub(super) identify: Option<Arc<dyn Identify>>,
    pub(super) unidentified: Fallback,
    pub(super) store_failed: Fallback,
    pub(super) format: Format,
    pub(super) renderer: Option<Renderer>,
    /// Whether responses tell of limits that are not enforced.
    pub(super) fields_in_shadow: bool,
    /// Whether the decision is left in the request's extensions.
    pub(super) hands_over: bool,
}

/// What becomes of a request: known at once, or when the store has answered.
pub(super) enum Judgement<F: Future> {
    Now(Verdict),
    Later(Pending<F>, Question),
}

pub(super) enum Verdict {
    /// It goes on, and its response gets the fields.
    Admit(Fields),
    Refuse(Answer),
}

/// What the store was asked. The request is judged by that policy, even if another comes into force
/// meanwhile.
pub(super) struct Question {
    policy: Arc<Table>,
    class: usize,
    /// Unless there is nothing to do but to decide.
    watched: Option<(Arc<InForce>, Principal, Instant)>,
}

/// What a request's extensions get.
#[derive(Default)]
struct Left {
    decision: Option<Decision>,
    mark: Option<Box<Mark>>,
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
            fields_in_shadow: false,
            hands_over: false,
        }
    }

    #[inline(never)]
    fn refuse<B>(&self, request: &Request<B>, cause: Cause<'_>) -> Verdict {
        Verdict::Refuse(Refusal::new(request, cause).answer(self.renderer.as_ref(), self.format))
    }
}

impl<St: Store> Gate<St> {
    pub(super) fn judge<B>(&self, request: &mut Request<B>) -> Judgement<St::Check> {
        let in_force = self.limiter.in_force();
        let found;
        let account = match &self.identify {
            None => request.extensions().get::<Account>(),
            Some(identify) => {
                found = identify.account(request.extensions());
                found.as_ref()
            }
        };
        let policy = account.and_then(Account::policy).map_or(&in_force.policy, |own| own.table());
        let path = request.uri().path();
        let Some(principal) = account.and_then(Account::principal) else {
            return Judgement::Now(self.judge_stranger(request, &in_force, policy));
        };
        let Some(index) = policy.class_index_of(path) else {
            return Judgement::Now(Verdict::Admit(Fields::default()));
        };
        let class = policy.class(index);
        let (endpoint, quota) = (class.endpoint, class.quota);
        let answer = self.limiter.store().check(Bucket { principal, endpoint, quota });
        if self.is_simple(&in_force, class) && in_force.insight.is_none() {
            return match answer {
                store::Answer::Now(answer) => {
                    Judgement::Now(self.conclude(request, class, &answer))
                }
                store::Answer::Later(check) => {
                    let question =
                        Question { policy: Arc::clone(policy), class: index, watched: None };
                    Judgement::Later(Pending::One { check }, question)
                }
            };
        }
        let watched = Watched { class, principal, waited: None };
        let (judgement, left) =
            self.judge_watched(request, &in_force, policy, index, &watched, answer);
        left.leave_in(request);
        judgement
    }

    /// When there is more to do than to decide: to tell observers, if there is nothing else.
    #[inline(never)]
    fn judge_watched<B>(
        &self,
        request: &Request<B>,
        in_force: &Arc<InForce>,
        policy: &Arc<Table>,
        class: usize,
        watched: &Watched<'_>,
        answer: store::Answer<St::Check>,
    ) -> (Judgement<St::Check>, Left) {
        match (&in_force.insight, answer) {
            (Some(insight), store::Answer::Now(answer))
                if self.is_simple(in_force, watched.class) =>
            {
                let forgiving = self.store_failed == Fallback::AdmitWithoutLimit;
                limiter::tell(insight, watched, &answer, None, Mode::Enforced, forgiving);
                let decision = answer.as_ref().ok();
                let mark = decision.and_then(|decision| {
                    insight.check(request, policy, watched.principal, decision)
                });
                (
                    Judgement::Now(self.conclude(request, watched.class, &answer)),
                    Left { decision: None, mark },
                )
            }
            (_, answer) => self.judge_in_full(request, in_force, policy, class, watched, answer),
        }
    }

    #[inline(never)]
    fn judge_in_full<B>(
        &self,
        request: &Request<B>,
        in_force: &Arc<InForce>,
        policy: &Arc<Table>,
        class: usize,
        watched: &Watched<'_>,
        answer: store::Answer<St::Check>,
    ) -> (Judgement<St::Check>, Left) {
        let principal = watched.principal;
        let path = request.uri().path();
        let candidate =
            in_force.ask_candidate(self.limiter.store(), policy, &answer, principal, path);
        match Pending::both(answer, candidate) {
            Ok(answers) => {
                let (verdict, left) =
                    self.conclude_watched(request, in_force, policy, watched, &answers);
                (Judgement::Now(verdict), left)
            }
            Err(pending) => {
                let watched = (Arc::clone(in_force), principal.clone(), Instant::now());
                let question =
                    Question { policy: Arc::clone(policy), class, watched: Some(watched) };
                (Judgement::Later(pending, question), Left::default())
            }
        }
    }

    pub(super) fn conclude_later<B>(
        &self,
        request: &mut Request<B>,
        question: &Question,
        answers: &Answers,
    ) -> Verdict {
        let class = question.policy.class(question.class);
        let Some((in_force, principal, asked)) = &question.watched else {
            return self.conclude(request, class, &answers.enforced);
        };
        let watched = Watched { class, principal, waited: Some(asked.elapsed()) };
        let (verdict, left) =
            self.conclude_watched(request, in_force, &question.policy, &watched, answers);
        left.leave_in(request);
        verdict
    }

    /// Whether there is nothing to do but to decide, and to tell observers if there are any.
    #[inline]
    fn is_simple(&self, in_force: &InForce, class: &Class) -> bool {
        in_force.is_simple() && class.enforcement == Enforcement::FULL && !self.hands_over
    }

    // Left to itself, the compiler makes it a call for the sake of those that are watched.
    #[inline(always)]
    fn conclude<B>(
        &self,
        request: &Request<B>,
        class: &Class,
        answer: &Result<Decision, StoreError>,
    ) -> Verdict {
        let decision = match answer {
            Ok(decision) => decision,
            Err(error) => {
                return match self.store_failed {
                    Fallback::Refuse => self.refuse(request, Cause::StoreFailed(error)),
                    Fallback::AdmitWithoutLimit => Verdict::Admit(Fields::default()),
                };
            }
        };
        if decision.is_allowed() {
            Verdict::Admit(Fields::new(kept(class, decision), decision, self.format))
        } else {
            self.refuse(request, Cause::Limited(*decision, kept(class, decision)))
        }
    }

    fn conclude_watched<B>(
        &self,
        request: &Request<B>,
        in_force: &InForce,
        policy: &Table,
        watched: &Watched<'_>,
        answers: &Answers,
    ) -> (Verdict, Left) {
        let forgiving = self.store_failed == Fallback::AdmitWithoutLimit;
        let mode = in_force.conclude(watched, &answers.enforced, answers.candidate, forgiving);
        let verdict = match (mode, &answers.enforced) {
            (Mode::Enforced, answer) => self.conclude(request, watched.class, answer),
            (Mode::Shadow, Ok(decision)) if self.fields_in_shadow => {
                Verdict::Admit(Fields::new(kept(watched.class, decision), decision, self.format))
            }
            (Mode::Shadow, _) => Verdict::Admit(Fields::default()),
        };
        let decision = answers.enforced.as_ref().ok().copied();
        let insight = in_force.insight.as_ref().zip(decision);
        let mark = insight.and_then(|(insight, decision)| {
            insight.check(request, policy, watched.principal, &decision)
        });
        let mut left = Left::default();
        if matches!(verdict, Verdict::Admit(_)) {
            left = Left { decision: decision.filter(|_| self.hands_over), mark };
        }
        (verdict, left)
    }

    /// About a request that nobody can be billed for.
    #[inline(never)]
    fn judge_stranger<B>(
        &self,
        request: &Request<B>,
        in_force: &InForce,
        policy: &Table,
    ) -> Verdict {
        let admit = Verdict::Admit(Fields::default());
        if self.unidentified == Fallback::AdmitWithoutLimit && in_force.insight.is_none() {
            return admit;
        }
        // Asked first whether the path is exempt: a stranger is not worth the cost of reading an
        // odd path.
        let path = request.uri().path();
        if policy.exempts(path) {
            return admit;
        }
        let of_endpoint = || {
            policy
                .class_of(path)
                .map_or(Enforcement::FULL, |class| in_force.enforcement.and(class.enforcement))
        };
        // He is in no share.
        let enforcement = if policy.enforces_all { in_force.enforcement } else { of_endpoint() };
        let mode = if enforcement == Enforcement::FULL { Mode::Enforced } else { Mode::Shadow };
        let admitted = mode == Mode::Shadow || self.unidentified == Fallback::AdmitWithoutLimit;
        if let Some(insight) = &in_force.insight {
            insight.decided(&Observation {
                principal: None,
                endpoint: None,
                outcome: Outcome::Unidentified,
                mode,
                admitted,
                candidate: None,
                waited: None,
            });
            insight.check_stranger(request, self.unidentified == Fallback::Refuse);
        }
        if admitted { admit } else { self.refuse(request, Cause::Unidentified) }
    }
}

/// What is kept for the decision's responses.
#[inline]
fn kept(class: &Class, decision: &Decision) -> Option<&'static Kept> {
    if decision.quota() == class.quota && decision.endpoint() == class.endpoint {
        class.kept
    } else {
        // A store may decide by another quota than it was asked to, such as a stricter one when it
        // is cut off.
        Kept::of(decision.endpoint(), decision.quota())
    }
}

impl Left {
    #[inline]
    fn leave_in<B>(self, request: &mut Request<B>) {
        if self.decision.is_some() || self.mark.is_some() {
            self.insert_into(request.extensions_mut());
        }
    }

    #[cold]
    fn insert_into(self, extensions: &mut Extensions) {
        if let Some(decision) = self.decision {
            extensions.insert(decision);
        }
        if let Some(mark) = self.mark {
            extensions.insert(*mark);
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
