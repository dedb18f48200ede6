//! What operators look up and change for a single account.

use std::time::Duration;

use super::Limiter;
use crate::policy::{Account, Policy};
use crate::store::{Charge, Command, Entry, Store, StoreError};
use crate::values::{Decision, Endpoint, Enforcement, Principal};

impl<St> Limiter<St> {
    /// Whether the limit of an endpoint is enforced on an account, so that its requests over the
    /// limit are refused.
    ///
    /// The account's own policy applies, or else the active one, and the limiter's enforcement. A
    /// layer may enforce less. `false` if the policy has no such endpoint or the account has no
    /// principal, because then there is no limit.
    ///
    /// ```
    /// use bolna_rate_limit::{Account, Endpoint, Enforcement, Limiter};
    ///
    /// let limiter = Limiter::default();
    /// limiter.set_enforcement(Enforcement::percent(60)?);
    /// assert!(!limiter.enforces(&Account::user("u-1").in_organization("org-4"), Endpoint::CALL));
    /// limiter.set_enforcement(Enforcement::percent(61)?);
    /// assert!(limiter.enforces(&Account::user("u-1").in_organization("org-4"), Endpoint::CALL));
    /// # Ok::<(), bolna_rate_limit::values::EnforcementError>(())
    /// ```
    #[must_use]
    pub fn enforces(&self, account: &Account, endpoint: Endpoint) -> bool {
        let all = self.enforcement();
        let rule = self.policy_of(account).enforcement_of(endpoint);
        let enforcement = rule.map_or(Enforcement::SHADOW, |enforcement| enforcement.and(all));
        account.principal().is_some_and(|principal| enforcement.applies_to(principal))
    }

    fn policy_of(&self, account: &Account) -> Policy {
        account.policy().cloned().unwrap_or_else(|| self.policy())
    }
}

impl<St: Store> Limiter<St> {
    /// What a check would decide now about a request of an account to an endpoint. Nothing is
    /// charged. The account's own policy applies, or else the active one. `None` if it has no such
    /// endpoint.
    ///
    /// # Errors
    /// If the store fails, or if the account has no principal.
    pub async fn peek(
        &self,
        account: impl Into<Account>,
        endpoint: Endpoint,
    ) -> Result<Option<Decision>, StoreError> {
        let account = account.into();
        match self.policy_of(&account).rule_of_endpoint(endpoint) {
            Some(rule) => self.look(principal_of(&account)?, &rule.entry).await.map(Some),
            None => Ok(None),
        }
    }

    /// What [`peek`](Self::peek) says about each endpoint of the account's own policy, or else the
    /// active one, in the policy's order. Nothing is charged.
    ///
    /// A platform can show this to its customers, who are asked to monitor their usage.
    ///
    /// ```
    /// use bolna_rate_limit::{Account, Limiter};
    ///
    /// # async fn dashboard(limiter: Limiter) -> Result<(), Box<dyn std::error::Error>> {
    /// for usage in limiter.usage(Account::user("u-17").in_organization("org-4")).await? {
    ///     let (left, of) = (usage.remaining(), usage.quota().burst());
    ///     println!("{}: {left} of {of} left", usage.endpoint());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the store fails, or if the account has no principal.
    pub async fn usage(&self, account: impl Into<Account>) -> Result<Vec<Decision>, StoreError> {
        let account = account.into();
        let principal = principal_of(&account)?;
        let mut usage = Vec::new();
        for rule in self.policy_of(&account).rules() {
            usage.push(self.look(principal, &rule.entry).await?);
        }
        Ok(usage)
    }

    /// Fills an account's bucket for an endpoint, whether a policy has the endpoint or not, and
    /// lifts its [`block`](Self::block), if there is one.
    ///
    /// # Errors
    /// If the store fails, or if the account has no principal. The bucket may have been reset all
    /// the same if the store fails.
    pub async fn reset(
        &self,
        account: impl Into<Account>,
        endpoint: Endpoint,
    ) -> Result<(), StoreError> {
        let account = account.into();
        self.command(Command::reset(principal_of(&account)?, endpoint)).await
    }

