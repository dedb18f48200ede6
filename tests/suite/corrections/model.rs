//! A model of rates, requests in flight, refunds and settlements. It was written apart from the
//! limiter: what is owed counts up, places are plain integers, and there is no order of locks.

use std::collections::HashMap;
use std::time::Duration;

use bolna_rate_limit::policy::{LimitBuilder, PolicyBuilder};
use bolna_rate_limit::values::QuotaBuilder;
use bolna_rate_limit::{Account, Decision, Enforcement, Policy, Quota, Ruling};

pub(super) const NAMES: [&str; 4] = ["call", "second", "third", "fourth"];

/// A user and an organization.
pub(super) type Who = (Option<&'static str>, Option<&'static str>);

pub(super) const CALLERS: [Who; 5] = [
    (Some("u-1"), Some("o-1")),
    (Some("u-2"), Some("o-1")),
    (Some("u-1"), None),
    (None, Some("o-1")),
    (Some("u-1"), Some("o-2")),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Whose {
    Account,
    User,
    Everyone,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Rate { limit: u32, seconds: u64, burst: u32 },
    Places(u32),
}

/// A limit of a policy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spec {
    pub(super) whose: Whose,
    pub(super) kind: Kind,
    pub(super) cost: u32,
    pub(super) shadow: bool,
}

/// The limits of `call` in a policy, in the order of [`NAMES`].
pub(super) type Plan = Vec<Spec>;

pub(super) fn account((user, organization): Who) -> Account {
    Account::user(user).in_organization(organization)
}

impl Spec {
    fn quota(&self) -> QuotaBuilder {
        match self.kind {
            Kind::Rate { limit, seconds, burst } => {
                Quota::per(limit, Duration::from_secs(seconds)).burst(burst)
            }
            Kind::Places(most) => Quota::concurrent(most),
        }
    }

    fn is_rate(&self) -> bool {
        matches!(self.kind, Kind::Rate { .. })
    }

    /// The most units or places.
    fn most(&self) -> u128 {
        match self.kind {
            Kind::Rate { burst, .. } => burst.into(),
            Kind::Places(most) => most.into(),
        }
    }

    /// The time in which a unit comes back, rounded up to a nanosecond. Zero for places.
    fn token(&self) -> u128 {
        match self.kind {
            Kind::Rate { limit, seconds, .. } => {
                (u128::from(seconds) * 1_000_000_000).div_ceil(limit.into())
            }
            Kind::Places(_) => 0,
        }
    }

    fn capacity(&self) -> u128 {
        self.token() * self.most()
    }

    fn price(&self) -> u128 {
        self.token() * u128::from(self.cost)
    }

    fn owner(&self, (user, organization): Who) -> Option<String> {
        let billed = match (organization, user) {
            (Some(organization), _) => format!("o {organization}"),
            (None, user) => format!("u {}", user?),
        };
        match self.whose {
            Whose::Account => Some(billed),
            Whose::User => Some(format!("{billed} {}", user?)),
            Whose::Everyone => Some("everyone".to_owned()),
        }
    }
}

pub(super) fn policy(plan: &Plan) -> Policy {
    let add = |builder: PolicyBuilder, (index, spec): (usize, &Spec)| {
        let name = NAMES[index];
        let builder = match (index, spec.whose) {
            (0, _) => builder.quota(name, spec.quota()).cost(name, spec.cost),
            (_, Whose::Account) => {
                builder.also("call", LimitBuilder::account(name, spec.quota()).cost(spec.cost))
            }
            (_, Whose::User) => {
                builder.also("call", LimitBuilder::user(name, spec.quota()).cost(spec.cost))
            }
            (_, Whose::Everyone) => {
                builder.also("call", LimitBuilder::everyone(name, spec.quota()).cost(spec.cost))
            }
        };
        builder.enforce(name, if spec.shadow { Enforcement::SHADOW } else { Enforcement::FULL })
    };
    plan.iter().enumerate().fold(Policy::bolna(), add).build().unwrap()
}

/// A bucket: the index of its limit's name, and whose it is.
type Key = (usize, Whose, String);

/// A limit that applies to a request.
#[derive(Clone, Debug)]
struct Line {
    key: Key,
    spec: Spec,
}

/// How much time has to pass until a bucket is full, and until its overdraft is repaid.
#[derive(Clone, Copy, Debug, Default)]
struct Owed {
    owed: u128,
    over: u128,
}

