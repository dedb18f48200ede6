//! What an operator asks and changes by hand.

use std::time::Duration;

use super::Limiter;
use super::decide::bucket;
use crate::policy::{Account, Policy};
use crate::store::{Store, StoreError};
use crate::values::{Decision, Endpoint, Enforcement, Principal};

impl<St> Limiter<St> {
    /// Whether an account's requests to an endpoint are refused when they are over the limit, or go
    /// on all the same, as in shadow mode.
    ///
    /// The account's own policy counts, or else the active one, and the limiter's enforcement; a
    /// layer may enforce less. `false` if the policy has no such endpoint, or the account has no
    /// principal: no limit is about it.
    ///
    /// ```
    /// use bolna_rate_limit::{Account, Endpoint, Enforcement, Limiter};
    ///
    /// let limiter = Limiter::default();
    /// limiter.set_enforcement(Enforcement::percent(60));
    /// assert!(!limiter.enforces(&Account::user("u-1").in_organization("org-4"), Endpoint::CALL));
    /// limiter.set_enforcement(Enforcement::percent(61));
    /// assert!(limiter.enforces(&Account::user("u-1").in_organization("org-4"), Endpoint::CALL));
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
    /// How much of an endpoint's quota an account has left, without charging anything: what a check
    /// would decide now. `None` if the account's policy, its own or else the active one, has no
    /// such endpoint.
    ///
    /// # Errors
    /// When the store can't be asked, or the account has no principal.
    pub async fn peek(
        &self,
        account: impl Into<Account>,
        endpoint: Endpoint,
    ) -> Result<Option<Decision>, StoreError> {
        let account = account.into();
        match self.policy_of(&account).rule_of_endpoint(endpoint) {
            Some(rule) => self.store().peek(bucket(principal_of(&account)?, rule)).await.map(Some),
            None => Ok(None),
        }
    }

    /// How much of each endpoint's quota an account has left, without charging anything: in the
    /// order of its policy, which is its own or else the active one.
    ///
    /// A platform can show it to its customers, who are told to monitor their usage.
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
    /// When the store can't be asked, or the account has no principal.
    pub async fn usage(&self, account: impl Into<Account>) -> Result<Vec<Decision>, StoreError> {
        let account = account.into();
        let principal = principal_of(&account)?;
        let mut usage = Vec::new();
        for rule in self.policy_of(&account).rules() {
            usage.push(self.store().peek(bucket(principal, rule)).await?);
        }
        Ok(usage)
    }

    /// Gives an account a full bucket for an endpoint, of whatever policy, and lifts a
    /// [`block`](Self::block).
    ///
    /// # Errors
    /// When the store can't be asked, or the account has no principal.
    pub async fn reset(
        &self,
        account: impl Into<Account>,
        endpoint: Endpoint,
    ) -> Result<(), StoreError> {
        let account = account.into();
        self.store().reset(principal_of(&account)?, endpoint).await
    }

    /// Gives an account units of an endpoint's quota back, at most until its bucket is full: for
    /// requests that were charged and should not have been.
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
    /// When the store can't be asked, the account has no principal, or its policy, its own or else
    /// the active one, has no such endpoint.
    pub async fn refund(
        &self,
        account: impl Into<Account>,
        endpoint: Endpoint,
        units: u32,
    ) -> Result<(), StoreError> {
        let account = account.into();
        let policy = self.policy_of(&account);
        let rule = policy.rule_of_endpoint(endpoint).ok_or_else(|| {
            StoreError::of_request(format!("the policy has no endpoint {endpoint}"))
        })?;
        self.store().refund(bucket(principal_of(&account)?, rule), units).await
    }

    /// Refuses all requests of an account to an endpoint, of whatever policy, from now on for that
    /// period, at most 100 years. Its bucket goes on refilling. A later block replaces this one; a
    /// block for no time, or a [`reset`](Self::reset), lifts it.
    ///
    /// Where a limit is [not enforced](Self::enforces) on the account, a block is not either. For
    /// all endpoints, block each:
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
    /// When the store can't be asked, or the account has no principal.
    pub async fn block(
        &self,
        account: impl Into<Account>,
        endpoint: Endpoint,
        period: Duration,
    ) -> Result<(), StoreError> {
        let account = account.into();
        self.store().block(principal_of(&account)?, endpoint, period).await
    }
}

fn principal_of(account: &Account) -> Result<&Principal, StoreError> {
    account.principal().ok_or_else(|| {
        StoreError::of_request("the account has no principal to bill: its ids are empty")
    })
}
