//! Whether the rule of `DESIGN.md` ("How an odd path is read") holds: whatever steps a server, or a
//! chain of servers, is built of, the endpoint of the route that it chooses is among those that the
//! path is charged to. Policies, paths, chains and routers are made up: 5,000 of them in a few
//! seconds, or as many as `PROPTEST_CASES` says.

use bolna_rate_limit::{Policy, Quota};
use bolna_rate_limit_fuzz::servers::steps::*;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// The steps that a chain is built of, with their names.
macro_rules! steps {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), $name as Step)),*] };
}

const STEPS: &[(&str, Step)] = steps![
    query,
    fragment,
    semicolon,
    c_string,
    request_line,
    parameters,
    last_parameters,
    decode,
    decode,
    decode_unreserved,
    decode_segments,
    decode_actix,
    decode_uri,
    decode_slashes,
    decode_u,
    escape,
    drop_malformed_utf8,
    merge,
    merge_first,
    drop_last_slash,
    drop_last_slashes,
    drop_last_slash_and_newline,
    drop_last_newline,
    drop_last_dots,
    trim_end,
    backslashes,
    resolve,
    resolve_to_the_end,
    resolve_with_parameters,
    resolve_escaped,
    host,
    any_host,
    front_controller,
];

const SEGMENTS: [&str; 8] = ["a", "b", "ab", "A", "a.b", "{p}", "x.py", "abcdefghi"];

const TOKENS: &[&str] = &[
    "a",
    "b",
    "ab",
    "a",
    "b",
    "A",
    "AB",
    "a.b",
    "c",
    "/",
    "/",
    "/",
    "/",
    "//",
    ".",
    "..",
    "/..",
    "/../",
    "..;",
    "%2e",
    "%2E%2e",
    "%2f",
    "%252f",
    "\\",
    "%5c",
    ";",
    "%3b",
    ";a",
    "%3f",
    "%23",
    "%00",
    "%20",
    "%09",
    "%0a",
    "%0d%0a",
    "%20HTTP/1.1%0d%0a",
    ".json",
    "%61",
    "%2561",
    "%25%361",
    "%u0061",
    "%u002f",
    "%25u002f",
    "%ff",
    "%c3%a9",
    "/index.php",
    "index.php/",
    "abcdefghi",
    "%61bcdefghi",
    "x.py",
    "%c3",
    "%25",
    "%",
    "@",
    "\u{e9}",
    "%1f",
    "/;",
    "/.",
    "/./",
];

/// How the last server of a chain matches templates.
#[derive(Clone, Copy, Debug)]
struct Router {
    ignores_capitals: bool,
    has_format_suffixes: bool,
    ignores_last_slash: bool,
    accepts_empty_inner_id: bool,
}

impl Router {
    fn is_literal(self, literal: &str, segment: &[u8], is_last: bool) -> bool {
        let is = |text: &[u8]| match self.ignores_capitals {
            true => text.eq_ignore_ascii_case(literal.as_bytes()),
            false => text == literal.as_bytes(),
        };
        let dot = segment.get(literal.len()) == Some(&b'.');
        let has_suffix = dot && is_last && self.has_format_suffixes;
        is(segment) || has_suffix && is(&segment[..literal.len()])
    }

    /// For each segment of the template whether it is a literal, a parameter or the rest, if the
    /// template matches.
    fn ranks(self, template: &str, path: &[u8]) -> Option<Vec<u8>> {
        let segments: Vec<_> = path.split(|byte| *byte == b'/').skip(1).collect();
        let mut ranks = Vec::new();
        for (at, part) in template.split('/').skip(1).enumerate() {
            let segment = *segments.get(at)?;
            let is_last = at + 1 == segments.len();
            let rank = if part.starts_with("{*") {
                let is_empty = is_last && segment.is_empty();
                return (!is_empty).then(|| [ranks, vec![2]].concat());
            } else if part.starts_with('{') {
                let is_accepted = !segment.is_empty() || self.accepts_empty_inner_id && !is_last;
                is_accepted.then_some(1)?
            } else {
                self.is_literal(part, segment, is_last).then_some(0)?
            };
            ranks.push(rank);
        }
        (ranks.len() == segments.len()).then_some(ranks)
    }

    /// The indices of the best templates that match. They are several if capitals don't matter.
    fn route(self, templates: &[String], path: &[u8]) -> Vec<usize> {
        let matching = |path: &[u8]| -> Vec<usize> {
            let ranks = |it: &String| self.ranks(it, path);
            let ranked: Vec<_> = templates.iter().map(ranks).collect();
            let best = ranked.iter().flatten().min();
            let is_best =
                |index: &usize| ranked[*index].is_some() && ranked[*index].as_ref() == best;
            (0..templates.len()).filter(is_best).collect()
        };
        let found = matching(path);
        match path.strip_suffix(b"/") {
            Some(path) if found.is_empty() && self.ignores_last_slash && !path.is_empty() => {
                matching(path)
            }
            _ => found,
        }
    }
}

fn templates() -> impl Strategy<Value = Vec<String>> {
    let template = (vec(select(&SEGMENTS[..]), 1..5), prop::bool::weighted(0.2));
    let template = template.prop_map(|(mut segments, has_rest)| {
        segments.extend(has_rest.then_some("{*rest}"));
        format!("/{}", segments.join("/"))
    });
    vec(template, 1..8).prop_map(|mut templates| {
        templates.sort();
        templates.dedup();
        templates
    })
}

/// A path of random tokens, or one that begins like a template.
fn path() -> impl Strategy<Value = Vec<&'static str>> {
    vec(select(TOKENS), 1..13)
}

fn router() -> impl Strategy<Value = Router> {
    any::<[bool; 4]>().prop_map(|[capitals, suffixes, slash, empty]| Router {
        ignores_capitals: capitals,
        has_format_suffixes: suffixes,
        ignores_last_slash: slash,
        accepts_empty_inner_id: empty,
    })
}

fn charged(templates: &[String], others: usize, path: &str) -> Vec<String> {
    let mut policy = Policy::builder().default_paths((0..others).map(|it| format!("/other-{it}")));
    for (index, template) in templates.iter().enumerate() {
        policy = policy.endpoint(format!("e{index}"), Quota::per_minute(5), [template]);
    }
    let policy = policy.build().unwrap();
    policy.endpoints_of(path).iter().map(|it| it.name().to_owned()).collect()
}

fn check(
    templates: &[String],
    others: usize,
    tokens: &[&str],
    chains: &[(Vec<(&str, Step)>, Router)],
) -> Result<(), TestCaseError> {
    let path = format!("/{}", tokens.concat());
    let charged = charged(templates, others, &path);
    for (steps, router) in chains {
        let read = steps.iter().fold(path.clone().into_bytes(), |path, (_, step)| step(path));
        for index in router.route(templates, &read) {
            let endpoint = format!("e{index}");
            prop_assert!(
                charged.contains(&endpoint),
                "{path:?} is read as {:?}, which is {endpoint} of {templates:?}, by {:?} and \
                 {router:?}. It is charged to {charged:?}",
                read.escape_ascii().to_string(),
                steps.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            );
        }
    }
    Ok(())
}

/// `PROPTEST_CASES`, or as many as take a few seconds.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(5_000)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn a_path_is_charged_to_the_route_of_every_chain_of_servers(
        templates in templates(),
        // Policies of over 64 templates are read by another kind of set.
        others in select(vec![0, 0, 0, 80]),
        path in path(),
        chains in vec((vec(select(STEPS), 0..7), router()), 20),
    ) {
        check(&templates, others, &path, &chains)?;
    }
}