impl Owed {
    /// What was owed by a slower quota is brought forward.
    fn measure(&mut self, capacity: u128) {
        self.over = self.over.min(capacity);
        self.owed = self.owed.min(capacity + self.over);
    }
}

/// What one limit has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Said {
    name: &'static str,
    allows: bool,
    remaining: u128,
    wait: Option<u128>,
}

/// What the model expects of a request.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    /// Whether the active policy decides, and not a plan.
    by_active: bool,
    admitted: bool,
    wait: Option<u128>,
    says: Vec<Said>,
    /// The places that it has while it waits for the store.
    until_answered: Vec<(Key, u128)>,
    /// The places that it has afterwards.
    places: Vec<(Key, u128)>,
    paid: Vec<(Line, u128)>,
}

/// An admitted request.
#[derive(Debug)]
pub(super) struct Request {
    by_active: bool,
    /// How many buckets had been reset when it was admitted.
    since: u64,
    paid: Vec<(Line, u128)>,
    places: Vec<(Key, u128)>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    /// How much time may pass unnoticed, on a server whose clock goes on: no unit comes back in it.
    slack: u128,
    owed: HashMap<Key, Owed>,
    taken: HashMap<Key, u128>,
    /// When each bucket was reset last, as the number of that reset.
    reset: HashMap<Key, u64>,
    resets: u64,
    /// How much longer a bucket is blocked.
    blocked: HashMap<Key, u128>,
}

/// Whether the active policy has the limit with the same quota.
fn is_in(active: &Plan, line: &Line) -> bool {
    active.get(line.key.0).is_some_and(|spec| spec.is_rate() && spec.quota() == line.spec.quota())
}

impl Model {
    pub(super) fn with_slack(nanos: u128) -> Self {
        Self { slack: nanos, ..Self::default() }
    }

    pub(super) fn advance(&mut self, nanos: u128) {
        for owed in self.owed.values_mut() {
            owed.owed = owed.owed.saturating_sub(nanos);
            owed.over = owed.over.saturating_sub(nanos);
        }
        for left in self.blocked.values_mut() {
            *left = left.saturating_sub(nanos);
        }
    }

    pub(super) fn in_flight(&self) -> u128 {
        self.taken.values().sum()
    }

    /// The limits of a caller: those of its own plan, if it has one, and then those of everyone in
    /// the active one. Limits of requests in flight come last.
    fn lines(who: Who, active: &Plan, own: Option<&Plan>) -> Vec<Line> {
        let of = |plan: &Plan, wanted: fn(&Spec) -> bool| -> Vec<Line> {
            let each = plan.iter().enumerate().filter(|(_, spec)| wanted(spec));
            each.filter_map(|(index, spec)| {
                Some(Line { key: (index, spec.whose, spec.owner(who)?), spec: *spec })
            })
            .collect()
        };
        match own {
            None => of(active, |_| true),
            Some(own) => {
                let mut lines = of(own, |spec| spec.whose != Whose::Everyone);
                lines.extend(of(active, |spec| spec.whose == Whose::Everyone));
                lines
            }
        }
    }

    fn has_room(&self, line: &Line) -> bool {
        let taken = self.taken.get(&line.key).copied().unwrap_or_default();
        taken + u128::from(line.spec.cost) <= line.spec.most()
    }

    fn holds(&mut self, line: &Line) -> bool {
        let owed = self.owed.entry(line.key.clone()).or_default();
        owed.measure(line.spec.capacity());
        owed.owed + line.spec.price() <= line.spec.capacity() && self.blocked_for(line) == 0
    }

    fn blocked_for(&self, line: &Line) -> u128 {
        self.blocked.get(&line.key).copied().unwrap_or_default()
    }

    fn says(&self, line: &Line, allows: bool) -> Said {
        let (name, spec) = (NAMES[line.key.0], &line.spec);
        let (remaining, wait) = if spec.is_rate() {
            let owed = self.owed.get(&line.key).copied().unwrap_or_default().owed;
            let blocked = self.blocked_for(line);
            let left = spec.capacity().saturating_sub(owed) / spec.token();
            let own = (owed + spec.price()).saturating_sub(spec.capacity());
            (if blocked > 0 { 0 } else { left }, own.max(blocked))
        } else {
            let taken = self.taken.get(&line.key).copied().unwrap_or_default();
            (spec.most().saturating_sub(taken), 1_000_000_000)
        };
        Said { name, allows, remaining, wait: (!allows).then_some(wait) }
    }

