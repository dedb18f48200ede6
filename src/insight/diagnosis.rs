//! What is likely to be set up wrongly.

use std::error::Error;
use std::fmt;

use crate::endpoint::Endpoint;
use crate::quota::Quota;

/// A limiter seems to be set up wrongly: what was seen, what it means, and what to do.
///
/// Each is told once, as an [`Event`](super::Event), to the observers of the limiter, and those
/// about a policy each time that it is set; without observers nothing is looked for.
/// `Display` says all of it in one line, with the [code](Self::code) and the [address](Self::help)
/// of its explanation below.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Diagnosis {
    /// **BRL001.** The first sixteen requests were all of nobody: they had no
    /// [`Account`](crate::Account) in their extensions.
    ///
    /// Most likely the layer is outside of authentication, and runs before it. In axum the layer
    /// that is added last is the outermost and runs first: so add authentication after the
    /// limiter. If authentication inserts a type of its own, name it
    /// with [`identify`](crate::BolnaRateLimitLayer::identify). Told when a limiter has seen nobody
    /// it could bill since the start.
    ///
    /// If it is told only now and then, and callers are served, the first sixteen requests just had
    /// no credentials: health checks, whose path is better
    /// [exempt](crate::PolicyBuilder::exempt), or whoever scans a new address.
    #[non_exhaustive]
    NobodyIdentified {
        /// How many requests there were.
        requests: u32,
    },
    /// **BRL002.** One request was charged twice for the same endpoint, principal and quota.
    ///
    /// Most likely there are two copies of the layer in the stack, on a router and again on one
    /// that is nested in it. Each caller gets half of his limit. Keep the outer one. Looked for
    /// in the first sixteen requests of a limiter.
    #[non_exhaustive]
    ChargedTwice {
        /// What it was charged for.
        endpoint: Endpoint,
    },
    /// **BRL003.** Sixty-four limiters in a row were dropped after one request at most.
    ///
    /// Most likely [`BolnaRateLimitLayer::new`](crate::BolnaRateLimitLayer::new) is called for each
    /// request or connection: every one begins with full buckets, and nobody is ever refused.
    /// Make one layer at the start, and clone it or what it wraps. A suite of tests that makes
    /// a limiter for each test looks like it too.
    #[non_exhaustive]
    LimiterPerRequest {
        /// How many limiters it were.
        limiters: u32,
    },
    /// **BRL004.** None of the first thousand requests matched a path of the policy: all were
    /// billed to `default`.
    ///
    /// Most likely the layer is inside of what cuts a prefix off the path, as axum's `nest` does,
    /// so that no rule can ever match. Put it on the outermost router, or write the templates
    /// as the layer sees the paths.
    #[non_exhaustive]
    NoRuleMatches {
        /// How many requests there were.
        requests: u32,
        /// An endpoint whose paths were expected.
        endpoint: Endpoint,
    },
    /// **BRL005.** A CORS preflight was charged.
    ///
    /// Browsers send an `OPTIONS` request before the real one, without credentials. If it gets
    /// here, `CorsLayer` is inside of the limiter: callers pay twice, or are told 401 where
    /// they should be told what is allowed. Put `CorsLayer` outside. Not told of requests of
    /// nobody that [go on uncounted](crate::BolnaRateLimitLayer::on_unidentified).
    #[non_exhaustive]
    PreflightCharged {
        /// What it was charged for, or `None` if it was of nobody.
        endpoint: Option<Endpoint>,
    },
    /// **BRL006.** A quota can't bind: it admits more than a million requests a second of one
    /// principal, which is more than a process can be asked.
    ///
    /// Most likely the limit or the period was meant to be another one. If it is meant, say that a
    /// path has no limit with [`exempt`](crate::PolicyBuilder::exempt).
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

impl Diagnosis {
    /// A short name that stays the same, for searching and for telling an alert from another:
    /// `BRL001`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.entry().0
    }

    /// Where it is explained.
    #[must_use]
    pub fn help(&self) -> String {
        format!(
            "https://docs.rs/bolna-rate-limit/latest/bolna_rate_limit/insight/enum.Diagnosis.html#variant.{}",
            self.entry().1
        )
    }

    /// The code, and the variant's name, which is the anchor of its explanation.
    const fn entry(&self) -> (&'static str, &'static str) {
        match self {
            Self::NobodyIdentified { .. } => ("BRL001", "NobodyIdentified"),
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

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.code())?;
        match self {
            Self::NobodyIdentified { requests } => write!(
                f,
                "all of the first {requests} requests were of nobody, so the limiter may be outside of authentication; add \
                 the layer that inserts the Account after (outside of) the limiter's"
            ),
            Self::ChargedTwice { endpoint } => write!(
                f,
                "one request was charged twice for {endpoint}, so there may be two copies of the limiter in the stack; keep \
                 the outer one"
            ),
            Self::LimiterPerRequest { limiters } => write!(
                f,
                "{limiters} limiters in a row were dropped after one request at most, so one may be made for each request, \
                 and nobody is ever refused; make one layer at the start and clone it"
            ),
            Self::NoRuleMatches { requests, endpoint } => write!(
                f,
                "none of the first {requests} requests matched a path of {endpoint} or any other endpoint, so the limiter may \
                 be inside of a nested router, which cuts the prefix off the path; put it on the outermost router"
            ),
            Self::PreflightCharged { endpoint } => {
                match endpoint {
                    Some(endpoint) => write!(f, "a CORS preflight was charged to {endpoint}")?,
                    None => f.write_str("a CORS preflight was taken for a request of nobody")?,
                }
                f.write_str("; put CorsLayer outside of the limiter")
            }
            Self::QuotaNeverBinds { endpoint, quota } => write!(
                f,
                "the quota of {endpoint}, {quota}, is more than a million a second and can't bind; check the limit and the \
                 period, or exempt the paths"
            ),
            Self::DefaultNeverUsed => f.write_str(
                "every path but perhaps / is claimed by another endpoint, so the quota of default is of no use; check the \
                 templates that end in {*rest}",
            ),
            Self::RuleNeverMatches { path } => {
                write!(f, "the rule {path:?} can never match: such a path is too long and too odd to be read; make it shorter")
            }
        }?;
        write!(f, " ({})", self.help())
    }
}

impl Error for Diagnosis {}
