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
        let fast = fast.map(|class| Diagnosis::QuotaNeverBinds { endpoint: class.endpoint, quota: class.quota });
        let templates = self.paths.templates();
        let unmatched = templates.iter().filter(|(template, billing)| self.paths.bill(&example(template)) != *billing);
        let unmatched = unmatched.map(|(path, _)| Diagnosis::RuleNeverMatches { path: (*path).to_owned() });
        let unused = !self.uses_default(&templates);
        fast.chain(unmatched).chain(unused.then_some(Diagnosis::DefaultNeverUsed)).collect()
    }

    /// The first endpoint, unless there is only `default`.
    pub(crate) fn first_endpoint(&self) -> Option<Endpoint> {
        self.classes.first().map(|class| class.endpoint).filter(|first| *first != Endpoint::DEFAULT)
    }

    fn uses_default(&self, templates: &[(&str, Billing)]) -> bool {
        let default = Billing::Endpoint(self.classes.len() - 1);
        let any = ["/".to_owned(), format!("/{ANY}"), format!("/{ANY}/{ANY}/{ANY}")];
        templates.iter().any(|(_, billing)| *billing == default)
            || any.iter().any(|path| self.paths.bill(path) == default)
    }
}

/// A path that the template is meant for, as it comes over the wire.
fn example(template: &str) -> String {
    let segments = template.split('/').skip(1);
    segments.map(|segment| format!("/{}", if segment.starts_with('{') { ANY } else { segment })).collect()
}
