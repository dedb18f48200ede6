//! What is likely to be set up wrongly.

mod checkup;

use std::error::Error;
use std::fmt;

use crate::policy::Lint;
use crate::values::{Endpoint, Quota};

pub(crate) use checkup::{Checkup, Mark, Nothing, Seen};

/// A limiter seems to be set up wrongly: what was seen, what it means, and what to do.
///
/// Observers of the limiter receive each as an [`Event`](super::Event): once, or, if it is about a
/// policy, each time that the policy is set. Without observers nothing is looked for. `Display` says
/// all of it in one line, with the [code](Self::code) and the [address](Self::help) of its
/// explanation below.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advice {
    /// **BRL001.** The first sixteen requests were all unidentified: they had no
    /// [`Account`](crate::Account) in their extensions.
    ///
    /// Most likely the layer is outside of authentication, and runs before it. In axum the layer
    /// that is added last is the outermost and runs first: so add authentication after the
    /// limiter. If authentication inserts a type of its own, read it with
    /// [`identify`](crate::BolnaRateLimitLayer::identify).
    ///
    /// If it is reported only now and then, and callers are served, then the first sixteen requests
    /// just had no credentials. They may be health checks, whose path is better
    /// [exempt](crate::policy::PolicyBuilder::exempt), or scans of a new address.
    #[non_exhaustive]
    AllUnidentified {
        /// How many requests there were.
        requests: u32,
    },
    /// **BRL002.** One request was charged twice for the same endpoint, principal and quota.
    ///
    /// Most likely there are two copies of the layer in the stack, on a router and again on one
    /// that is nested in it, so that each caller gets half of its limit. Keep the outer one. It is
    /// looked for in the first sixteen requests of a limiter.
    #[non_exhaustive]
    ChargedTwice {
        /// The endpoint.
        endpoint: Endpoint,
    },
    /// **BRL003.** Sixty-four limiters in a row were dropped after one request at most.
    ///
    /// Most likely [`BolnaRateLimitLayer::new`](crate::BolnaRateLimitLayer::new) is called for each
    /// request or connection. Then every request finds full buckets, and none is ever refused. Make
    /// one layer at the start, and clone it or what it wraps. A test suite that makes a limiter for
    /// each test looks the same.
    #[non_exhaustive]
    LimiterPerRequest {
        /// How many limiters there were.
        limiters: u32,
    },
    /// **BRL004.** None of the first thousand requests matched a path of the policy: all were
    /// billed to `default`.
    ///
    /// Most likely the layer is inside of what cuts a prefix off the path, as axum's `nest` does,
    /// so that no rule can ever match. Put it on the outermost router, or write the templates as
    /// the layer sees the paths.
    #[non_exhaustive]
    NoRuleMatches {
        /// How many requests there were.
        requests: u32,
        /// An endpoint whose paths were expected.
        endpoint: Endpoint,
    },
    /// **BRL005.** A CORS preflight was charged or refused.
    ///
    /// Browsers send an `OPTIONS` request before the real one, without credentials. If it gets
    /// here, `CorsLayer` is inside of the limiter: callers pay twice, or get a 401 instead of what
    /// CORS allows. Put `CorsLayer` outside. It is not reported for unidentified requests that
    /// [are admitted](crate::BolnaRateLimitLayer::on_unidentified).
    #[non_exhaustive]
    PreflightCharged {
        /// The endpoint that it was charged to, or `None` if it was unidentified.
        endpoint: Option<Endpoint>,
    },
    /// **BRL006.** A quota can't bind: it admits more than a million requests a second of one
    /// principal, which is more than a process can be asked.
    ///
    /// Most likely another limit or period was meant. If a path is to have no limit, say so with
    /// [`exempt`](crate::policy::PolicyBuilder::exempt).
    #[non_exhaustive]
    QuotaNeverBinds {
        /// The endpoint whose quota it is.
        endpoint: Endpoint,
        /// The quota.
        quota: Quota,
    },
    /// **BRL007.** The quota of `default` is of no use: every path, but perhaps `/`, is claimed by
    /// another endpoint.
    ///
    /// Most likely a template such as `/{*rest}` claims more than it was meant to. If it is meant,
    /// give its quota to `default` and leave the template out.
    DefaultNeverUsed,
    /// **BRL008.** A rule can never match: paths that it matches are billed to something else.
    ///
    /// A path that is spelled oddly, and is longer than 512 bytes, is billed to the first endpoint
    /// without being read. So a template that is as long, and has a segment that begins with a
    /// dot, matches nothing. Make it shorter.
    #[non_exhaustive]
    RuleNeverMatches {
        /// The path template.
        path: String,
    },
}

impl From<Lint> for Advice {
    fn from(lint: Lint) -> Self {
        match lint {
            Lint::QuotaNeverBinds { endpoint, quota } => Self::QuotaNeverBinds { endpoint, quota },
            Lint::DefaultNeverUsed => Self::DefaultNeverUsed,
            Lint::RuleNeverMatches { path } => Self::RuleNeverMatches { path },
        }
    }
}

impl Advice {
    /// A short name that stays the same, for searching and for telling an alert from another:
    /// `BRL001`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.entry().0
    }

    /// Where it is explained.
    #[must_use]
    pub fn help(&self) -> String {
        const PAGE: &str =
            "https://docs.rs/bolna-rate-limit/latest/bolna_rate_limit/observe/enum.Advice.html";
        format!("{PAGE}#variant.{}", self.entry().1)
    }

    /// The code, and the variant's name, which is the anchor of its explanation.
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
        }
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.code())?;
        match self {
            Self::AllUnidentified { requests } => write!(
                f,
                "all of the first {requests} requests were unidentified, so the limiter may be \
                 outside of authentication; add the layer that inserts the Account after (outside \
                 of) the limiter's"
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
                 off the path; put it on the outermost router"
            ),
            Self::PreflightCharged { endpoint } => {
                match endpoint {
                    Some(endpoint) => write!(f, "a CORS preflight was charged to {endpoint}")?,
                    None => f.write_str("a CORS preflight was refused as unidentified")?,
                }
                f.write_str("; put CorsLayer outside of the limiter")
            }
            Self::QuotaNeverBinds { endpoint, quota } => write!(
                f,
                "the quota of {endpoint}, {quota}, is more than a million a second and can't bind; \
                 check the limit and the period, or exempt the paths"
            ),
            Self::DefaultNeverUsed => f.write_str(
                "every path but perhaps / is claimed by another endpoint, so the quota of default \
                 is of no use; check the templates that end in {*rest}",
            ),
            Self::RuleNeverMatches { path } => write!(
                f,
                "the rule {path:?} can never match: such a path is too long and too odd to be \
                 read; make it shorter"
            ),
        }?;
        write!(f, " ({})", self.help())
    }
}

impl Error for Advice {}
