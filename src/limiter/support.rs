//! What operators look up and change for a single account.

use std::sync::Arc;
use std::time::Duration;

use super::Limiter;
use super::bill::{Bill, Rules, Target, TooCostly, Unbillable};
use super::decide::verified;
use crate::policy::{Account, Policy, Rule};
use crate::store::{Bucket, Charge, Command, Decisions, Entry, Store, StoreError};
use crate::values::{Costs, Decision, Endpoint, Enforcement, Principal, Ruling, Scope};

impl<St> Limiter<St> {
    /// Whether an endpoint's own limit is enforced on an account, so that its requests over the
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
        let policy = self.policy_of(account);
        let rule = policy.rule_of_endpoint(endpoint);
        let enforcement = rule.map_or(Enforcement::SHADOW, |rule| rule.enforcement().and(all));
        account.principal().is_some_and(|principal| enforcement.applies_to(principal))
    }

    fn policy_of(&self, account: &Account) -> Policy {
        // The policy of an account that names no principal is ignored.
        let own = account.policy().filter(|_| account.principal().is_some());
        own.cloned().unwrap_or_else(|| self.policy())
    }
}

impl<St: Store> Limiter<St> {
    /// What a check would decide now about a request of an account to an endpoint: what each of its
    /// limits says, and whether the request would be admitted. Nothing is charged. The account's
    /// own policy applies, or else the active one. `None` if it has no such endpoint.
    ///
    /// # Errors
    /// If the store fails, or if the account has no principal.
    pub async fn peek(
        &self,
        account: impl Into<Account>,
        endpoint: Endpoint,
    ) -> Result<Option<Ruling>, StoreError> {
        self.peek_costs(account, endpoint, 1).await
    }

    /// The same as [`peek`](Self::peek), for a request of these [costs](Costs).
    ///
    /// # Errors
    /// If the store fails, or if the account has no principal.
    pub async fn peek_costs(
        &self,
        account: impl Into<Account>,
        endpoint: Endpoint,
        costs: impl Into<Costs>,
    ) -> Result<Option<Ruling>, StoreError> {
        let (account, costs) = (account.into(), costs.into());
        let principal = principal_of(&account)?;
        let active = Arc::clone(&self.active());
        let policy = self.policy_of(&account);
        let target = Target::Endpoint(endpoint);
        let charged = target.charged(&policy);
        let rules = Rules::new(&policy, &charged);
        if rules.endpoint().is_none() {
            return Ok(None);
        }
        let bill =
            active.bill(&account, principal, &rules, target, Some(&costs), Enforcement::FULL);
        Ok(Some(match bill {
            Ok(bill) => {
                let decisions = self.look(&bill, principal).await?;
                Ruling::of_decisions(endpoint, decisions, bill.enforced, None)
            }
            Err(Unbillable::TooCostly(TooCostly { limit, cost, is_enforced })) => {
                Ruling::too_costly(endpoint, limit, cost, is_enforced)
            }
            Err(Unbillable::TooAmbiguous) => Ruling::too_ambiguous(endpoint),
        }))
    }

    /// What every limit that applies to an account says now about one request: the limits of each
    /// endpoint of its own policy, or else the active one, in the policy's order, each once. Among
    /// them are those of the user, if the account names one, those for everyone, and those of
    /// requests in flight. Nothing is charged.
    ///
    /// A platform can show this to its customers, who are asked to monitor their usage.
    ///
    /// ```
    /// use bolna_rate_limit::values::Scope;
    /// use bolna_rate_limit::{Account, Limiter};
    ///
    /// # async fn dashboard(limiter: Limiter) -> Result<(), Box<dyn std::error::Error>> {
    /// for usage in limiter.usage(Account::user("u-17").in_organization("org-4")).await? {
    ///     // Do not show customers how much all of them use together.
    ///     if usage.limit().scope() != Scope::Everyone {
    ///         let (left, of) = (usage.remaining(), usage.quota().burst());
    ///         println!("{}: {left} of {of} left", usage.name());
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the store fails, or if the account has no principal.
    pub async fn usage(&self, account: impl Into<Account>) -> Result<Vec<Decision>, StoreError> {
        let account = account.into();
        principal_of(&account)?;
        let mut usage: Vec<Decision> = Vec::new();
        for (endpoint, _) in self.policy_of(&account).endpoints() {
            if let Some(ruling) = self.peek(&account, endpoint).await? {
                for decision in ruling.decisions() {
                    let limit = decision.limit();
                    let is_new = |known: &Decision| known.limit() != limit;
                    if usage.iter().all(is_new) {
                        usage.push(*decision);
                    }
                }
            }
        }
        Ok(usage)
    }

