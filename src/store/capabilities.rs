//! What a store can do.

use std::num::NonZeroU32;

use super::{Command, StoreError};
use crate::policy::{Policy, PolicyError};
use crate::values::{Charge, Entry, LimitName, Scope};

/// What a store can do, apart from charging one unit to one bucket of an account, which every store
/// can.
///
/// Start from [`default`](Self::default), which says that the store can do nothing more, and set
/// the fields that apply:
///
/// ```
/// use bolna_rate_limit::store::Capabilities;
///
/// let mut capabilities = Capabilities::default();
/// capabilities.entries = 4;
/// capabilities.costs = true;
/// ```
///
/// A store checks each charge with [`permit`](Self::permit), and each command with
/// [`permit_command`](Self::permit_command).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// The most entries of a charge: from 1, which is the default, to [`Charge::MAX_ENTRIES`]. A
    /// request whose path is charged to [several endpoints](Policy::endpoints_of) is refused with
    /// 400 if these have more limits than this. With 1, that is every such request.
    pub entries: usize,
    /// Whether an entry of a check or a peek can cost more than one unit. In a refund or a
    /// settlement it always can.
    pub costs: bool,
    /// Whether a check or a peek can have shadow entries. If not, a request whose path is charged
    /// to several endpoints is refused with 400 if only some of their limits are enforced on the
    /// principal.
    pub shadow: bool,
    /// Whether the store knows [`Command::Settle`].
    pub settle: bool,
    /// Whether the store keeps a bucket for each [user](Scope::User) of a principal, and so finds
    /// buckets by [`Bucket::user`](crate::store::Bucket::user) too.
    pub users: bool,
    /// Whether one charge can have buckets of a principal and of [everyone](Scope::Everyone). A
    /// Redis Cluster keeps them on different servers, and can't.
    pub everyone: bool,
    /// The number of processes that share the store, this one included. 1, which is the default, if
    /// the buckets are those of this process alone.
    ///
    /// No store counts requests in flight: each limiter does, in its own process. If N processes
    /// share the store, each of them allows one Nth of such a limit, rounded down, but at least one
    /// request, or the cost of one.
    pub replicas: NonZeroU32,
}

impl Capabilities {
    /// Those of a store that can do everything.
    pub(crate) const ALL: Self = Self {
        entries: Charge::MAX_ENTRIES,
        costs: true,
        shadow: true,
        settle: true,
        users: true,
        everyone: true,
        replicas: NonZeroU32::MIN,
    };

    /// Checks that a charge is within what the store can do. For stores.
    ///
    /// # Errors
    /// If it is not. The error says what the store can't do.
    #[inline]
    pub fn permit(&self, charge: &Charge<'_>) -> Result<(), StoreError> {
        let entries = charge.entries();
        if entries.len() <= self.entries && entries.iter().all(|entry| self.permits(entry)) {
            return Ok(());
        }
        Err(self.beyond(charge))
    }

    #[inline]
    fn permits(&self, entry: &Entry) -> bool {
        self.lack_of(entry.scope()).is_none()
            && (self.costs || entry.cost() == 1)
            && (self.shadow || entry.is_binding())
    }

    /// Whether the store can charge these entries in one charge: not too many, and no shadow
    /// entries unless it knows them. That it can charge each of them alone was checked when the
    /// policy was set.
    pub(crate) fn permits_together(&self, entries: &[Entry]) -> bool {
        let mut charged = entries.iter().filter(|entry| !entry.is_concurrent());
        entries.len() <= Charge::MAX_ENTRIES
            && charged.clone().count() <= self.entries
            && (self.shadow || charged.all(Entry::is_binding))
    }

    #[cold]
    fn beyond(&self, charge: &Charge<'_>) -> StoreError {
        match charge.entries().iter().find(|entry| !self.permits(entry)) {
            Some(entry) => lacks(entry.name(), self.lack(entry).unwrap_or(NO_SHADOW)),
            None => self.too_many(charge),
        }
    }

    #[cold]
    fn too_many(&self, charge: &Charge<'_>) -> StoreError {
        StoreError::of_request(format!(
            "the request charges {} buckets, and the store can charge at most {} at once",
            charge.entries().len(),
            self.entries
        ))
        .of_kind(StoreError::UNSUPPORTED)
    }

