//! How the paths of two policies differ.

use std::collections::{BTreeMap, BTreeSet};

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
        let policies = [self, to];
        let listed =
            policies.map(|it| it.0.paths.templates().into_iter().collect::<BTreeMap<_, _>>());
        let all: BTreeSet<_> = listed.iter().flat_map(BTreeMap::keys).copied().collect();
        let deepest = all.iter().map(|it| it.split('/').count()).max().unwrap_or(1);
        let change = |template: &'a str| {
            // Narrower templates may claim the paths of some depths. So this is a path that the
            // template applies to in each policy that has it, and nothing changes without one.
            let applies = |path: &String| {
                let mut both = policies.iter().zip(&listed);
                both.all(|(policy, listed)| {
                    listed.get(template).is_none_or(|to| policy.bills(path, *to))
                })
            };
            let depths = if template.contains("{*") { deepest } else { 1 };
            let path =
                (1..=depths).rev().map(|depth| lint::example(template, depth)).find(applies)?;
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