    /// Fills the buckets of an account's limits for an endpoint, and those of the user if the
    /// account names one, and lifts their [blocks](Self::block). Among them are limits that the
    /// endpoint shares with others. A limit for everyone is not reset, nor is a limit of requests
    /// in flight: a reset does not end requests. If the policy has no such endpoint, the bucket
    /// that its own limit would have is filled.
    ///
    /// # Errors
    /// If the store fails, or if the account has no principal. Some of the buckets may have been
    /// reset all the same if the store fails.
    pub async fn reset(
        &self,
        account: impl Into<Account>,
        endpoint: Endpoint,
    ) -> Result<(), StoreError> {
        let account = account.into();
        let principal = principal_of(&account)?;
        let user = account.user_principal();
        let own = Bucket::of_account(principal, endpoint);
        let policy = self.policy_of(&account);
        let rule = policy.rule_of_endpoint(endpoint);
        let further = rule.into_iter().flat_map(Rule::of_accounts).skip(1);
        let further = further.filter(|entry| {
            !entry.is_concurrent() && (entry.scope() != Scope::User || user.is_some())
        });
        let further = further.map(|entry| {
            Charge::of(principal, user.as_ref(), std::slice::from_ref(entry)).bucket(entry)
        });
        for bucket in [own].into_iter().chain(further) {
            self.command(Command::Reset(bucket)).await?;
            self.shared.resets.note(&bucket);
        }
        Ok(())
    }