    /// What the store can't do for an entry, apart from shadow entries, as the end of a sentence
    /// about the limit.
    pub(crate) const fn lack(&self, entry: &Entry) -> Option<&'static str> {
        match self.lack_of(entry.scope()) {
            None if !self.costs && entry.cost() > 1 => {
                Some("costs more than 1 unit, and the store can only charge 1")
            }
            lack => lack,
        }
    }

    /// What the store can't do for limits with that scope.
    #[inline]
    const fn lack_of(&self, scope: Scope) -> Option<&'static str> {
        match scope {
            Scope::User if !self.users => Some("counts each user, and the store does not"),
            Scope::Everyone if !self.everyone => {
                Some("counts everyone together, and the store can't: a Redis Cluster never can")
            }
            _ => None,
        }
    }

    /// Checks that the store can do what the limits of a policy ask for.
    ///
    /// # Errors
    /// If it can't.
    pub(crate) fn permit_policy(&self, policy: &Policy) -> Result<(), PolicyError> {
        let unsupported = |entry: &Entry, reason: String| {
            Err(PolicyError::Unsupported { limit: entry.name().to_string(), reason })
        };
        for rule in policy.all_rules() {
            // The limiter counts requests in flight.
            let charged = || rule.limits().filter(|(entry, _)| !entry.is_concurrent());
            if let Some((entry, lack)) = charged().find_map(|(it, _)| Some((it, self.lack(it)?))) {
                return unsupported(entry, lack.to_owned());
            }
            if let Some((entry, _)) = charged().nth(self.entries) {
                let reason = format!(
                    "would be charged together with {} others, and the store can charge at most {} \
                     buckets at once",
                    charged().count() - 1,
                    self.entries
                );
                return unsupported(entry, reason);
            }
            let mut limits = charged();
            let first = limits.next().map(|(_, enforcement)| enforcement);
            match limits.find(|(_, enforcement)| Some(*enforcement) != first) {
                Some((entry, _)) if !self.shadow => {
                    let reason = "has another enforcement than the endpoint's own limit, and the \
                                  store supports no shadow entries";
                    return unsupported(entry, reason.to_owned());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Checks that a command is within what the store can do. For stores.
    ///
    /// # Errors
    /// If it is not. The error says what the store can't do.
    pub fn permit_command(&self, command: &Command<'_>) -> Result<(), StoreError> {
        let lack_of = |name: LimitName, scope| self.lack_of(scope).map(|lack| lacks(name, lack));
        let error = match command {
            Command::Settle(_) if !self.settle => Some(StoreError::unsupported(command)),
            Command::Peek(charge) => return self.permit(charge),
            Command::Refund(charge) | Command::Settle(charge) => {
                // The cost of a refund is how much is given back, which every store can choose.
                let mut entries = charge.entries().iter();
                let lack = entries.find_map(|entry| lack_of(entry.name(), entry.scope()));
                let too_many = charge.entries().len() > self.entries;
                lack.or_else(|| too_many.then(|| self.too_many(charge)))
            }
            Command::Reset(bucket) | Command::Block { bucket, .. } => {
                lack_of(bucket.name(), bucket.scope())
            }
        };
        error.map_or(Ok(()), Err)
    }
}

/// The error for a request that the store can't carry out because of a limit.
#[cold]
fn lacks(name: LimitName, lack: &str) -> StoreError {
    StoreError::of_request(format!("limit {name} {lack}")).of_kind(StoreError::UNSUPPORTED)
}

const NO_SHADOW: &str =
    "is not enforced on this principal, and the store supports no shadow entries";

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            entries: 1,
            costs: false,
            shadow: false,
            settle: false,
            users: false,
            everyone: false,
            replicas: NonZeroU32::MIN,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Capabilities, Command, StoreError};
    use crate::policy::{LimitBuilder, Policy};
    use crate::values::{
        Bucket, Charge, Endpoint, Enforcement, Entry, Limit, LimitName, Principal, Quota, Scope,
    };

    #[test]
    fn what_a_store_does_not_count_is_refused_in_checks_and_in_commands() {
        let quota = Quota::per_minute(500).build().expect("valid");
        let of = |scope| Entry::of(Limit::new(Endpoint::CALL, quota).with_scope(scope));
        let own = Entry::new(Endpoint::AGENT, quota);
        let principal = Principal::organization("org-4").expect("not empty");
        let user = Principal::user("u-17").expect("not empty");
        let all = Capabilities::ALL;
        let lacking = [
            (Scope::User, Capabilities { users: false, ..all }),
            (Scope::Everyone, Capabilities { everyone: false, ..all }),
        ];
        for (scope, capabilities) in lacking {
            let entries = [own, of(scope)];
            let charge = Charge::with_user(&principal, &user, &entries).expect("two buckets");
            let bucket = charge.bucket(&entries[1]);
            let commands = [
                Command::Peek(charge),
                Command::Refund(charge),
                Command::Settle(charge),
                Command::Reset(bucket),
                Command::block(bucket, Duration::from_secs(1)),
            ];
            let is_refused = |answer: Result<(), StoreError>| {
                answer.is_err_and(|error| error.kind() == StoreError::UNSUPPORTED)
            };
            assert!(is_refused(capabilities.permit(&charge)), "{scope}");
            for command in &commands {
                assert!(is_refused(capabilities.permit_command(command)), "{scope}: {command:?}");
                assert!(all.permit_command(command).is_ok());
            }
            let bucket = Bucket::of_account(&principal, Endpoint::CALL);
            assert!(capabilities.permit_command(&Command::Reset(bucket)).is_ok());
            assert!(capabilities.permit(&Charge::of_one(&principal, &own)).is_ok());
        }
    }

    /// The limiter counts requests in flight, so a store need not be able to.
    #[test]
    fn the_least_capable_store_takes_limits_of_requests_in_flight() {
        let least = Capabilities::default();
        let user = LimitBuilder::user("places-user", Quota::concurrent(3)).enforce(percent(0));
        let everyone = LimitBuilder::everyone("places-all", Quota::concurrent(1000)).cost(7);
        let policy = || {
            Policy::bolna()
                .concurrent("call", 10)
                .also("call", user.clone())
                .shared(everyone.clone(), ["call", "agent", "default"])
        };
        let built = policy().build().expect("the policy is valid");
        assert!(least.permit_policy(&built).is_ok());
        // What the store has to count is still limited to what it can do.
        let day = LimitBuilder::account("agent-day", Quota::per_day(9));
        let built = policy().also("agent", day).build().expect("the policy is valid");
        let error = least.permit_policy(&built).expect_err("two buckets at once");
        let text = error.to_string();
        assert!(text.contains("\"agent-day\""), "{text}");
        assert!(text.contains("together with 1 others"), "{text}");

        // The same in a charge of several endpoints, which is checked for each request.
        let entry = |name, quota| Entry::new(LimitName::new(name).expect("a name"), quota);
        let rate = Quota::per_minute(500).build().expect("valid");
        let in_flight = Quota::concurrent(10).build().expect("valid");
        let places = entry("places-user", in_flight);
        let entries = [entry("call", rate), places, places.shadow()];
        assert!(least.permits_together(&entries));
        assert!(!least.permits_together(&[entries[0], places, entry("agent", rate)]));
        assert!(!least.permits_together(&[entries[0].shadow(), places]));
        // Whatever the store says, a charge has at most 16 entries, those in flight among them.
        let most = Capabilities { entries: usize::MAX, ..Capabilities::ALL };
        for entry in [entries[0], places] {
            assert!(most.permits_together(&[entry; Charge::MAX_ENTRIES]));
            assert!(!most.permits_together(&[entry; Charge::MAX_ENTRIES + 1]));
        }
    }

    fn percent(percent: u8) -> Enforcement {
        Enforcement::percent(percent).expect("at most 100")
    }

    #[test]
    fn a_refund_of_more_buckets_than_a_store_charges_is_refused_and_one_of_many_units_is_not() {
        let quota = Quota::per_minute(500).build().expect("valid");
        let [call, agent] = [Endpoint::CALL, Endpoint::AGENT].map(|it| Entry::new(it, quota));
        let entries = [call.with_cost(9).expect("below the burst"), agent];
        let principal = Principal::organization("org-4").expect("not empty");
        let refund = |entries| Command::Refund(Charge::of(&principal, None, entries));
        let capabilities = Capabilities::default();
        assert!(capabilities.permit_command(&refund(&entries[..1])).is_ok());
        let error = capabilities.permit_command(&refund(&entries)).expect_err("two buckets");
        assert!(error.to_string().contains("charges 2 buckets"), "{error}");
    }
}