    /// A request is decided. Units are charged at once, and so are its places.
    pub(super) fn ask(&mut self, who: Who, active: &Plan, own: Option<&Plan>) -> Verdict {
        let mut lines = Self::lines(who, active, own);
        let none_binds = lines.iter().all(|line| line.spec.shadow);
        let binds = |line: &Line| none_binds || !line.spec.shadow;
        let lacks = |model: &Self, line: &Line| !line.spec.is_rate() && !model.has_room(line);
        let refused = lines.iter().any(|line| binds(line) && lacks(self, line));
        let no_shadow = lines.iter().any(|line| !binds(line) && lacks(self, line));
        // Rates that can't be charged any more are not asked.
        lines.retain(|line| !line.spec.is_rate() || !(refused || no_shadow && !binds(line)));
        let allow: Vec<bool> = lines
            .iter()
            .map(|line| if line.spec.is_rate() { self.holds(line) } else { self.has_room(line) })
            .collect();
        let all = |binding: bool| {
            lines.iter().zip(&allow).all(|(line, allows)| binds(line) != binding || *allows)
        };
        let (binding, shadow) = (all(true), all(false));
        let mut verdict = Verdict {
            by_active: own.is_none(),
            admitted: none_binds || binding,
            wait: None,
            says: Vec::new(),
            until_answered: Vec::new(),
            places: Vec::new(),
            paid: Vec::new(),
        };
        for line in &lines {
            let is_charged = binding && (binds(line) || shadow);
            if line.spec.is_rate() {
                if is_charged {
                    self.owed.get_mut(&line.key).unwrap().owed += line.spec.price();
                    verdict.paid.push((line.clone(), line.spec.cost.into()));
                }
                continue;
            }
            let place = (line.key.clone(), u128::from(line.spec.cost));
            if is_charged {
                verdict.places.push(place.clone());
            }
            if !refused && (binds(line) || !no_shadow) {
                verdict.until_answered.push(place);
            }
        }
        self.take(&verdict.places);
        let says = lines.iter().zip(&allow).map(|(line, it)| self.says(line, *it));
        let says: Vec<_> = says.collect();
        self.free(&verdict.places);
        self.take(&verdict.until_answered);
        let enforced = lines.iter().zip(&says).filter(|(line, _)| !line.spec.shadow);
        verdict.wait = enforced.filter_map(|(_, said)| said.wait).max();
        verdict.says = sorted(says);
        verdict
    }

    /// What a peek says about each limit, and what it has to say.
    pub(super) fn peek(
        &self,
        who: Who,
        active: &Plan,
        own: Option<&Plan>,
        ruling: &Ruling,
    ) -> (Vec<Said>, Vec<Said>) {
        let says = self.foretold(who, active, own);
        (self.said(ruling, &says), says)
    }

    fn foretold(&self, who: Who, active: &Plan, own: Option<&Plan>) -> Vec<Said> {
        let mut copy = self.clone();
        let say = |line: &Line| {
            let allows = if line.spec.is_rate() { copy.holds(line) } else { copy.has_room(line) };
            copy.says(line, allows)
        };
        sorted(Self::lines(who, active, own).iter().map(say).collect())
    }

    /// What a ruling says. A wait that is close enough is the expected one.
    fn said(&self, ruling: &Ruling, expected: &[Said]) -> Vec<Said> {
        let mut said = sorted(ruling.decisions().iter().map(said).collect());
        for (said, expected) in said.iter_mut().zip(expected) {
            if self.is_close(said.wait, expected.wait) {
                said.wait = expected.wait;
            }
        }
        said
    }

    fn is_close(&self, wait: Option<u128>, expected: Option<u128>) -> bool {
        let shorter = || Some(expected?.checked_sub(wait?)? <= self.slack);
        wait == expected || shorter() == Some(true)
    }

