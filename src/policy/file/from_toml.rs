//! Reading TOML with the crate `toml`.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::document::{DEPTH, Entry, Mistake, Node, Value};

pub(super) fn document(text: &str) -> Result<Node, Mistake> {
    match DeTable::parse(text) {
        Ok(table) => Ok(Node { at: 0, value: Value::Table(entries(table.get_ref(), DEPTH - 1)) }),
        Err(error) => {
            let Range { start, .. } = error.span().unwrap_or(0..0);
            Err(Mistake::new(start, error.message()))
        }
    }
}

fn node(spanned: &Spanned<DeValue<'_>>, depth: usize) -> Node {
    let value = match spanned.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => match u64::from_str_radix(number.as_str(), number.radix()) {
            Ok(whole) => Value::Whole(whole),
            Err(_) => Value::other(&number.to_string()),
        },
        DeValue::Float(number) => Value::other(&number.to_string()),
        DeValue::Boolean(is) => Value::other(&is.to_string()),
        DeValue::Datetime(time) => Value::other(&time.to_string()),
        DeValue::Array(_) | DeValue::Table(_) if depth == 0 => Value::other("a list or table"),
        DeValue::Array(list) => {
            Value::List(list.iter().map(|element| node(element, depth - 1)).collect())
        }
        DeValue::Table(table) => Value::Table(entries(table, depth - 1)),
    };
    Node { at: spanned.span().start, value }
}

/// The entries of a table in the order in which they are written. The parser sorts them by key.
fn entries(table: &DeTable<'_>, depth: usize) -> Vec<Entry> {
    let entry = |(key, value): (&Spanned<DeString<'_>>, &Spanned<DeValue<'_>>)| Entry {
        at: key.span().start,
        key: key.get_ref().to_string(),
        node: node(value, depth),
    };
    let mut entries: Vec<_> = table.iter().map(entry).collect();
    entries.sort_by_key(|entry| entry.at);
    entries
}
