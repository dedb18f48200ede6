//! What operators ask for: extractors that check it, and say what is wrong in JSON.

use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use bolna_rate_limit::{Account, Endpoint, Policy, PolicyError, Quota};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Desk, Problem, limits};

/// The account that the path names, and the user of the organization, if the query names one.
pub(crate) struct Customer {
    pub(crate) account: Account,
    pub(crate) user: Option<String>,
}

impl FromRequestParts<Desk> for Customer {
    type Rejection = Problem;

    /// If customers have plans, look up the customer's plan, and add `.with_policy(plan)`.
    async fn from_request_parts(parts: &mut Parts, desk: &Desk) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        struct Named {
            kind: String,
            id: String,
        }

        // If a misspelt `usr` were ignored, the whole organization would be blocked.
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Within {
            user: Option<String>,
        }

        let Path(Named { kind, id }) = Path::from_request_parts(parts, desk).await?;
        let Query(Within { user }) = Query::from_request_parts(parts, desk).await?;
        let account = match (&*kind, &user) {
            ("organization", Some(user)) if user.trim().is_empty() => None,
            ("organization", user) => Some(Account::user(user.as_deref()).in_organization(&id)),
            ("user", None) => Some(Account::user(&id)),
            _ => None,
        };
        let account = account.filter(|account| account.principal().is_some()).ok_or_else(|| {
            let known = ["/organization/{id}", "/organization/{id}?user={id}", "/user/{id}"];
            Problem::new(StatusCode::NOT_FOUND, "there is no such account").with("accounts", known)
        })?;
        Ok(Self { account, user })
    }
}

/// The limits of a customer for the endpoint that the path names.
pub(crate) struct Limits {
    pub(crate) customer: Customer,
    pub(crate) endpoint: Endpoint,
}

impl FromRequestParts<Desk> for Limits {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, desk: &Desk) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        struct Named {
            endpoint: String,
        }

        let customer = Customer::from_request_parts(parts, desk).await?;
        let Path(named): Path<Named> = Path::from_request_parts(parts, desk).await?;
        // Not `Endpoint::new`, which would keep any name that is asked for as long as the process
        // lives.
        let policy = desk.limiter.policy();
        let mut endpoints = policy.endpoints().map(|(endpoint, _)| endpoint);
        let endpoint = endpoints.find(|endpoint| endpoint.name() == named.endpoint);
        let endpoint = endpoint.ok_or_else(|| {
            let known: Vec<_> = policy.endpoints().map(|(known, _)| known.name()).collect();
            let error = format!("there is no endpoint {:?}", named.endpoint);
            Problem::new(StatusCode::NOT_FOUND, error).with("endpoints", known)
        })?;
        Ok(Self { customer, endpoint })
    }
}

/// A body of JSON.
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let Json(body) = Json::from_request(request, state).await?;
        Ok(Self(body))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Refund {
    pub(crate) requests: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Block {
    seconds: u64,
}

impl Block {
    pub(crate) fn period(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Quotas {
    call_per_minute: u32,
}

impl Quotas {
    pub(crate) fn policy(&self) -> Result<Policy, PolicyError> {
        limits().quota("call", Quota::per_minute(self.call_per_minute)).build()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Share {
    pub(crate) percent: u8,
}