    /// The store's answer is there.
    pub(super) fn answered(&mut self, verdict: Verdict, ruling: &Ruling) -> Option<Request> {
        self.free(&verdict.until_answered);
        self.take(&verdict.places);
        assert_eq!(ruling.is_admitted(), verdict.admitted, "{verdict:?}");
        assert_eq!(self.said(ruling, &verdict.says), verdict.says);
        let wait = ruling.retry_after().map(|wait| wait.as_nanos());
        assert!(self.is_close(wait, verdict.wait), "{wait:?} and not {:?}", verdict.wait);
        let Verdict { admitted, by_active, paid, places, .. } = verdict;
        let request = Request { by_active, since: self.resets, paid, places };
        (admitted && !(request.paid.is_empty() && request.places.is_empty())).then_some(request)
    }

    /// The request went away before the answer. Its units stay spent.
    pub(super) fn left(&mut self, verdict: &Verdict) {
        self.free(&verdict.until_answered);
    }

    pub(super) fn refund(&mut self, request: &mut Request, active: &Plan) {
        for (line, units) in request.paid.drain(..).filter(|(_, units)| *units > 0) {
            let is_measured = request.by_active && is_in(active, &line);
            if !self.was_reset(&line, request.since) {
                self.give_back(&line, units, is_measured);
            }
        }
    }

    /// What a request costs in the end, of the limits of that name.
    pub(super) fn settle(&mut self, request: &mut Request, name: usize, units: u32, active: &Plan) {
        for (line, paid) in request.paid.iter_mut().filter(|(line, _)| line.key.0 == name) {
            let is_measured = request.by_active && is_in(active, line);
            let units = u128::from(units).min(u128::from(line.spec.cost) + line.spec.most());
            let before = std::mem::replace(paid, units);
            if units > before {
                let (more, capacity) = ((units - before) * line.spec.token(), line.spec.capacity());
                let owed = self.owed.entry(line.key.clone()).or_default();
                if is_measured {
                    owed.measure(capacity);
                    owed.owed = owed.owed.max((owed.owed + more).min(2 * capacity));
                    owed.over = owed.over.max(owed.owed.saturating_sub(capacity));
                } else {
                    owed.owed += more;
                }
            } else if units < before {
                let line = line.clone();
                if !self.was_reset(&line, request.since) {
                    self.give_back(&line, before - units, is_measured);
                }
            }
        }
    }

    /// Gives back at most the time of the units. The bucket is measured by the request's quota only
    /// if that is the active one still.
    fn give_back(&mut self, line: &Line, units: u128, is_measured: bool) {
        let owed = self.owed.entry(line.key.clone()).or_default();
        if is_measured {
            owed.measure(line.spec.capacity());
        }
        let time = units * line.spec.token();
        owed.owed = owed.owed.saturating_sub(time);
        owed.over = owed.over.saturating_sub(time);
    }

    fn was_reset(&self, line: &Line, since: u64) -> bool {
        self.reset.get(&line.key).is_some_and(|number| *number > since)
    }

    pub(super) fn end(&mut self, request: &mut Request) {
        let places = std::mem::take(&mut request.places);
        self.free(&places);
    }

    pub(super) fn reset(&mut self, who: Who, active: &Plan, own: Option<&Plan>) {
        for line in Self::lines(who, own.unwrap_or(active), None) {
            if line.key.1 != Whose::Everyone && line.spec.is_rate() {
                self.owed.remove(&line.key);
                self.blocked.remove(&line.key);
                self.resets += 1;
                self.reset.insert(line.key, self.resets);
            }
        }
    }

    /// Blocks the account on `call`.
    pub(super) fn block(&mut self, who: Who, plan: &Plan, nanos: u128) {
        let key = (0, Whose::Account, plan[0].owner(who).unwrap());
        self.blocked.insert(key, nanos);
    }

    fn take(&mut self, places: &[(Key, u128)]) {
        for (key, places) in places {
            *self.taken.entry(key.clone()).or_default() += places;
        }
    }

    fn free(&mut self, places: &[(Key, u128)]) {
        for (key, places) in places {
            *self.taken.get_mut(key).unwrap() -= places;
        }
    }
}

/// The model does not say in which order the limits have to be.
fn sorted(mut says: Vec<Said>) -> Vec<Said> {
    says.sort();
    says
}

fn said(decision: &Decision) -> Said {
    Said {
        name: decision.name().name(),
        allows: decision.is_allowed(),
        remaining: decision.remaining().into(),
        wait: decision.retry_after().map(|wait| wait.as_nanos()),
    }
}