    /// Gives back, in each limit of the account and of its user, what that many requests to an
    /// endpoint cost by the policy, at most until the bucket is full. More than the burst is
    /// treated as the burst, and 0 does nothing. A limit for everyone gets nothing back. Use it for
    /// requests that were charged and should not have been. To refund one request, prefer its
    /// [`Admission`](crate::limiter::Admission) or
    /// [`refund_on`](crate::BolnaRateLimitLayer::refund_on): they give back exactly what it has
    /// paid, once.
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
        requests: u32,
    ) -> Result<(), StoreError> {
        let account = account.into();
        let principal = principal_of(&account)?;
        let policy = self.policy_of(&account);
        let rule = policy
            .rule_of_endpoint(endpoint)
            .ok_or_else(|| self.no_endpoint(&account, endpoint))?;
        if requests == 0 {
            return Ok(());
        }
        let user = account.user_principal();
        let entries = rule
            .of_accounts()
            .filter(|entry| {
                !entry.is_concurrent() && (entry.scope() != Scope::User || user.is_some())
            })
            .map(|entry| {
                // More than the burst would have no further effect.
                let units = entry.cost().saturating_mul(requests).min(entry.quota().burst());
                entry.with_cost(units)
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(StoreError::of_request)?;
        let charge = Charge::of(principal, user.as_ref(), &entries);
        self.command(Command::Refund(charge)).await
    }

    /// Blocks an account on an endpoint, whatever the policy: all its requests to the endpoint are
    /// refused from now on for `period`. The policy need not have the endpoint, so a misspelt one
    /// is no error and blocks nothing. All users of an organization are blocked; to block one of
    /// them, see [`block_user`](Self::block_user).
    ///
    /// Periods of more than 100 years are clamped to that. A zero `period` lifts the block, as does
    /// a [`reset`](Self::reset), and a later block replaces an earlier one. The bucket goes on
    /// refilling meanwhile. If the limit is [not enforced](Self::enforces) on the account, the
    /// block is not enforced either.
    ///
    /// The refusals say the whole wait in `Retry-After`. Many clients (urllib3, axios-retry, got,
    /// `curl --retry`, go-retryablehttp) wait for all of it before they try again, for an hour if
    /// it is an hour, and show nothing meanwhile. So they do not notice that the block was lifted.
    /// A layer can [name a shorter wait](crate::BolnaRateLimitLayer::max_retry_after).
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
        let bucket = Bucket::of_account(principal_of(&account)?, endpoint);
        self.command(Command::block(bucket, period)).await
    }

    /// Blocks the user of an account on an endpoint, and no other user of the organization. The
    /// endpoint must have a limit for each [user](Scope::User). If other endpoints share that
    /// limit, the user is blocked on them too. In all else it works like [`block`](Self::block).
    ///
    /// # Errors
    /// If the store fails, if the account has no principal or names no user, or if its own policy,
    /// or else the active one, has no such endpoint or no limit for each user there.
    pub async fn block_user(
        &self,
        account: impl Into<Account>,
        endpoint: Endpoint,
        period: Duration,
    ) -> Result<(), StoreError> {
        let account = account.into();
        let principal = principal_of(&account)?;
        let policy = self.policy_of(&account);
        let rule = policy
            .rule_of_endpoint(endpoint)
            .ok_or_else(|| self.no_endpoint(&account, endpoint))?;
        let counts_users = |it: &&Entry| it.scope() == Scope::User && !it.is_concurrent();
        let limit = rule.of_accounts().find(counts_users);
        let limit = limit.ok_or_else(|| {
            StoreError::of_request(format!(
                "endpoint {endpoint} has no rate that counts each user, and so no bucket of the \
                 user to block: add one, for example with `user_share`, or block the account"
            ))
            .of_kind("no_user_limit")
        })?;
        let user = account.user_principal().ok_or_else(|| {
            StoreError::of_request("the account names no user").of_kind("no_user")
        })?;
        let bucket = Bucket::of_user(principal, &user, limit.name());
        self.command(Command::block(bucket, period)).await
    }

    async fn look(&self, bill: &Bill, principal: &Principal) -> Result<Decisions, StoreError> {
        let charge = bill.charge(principal);
        let rates = bill.rates();
        if rates.is_empty() {
            return Ok(self.shared.in_flight.look(&charge).alone(false));
        }
        let reply = self.store().command(Command::Peek(charge.with_entries(rates))).await?;
        let decisions = reply.into_decisions().ok_or_else(|| {
            StoreError::of_request("the store replied to a peek without a decision")
        });
        let decisions = verified(decisions, rates)?;
        if rates.len() == bill.entries.len() {
            return Ok(decisions);
        }
        Ok(self.shared.in_flight.look(&charge).merged(rates, &decisions, false))
    }

    async fn command(&self, command: Command<'_>) -> Result<(), StoreError> {
        self.store().command(command).await.map(|_| ())
    }
}

impl<St> Limiter<St> {
    /// The answer about an endpoint that the policy does not have: a policy without limits admits
    /// all work.
    ///
    /// # Errors
    /// If the policy has other endpoints.
    pub(super) fn without_endpoint(
        &self,
        account: &Account,
        endpoint: Endpoint,
    ) -> Result<Ruling, StoreError> {
        let is_unlimited = self.policy_of(account).rules().is_empty();
        if is_unlimited {
            Ok(Ruling::without_limits(endpoint))
        } else {
            Err(self.no_endpoint(account, endpoint))
        }
    }

    pub(super) fn no_endpoint(&self, account: &Account, endpoint: Endpoint) -> StoreError {
        let policy = self.policy_of(account);
        let names: Vec<_> = policy.endpoints().map(|(known, _)| known.name()).take(16).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        StoreError::of_request(format!("the policy has no endpoint {endpoint}; it has {names}"))
            .of_kind("no_endpoint")
    }
}

fn principal_of(account: &Account) -> Result<&Principal, StoreError> {
    account.principal().ok_or_else(|| {
        StoreError::of_request(
            "the account has no principal to bill: it names no user and no organization (an id \
             that is empty or white space does not count)",
        )
        .of_kind("no_principal")
    })
}
