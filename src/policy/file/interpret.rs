//! Makes a policy of a document.

use std::collections::HashMap;

use super::document::{Mistake, Node, Value};
use super::table::{DocumentTable, POLICY, Paths, Setting};
use crate::policy::{PathList, Policy, PolicyBuilder, PolicyError, TemplateError};
use crate::values::{Endpoint, Excerpt, QuotaError};

const DEFAULT: [&str; 5] = ["limit", "per", "burst", "enforce", "paths"];
const ENDPOINT: [&str; 6] = ["name", "limit", "per", "burst", "enforce", "paths"];

pub(super) fn policy(document: &Node) -> Result<Policy, Mistake> {
    let table = DocumentTable::of(document, "the policy".to_owned(), &POLICY)?;
    // An editor may leave an empty file behind for a moment while it writes.
    if table.is_empty() {
        let message = "nothing is set: for Bolna's limits unchanged, set `base` to \"bolna\"";
        return Err(Mistake::new(document.at, message));
    }
    let mut draft = PolicyDraft::new(&table)?;
    if let Some(node) = table.get("default") {
        draft = draft.default(node)?;
    }
    if let Some((_, list)) =
        table.list("endpoint", "a list of tables, each begun by `[[endpoint]]` in TOML")?
    {
        draft = list.iter().try_fold(draft, PolicyDraft::endpoint)?;
    }
    draft.build()
}

/// A policy that is being built, and the positions of its settings in the document.
struct PolicyDraft {
    base: &'static str,
    builder: PolicyBuilder,
    said: Statements,
}

/// The settings of the document, and their positions.
struct Statements {
    /// The settings of each endpoint in the document, which can be `default`.
    settings: Vec<Setting>,
    /// The index of each endpoint's settings in that list.
    indices: HashMap<String, usize>,
    exempt: Paths,
}

impl PolicyDraft {
    fn new(policy: &DocumentTable<'_>) -> Result<Self, Mistake> {
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
        builder = builder.exempt(&exempt.texts);
        let said = Statements { settings: Vec::new(), indices: HashMap::new(), exempt };
        Ok(Self { base, builder, said })
    }

    fn default(self, node: &Node) -> Result<Self, Mistake> {
        let setting =
            DocumentTable::of(node, "endpoint \"default\"".to_owned(), &DEFAULT)?.setting()?;
        Ok(self.change(Setting { name: Endpoint::DEFAULT.name().to_owned(), ..setting }))
    }

    /// Changes an endpoint of the base, or adds a new one.
    fn endpoint(mut self, node: &Node) -> Result<Self, Mistake> {
        let table = DocumentTable::of(node, name_of(node), &ENDPOINT)?;
        let Some((at, name)) = table.text("name", "a text")? else {
            return Err(Mistake::new(node.at, "an endpoint has no name: set `name`"));
        };
        // Here and not when the policy is built, because that error may hold a part of the name.
        if let Err(reason) = Endpoint::check(name) {
            return Err(Mistake::new(at, PolicyError::Name { reason }.to_string()));
        }
        let name = name.to_owned();
        if name == Endpoint::DEFAULT.name() {
            let message = "endpoint name \"default\": it stands for everything else, and its \
                           settings go into the table `default`";
            return Err(Mistake::new(at, message));
        }
        if self.said.about(&name).is_some() {
            return Err(Mistake::new(at, PolicyError::DuplicateEndpoint { name }.to_string()));
        }
        let setting = Setting { name, name_at: at, ..table.setting()? };
        if self.builder.quota_of(&setting.name).is_none() {
            let (Some(quota), Some(paths)) = (setting.quota, &setting.paths) else {
                let (what, base) = (&table.what, self.base);
                let rule = format!(
                    "base {base:?} has no endpoint of that name, and a new one needs limit, per \
                     and paths"
                );
                return Err(Mistake::new(at, format!("{what}: {rule}")));
            };
            self.builder = self.builder.endpoint(&setting.name, quota, &paths.texts);
        }
        Ok(self.change(setting))
    }

    /// Applies the settings of an endpoint, and leaves everything else as it is.
    fn change(mut self, setting: Setting) -> Self {
        let name = &setting.name;
        if let Some(quota) = setting.quota.or_else(|| self.builder.quota_of(name)) {
            let quota = setting.burst.map_or(quota, |burst| quota.burst(burst));
            self.builder = self.builder.quota(name, quota);
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

    fn build(self) -> Result<Policy, Mistake> {
        let Self { builder, said, .. } = self;
        builder.build().map_err(|error| Mistake {
            // The base is valid, so the mistake is in the document.
            at: said.place_of(&error).unwrap_or_default(),
            message: error.to_string(),
        })
    }
}

impl Statements {
    /// The position in the document of what the builder reports as an error.
    fn place_of(&self, error: &PolicyError) -> Option<usize> {
        match error {
            PolicyError::Name { reason } => {
                self.about(reason.name()).map(|setting| setting.name_at)
            }
            PolicyError::DuplicateEndpoint { name } | PolicyError::UnknownEndpoint { name } => {
                self.about(name).map(|setting| setting.name_at)
            }
            PolicyError::NoPaths { name } => self.paths_of(name).map(|paths| paths.at),
            PolicyError::Quota { endpoint, reason } => {
                let setting = self.about(endpoint)?;
                match reason {
                    QuotaError::ZeroPeriod => setting.per_at,
                    QuotaError::ZeroBurst => setting.burst_at,
                    _ => setting.limit_at.or(setting.burst_at),
                }
            }
            PolicyError::Path { list, index, reason, .. } => {
                let paths = match list {
                    PathList::Endpoint(name) => self.paths_of(name),
                    PathList::Exempt => Some(&self.exempt),
                };
                match (paths, reason) {
                    (Some(paths), _) => paths.each_at.get(*index).copied(),
                    // The path is from the base, which is valid by itself. So the path that
                    // conflicts with it is in the document.
                    (None, TemplateError::Conflict(with)) => self.place_of_path(with),
                    (None, _) => None,
                }
            }
        }
    }

    fn add(&mut self, setting: Setting) {
        self.indices.insert(setting.name.clone(), self.settings.len());
        self.settings.push(setting);
    }

    /// The settings of an endpoint in the document.
    fn about(&self, name: &str) -> Option<&Setting> {
        self.indices.get(name).map(|index| &self.settings[*index])
    }

    fn paths_of(&self, name: &str) -> Option<&Paths> {
        self.about(name)?.paths.as_ref()
    }

    /// The position of a path template in the document.
    fn place_of_path(&self, path: &str) -> Option<usize> {
        let paths = self.settings.iter().filter_map(|setting| setting.paths.as_ref());
        let mut each = paths.flat_map(|paths| paths.texts.iter().zip(&paths.each_at));
        each.find(|(text, _)| *text == path).map(|(_, at)| *at)
    }
}

/// The name of an endpoint's table in errors.
fn name_of(node: &Node) -> String {
    if let Value::Table(entries) = &node.value {
        if let Some(Value::Text(name)) =
            entries.iter().find(|entry| entry.key == "name").map(|entry| &entry.node.value)
        {
            return format!("endpoint {:?}", Excerpt::of(name));
        }
    }
    "an endpoint".to_owned()
}
