//! Tables of a document.

use super::document::{Entry, Mistake, Node, Value};
use super::keys;
use crate::values::Excerpt;

pub(super) struct DocumentTable<'a> {
    /// The byte of the document at which the table begins.
    pub(super) at: usize,
    /// What the settings are of, for errors.
    pub(super) what: String,
    entries: &'a [Entry],
}

/// A list of texts, and the positions of the list and of each text.
#[derive(Default)]
pub(super) struct Texts {
    pub(super) at: usize,
    pub(super) texts: Vec<String>,
    pub(super) each_at: Vec<usize>,
}

impl<'a> DocumentTable<'a> {
    /// Checks that the node is a table, and that it has no other keys than `keys`.
    ///
    /// # Errors
    /// If it is not a table, or has another key.
    pub(super) fn of(node: &'a Node, what: String, keys: &[&str]) -> Result<Self, Mistake> {
        let Value::Table(entries) = &node.value else {
            return Err(Mistake::new(
                node.at,
                format!("{what}: wanted a table, found {}", node.value),
            ));
        };
        let Some(Entry { at, key, .. }) =
            entries.iter().find(|entry| !keys.contains(&entry.key.as_str()))
        else {
            return Ok(Self { at: node.at, what, entries });
        };
        let hint = if keys::POLICY.contains(&key.as_str()) {
            ", and this one belongs to the whole policy: in TOML it goes above the first `[`"
        } else if keys == keys::ALSO && keys::ENDPOINT.contains(&key.as_str()) {
            ", and this one belongs to the endpoint: in TOML it goes above the further limits"
        } else if keys == keys::UNIDENTIFIED && key == "concurrent" {
            ", and this limit must be a rate"
        } else {
            ""
        };
        let rule = format!("there is no such key; the keys are {}{hint}", keys.join(", "));
        Err(Mistake::new(*at, format!("key {:?} of {what}: {rule}", Excerpt::of(key))))
    }

    /// Does the same with a table that has a name, of something that is called `noun`.
    ///
    /// # Errors
    /// If it is not a table, or has another key.
    pub(super) fn with_name(
        node: &'a Node,
        (article, noun): (&str, &str),
        keys: &[&str],
    ) -> Result<Self, Mistake> {
        let name = match &node.value {
            Value::Table(entries) => entries.iter().find(|entry| entry.key == "name"),
            _ => None,
        };
        let what = match name.map(|entry| &entry.node.value) {
            Some(Value::Text(name)) => format!("{noun} {:?}", Excerpt::of(name)),
            _ => format!("{article} {noun}"),
        };
        Self::of(node, what, keys)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Node> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    /// The name, and its position.
    pub(super) fn name(&self) -> Result<(usize, &'a str), Mistake> {
        let missing = || Mistake::new(self.at, format!("{} has no name: set `name`", self.what));
        self.text("name", "a text")?.ok_or_else(missing)
    }

    pub(super) fn text(
        &self,
        key: &str,
        wanted: &str,
    ) -> Result<Option<(usize, &'a str)>, Mistake> {
        self.get(key)
            .map(|node| match &node.value {
                Value::Text(text) => Ok((node.at, text.as_str())),
                _ => Err(self.wanted(key, wanted, node)),
            })
            .transpose()
    }

    pub(super) fn whole<T: TryFrom<u64>>(
        &self,
        key: &str,
        wanted: &str,
    ) -> Result<Option<(usize, T)>, Mistake> {
        let whole = |node: &Node| match node.value {
            Value::Whole(number) => number.try_into().ok().map(|number| (node.at, number)),
            _ => None,
        };
        self.get(key)
            .map(|node| whole(node).ok_or_else(|| self.wanted(key, wanted, node)))
            .transpose()
    }

    /// A list of tables. It is empty if the key is not set.
    pub(super) fn tables(&self, key: &str, header: &str) -> Result<&'a [Node], Mistake> {
        let wanted = || format!("a list of tables, each begun by {header} in TOML");
        match self.get(key) {
            None => Ok(&[]),
            Some(Node { value: Value::List(list), .. }) => Ok(list),
            Some(node) => Err(self.wanted(key, &wanted(), node)),
        }
    }

    pub(super) fn texts(&self, key: &str, wanted: &str) -> Result<Option<Texts>, Mistake> {
        let Some(node) = self.get(key) else {
            return Ok(None);
        };
        let Value::List(list) = &node.value else {
            return Err(self.wanted(key, wanted, node));
        };
        let mut texts = Texts { at: node.at, ..Texts::default() };
        for node in list {
            let Value::Text(text) = &node.value else {
                return Err(self.wanted(key, wanted, node));
            };
            texts.texts.push(text.clone());
            texts.each_at.push(node.at);
        }
        Ok(Some(texts))
    }

    pub(super) fn wanted(&self, key: &str, wanted: &str, found: &Node) -> Mistake {
        Mistake::new(
            found.at,
            format!("{key} of {}: wanted {wanted}, found {}", self.what, found.value),
        )
    }
}
