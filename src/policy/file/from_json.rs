//! Reading JSON with the crate `serde_json`.

use std::collections::HashSet;
use std::fmt;

use serde_core::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::{RawValue, Value as Any};

use super::document::{DEPTH, Entry, Mistake, Node, Value};
use crate::values::Excerpt;

pub(super) fn document(text: &str) -> Result<Node, Mistake> {
    // This first pass is for the error: it says more about invalid JSON than raw values do.
    parse::<Any>(text, text)?;
    node(text, parse(text, text)?, DEPTH)
}

fn node(document: &str, raw: &RawValue, depth: usize) -> Result<Node, Mistake> {
    let written = raw.get();
    let value = match written.as_bytes() {
        [b'"', ..] => Value::Text(parse(document, written)?),
        [b'{' | b'[', ..] if depth == 0 => Value::other("a list or table"),
        [b'{', ..] => Value::Table(entries(document, written, depth - 1)?),
        [b'[', ..] => {
            let list: Vec<&RawValue> = parse(document, written)?;
            Value::List(
                list.into_iter()
                    .map(|raw| node(document, raw, depth - 1))
                    .collect::<Result<_, _>>()?,
            )
        }
        _ => written.parse().map_or_else(|_| Value::other(written), Value::Whole),
    };
    Ok(Node { at: offset(document, written), value })
}

fn entries(document: &str, written: &str, depth: usize) -> Result<Vec<Entry>, Mistake> {
    let JsonMembers(members) = parse(document, written)?;
    let mut seen = HashSet::with_capacity(members.len());
    let mut entries = Vec::with_capacity(members.len());
    for (key, raw) in members {
        let at = offset(document, key.get());
        let key: String = parse(document, key.get())?;
        if !seen.insert(key.clone()) {
            return Err(Mistake::new(at, format!("key {:?}: it is set twice", Excerpt::of(&key))));
        }
        entries.push(Entry { at, key, node: node(document, raw, depth)? });
    }
    Ok(entries)
}

/// Parses a part of the document. The position of an error is that in the whole document.
fn parse<'a, T: Deserialize<'a>>(document: &str, part: &'a str) -> Result<T, Mistake> {
    serde_json::from_str(part).map_err(|error| {
        let before: usize =
            part.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
        let text = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let at = offset(document, part) + before + error.column().saturating_sub(1);
        Mistake::new(at, text.strip_suffix(&place).unwrap_or(&text))
    })
}

/// The byte of the document at which a part of it begins.
fn offset(document: &str, part: &str) -> usize {
    part.as_ptr().addr() - document.as_ptr().addr()
}

/// The members of an object, in the order in which they are written.
struct JsonMembers<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de> Deserialize<'de> for JsonMembers<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = JsonMembers<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(JsonMembers(members))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}
