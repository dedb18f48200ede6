//! What a document says about a policy.

use super::document::{Mistake, Node, Value};
use super::table::{POLICY, Paths, Setting, Table};
use crate::endpoint::Endpoint;
use crate::enforcement::Enforcement;
use crate::path::TemplateError;
use crate::policy::builder::{Fault, Named, Place, PolicyBuilder};
use crate::policy::{Policy, PolicyError};
use crate::quota::QuotaError;

const DEFAULT: [&str; 5] = ["limit", "per", "burst", "enforce", "paths"];
const ENDPOINT: [&str; 6] = ["name", "limit", "per", "burst", "enforce", "paths"];

pub(super) fn policy(document: &Node) -> Result<Policy, Mistake> {
    let table = Table::of(document, "the policy".to_owned(), &POLICY)?;
    // As an editor leaves a file behind for the time between emptying and filling it.
    if table.is_empty() {
        let message = "nothing is set: for Bolna's limits as they are, set `base` to \"bolna\"";
        return Err(Mistake::new(document.at, message));
    }
    let mut draft = Draft::new(&table)?;
    if let Some(node) = table.get("default") {
        draft.default(node)?;
    }
    if let Some((_, list)) =
        table.list("endpoint", "a list of tables, each begun by `[[endpoint]]` in TOML")?
    {
        list.iter().try_for_each(|node| draft.endpoint(node))?;
    }
    draft.build()
}

/// A policy in the making, and where its parts come from.
struct Draft {
    base: &'static str,
    builder: PolicyBuilder,
    /// What the document says about each endpoint, if anything.
    settings: Vec<Option<Setting>>,
    default: Option<Setting>,
    exempt: Paths,
}

impl Draft {
    fn new(policy: &Table<'_>) -> Result<Self, Mistake> {
        const BASES: &str = "\"bolna\" or \"empty\"";
        let (base, mut builder) = match policy.text("base", BASES)? {
            None | Some((_, "bolna")) => ("bolna", PolicyBuilder::bolna()),
            Some((_, "empty")) => ("empty", PolicyBuilder::new()),
            Some((at, other)) => {
                return Err(Mistake::new(at, format!("base {other:?}: it is {BASES}")));
            }
        };
        if let Some(enforcement) = policy.enforcement()? {
            builder = builder.enforcement(enforcement);
        }
        let exempt = policy.paths("exempt")?.unwrap_or_default();
        builder = builder.exempt(&exempt.texts);
        let settings = builder.endpoints.iter().map(|_| None).collect();
        Ok(Self { base, builder, settings, default: None, exempt })
    }

    fn default(&mut self, node: &Node) -> Result<(), Mistake> {
        let setting = Table::of(node, "endpoint \"default\"".to_owned(), &DEFAULT)?.setting()?;
        let builder = &mut self.builder;
        setting.apply(
            &mut builder.default_quota,
            &mut builder.default_enforcement,
            &mut builder.default_paths,
        );
        self.default = Some(setting);
        Ok(())
    }

    /// Changes an endpoint of the base, or adds one.
    fn endpoint(&mut self, node: &Node) -> Result<(), Mistake> {
        let table = Table::of(node, name_of(node), &ENDPOINT)?;
        let Some((at, name)) = table.text("name", "a text")? else {
            return Err(Mistake::new(node.at, "an endpoint has no name: set `name`"));
        };
        if name == Endpoint::DEFAULT.name() {
            let message = "endpoint name \"default\": it stands for everything else, which the table `default` is about";
            return Err(Mistake::new(at, message));
        }
        let setting = Setting { name_at: at, ..table.setting()? };
        let endpoints = &mut self.builder.endpoints;
        let index = match endpoints.iter().position(|endpoint| endpoint.name == name) {
            Some(index) if self.settings[index].is_some() => {
                return Err(Mistake::new(
                    at,
                    PolicyError::DuplicateEndpoint { name: name.to_owned() }.to_string(),
                ));
            }
            Some(index) => index,
            None => {
                let (Some(quota), Some(paths)) = (setting.quota, &setting.paths) else {
                    let (what, base) = (&table.what, self.base);
                    let rule = format!(
                        "base {base:?} has none of that name, and a new one needs limit, per and paths"
                    );
                    return Err(Mistake::new(at, format!("{what}: {rule}")));
                };
                let (name, paths) = (name.to_owned(), paths.texts.clone());
                endpoints.push(Named { name, quota, enforcement: Enforcement::FULL, paths });
                self.settings.push(None);
                endpoints.len() - 1
            }
        };
        let Named { quota, enforcement, paths, .. } = &mut endpoints[index];
        setting.apply(quota, enforcement, paths);
        self.settings[index] = Some(setting);
        Ok(())
    }

    fn build(mut self) -> Result<Policy, Mistake> {
        self.builder.assemble().map_err(|Fault { error, place }| {
            self.settings.push(self.default.take());
            Mistake { at: self.locate(&error, &place), message: error.to_string() }
        })
    }

    /// Where the document says what the builder has found to be wrong.
    fn locate(&self, error: &PolicyError, place: &Place) -> usize {
        let said = |index: &usize| self.settings[*index].as_ref();
        let at = match place {
            Place::Name(index) => said(index).map(|setting| setting.name_at),
            Place::Paths(index) => {
                said(index).and_then(|setting| setting.paths.as_ref()).map(|paths| paths.at)
            }
            Place::Quota(index) => said(index).and_then(|setting| match error {
                PolicyError::Quota { reason: QuotaError::ZeroPeriod, .. } => setting.per_at,
                PolicyError::Quota { reason: QuotaError::ZeroBurst, .. } => setting.burst_at,
                _ => setting.limit_at.or(setting.burst_at),
            }),
            Place::Path(index, path) => {
                match said(index).and_then(|setting| setting.paths.as_ref()) {
                    Some(paths) => paths.each_at.get(*path).copied(),
                    None => self.in_the_way(error),
                }
            }
            Place::Exempt(path) => self.exempt.each_at.get(*path).copied(),
        };
        // Only what the document changes can be wrong.
        at.unwrap_or_default()
    }

    /// The path that matches what one of the base's does, which is right by itself.
    fn in_the_way(&self, error: &PolicyError) -> Option<usize> {
        let PolicyError::Path { rule, .. } = error else {
            return None;
        };
        let paths = self.settings.iter().flatten().filter_map(|setting| setting.paths.as_ref());
        let mut each = paths.flat_map(|paths| paths.texts.iter().zip(&paths.each_at));
        each.find(|(text, _)| TemplateError::Conflict(text.to_string()).to_string() == *rule)
            .map(|(_, at)| *at)
    }
}

/// How errors call an entry.
fn name_of(node: &Node) -> String {
    if let Value::Table(entries) = &node.value {
        if let Some(Value::Text(name)) =
            entries.iter().find(|entry| entry.key == "name").map(|entry| &entry.node.value)
        {
            return format!("endpoint {name:?}");
        }
    }
    "an endpoint".to_owned()
}
