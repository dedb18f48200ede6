//! Advice about what is probably set up wrongly.

mod charged_twice;
mod checkup;
mod exemptions;
mod print;
mod reached;
mod sample;
mod seen;

use std::error::Error;
use std::fmt;

use crate::policy::Lint;
use crate::values::{Endpoint, Limit, LimitName};

pub(crate) use charged_twice::Mark;
pub(crate) use checkup::{Checkup, Examined};
pub(crate) use seen::{Nothing, Seen};

pub(super) use print::print;

/// Advice about a limiter that is probably set up wrongly: what was seen, what it means, and what
/// to do.
///
/// Observers of the limiter receive it as an [`Event`](super::Event): once for each kind, or, if it
/// is about a policy, each time that the policy is set. `Display` says all of it in one line, with
/// the [code](Self::code) and the [address](Self::help) of the explanation below.
///
/// In debug builds it is also printed on standard error, without any observer, until one
/// [shows it](super::Observer::shows_advice): a closure of
/// [`on_event`](crate::Limiter::on_event), or `Log`. [`Limiter::print_advice`] switches this on and
/// off. A limiter that neither prints nor has observers looks for nothing.
///
/// BRL001 and BRL004 are about the start: the first sixteen unidentified requests, and the first
/// thousand that are charged. BRL002, BRL012 and BRL013 are found later too. After the first
/// thousand requests, one request in 127 of each thread is examined, so a mistake that begins later
/// takes some two thousand requests to be reported, and one about exemptions some hundred thousand.
///
/// One request in 127 allocates a mark, and up to sixteen after it are searched for one. The others
/// read a counter of their thread. In debug builds requests have this cost without observers too,
/// unless printing is switched off.
///
/// [`Limiter::print_advice`]: crate::Limiter::print_advice
///
/// ```
/// use bolna_rate_limit::{Limiter, Policy, Quota};
/// use bolna_rate_limit::observe::Event;
///
/// let limiter = Limiter::default();
/// limiter.on_event(|event| {
///     if let Event::Advice(advice) = event {
///         assert_eq!(advice.code(), "BRL007");
///     }
/// });
/// let policy = Policy::builder().endpoint("all", Quota::per_minute(9), ["/{*rest}"]).build()?;
/// limiter.set_policy(policy)?;
/// # Ok::<(), bolna_rate_limit::PolicyError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advice {
    /// **BRL001.** A request with credentials was unidentified: no [`Account`](crate::Account)
    /// reached the limiter with it, nor with any request before. Or the first sixteen requests were
    /// all unidentified, without credentials.
    ///
    /// Most likely the layer is outside of authentication and so runs before it. In axum the layer
    /// that is added last is the outermost and runs first. So add authentication after the limiter.
    /// In tonic and in a `ServiceBuilder` the layer that is added first is the outermost, so add it
    /// before. If authentication inserts a type of its own, read it with
    /// [`identify`](crate::BolnaRateLimitLayer::identify).
    ///
    /// If the credentials were just wrong, all is well. So it is if callers are served and this is
    /// reported only after some starts: then the first sixteen requests just had no credentials.
    /// They may be health checks, whose path should be
    /// [exempt](crate::policy::PolicyBuilder::exempt), or scans of a new address.
    ///
    /// Credentials are a header field `Authorization`, `X-Api-Key` or `Api-Key`. A cookie does not
    /// count, since it may as well be one of analytics. If advice is not printed, requests before
    /// the first observer was added are not known.
    #[non_exhaustive]
    AllUnidentified {
        /// How many requests there were, all of them unidentified.
        requests: u32,
        /// Whether the last of them had credentials.
        has_credentials: bool,
    },
    /// **BRL002.** One request was charged twice for the same endpoint, principal and quota.
    ///
    /// Most likely there are two copies of the layer in the stack, for example on a router and on
    /// another one that is nested in it. If they share a limiter, callers get half of their limits.
    /// Keep the outer one.
    ///
    /// If two limiters are to bill the same principal by the same quota, or if a handler sends
    /// further requests with the extensions of the first one, all is well.
    #[non_exhaustive]
    ChargedTwice {
        /// The endpoint.
        endpoint: Endpoint,
    },
    /// **BRL003.** Sixty-four limiters in a row were dropped after one request at most.
    ///
    /// Most likely [`BolnaRateLimitLayer::new`](crate::BolnaRateLimitLayer::new) is called for each
    /// request or connection. Then every request finds full buckets, and none is ever refused. Make
    /// one layer at the start, and clone it or the service that it makes. A test suite that makes a
    /// limiter for each test looks the same.
    #[non_exhaustive]
    LimiterPerRequest {
        /// How many limiters there were.
        limiters: u32,
    },
    /// **BRL004.** None of the first thousand requests matched a path of the policy: all were
    /// charged to `default`.
    ///
    /// Most likely the layer is inside of something that cuts a prefix off the path, such as axum's
    /// `nest`, so that no template can ever match. Put it on the outermost router, or write the
    /// templates without the prefix. Or the application cuts a prefix off that the layer sees:
    /// [name it](crate::policy::PolicyBuilder::stripped_prefix). If the paths show which of the two
    /// it is, [BRL012](Self::EndpointNotReached) is reported instead, and much earlier.
    #[non_exhaustive]
    NoRuleMatches {
        /// How many requests there were.
        requests: u32,
        /// The first endpoint of the policy, whose paths were expected.
        endpoint: Endpoint,
    },
    /// **BRL005.** A CORS preflight was charged or refused.
    ///
    /// Browsers send an `OPTIONS` request, a preflight, without credentials before the real
    /// request. If it reaches the limiter, `CorsLayer` is inside of the limiter: callers are
    /// charged twice, or the preflight is refused with 401. Put `CorsLayer` outside of the limiter.
    /// This is not reported for unidentified requests that
    /// [are admitted](crate::BolnaRateLimitLayer::on_unidentified).
    #[non_exhaustive]
    PreflightCharged {
        /// The endpoint of the preflight. `None` if it was unidentified, and so refused.
        endpoint: Option<Endpoint>,
    },
    /// **BRL006.** A quota never limits anything: it admits more than a million requests a second
    /// of one principal, more than one process can receive.
    ///
    /// Most likely another limit or period was meant. If a path should have no limit, make it
    /// [exempt](crate::policy::PolicyBuilder::exempt).
    #[non_exhaustive]
    QuotaNeverBinds {
        /// The limit that has the quota.
        limit: Limit,
    },
    /// **BRL007.** The quota of `default` is never used: other endpoints claim every path, except
    /// perhaps `/`.
    ///
    /// Most likely a template such as `/{*rest}` claims more than it should. If it is intended,
    /// give its quota to `default` and remove the template.
    DefaultNeverUsed,
    /// **BRL008.** A path template never applies: all paths that it matches are charged to
    /// something else.
    ///
    /// Either other templates are narrower and match all of them, as `/{a}` and `/{a}/{*b}` do with
    /// the paths of `/{*rest}`. Or it is a template of exempt paths: a path is exempt only if all
    /// of its [readings](crate::guide::security) are. So with an endpoint for `/call`, an exempt
    /// `/call.json` is never exempt, since some servers take it for `/call`, unless the policy
    /// [ignores](crate::policy::PolicyBuilder::ignore_spellings) format suffixes.
    #[non_exhaustive]
    RuleNeverMatches {
        /// The path template.
        path: String,
    },
    /// **BRL009.** A request costs more units of a limit than its burst, or counts as more requests
    /// in flight than a limit allows, so it was refused and would be however long the caller waits.
    ///
    /// The policy or the closure of [`cost`](crate::BolnaRateLimitLayer::cost) says how much a
    /// request costs. Lower the cost, or raise the burst of the limit's quota: of requests in
    /// flight, the limit itself. If callers choose the cost, for example by the size of a page,
    /// document the largest. Reported once, for the first such request; metrics count all of them
    /// by the outcome `too_costly`.
    #[non_exhaustive]
    CostAboveBurst {
        /// The limit.
        limit: Limit,
        /// The units that the request costs.
        cost: u32,
    },
    /// **BRL010.** A layer sets costs of a limit that the active policy does not have, so the
    /// closure has no effect.
    ///
    /// Most likely the name is misspelt. If another policy has the limit, such as one that is set
    /// later or that of an account, all is well.
    #[non_exhaustive]
    UnknownLimit {
        /// The name of the limit.
        limit: LimitName,
    },
    /// **BRL011.** Requests are limited by their address, and no address of such a request is
    /// known. All of them share one bucket then.
    ///
    /// Tell the layer where the address is:
    /// [`client_address`](crate::BolnaRateLimitLayer::client_address) for unidentified requests, or
    /// a [`ClientAddress`](crate::layer::ClientAddress) in `identify_with`. With axum's
    /// `ConnectInfo`, serve the router with `into_make_service_with_connect_info`.
    AddressUnknown,
    /// **BRL012.** Requests ask for paths that would belong to an endpoint, but they lack the
    /// beginning of its template or have a prefix before it, and no request has reached the
    /// endpoint since the policy was set. So its limits apply to nothing, and the requests are
    /// charged to `default`.
    ///
    /// If the paths lack the beginning of the template, the layer is most likely on a router that
    /// is nested in another one. Inside of axum's `nest`, that prefix has already been cut off the
    /// path. Put the layer on the outermost router, or write the templates without the prefix.
    ///
    /// If the paths have something before what the template matches, either the application strips
    /// that: [name it](crate::policy::PolicyBuilder::stripped_prefix). Or it belongs to the paths:
    /// write it into the templates.
    ///
    /// If these paths are others that your application has as well, and callers do not use the
    /// endpoint, all is well.
    ///
    /// It is reported when, of a thousand examined requests of accounts, at least sixteen lack the
    /// same prefix, or have the same prefix in addition. A template counts only if what is compared
    /// begins with a literal segment, since `/{id}` would match any path. Added prefixes of more
    /// than 3 segments or 64 bytes are not recognised.
    #[non_exhaustive]
    EndpointNotReached {
        /// At least how many requests lacked the same prefix, or had it in addition.
        requests: u32,
        /// The endpoint to which the last of them would belong.
        endpoint: Endpoint,
        /// The path template that it would match.
        template: String,
        /// The beginning of the template that the path lacked. `None` if the path had something
        /// before what the template matches.
        missing: Option<String>,
    },
    /// **BRL013.** At least 99 % of a thousand requests of accounts were exempt, so hardly any
    /// request is limited.
    ///
    /// Most likely a template of [exempt](crate::policy::PolicyBuilder::exempt) paths matches more
    /// than it should, such as `/v2/{*rest}`. If it is intended, all is well.
    ///
    /// These are not counted, since they are often exempt:
    ///
    /// * requests without an account, such as health checks;
    /// * requests for paths that end in the name of a file, such as `/app.css`;
    /// * requests of accounts with a [policy of their own](crate::Account::with_policy).
    #[non_exhaustive]
    NearlyAllExempt {
        /// How many requests of accounts were counted.
        requests: u32,
        /// How many of them were exempt.
        exempt: u32,
    },
}

