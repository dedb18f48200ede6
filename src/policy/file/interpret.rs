//! Makes a policy of a document.

use super::document::{Mistake, Node};
use super::keys;
use super::places::Statements;
use super::setting::Setting;
use super::table::DocumentTable;
use crate::policy::builder::UNIDENTIFIED;
use crate::policy::limit::{LimitBuilder, QuotaDraft};
use crate::policy::{Policy, PolicyBuilder, PolicyError};
use crate::values::{Endpoint, Excerpt};

/// The most names of endpoints that an error lists.
const MOST_NAMES: usize = 16;

pub(super) fn policy(document: &Node) -> Result<Policy, Mistake> {
    let table = DocumentTable::of(document, "the policy".to_owned(), keys::POLICY)?;
    // An editor may leave an empty file behind for a moment while it writes.
    if table.is_empty() {
        let message = "nothing is set: for Bolna's limits unchanged, set `base` to \"bolna\"";
        return Err(Mistake::new(document.at, message));
    }
    let mut draft = PolicyDraft::new(&table)?;
    if let Some(node) = table.get("default") {
        draft = draft.default(node)?;
    }
    let endpoints = table.tables("endpoint", "`[[endpoint]]`")?;
    draft = endpoints.iter().try_fold(draft, PolicyDraft::endpoint)?;
    // All other limits come after the endpoints, because none of them may have the name of one.
    if let Some(node) = table.get("unidentified") {
        draft = draft.unidentified(node)?;
    }
    draft = draft.further()?;
    let shared = table.tables("shared", "`[[shared]]`")?;
    shared.iter().try_fold(draft, PolicyDraft::shared)?.build()
}

/// A policy that is being built, and the positions of its settings in the document.
struct PolicyDraft<'a> {
    base: &'static str,
    builder: PolicyBuilder,
    said: Statements<'a>,
}

impl<'a> PolicyDraft<'a> {
    fn new(policy: &DocumentTable<'a>) -> Result<Self, Mistake> {
        const BASES: &str = "\"bolna\" or \"empty\"";
        let (base, mut builder) = match policy.text("base", BASES)? {
            None | Some((_, "bolna")) => ("bolna", PolicyBuilder::bolna()),
            Some((_, "empty")) => ("empty", PolicyBuilder::new()),
            Some((at, other)) => {
                return Err(Mistake::new(
                    at,
                    format!("base {:?}: it is {BASES}", Excerpt::of(other)),
                ));
            }
        };
        if let Some(enforcement) = policy.enforcement()? {
            builder = builder.enforcement(enforcement);
        }
        let exempt = policy.paths("exempt")?.unwrap_or_default();
        builder = builder.exempt(&exempt.texts).ignore_spellings(policy.spellings()?);
        let prefixes = policy.paths("stripped_prefixes")?.unwrap_or_default();
        builder = prefixes.texts.iter().fold(builder, PolicyBuilder::stripped_prefix);
        Ok(Self { base, builder, said: Statements::new(exempt, prefixes) })
    }

    fn default(self, node: &'a Node) -> Result<Self, Mistake> {
        let name = Endpoint::DEFAULT.name();
        let table = DocumentTable::of(node, format!("endpoint {name:?}"), keys::DEFAULT)?;
        Ok(self.change(Setting::of(&table, name, node.at)?))
    }

    /// Changes an endpoint of the base, or adds a new one.
    fn endpoint(mut self, node: &'a Node) -> Result<Self, Mistake> {
        let table = DocumentTable::with_name(node, ("an", "endpoint"), keys::ENDPOINT)?;
        let (at, name) = table.name()?;
        // Here and not when the policy is built, because that error may hold a part of the name.
        if let Err(reason) = Endpoint::check(name) {
            return Err(Mistake::new(at, PolicyError::Name { reason }.to_string()));
        }
        if name == Endpoint::DEFAULT.name() {
            let message = "endpoint name \"default\": it stands for everything else, and its \
                           settings go into the table `default`";
            return Err(Mistake::new(at, message));
        }
        if self.said.about(name).is_some() {
            let error = PolicyError::DuplicateEndpoint { name: name.to_owned() };
            return Err(Mistake::new(at, error.to_string()));
        }
        let setting = Setting::of(&table, name, at)?;
        if self.builder.quota_of(name).is_none() {
            let (Some(quota), Some(paths)) = (setting.quota(None), &setting.paths) else {
                let (what, base) = (&table.what, self.base);
                let rule = format!(
                    "base {base:?} has no endpoint of that name, and a new one needs limit, per \
                     and paths"
                );
                return Err(Mistake::new(at, format!("{what}: {rule}")));
            };
            self.builder = self.builder.endpoint(name, quota, &paths.texts);
        }
        Ok(self.change(setting))
    }

    /// Applies the settings of an endpoint and its own limit, and leaves everything else as it is.
    fn change(mut self, setting: Setting<'a>) -> Self {
        let name = &setting.name;
        if let Some(quota) = setting.quota(self.builder.quota_of(name)) {
            self.builder = self.builder.quota(name, quota);
        }
        if let Some((_, units)) = setting.cost {
            self.builder = self.builder.cost(name, units);
        }
        if let Some(enforcement) = setting.enforcement {
            self.builder = self.builder.enforce(name, enforcement);
        }
        if let Some(paths) = &setting.paths {
            self.builder = self.builder.paths(name, &paths.texts);
        }
        self.said.add(setting);
        self
    }

