//! What is odd about a policy that can be built all the same.

use super::Table;
use crate::endpoint::Endpoint;
use crate::insight::Diagnosis;
use crate::path::Billing;

/// A quota whose units come back faster, in nanoseconds, can't bind.
const FASTEST: u64 = 1_000;

/// A segment that no template spells out.
const ANY: &str = "0~0";

impl Table {
    /// What is likely to be a mistake.
    pub(crate) fn diagnose(&self) -> Vec<Diagnosis> {
        let fast = self.classes.iter().filter(|class| class.quota.interval_nanos() < FASTEST);
        let fast = fast.map(|class| Diagnosis::QuotaNeverBinds {
            endpoint: class.endpoint,
            quota: class.quota,
        });
        let templates = self.paths.templates();
        let deepest =
            templates.iter().map(|(template, _)| template.split('/').count()).max().unwrap_or(1);
        let unmatched = templates
            .iter()
            .filter(|(template, billing)| !self.matches(template, *billing, deepest));
        let unmatched =
            unmatched.map(|(path, _)| Diagnosis::RuleNeverMatches { path: (*path).to_owned() });
        let unused = !self.uses_default(&templates, deepest);
        fast.chain(unmatched).chain(unused.then_some(Diagnosis::DefaultNeverUsed)).collect()
    }

    /// The first endpoint, unless there is only `default`.
    pub(crate) fn first_endpoint(&self) -> Option<Endpoint> {
        self.classes.first().map(|class| class.endpoint).filter(|first| *first != Endpoint::DEFAULT)
    }

    /// Whether there is a path that the template has to itself: where it ends with the rest of a
    /// path, narrower ones may claim what is less deep.
    fn matches(&self, template: &str, billing: Billing, deepest: usize) -> bool {
        (1..=deepest).any(|depth| self.paths.bill(&example(template, depth)) == billing)
    }

    /// Whether anything is left to `default`, or exempt, apart from `/`: that is not in `/{*rest}`,
    /// and still little.
    fn uses_default(&self, templates: &[(&str, Billing)], deepest: usize) -> bool {
        let default = self.classes.len() - 1;
        let is_named = |billing| matches!(billing, Billing::Endpoint(index) if index < default);
        templates.iter().any(|(_, billing)| *billing == Billing::Endpoint(default))
            || !(1..=deepest).all(|depth| is_named(self.paths.bill(&any(depth))))
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