impl From<Lint> for Advice {
    fn from(lint: Lint) -> Self {
        match lint {
            Lint::QuotaNeverBinds { limit } => Self::QuotaNeverBinds { limit },
            Lint::DefaultNeverUsed => Self::DefaultNeverUsed,
            Lint::RuleNeverMatches { path } => Self::RuleNeverMatches { path },
        }
    }
}

impl Advice {
    /// A short code that never changes, such as `BRL001`, for searches and for alerts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.entry().0
    }

    /// The address of the explanation.
    #[must_use]
    pub fn help(&self) -> String {
        const PAGE: &str =
            "https://docs.rs/bolna-rate-limit/latest/bolna_rate_limit/observe/enum.Advice.html";
        format!("{PAGE}#variant.{}", self.entry().1)
    }

    /// The code, and the name of the variant, which is part of the explanation's address.
    const fn entry(&self) -> (&'static str, &'static str) {
        match self {
            Self::AllUnidentified { .. } => ("BRL001", "AllUnidentified"),
            Self::ChargedTwice { .. } => ("BRL002", "ChargedTwice"),
            Self::LimiterPerRequest { .. } => ("BRL003", "LimiterPerRequest"),
            Self::NoRuleMatches { .. } => ("BRL004", "NoRuleMatches"),
            Self::PreflightCharged { .. } => ("BRL005", "PreflightCharged"),
            Self::QuotaNeverBinds { .. } => ("BRL006", "QuotaNeverBinds"),
            Self::DefaultNeverUsed => ("BRL007", "DefaultNeverUsed"),
            Self::RuleNeverMatches { .. } => ("BRL008", "RuleNeverMatches"),
            Self::CostAboveBurst { .. } => ("BRL009", "CostAboveBurst"),
            Self::UnknownLimit { .. } => ("BRL010", "UnknownLimit"),
            Self::AddressUnknown => ("BRL011", "AddressUnknown"),
            Self::EndpointNotReached { .. } => ("BRL012", "EndpointNotReached"),
            Self::NearlyAllExempt { .. } => ("BRL013", "NearlyAllExempt"),
        }
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.code())?;
        match self {
            Self::AllUnidentified { has_credentials: true, .. } => f.write_str(
                "a request with credentials reached the limiter without an account, and no request \
                 before it had one. So the limiter may be outside of authentication. Put the layer \
                 that inserts the Account outside: in axum add it after the limiter's, in tonic \
                 and in a ServiceBuilder before it. If that layer inserts another type, read the \
                 type with identify. If the credentials were wrong, or not meant for the limiter, \
                 all is well",
            ),
            Self::AllUnidentified { requests, .. } => write!(
                f,
                "all of the first {requests} requests were unidentified. So the limiter may be \
                 outside of authentication. Put the layer that inserts the Account outside: in \
                 axum add it after the limiter's, in tonic and in a ServiceBuilder before it. If \
                 that layer inserts another type, read the type with identify"
            ),
            Self::ChargedTwice { endpoint } => write!(
                f,
                "one request was charged twice for {endpoint}, so there may be two copies of the \
                 limiter in the stack; keep the outer one"
            ),
            Self::LimiterPerRequest { limiters } => write!(
                f,
                "{limiters} limiters in a row were dropped after one request at most, so one may \
                 be made for each request, and none is ever refused; make one layer at the start \
                 and clone it"
            ),
            Self::NoRuleMatches { requests, endpoint } => write!(
                f,
                "none of the first {requests} requests matched a path of {endpoint} or any other \
                 endpoint, so the limiter may be inside of a nested router, which cuts the prefix \
                 off the path; put it on the outermost router, or if the application cuts a prefix \
                 off, name that in the policy with stripped_prefix"
            ),
            Self::PreflightCharged { endpoint } => {
                match endpoint {
                    Some(endpoint) => write!(f, "a CORS preflight was charged to {endpoint}")?,
                    None => f.write_str("a CORS preflight was refused as unidentified")?,
                }
                f.write_str("; put CorsLayer outside of the limiter")
            }
            Self::QuotaNeverBinds { limit } => write!(
                f,
                "the quota of {}, {}, is more than a million a second and never \
                 limits anything; check the limit and the period, or exempt the paths",
                limit.name(),
                limit.quota()
            ),
            Self::DefaultNeverUsed => f.write_str(
                "other endpoints claim every path, except perhaps /, so the quota of default is \
                 never used; check the templates that end in {*rest}",
            ),
            Self::RuleNeverMatches { path } => write!(
                f,
                "the path template {path:?} never applies: either narrower templates match all of \
                 its paths, or servers read them in several ways, and not all of these are exempt; \
                 remove it, exempt the others too, or let the policy ignore that kind of spelling"
            ),
            Self::CostAboveBurst { limit, cost } if limit.quota().is_concurrent() => write!(
                f,
                "a request counts as {cost} requests in flight for {}, which allows {} at most, so \
                 waiting never suffices; raise the limit or lower the cost",
                limit.name(),
                limit.quota().limit()
            ),
            Self::CostAboveBurst { limit, cost } => write!(
                f,
                "a request costs {cost} units of {}, whose bucket holds {} at most, so waiting \
                 never suffices; raise the burst or lower the cost",
                limit.name(),
                limit.quota().burst()
            ),
            Self::UnknownLimit { limit } => write!(
                f,
                "a layer sets costs of the limit {limit}, which the active policy does not have, \
                 so they have no effect; check the name"
            ),
            Self::AddressUnknown => f.write_str(
                "no address of a request that is limited by its address is known, so all such \
                 requests share one limit; set client_address on the layer, or give identify_with \
                 a ClientAddress, and serve the router so that its closure finds the address",
            ),
            Self::EndpointNotReached { requests, endpoint, template, missing: Some(missing) } => {
                write!(
                    f,
                    "at least {requests} requests asked for paths that lack {missing}, the last of \
                     them like {template}, and no request has reached {endpoint}, so its limits \
                     apply to nothing; the limiter may be inside of a router that is nested at \
                     {missing}: put it on the outermost router, or write the templates without \
                     {missing}"
                )
            }
            Self::EndpointNotReached { requests, endpoint, template, missing: None } => write!(
                f,
                "at least {requests} requests asked for paths with the same prefix before what a \
                 template matches, the last of them like {template}, and no request has reached \
                 {endpoint}, so its limits apply to nothing; if the application strips that \
                 prefix, name it in the policy with stripped_prefix, or else write it into the \
                 templates"
            ),
            Self::NearlyAllExempt { requests, exempt } => write!(
                f,
                "{exempt} of {requests} requests of accounts were exempt, so hardly any request is \
                 limited; check whether a template of exempt paths matches more than it should"
            ),
        }?;
        write!(f, " ({})", self.help())
    }
}

impl Error for Advice {}

#[cfg(test)]
mod tests {
    use super::Advice;
    use crate::values::{Endpoint, Limit, Quota, QuotaBuilder};

    #[test]
    fn a_cost_above_a_limit_is_explained_by_what_the_limit_counts() {
        let said = |quota: QuotaBuilder| {
            let limit = Limit::new(Endpoint::CALL, quota.build().expect("the quota is valid"));
            Advice::CostAboveBurst { limit, cost: 11 }.to_string()
        };
        let rate = "BRL009: a request costs 11 units of call, whose bucket holds 10 at most, so \
                    waiting never suffices; raise the burst or lower the cost (";
        let in_flight = "BRL009: a request counts as 11 requests in flight for call, which \
                         allows 10 at most, so waiting never suffices; raise the limit or lower \
                         the cost (";
        for (quota, text) in
            [(Quota::per_minute(500).burst(10), rate), (Quota::concurrent(10), in_flight)]
        {
            assert!(said(quota).starts_with(text), "{}", said(quota));
        }
    }
}
