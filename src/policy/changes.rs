//! How the paths of two policies differ.

use std::collections::BTreeSet;

use super::{Policy, lint};
use crate::values::Endpoint;

/// What a path template is charged to by one policy and by another. `None` is nothing: its paths
/// are exempt.
pub(crate) struct PathChange<'a> {
    pub(crate) template: &'a str,
    pub(crate) from: Option<Endpoint>,
    pub(crate) to: Option<Endpoint>,
}

impl Policy {
    /// The templates of either policy of which the paths are exempt in one of the two only, or
    /// move from one endpoint to another. What comes with a new endpoint, or went with one that is
    /// gone, is left out.
    pub(crate) fn path_changes<'a>(&'a self, to: &'a Self) -> Vec<PathChange<'a>> {
        let templates = |policy: &'a Self| policy.0.paths.templates().into_iter().map(|it| it.0);
        let all: BTreeSet<_> = templates(self).chain(templates(to)).collect();
        let change = |template: &'a str| {
            let path = lint::example(template, 1);
            let change =
                PathChange { template, from: self.endpoint_of(&path), to: to.endpoint_of(&path) };
            let both_know = |endpoint: Endpoint| {
                [self, to].iter().all(|policy| policy.rule_of_endpoint(endpoint).is_some())
            };
            let is_told = change.from != change.to
                && [change.from, change.to].into_iter().flatten().all(both_know);
            is_told.then_some(change)
        };
        all.into_iter().filter_map(change).collect()
    }

    /// Whether paths are read in the same ways: without the same prefixes, by the same spellings.
    pub(crate) fn reads_like(&self, other: &Self) -> bool {
        self.0.paths.reads_like(&other.0.paths)
    }
}
