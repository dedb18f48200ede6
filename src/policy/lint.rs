//! Probable mistakes in a policy that can be built all the same.

use super::path::Billing;
use super::{Charged, Policy, Rule};
use crate::values::{Endpoint, Limit};

/// A quota whose units come back in a shorter time, in nanoseconds, never limits a caller.
const FASTEST: u64 = 1_000;

/// A segment that no template is likely to contain as a literal.
const ANY: &str = "0~0";

/// A probable mistake in a policy that can be built all the same. See [`Policy::lint`].
///
/// ```
/// use bolna_rate_limit::observe::Advice;
/// use bolna_rate_limit::{Policy, Quota};
///
/// // In a test of a service's limits, or before a file of limits is accepted:
/// let policy = Policy::bolna().quota("call", Quota::per_second(5_000_000)).build()?;
/// let mistakes: Vec<String> =
///     policy.lint().into_iter().map(|lint| Advice::from(lint).to_string()).collect();
/// let text = "BRL006: the quota of call, 5000000 requests per second, is more than a million";
/// assert!(mistakes[0].starts_with(text));
/// # Ok::<(), bolna_rate_limit::PolicyError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lint {
    /// A quota admits more than a million requests a second of one principal, more than one process
    /// can receive.
    #[non_exhaustive]
    QuotaNeverBinds {
        /// The limit that has the quota.
        limit: Limit,
    },
    /// Other endpoints claim every path, except perhaps `/`, so none is charged to `default`.
    DefaultNeverUsed,
    /// The template never applies: every path that it matches is charged to something else.
    #[non_exhaustive]
    RuleNeverMatches {
        /// The path template.
        path: String,
    },
}

impl Policy {
    /// Looks for probable mistakes in the policy. The time that this takes grows with the number of
    /// path templates, so call it at the start and when a policy is reloaded, not for each request.
    ///
    /// ```
    /// use bolna_rate_limit::{Policy, Quota};
    /// use bolna_rate_limit::policy::Lint;
    ///
    /// let policy = Policy::builder().endpoint("all", Quota::per_minute(9), ["/{*rest}"]).build()?;
    /// assert_eq!(policy.lint(), [Lint::DefaultNeverUsed]);
    /// # Ok::<(), bolna_rate_limit::PolicyError>(())
    /// ```
    #[must_use]
    pub fn lint(&self) -> Vec<Lint> {
        let is_fast = |limit: &Limit| limit.quota().rate().interval() < FASTEST;
        let fast = self.limits().into_iter().filter(is_fast);
        let fast = fast.map(|limit| Lint::QuotaNeverBinds { limit });
        let templates = self.0.paths.templates();
        let deepest =
            templates.iter().map(|(template, _)| template.split('/').count()).max().unwrap_or(1);
        let unmatched = templates
            .iter()
            .filter(|(template, billing)| !self.matches(template, *billing, deepest));
        let unmatched =
            unmatched.map(|(path, _)| Lint::RuleNeverMatches { path: (*path).to_owned() });
        let unused = !self.uses_default(&templates, deepest);
        fast.chain(unmatched).chain(unused.then_some(Lint::DefaultNeverUsed)).collect()
    }

    /// The first endpoint. `None` if there is only `default`.
    pub(crate) fn first_endpoint(&self) -> Option<Endpoint> {
        self.rules().first().map(Rule::endpoint).filter(|first| *first != Endpoint::DEFAULT)
    }

    /// Whether the template applies to some path. If it ends in `{*name}`, narrower templates may
    /// claim all paths of some depths, so each depth is tried.
    fn matches(&self, template: &str, billing: Billing, deepest: usize) -> bool {
        (1..=deepest).any(|depth| self.bills(&example(template, depth), billing))
    }

    /// Whether a path is charged to that, be it to others as well.
    pub(super) fn bills(&self, path: &str, billing: Billing) -> bool {
        let charged = self.charged(path);
        match billing {
            Billing::Exempt => charged == Charged::Exempt,
            Billing::Endpoint(index) => {
                matches!(charged, Charged::TooMany(_)) || charged.indices().contains(&index)
            }
        }
    }

    /// Whether a path other than `/` is charged to `default`, or is exempt. `/` does not count:
    /// `/{*rest}` does not match it, and it alone is hardly what `default` is meant for.
    fn uses_default(&self, templates: &[(&str, Billing)], deepest: usize) -> bool {
        // A policy without limits has no endpoints.
        let Some(default) = self.rules().len().checked_sub(1) else { return true };
        let is_named = |charged| matches!(charged, Charged::One(index) if index < default);
        templates.iter().any(|(_, billing)| *billing == Billing::Endpoint(default))
            || !(1..=deepest).all(|depth| is_named(self.charged(&any(depth))))
    }
}

/// A path that the template matches, as it comes over the wire. For `{*name}` it has `rest`
/// segments.
pub(super) fn example(template: &str, rest: usize) -> String {
    let part = |segment: &str| match segment.strip_prefix('{') {
        Some(parameter) => any(if parameter.starts_with('*') { rest } else { 1 }),
        None => format!("/{segment}"),
    };
    template.split('/').skip(1).map(part).collect()
}

/// A path of `depth` segments that no template is likely to contain as literals.
fn any(depth: usize) -> String {
    format!("/{ANY}").repeat(depth)
}
