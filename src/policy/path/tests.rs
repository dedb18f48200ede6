//! The graph against templates that are tried one by one, and the reading of odd paths.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::odd::Reader;
use super::set::{LargeSet, SmallSet};
use super::*;

/// A table of templates, each charged to the endpoint of its index. The last endpoint is `default`.
fn table(templates: &[String]) -> PathTable {
    let mut table = PathTableBuilder::new();
    for (index, template) in templates.iter().enumerate() {
        table.insert(template, Billing::Endpoint(index)).expect("no two match the same paths");
    }
    table.build(templates.len(), Spellings::ALL).expect("there are few overlaps")
}

/// Templates with few different segments, of which no two match the same paths.
fn templates() -> impl Strategy<Value = Vec<String>> {
    let segment = select(vec!["a", "b", "ab", "{p}"]);
    let template = (vec(segment, 1..5), any::<bool>()).prop_map(|(mut segments, has_rest)| {
        if has_rest {
            segments.push("{*rest}");
        }
        format!("/{}", segments.join("/"))
    });
    vec(template, 1..9).prop_map(|mut templates| {
        templates.sort();
        templates.dedup();
        templates
    })
}

/// The index of the best template that matches, which is found by trying all of them.
fn best(templates: &[String], path: &str) -> Option<usize> {
    let segments: Vec<_> = path.split('/').skip(1).collect();
    // How well each segment of a template matches: a literal, a parameter, or the rest.
    let rank = |template: &String| {
        let mut ranks = Vec::new();
        let mut left = segments.iter();
        for segment in template.split('/').skip(1) {
            if segment.starts_with("{*") {
                ranks.push(2);
                return (left.len() > 0).then_some(ranks);
            }
            let text = left.next()?;
            ranks.push(if segment == *text {
                0
            } else if segment.starts_with('{') {
                1
            } else {
                return None;
            });
        }
        (left.len() == 0).then_some(ranks)
    };
    let ranked = templates.iter().enumerate().filter_map(|(index, it)| Some((rank(it)?, index)));
    ranked.min().map(|(_, index)| index)
}

fn endpoints(table: &PathTable, path: &str) -> Vec<usize> {
    match table.charged(path) {
        Charged::Exempt => Vec::new(),
        Charged::One(index) => vec![index],
        Charged::Several(several) => several.as_slice().to_vec(),
        Charged::TooMany => panic!("{path} is charged to too many"),
    }
}

proptest! {
    /// No template is tried after another one: what a node stands for is worked out beforehand.
    #[test]
    fn a_plain_path_is_charged_to_the_best_template(
        templates in templates(),
        path in vec(select(vec!["a", "b", "ab", "c"]), 1..6),
    ) {
        let path = format!("/{}", path.join("/"));
        let best = best(&templates, &path).unwrap_or(templates.len());
        prop_assert_eq!(endpoints(&table(&templates), &path), [best]);
    }

    /// A path that is decoded once is one of the readings, and so is the path as it is written.
    #[test]
    fn an_odd_path_is_charged_to_what_it_decodes_to_and_to_what_it_is(
        templates in templates(),
        path in vec((select(vec!["a", "b", "ab", "c"]), any::<bool>()), 1..6),
    ) {
        let escaped = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let written = |(text, is_escaped): &(&str, bool)| -> String {
            if *is_escaped { escaped(text) } else { (*text).to_owned() }
        };
        let spelled: Vec<_> = path.iter().map(written).collect();
        let plain: Vec<_> = path.iter().map(|(text, _)| *text).collect();
        let [spelled, plain] = [spelled.join("/"), plain.join("/")].map(|it| format!("/{it}"));
        let charged = endpoints(&table(&templates), &spelled);
        for path in [&plain, &spelled] {
            let best = best(&templates, path).unwrap_or(templates.len());
            prop_assert!(charged.contains(&best), "{}: {:?} without {}", spelled, charged, best);
        }
    }

    /// A slash at the end is ignored, but by a router whose template matches it.
    #[test]
    fn a_path_with_a_slash_at_the_end_is_charged_to_what_it_is_with_and_without_it(
        templates in templates(),
        path in vec(select(vec!["a", "b", "ab", "c"]), 1..6),
    ) {
        let path = format!("/{}", path.join("/"));
        let with_slash = format!("{path}/");
        let without = best(&templates, &path).unwrap_or(templates.len());
        let charged = endpoints(&table(&templates), &with_slash);
        for expected in [Some(without), best(&templates, &with_slash)].into_iter().flatten() {
            prop_assert!(charged.contains(&expected), "{}: {:?}", with_slash, charged);
        }
        // It is no reading of its own, which would be `default`.
        let is_default = without == templates.len();
        prop_assert_eq!(charged.contains(&templates.len()), is_default, "{}", with_slash);
    }

    /// Large policies are read by another kind of set.
    #[test]
    fn the_kind_of_set_makes_no_difference(
        templates in templates(),
        path in vec(
            select(vec![
                "a", "b", "AB", "c", "/", "//", ".", "..", "%2e", "%2f", "\\", ";", "%3b", "%3f", "%00",
                "%20", ".json", "%2561", "%u0061", "%ff", "index.php",
            ]),
            0..20,
        ),
    ) {
        let path = format!("/{}", path.concat());
        let PathTable { tree, spellings, .. } = table(&templates);
        let small = Reader::<SmallSet>::new(&tree, spellings).read(path.as_bytes());
        let large = Reader::<LargeSet>::new(&tree, spellings).read(path.as_bytes());
        prop_assert_eq!(small, large);
    }

    /// A segment that resembles no literal is as good as any other id.
    #[test]
    fn the_literals_of_a_large_table_are_found_as_those_of_a_small_one(
        names in vec("[a-cA-C]{1,3}(\\.[a-c]{1,2})?", 1..30),
        text in "[a-cA-C]{1,3}(\\.[a-c]{0,2}){0,2}( |\\.){0,2}",
    ) {
        let mut names = names;
        names.sort();
        names.dedup();
        let templates: Vec<_> = names.iter().map(|name| format!("/{name}")).collect();
        let path = format!("/{}", text.replace(' ', "%20"));
        let charged = endpoints(&table(&templates), &path);
        let trimmed = text.trim_end_matches([' ', '.']);
        for (index, name) in names.iter().enumerate() {
            let folded = name.to_lowercase();
            let beginning = text.to_lowercase();
            let left = beginning.strip_prefix(&folded);
            let may_be = left.is_some_and(|left| left.is_empty() || left.starts_with('.'))
                || trimmed.to_lowercase() == folded;
            prop_assert_eq!(charged.contains(&index), may_be, "{} and {}", text, name);
        }
    }
}