    /// Refunds units of an endpoint's quota to an account, at most until its bucket is full. More
    /// than the burst counts as the burst, and 0 does nothing. Use it for requests that were
    /// charged and should not have been.
    ///
    /// ```
    /// use bolna_rate_limit::{Account, Endpoint, Limiter};
    ///
    /// # async fn refund(limiter: Limiter) -> Result<(), Box<dyn std::error::Error>> {
    /// let caller = Account::user("u-17").in_organization("org-4");
    /// limiter.refund(&caller, Endpoint::CALL, 100).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the store fails, if the account has no principal, or if its own policy, or else the
    /// active one, has no such endpoint. Units may have been refunded all the same if the store
    /// fails.
    pub async fn refund(
        &self,
        account: impl Into<Account>,
        endpoint: Endpoint,
        units: u32,
    ) -> Result<(), StoreError> {
        let account = account.into();
        let policy = self.policy_of(&account);
        let rule = policy.rule_of_endpoint(endpoint).ok_or_else(|| {
            let names: Vec<_> =
                policy.endpoints().map(|(known, _)| known.name()).take(16).collect();
            StoreError::of_request(format!(
                "the policy has no endpoint {endpoint}; it has {}",
                names.join(", ")
            ))
            .of_kind("no_endpoint")
        })?;
        let principal = principal_of(&account)?;
        // More than the burst would have no further effect.
        let units = units.min(rule.quota().burst());
        if units == 0 {
            return Ok(());
        }
        let entry = rule.entry.with_cost(units).map_err(StoreError::of_request)?;
        self.command(Command::Refund(Charge::of_one(principal, &entry))).await
    }

    /// Blocks an account on an endpoint, whatever the policy: all its requests to the endpoint are
    /// refused from now on for `period`. The policy need not have the endpoint, so a misspelt one
    /// is no error and blocks nothing.
    ///
    /// Periods of more than 100 years are clamped to that. A zero `period` lifts the block, as does
    /// a [`reset`](Self::reset), and a later block replaces an earlier one. The bucket goes on
    /// refilling meanwhile. If the limit is [not enforced](Self::enforces) on the account, the
    /// block is not enforced either.
    ///
    /// To block an account on all endpoints, block each:
    ///
    /// ```
    /// use std::time::Duration;
    /// use bolna_rate_limit::{Account, Limiter};
    ///
    /// # async fn block(limiter: Limiter) -> Result<(), Box<dyn std::error::Error>> {
    /// let caller = Account::user("u-17").in_organization("org-4");
    /// for (endpoint, _) in limiter.policy().endpoints() {
    ///     limiter.block(&caller, endpoint, Duration::from_secs(3600)).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the store fails, or if the account has no principal.
    pub async fn block(
        &self,
        account: impl Into<Account>,
        endpoint: Endpoint,
        period: Duration,
    ) -> Result<(), StoreError> {
        let account = account.into();
        self.command(Command::block(principal_of(&account)?, endpoint, period)).await
    }

    async fn look(&self, principal: &Principal, entry: &Entry) -> Result<Decision, StoreError> {
        let reply = self.store().command(Command::Peek(Charge::of_one(principal, entry))).await?;
        let decisions = reply.into_decisions().ok_or_else(|| {
            StoreError::of_request("the store replied to a peek without a decision")
        })?;
        Ok(*decisions.first())
    }

    async fn command(&self, command: Command<'_>) -> Result<(), StoreError> {
        self.store().command(command).await.map(|_| ())
    }
}

fn principal_of(account: &Account) -> Result<&Principal, StoreError> {
    account.principal().ok_or_else(|| {
        StoreError::of_request("the account has no principal to bill: its ids are empty")
            .of_kind("no_principal")
    })
}
