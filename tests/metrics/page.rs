//! The page that Prometheus fetches, and the queries that it answers from such pages.

use std::collections::{BTreeMap, BTreeSet};

/// The labels that Prometheus adds to what it fetches.
const ADDED: [&str; 2] = ["job", "instance"];

/// The series of one page.
pub(crate) struct Page(Vec<Series>);

struct Series {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// What a panel reads.
#[derive(Debug)]
pub(crate) struct Query {
    selectors: Vec<Selector>,
    /// The labels by which the query groups, and those that the legend shows.
    labels: BTreeSet<String>,
    /// Whether it computes a quantile from the buckets of a histogram.
    is_quantile: bool,
}

#[derive(Debug)]
struct Selector {
    name: String,
    /// Labels, each with the values that match.
    matchers: Vec<(String, Vec<String>)>,
}

impl Page {
    pub(crate) fn parse(text: &str) -> Self {
        let series = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(series.map(Series::parse).collect())
    }

    /// Whether the query finds what it reads.
    pub(crate) fn answers(&self, query: &Query) -> bool {
        query.selectors.iter().all(|selector| {
            self.0.iter().any(|series| {
                let complete = query.labels.iter().all(|label| series.labels.contains_key(label));
                // Without the bucket of all values there is no quantile.
                let counted = !query.is_quantile || (series.is_of_all() && series.value > 0.0);
                selector.matches(series) && complete && counted
            })
        })
    }
}

impl Series {
    /// Reads `name{label="value",...} 1`. Our labels have no commas and no quotes in their values.
    fn parse(line: &str) -> Self {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty());
        let label = |label: &str| {
            let (name, value) = label.split_once('=').unwrap();
            (name.to_owned(), value.trim_matches('"').to_owned())
        };
        Self {
            name: name.to_owned(),
            labels: labels.map(label).collect(),
            value: value.parse().unwrap(),
        }
    }

    fn is_of_all(&self) -> bool {
        self.labels.get("le").is_some_and(|le| le == "+Inf")
    }
}

impl Query {
    /// Reads an expression of `PromQL` as far as the dashboard uses it, and the text that is shown
    /// with its results.
    pub(crate) fn parse(expression: &str, legend: &str) -> Self {
        let selectors =
            expression.match_indices("bolna_rate_limit_").map(|(at, _)| &expression[at..]);
        let groups = between(expression, "by (", ")").flat_map(|labels| labels.split(", "));
        let labels = groups.chain(between(legend, "{{", "}}"));
        Self {
            selectors: selectors.map(Selector::parse).collect(),
            labels: labels.filter(|label| !ADDED.contains(label)).map(str::to_owned).collect(),
            is_quantile: expression.contains("histogram_quantile"),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.selectors.is_empty()
    }
}

impl Selector {
    /// Reads `name{label="value", label=~"value|value"}`, with or without labels.
    fn parse(text: &str) -> Self {
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        let matchers = rest.strip_prefix('{').map_or("", |rest| rest.split_once('}').unwrap().0);
        let matcher = |matcher: &str| {
            let (label, values) = matcher.trim().split_once('=').unwrap();
            let values = values.trim_start_matches('~').trim_matches('"').split('|');
            (label.to_owned(), values.map(str::to_owned).collect())
        };
        let matchers = matchers.split(',').filter(|matcher| !matcher.is_empty()).map(matcher);
        Self {
            name: name.to_owned(),
            matchers: matchers
                .filter(|(label, _): &(String, Vec<String>)| !ADDED.contains(&label.as_str()))
                .collect(),
        }
    }

    fn matches(&self, series: &Series) -> bool {
        let has = |(label, values): &(String, Vec<String>)| {
            series.labels.get(label).is_some_and(|value| values.contains(value))
        };
        self.name == series.name && self.matchers.iter().all(has)
    }
}

/// All texts that stand between `from` and the next `to`.
fn between<'a>(text: &'a str, from: &'a str, to: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(from).skip(1).map(move |rest| rest.split(to).next().unwrap())
}
