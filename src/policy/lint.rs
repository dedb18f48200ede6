//! What is odd about a policy that can be built all the same.

use super::Policy;
use super::path::Billing;
use crate::values::{Endpoint, Quota};

/// A quota whose units come back faster, in nanoseconds, can't bind.
const FASTEST: u64 = 1_000;

/// A segment that no template spells out.
const ANY: &str = "0~0";

/// What is odd about a policy that can be built all the same. See [`Policy::lint`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lint {
    /// A quota admits more than a million requests a second of one principal, which is more than a
    /// process can be asked.
    #[non_exhaustive]
    QuotaNeverBinds {
        /// The endpoint whose quota it is.
        endpoint: Endpoint,
        /// The quota.
        quota: Quota,
    },
    /// Every path, but perhaps `/`, is claimed by another endpoint than `default`.
    DefaultNeverUsed,
    /// Every path that the template matches is billed to something else.
    #[non_exhaustive]
    RuleNeverMatches {
        /// The path template.
        path: String,
    },
}

impl Policy {
    /// What is likely to be a mistake in the policy. It takes time in proportion to the number of
    /// its path templates, and is made for start-up and for reloads.
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
        let fast = self.rules().iter().filter(|rule| rule.rate.interval() < FASTEST);
        let fast =
            fast.map(|rule| Lint::QuotaNeverBinds { endpoint: rule.endpoint, quota: rule.quota });
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

    /// The first endpoint, unless there is only `default`.
    pub(crate) fn first_endpoint(&self) -> Option<Endpoint> {
        self.rules().first().map(|rule| rule.endpoint).filter(|first| *first != Endpoint::DEFAULT)
    }

    /// Whether there is a path that the template has to itself: where it ends with the rest of a
    /// path, narrower ones may claim what is less deep.
    fn matches(&self, template: &str, billing: Billing, deepest: usize) -> bool {
        (1..=deepest).any(|depth| self.0.paths.bill(&example(template, depth)) == billing)
    }

    /// Whether anything is left to `default`, or exempt, apart from `/`: that is not in `/{*rest}`,
    /// and still little.
    fn uses_default(&self, templates: &[(&str, Billing)], deepest: usize) -> bool {
        let default = self.rules().len() - 1;
        let is_named = |billing| matches!(billing, Billing::Endpoint(index) if index < default);
        templates.iter().any(|(_, billing)| *billing == Billing::Endpoint(default))
            || !(1..=deepest).all(|depth| is_named(self.0.paths.bill(&any(depth))))
    }
}

/// A path that the template is meant for, as it comes over the wire; the rest of a path is that
/// many segments.
fn example(template: &str, rest: usize) -> String {
    let part = |segment: &str| match segment.strip_prefix('{') {
        Some(parameter) => any(if parameter.starts_with('*') { rest } else { 1 }),
        None => format!("/{segment}"),
    };
    template.split('/').skip(1).map(part).collect()
}

fn any(depth: usize) -> String {
    format!("/{ANY}").repeat(depth)
}
