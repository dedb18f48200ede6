//! Paths that would match a template, if it were not for a prefix.

use super::tree::{NodeId, ROOT};
use super::{Billing, PathTable, is_plain};

/// The most segments, and bytes, of a prefix that a path has in addition.
const MOST_SEGMENTS: usize = 3;
const MOST_BYTES: usize = 64;

/// The most templates that are compared, so that a request does not wait for long. Hardly any
/// policy has more.
const MOST_COMPARED: usize = 1 << 14;

/// A template that a path would match, if it were not for a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lookalike<'a> {
    /// The index of the template's endpoint in the policy.
    pub(crate) endpoint: usize,
    pub(crate) template: &'a str,
    pub(crate) prefix: Prefix<'a>,
}

/// What is wrong with the beginning of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prefix<'a> {
    /// It lacks these literals, with which the template begins.
    Missing(&'a str),
    /// It has these segments before what matches the template. They may contain an id.
    Added(&'a str),
}

impl PathTable {
    /// The template of an endpoint that a path, which is charged to `default`, would match if it
    /// began with the template's first literals, or if it did not have its own first segments. Only
    /// what begins with a literal counts: any path is like `/{id}`. `None` also if a template says
    /// that the path belongs to `default`, or if servers read it in several ways.
    pub(crate) fn lookalike<'a>(&'a self, path: &'a str) -> Option<Lookalike<'a>> {
        if !is_plain(path.as_bytes()) {
            return None;
        }
        let found = self.without_prefix(path).or_else(|| self.with_prefix(path));
        let mut of_default = self.tree.templates_of(self.default, MOST_COMPARED);
        found.filter(|_| !of_default.any(|template| matches(template, path)))
    }

    fn without_prefix(&self, path: &str) -> Option<Lookalike<'_>> {
        self.tree.inner().iter().find_map(|node| {
            self.of_endpoint(*node, path, |template| missing(template, path).map(Prefix::Missing))
        })
    }

    fn with_prefix<'a>(&'a self, path: &'a str) -> Option<Lookalike<'a>> {
        let cuts = path.match_indices('/').map(|(at, _)| at).skip(1).take(MOST_SEGMENTS);
        cuts.take_while(|at| *at <= MOST_BYTES).find_map(|at| {
            let (prefix, rest) = path.split_at(at);
            let is_like = |template: &str| begins_with_literal(template) && matches(template, rest);
            self.of_endpoint(ROOT, rest, |it| is_like(it).then_some(Prefix::Added(prefix)))
        })
    }

    /// The endpoint other than `default` that a path from that node leads to, with the first of its
    /// templates that `compare` finds alike. The graph finds the endpoint in a short time, however
    /// many templates there are, but can't say by which of them.
    fn of_endpoint<'a>(
        &'a self,
        node: NodeId,
        path: &str,
        compare: impl Fn(&'a str) -> Option<Prefix<'a>>,
    ) -> Option<Lookalike<'a>> {
        let billing = self.tree.written_at(node, path.as_bytes())?;
        let Billing::Endpoint(endpoint) = billing else { return None };
        if billing == self.default {
            return None;
        }
        self.tree
            .templates_of(billing, MOST_COMPARED)
            .find_map(|template| Some(Lookalike { endpoint, template, prefix: compare(template)? }))
    }
}

/// The first literals of a template, without which it would match the path and begin with a
/// literal.
fn missing<'a>(template: &'a str, path: &str) -> Option<&'a str> {
    let cuts = template.match_indices('/').map(|(at, _)| template.split_at(at)).skip(1);
    cuts.take_while(|(prefix, _)| !prefix.contains('{'))
        .find(|(_, rest)| begins_with_literal(rest) && matches(rest, path))
        .map(|(prefix, _)| prefix)
}

fn begins_with_literal(template: &str) -> bool {
    !template.starts_with("/{") && template != "/"
}

/// Whether a template, or what is left of it, matches a plain path.
fn matches(template: &str, path: &str) -> bool {
    let mut segments = path.split('/');
    for part in template.split('/') {
        let Some(segment) = segments.next() else { return false };
        if part.starts_with("{*") {
            return !segment.is_empty();
        }
        if part != segment && (segment.is_empty() || !part.starts_with('{')) {
            return false;
        }
    }
    segments.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::super::{PathTableBuilder, Spellings};
    use super::*;

    const TEMPLATES: [&str; 8] = [
        "/v2/agent/{id}",
        "/v2/agent/{id}/executions",
        "/call",
        "/api/v3/files/{*rest}",
        "/{collection}/search",
        "/{only}",
        "/v2/agent/all",
        "/old/call",
    ];
    /// The last two templates are those of `default`.
    const DEFAULT: usize = 6;

    fn table() -> PathTable {
        let mut table = PathTableBuilder::new();
        for (index, template) in TEMPLATES.iter().enumerate() {
            let billing = Billing::Endpoint(index.min(DEFAULT));
            table.insert(template, billing).expect("the template is valid");
        }
        table.build(DEFAULT, Spellings::ALL).expect("there are few overlaps")
    }

    #[test]
    fn a_path_without_the_first_literals_of_a_template_or_with_more_in_front_looks_like_it() {
        let table = table();
        for (path, endpoint, prefix) in [
            ("/agent/17", 0, Prefix::Missing("/v2")),
            ("/agent/17/executions", 1, Prefix::Missing("/v2")),
            ("/v3/files/a/b", 3, Prefix::Missing("/api")),
            ("/files/a/b", 3, Prefix::Missing("/api/v3")),
            ("/api/v2/agent/17", 0, Prefix::Added("/api")),
            ("/a/b/c/v2/agent/17/executions", 1, Prefix::Added("/a/b/c")),
            ("/v1/call", 2, Prefix::Added("/v1")),
        ] {
            let template = TEMPLATES[endpoint];
            let expected = Some(Lookalike { endpoint, template, prefix });
            assert_eq!(table.lookalike(path), expected, "{path}");
        }
    }

    #[test]
    fn other_paths_are_no_lookalikes() {
        let table = table();
        for path in [
            // A part of a template that begins with a parameter is like too many paths.
            "/17/executions",
            "/a/b/c/search",
            // Neither more nor less than a template.
            "/agent",
            "/agent/17/executions/3",
            "/agent/17/other",
            "/files",
            "/v1/agent/17",
            "/call/17/stop",
            "/",
            "*",
            "",
            // Those of `default` are so by intention.
            "/agent/all",
            "/old/call",
            // Servers differ about them.
            "/v1/c%61ll",
            "/agent/17/",
            // Too many segments in front of it, and a prefix that is too long.
            "/a/b/c/d/call",
        ] {
            assert_eq!(table.lookalike(path), None, "{path}");
        }
        assert_eq!(table.lookalike(&format!("/{}/call", "x".repeat(64))), None);
    }

    /// However many templates there are, at most 64 nodes are tried.
    #[test]
    fn the_prefixes_nearest_to_the_root_are_tried_and_not_more_than_64() {
        let many: Vec<_> = (0..2000).map(|number| format!("/v/{number}/x/{{id}}")).collect();
        let mut table = PathTableBuilder::new();
        for (index, template) in many.iter().enumerate() {
            table.insert(template, Billing::Endpoint(index)).expect("the template is valid");
        }
        let table = table.build(many.len(), Spellings::ALL).expect("there are few overlaps");
        assert_eq!(table.tree.inner().len(), 64);
        let found = table.lookalike("/1999/x/17").map(|found| found.template);
        assert_eq!(found, Some("/v/1999/x/{id}"));
    }
}
