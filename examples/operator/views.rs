//! The state, as JSON.

use std::time::SystemTime;

use bolna_rate_limit::limiter::CandidateReport;
use bolna_rate_limit::observe::Refused;
use bolna_rate_limit::store::{AnyStore, StoreError};
use bolna_rate_limit::values::Scope;
use bolna_rate_limit::{Account, Decision, Limiter, Policy};
use serde_json::{Map, Value, json};

use super::Desk;
use super::requests::Customer;

/// Why a customer was refused, the last refusal first, and what it has left now. If the request
/// names no user of the organization, what its refused users have left is listed too.
pub(crate) async fn customer(desk: &Desk, customer: &Customer) -> Result<Value, StoreError> {
    let Customer { account, user } = customer;
    let refused = desk.refused.of(account);
    let mut users = Map::new();
    if let (None, Some(organization)) = (user, account.principal()) {
        for user in refused.iter().filter_map(|row| row.user.as_ref()) {
            let id = user.id();
            if user != organization && !users.contains_key(id.as_str()) {
                let account = Account::user(id).in_organization(organization.id());
                let own = |left: &&Decision| left.limit().scope() == Scope::User;
                let left = desk.limiter.usage(&account).await?;
                users.insert(id.to_string(), left.iter().filter(own).map(left_of).collect());
            }
        }
    }
    Ok(json!({
        "account": account.principal().map(ToString::to_string),
        "user": user,
        "refusals": refusals(&refused),
        "left_now": usage(&desk.limiter, account).await?,
        "left_now_of_refused_users": users,
    }))
}

/// What an account has left of each limit.
pub(crate) async fn usage(
    limiter: &Limiter<AnyStore>,
    account: &Account,
) -> Result<Value, StoreError> {
    Ok(limiter.usage(account).await?.iter().map(left_of).collect())
}

fn left_of(left: &Decision) -> Value {
    let blocked_for = left.retry_after().filter(|_| left.is_blocked());
    let quota = left.quota();
    // Requests in flight end when they end, and not with time.
    let full_in = (!quota.is_concurrent()).then(|| left.reset().as_secs_f64());
    json!({
        "limit": left.name().name(),
        "of_each": left.limit().scope().name(),
        "quota": quota.to_string(),
        "left": left.remaining(),
        "of": quota.burst(),
        "in_flight": left.in_flight(),
        "full_in_seconds": full_in,
        "blocked_for_seconds": blocked_for.map(|wait| wait.as_secs_f64()),
    })
}

/// Who was refused, by which limit, how often, and when last.
pub(crate) fn refusals(refused: &[Refused]) -> Value {
    let now = SystemTime::now();
    let row = |row: &Refused| {
        let date = now.checked_sub(row.last_ago).map(httpdate::fmt_http_date);
        json!({
            "principal": row.principal.to_string(),
            "user": row.user.as_ref().map(|user| user.id().as_str()),
            "limit": row.limit.name(),
            "of_each": row.scope.name(),
            "why": row.outcome.name(),
            // If not, the requests would have been refused, and were admitted.
            "enforced": row.enforced,
            "refusals": row.refusals,
            "at_least": row.at_least,
            "last_endpoint": row.endpoint.map(|endpoint| endpoint.name()),
            "last_seconds_ago": row.last_ago.as_secs_f64(),
            "last_at": date,
            "first_seconds_ago": row.first_ago.as_secs_f64(),
        })
    };
    refused.iter().map(row).collect()
}

pub(crate) fn limits(policy: &Policy) -> Value {
    policy.limits().iter().map(|limit| json!(limit.to_string())).collect()
}

pub(crate) fn candidate_reports(reports: &[CandidateReport]) -> Value {
    let row = |report: &CandidateReport| {
        json!({
            "endpoint": report.endpoint.name(),
            "quota": report.quota.to_string(),
            "admitted by both": report.allowed,
            "refused by both": report.limited,
            "refused by the candidate only": report.newly_limited,
            "admitted by the candidate only": report.newly_allowed,
        })
    };
    reports.iter().map(row).collect()
}
