//! The settings of a document, and where in it a mistake of a policy is.

use std::collections::HashMap;

use super::setting::Setting;
use super::table::Texts;
use crate::policy::{PathList, PolicyError, TemplateError};
use crate::values::QuotaError;

/// The settings of the document, and their positions.
pub(super) struct Statements<'a> {
    /// The settings of endpoints, which can be `default`, and of other limits. No two have the same
    /// name.
    pub(super) settings: Vec<Setting<'a>>,
    /// The index of each name's settings in that list.
    indices: HashMap<String, usize>,
    exempt: Texts,
    prefixes: Texts,
}

impl<'a> Statements<'a> {
    pub(super) fn new(exempt: Texts, prefixes: Texts) -> Self {
        Self { settings: Vec::new(), indices: HashMap::new(), exempt, prefixes }
    }

    pub(super) fn add(&mut self, setting: Setting<'a>) {
        self.indices.insert(setting.name.clone(), self.settings.len());
        self.settings.push(setting);
    }

    /// The settings of an endpoint or a limit in the document.
    pub(super) fn about(&self, name: &str) -> Option<&Setting<'a>> {
        self.indices.get(name).map(|index| &self.settings[*index])
    }

    /// The position in the document of what the builder reports as an error.
    pub(super) fn place_of(&self, error: &PolicyError) -> Option<usize> {
        let name_at = |name: &str| self.about(name).map(|setting| setting.name_at);
        match error {
            PolicyError::Name { reason } | PolicyError::LimitName { reason } => {
                name_at(reason.name())
            }
            PolicyError::DuplicateEndpoint { name } | PolicyError::DuplicateLimit { name } => {
                name_at(name)
            }
            PolicyError::UnknownEndpoint { name } => self.place_in_shared(name),
            PolicyError::TooManyLimits { endpoint, .. } => {
                name_at(endpoint).or_else(|| self.place_in_shared(endpoint))
            }
            PolicyError::UnusedLimit { name } => Some(self.about(name)?.endpoints.as_ref()?.at),
            PolicyError::Cost { limit, .. } => Some(self.about(limit)?.cost?.0),
            // A file is read without a store.
            PolicyError::Unsupported { limit, .. } | PolicyError::Concurrent { limit } => {
                name_at(limit)
            }
            PolicyError::Share { endpoint, .. } => Some(self.about(endpoint)?.user_share?.0),
            PolicyError::NoPaths { name } => self.paths_of(name).map(|paths| paths.at),
            PolicyError::Quota { limit, reason } => {
                let setting = self.about(limit)?;
                let limit_at = setting.limit.map(|(at, _)| at);
                let burst_at = setting.burst.map(|(at, _)| at);
                let concurrent_at = setting.concurrent.map(|(at, _)| at);
                let at = match reason {
                    QuotaError::ZeroPeriod => setting.per.map(|(at, _)| at),
                    QuotaError::ZeroBurst => burst_at,
                    _ => limit_at.or(burst_at).or(concurrent_at),
                };
                // A user's share has none of them, nor have the requests in flight of an endpoint.
                // Their names are from the settings of the endpoint.
                at.or(Some(setting.name_at))
            }
            PolicyError::TooManyOverlaps => None,
            PolicyError::Path { list, index, reason, .. } => {
                let paths = match list {
                    PathList::Endpoint(name) => self.paths_of(name),
                    PathList::Exempt => Some(&self.exempt),
                    PathList::Prefix => Some(&self.prefixes),
                };
                match (paths, reason) {
                    (Some(paths), _) => paths.each_at.get(*index).copied(),
                    // The path is from the base, which is valid by itself. So the path that
                    // conflicts with it is in the document.
                    (None, TemplateError::Conflict(with)) => {
                        self.places_in(|setting| setting.paths.as_ref(), with).next()
                    }
                    (None, _) => None,
                }
            }
        }
    }

    fn paths_of(&self, name: &str) -> Option<&Texts> {
        self.about(name)?.paths.as_ref()
    }

    /// The last position of an endpoint among those that share a limit.
    fn place_in_shared(&self, endpoint: &str) -> Option<usize> {
        self.places_in(|setting| setting.endpoints.as_ref(), endpoint).next_back()
    }

    /// The positions of a text in the lists of the settings.
    fn places_in(
        &self,
        list: impl for<'s> Fn(&'s Setting<'a>) -> Option<&'s Texts>,
        text: &str,
    ) -> impl DoubleEndedIterator<Item = usize> {
        let lists = self.settings.iter().filter_map(list);
        let each = lists.flat_map(|list| list.texts.iter().zip(&list.each_at));
        each.filter(move |(known, _)| *known == text).map(|(_, at)| *at)
    }
}