    /// Adds the limit of requests without an account.
    fn unidentified(mut self, node: &'a Node) -> Result<Self, Mistake> {
        let what = format!("limit {UNIDENTIFIED:?}");
        let table = DocumentTable::of(node, what, keys::UNIDENTIFIED)?;
        self.check_name(UNIDENTIFIED, node.at)?;
        let setting = Setting::of(&table, UNIDENTIFIED, node.at)?;
        let Some(quota) = setting.quota(None) else {
            return Err(incomplete(&setting, "limit and per"));
        };
        self.builder = self.builder.unidentified_quota(quota);
        if let Some((_, units)) = setting.cost {
            self.builder = self.builder.cost(UNIDENTIFIED, units);
        }
        if let Some(enforcement) = setting.enforcement {
            self.builder = self.builder.enforce(UNIDENTIFIED, enforcement);
        }
        self.said.add(setting);
        Ok(self)
    }

    /// Adds the further limits of all endpoints: the share of a user first, then the requests in
    /// flight.
    fn further(mut self) -> Result<Self, Mistake> {
        for index in 0..self.said.settings.len() {
            let Setting { name, user_share, concurrent, also, .. } = &self.said.settings[index];
            let (endpoint, also) = (name.clone(), *also);
            let (user_share, concurrent) = (*user_share, *concurrent);
            if let Some((at, percent)) = user_share {
                let name = format!("{endpoint}-user");
                self.check_name(&name, at)?;
                self.builder = self.builder.user_share(&endpoint, percent);
                self.said.add(Setting { name, name_at: at, ..Setting::default() });
            }
            if let Some((at, in_flight)) = concurrent {
                let name = format!("{endpoint}-concurrent");
                self.check_name(&name, at)?;
                self.builder = self.builder.concurrent(&endpoint, in_flight);
                self.said.add(Setting { name, name_at: at, ..Setting::default() });
            }
            for node in also {
                let (setting, limit) = self.limit(node, keys::ALSO)?;
                self.builder = self.builder.also(&endpoint, limit);
                self.said.add(setting);
            }
        }
        Ok(self)
    }

    /// Adds a limit of several endpoints.
    fn shared(mut self, node: &'a Node) -> Result<Self, Mistake> {
        let (setting, limit) = self.limit(node, keys::SHARED)?;
        let Some(endpoints) = &setting.endpoints else {
            return Err(incomplete(&setting, "endpoints"));
        };
        // Here and not when the policy is built, because that error speaks of the builder.
        for (endpoint, at) in endpoints.texts.iter().zip(&endpoints.each_at) {
            if self.builder.quota_of(endpoint).is_none() {
                let (endpoint, limit) = (Excerpt::of(endpoint), &setting.name);
                let rule = "neither the base nor the file has an endpoint of that name";
                let names = self.builder.endpoint_names();
                let more = names.len().saturating_sub(MOST_NAMES);
                let mut names = names[..names.len() - more].join(", ");
                if more > 0 {
                    names += &format!(" and {more} more");
                }
                let message = format!(
                    "endpoint {endpoint:?} of limit {limit:?}: {rule}; the names are {names}"
                );
                return Err(Mistake::new(*at, message));
            }
        }
        self.builder = self.builder.shared(limit, &endpoints.texts);
        self.said.add(setting);
        Ok(self)
    }

    /// A limit that is not an endpoint's own.
    fn limit(&self, node: &'a Node, keys: &[&str]) -> Result<(Setting<'a>, LimitBuilder), Mistake> {
        let table = DocumentTable::with_name(node, ("a", "limit"), keys)?;
        let (at, name) = table.name()?;
        self.check_name(name, at)?;
        let setting = Setting::of(&table, name, at)?;
        let Some(quota) = setting.either_quota()? else {
            return Err(incomplete(&setting, "limit and per, or concurrent"));
        };
        let mut limit = LimitBuilder::new(name.to_owned(), setting.scope, QuotaDraft::Quota(quota));
        if let Some((_, units)) = setting.cost {
            limit = limit.cost(units);
        }
        if let Some(enforcement) = setting.enforcement {
            limit = limit.enforce(enforcement);
        }
        Ok((setting, limit))
    }

    /// Checks the name of a limit that is not an endpoint's own. This is done here and not when the
    /// policy is built, so that each name has one place in the document.
    fn check_name(&self, name: &str, at: usize) -> Result<(), Mistake> {
        if let Err(reason) = Endpoint::check(name) {
            return Err(Mistake::new(at, PolicyError::LimitName { reason }.to_string()));
        }
        if self.builder.quota_of(name).is_some() || self.said.about(name).is_some() {
            let error = PolicyError::DuplicateLimit { name: name.to_owned() };
            return Err(Mistake::new(at, error.to_string()));
        }
        Ok(())
    }

    fn build(self) -> Result<Policy, Mistake> {
        let Self { builder, said, .. } = self;
        builder.build().map_err(|error| Mistake {
            // The base is valid, so the mistake is in the document.
            at: said.place_of(&error).unwrap_or_default(),
            message: error.to_string(),
        })
    }
}

fn incomplete(limit: &Setting<'_>, needed: &str) -> Mistake {
    Mistake::new(limit.name_at, format!("limit {:?}: it needs {needed}", limit.name))
}