/// One way or the other to spell `/x/a`, `/x/b/c` or `/d`, whose endpoints are 0, 1 and 2.
#[test]
fn each_kind_of_spelling_is_read_unless_it_is_ignored() {
    let templates = ["/x/{id}", "/x/{id}/c", "/d", "/x/b"];
    let table = |spellings| {
        let mut table = PathTableBuilder::new();
        for (index, template) in templates.iter().enumerate() {
            table.insert(template, Billing::Endpoint(index)).expect("it is valid");
        }
        table.build(4, spellings).expect("there are few overlaps")
    };
    let all = table(Spellings::ALL);
    for (kind, path, read, ignored) in [
        (Spelling::Capitals, "/D", &[4, 2][..], &[4][..]),
        (Spelling::Capitals, "/X/a", &[4, 0], &[4]),
        (Spelling::FormatSuffix, "/d.json", &[4, 2], &[4]),
        (Spelling::FormatSuffix, "/x/b.json", &[0, 3], &[0]),
        (Spelling::TrailingDots, "/d%20.", &[4, 2], &[4]),
        (Spelling::TrailingDots, "/x/b%20", &[0, 3], &[0]),
        (Spelling::SemicolonQuery, "/d;/y", &[4, 2], &[4]),
        (Spelling::SemicolonQuery, "/x/a;/y", &[4, 0], &[4]),
        (Spelling::UnicodeEscape, "/%u0064", &[4, 2], &[4]),
        (Spelling::UnicodeEscape, "/x%u002fa", &[4, 0], &[4]),
        (Spelling::SecondDecoding, "/%2564", &[4, 2], &[4]),
        (Spelling::SecondDecoding, "/x%252fa", &[4, 0], &[4]),
        (Spelling::InvalidUtf8, "/d%ff", &[4, 2], &[4]),
        (Spelling::InvalidUtf8, "/x%e0%80/a", &[4, 0], &[4]),
        (Spelling::FrontController, "/index.php/d", &[4, 2], &[4]),
        (Spelling::FrontController, "/y/../index.php/x/a", &[4, 0], &[4]),
        (Spelling::EmptyId, "/x//c", &[4, 0, 1], &[4, 0]),
        (Spelling::EmptyId, "/x/", &[4, 0], &[4]),
    ] {
        assert_eq!(endpoints(&all, path), read, "{path}");
        let without = table(Spellings::ALL.without(kind));
        assert_eq!(endpoints(&without, path), ignored, "{path} without {kind}");
    }
}

#[test]
fn templates_whose_parameters_alternate_in_too_many_ways_are_an_error() {
    // Each path of twenty segments, each of which is `a` or not, matches another set of templates.
    let with_literal = |at: usize| {
        let segments = (0..20).map(|index| if index == at { "/a" } else { "/{p}" });
        format!("{}/{at}", segments.collect::<String>())
    };
    let templates: Vec<_> = (0..20).map(with_literal).collect();
    let mut table = PathTableBuilder::new();
    for template in &templates {
        table.insert(template, Billing::Exempt).expect("no two match the same paths");
    }
    assert!(table.build(0, Spellings::ALL).is_err());
}

#[test]
fn many_templates_beside_a_parameter_share_what_follows_it() {
    let literals = (0..20_000).map(|number| format!("/name-{number}"));
    let under = (0..1_000).map(|number| format!("/{{tenant}}/{number}"));
    let templates: Vec<_> = literals.chain(under).collect();
    let table = table(&templates);
    assert_eq!(endpoints(&table, "/name-7"), [7]);
    assert_eq!(endpoints(&table, "/name-7/3"), [20_003]);
    assert_eq!(endpoints(&table, "/other/3"), [20_003]);
    assert_eq!(endpoints(&table, "/NAME-7"), [21_000, 7]);
    assert_eq!(endpoints(&table, "/name-7.json"), [21_000, 7]);
    assert_eq!(endpoints(&table, "/name%2d7/%33"), [21_000, 20_003]);
}

#[test]
fn plain_paths_are_those_that_every_server_reads_alike() {
    for path in [
        "/",
        "/call",
        "/v2/agent/5bc97541/executions",
        "/a:b",
        "/call...",
        "/a.b",
        "/+",
        "/caf\u{e9}",
    ] {
        assert!(is_plain(path.as_bytes()), "{path} is plain");
    }
    let odd = [
        "",
        "*",
        "call",
        "/%63all",
        "//call",
        "/call/",
        "/./call",
        "/../call",
        "/.call",
        "/call;a",
        "/call\\",
        "/call ",
        "/call\n",
        "/call\u{7f}",
        "/call?",
        "/call#",
        "/a//b",
    ];
    for path in odd {
        assert!(!is_plain(path.as_bytes()), "{path} is odd");
    }
}
