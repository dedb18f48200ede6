//! The graph against templates that are tried one by one, and the reading of odd paths.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::odd::Reader;
use super::set::{LargeSet, SmallSet};
use super::*;

/// A table of templates, each charged to the endpoint of its index. The last endpoint is `default`.
fn table(templates: &[String]) -> PathTable {
    table_with(templates, |index| index, &[])
}

/// A table of templates, each charged to the endpoint that is said for its index, and of prefixes
/// that are stripped. The endpoint for the number of templates is `default`.
fn table_with(
    templates: &[String],
    endpoint: impl Fn(usize) -> usize,
    prefixes: &[&str],
) -> PathTable {
    let mut table = PathTableBuilder::new();
    for (index, template) in templates.iter().enumerate() {
        let billing = Billing::Endpoint(endpoint(index));
        table.insert(template, billing).expect("no two match the same paths");
    }
    for prefix in prefixes {
        table.insert_prefix(prefix).expect("the prefix is valid");
    }
    table.build(endpoint(templates.len()), Spellings::ALL).expect("there are few overlaps")
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
        Charged::TooMany(_) => panic!("{path} is charged to too many"),
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
                "a", "b", "AB", "c", "/", "//", ".", "..", "%2e", "%2f", "\\", ";", "%3b", "%3f",
                "%00", "%20", ".json", "%2561", "%u0061", "%ff", "index.php",
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

    /// A large table, which is searched, finds the same literals as a small one, which is compared
    /// one by one.
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

/// Each path is a spelling of a path of `/x/{id}`, `/x/{id}/c`, `/d` or `/x/b`, whose endpoints are
/// 0 to 3. 4 is `default`.
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
        (Spelling::TrailingDots, "/x./a", &[4, 0], &[4]),
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

/// Each was found by comparing the models of servers in `fuzz/` with what is charged.
#[test]
fn mixtures_are_read_by_the_steps_of_several_servers() {
    let table = table(&["/call", "/v/{id}", "/v/{id}/x", "/list"].map(ToOwned::to_owned));
    for (path, reached) in [
        // Merged slashes, and a segment that begins with a `;`.
        ("/v///;/x", 2),
        ("///;/call", 0),
        ("///.;/v/", 1),
        (r"/x/\/..;/%63all", 0),
        // `..` and a space at the end.
        ("/v/7/x/..%20", 1),
        ("/v/7/x/..%20%20", 1),
        // A host after `..` has removed the one before.
        ("//x/../h/call", 0),
        ("//h/../..%3f/call", 0),
        ("//;/%2e%2e/t/call", 0),
        // A request line and a header field, for a server behind a proxy that decodes.
        ("/call%20HTTP/1.1%0d%0aX:y", 0),
        ("/v/7%20HTTP%2f1.1%0aX:/v/7/x", 1),
        ("/call%1fHTTP/1.1%0d%0aX:y", 0),
        ("/call%a0HTTP/1.1%0d%0aX:y", 0),
        // White space for Python at the end, and a tab that is dropped before the second decoding.
        ("/call%1f", 0),
        ("/%25%0963all", 0),
        ("/v/%25%0963/x", 1),
        // A script below another folder, or without a name before its ending.
        ("/x/index.php/call", 0),
        ("/v/7/y/z/index.php/v/7/x", 2),
        ("/.php/call", 0),
        // White space between two slashes at the end, and a host after parameters alone.
        ("/call/%20/", 0),
        ("/;/h/call", 0),
        ("//;a/h/call", 0),
        // Escapes that are cut off, or whose digits are none.
        ("/call%", 0),
        ("/call%6", 0),
        ("/v/%/x", 1),
        ("/ca%6<l", 0),
        // Letters that are ASCII letters without regard to case, encoded or not.
        ("/l%c4%b0st", 3),
        ("/L\u{131}ST", 3),
        ("/li%c5%bft", 3),
        // A suffix with a slash in it, or slashes and dots after it.
        ("/call.json//", 0),
        (r"/call.\x", 0),
        ("/call.%2fx", 0),
        ("/call.txt/.", 0),
    ] {
        let charged = endpoints(&table, path);
        assert!(charged.contains(&reached), "{path} is charged to {charged:?}");
    }
}

#[test]
fn the_name_of_a_script_may_have_any_length() {
    let table = table(&["/call".to_owned()]);
    for length in [0, 1, 7, 8, 200, 250, 251, 252, 253, 254, 255, 256, 257, 260, 264, 300, 5000] {
        for path in ["/x%2f", "/x/"].map(|folder| folder.to_owned() + &"x".repeat(length)) {
            let charged = endpoints(&table, &format!("{path}.php/call"));
            assert_eq!(charged, [1, 0], "{length}");
            assert_eq!(endpoints(&table, &format!("{path}php/call")), [1], "{length}");
        }
    }
}

#[test]
fn a_prefix_that_the_application_strips_is_stripped_once() {
    let templates = ["/call", "/{a}/{b}", "/api/own", "/{tenant}/at/{id}", "/x/{*rest}"];
    let templates = templates.map(ToOwned::to_owned);
    let table = table_with(&templates, |index| index, &["/api", "/at/{tenant}"]);
    for (path, charged) in [
        ("/call", [0]),
        ("/api/call", [0]),
        // A template with the prefix in it beats it.
        ("/api/own", [2]),
        // The wider template is for paths that do not begin with the prefix.
        ("/api/other", [5]),
        ("/other/call", [1]),
        // The application does not strip it again.
        ("/api/api/call", [1]),
        ("/api/b/call", [1]),
        ("/api/x/y/z", [4]),
        ("/at/acme/call", [0]),
        ("/at/acme/api/call", [1]),
    ] {
        assert_eq!(endpoints(&table, path), charged, "{path}");
    }
    for path in ["/api/%63all", "/api//call", "/api/index.php/call", "/index.php/api/call"] {
        assert!(endpoints(&table, path).contains(&0), "{path}");
    }
    assert!(endpoints(&table, "/api//h/call").contains(&0));
}

/// A tenant may be called like a resource, so each literal can be followed by each other one.
#[test]
fn a_prefix_that_is_a_parameter_stands_before_a_hundred_templates() {
    let templates: Vec<_> = (0..100).map(|number| format!("/r{number}/{{id}}/x")).collect();
    let table = table_with(&templates, |index| index, &["/{tenant}"]);
    assert_eq!(endpoints(&table, "/acme/r7/1/x"), [7]);
    assert_eq!(endpoints(&table, "/r7/1/x"), [7]);
    assert_eq!(endpoints(&table, "/r7/r8/1/x"), [8]);
}

#[test]
fn the_root_is_charged_to_an_empty_id_and_an_empty_rest_too() {
    for template in ["/{id}", "/{*rest}"] {
        let table = table(&[template.to_owned()]);
        for path in ["/", "//", "//h", "/%20/"] {
            assert!(endpoints(&table, path).contains(&0), "{path}");
        }
    }
    assert_eq!(endpoints(&table(&["/call".to_owned()]), "/"), [1]);
}

/// To Jetty a `?` is a digit that stands for 15, so what follows in the query is a part of the
/// path.
#[test]
fn a_path_that_ends_within_an_escape_is_charged_to_every_endpoint() {
    let table = table(&["/call".to_owned(), "/v/{id}".to_owned()]);
    for path in ["/x%2", "/x%", "/v/7%", "/%u006", "/%U"] {
        let mut charged = endpoints(&table, path);
        charged.sort_unstable();
        assert_eq!(charged, [0, 1, 2], "{path}");
    }
    assert_eq!(endpoints(&table, "/%2g"), [2]);
}

/// The path is short, but a reading may be at any of these nodes after `..`.
#[test]
fn a_path_that_may_be_at_too_many_nodes_is_charged_to_every_endpoint() {
    let mut templates: Vec<_> = (0..99).map(|number| format!("/a{number}/s")).collect();
    templates.push("/a99/t".to_owned());
    let table = table_with(&templates, |index| index.saturating_sub(98), &[]);
    let around = |nodes: std::ops::Range<u32>| -> String {
        nodes.map(|number| format!("/a{number}/..")).collect()
    };
    assert_eq!(endpoints(&table, &format!("{}/a99/x/../t/", around(80..98))), [2, 1]);
    assert_eq!(endpoints(&table, &format!("{}/a99/x/../t/", around(60..98))), [2, 0, 1]);
    let long = format!("{}{}", around(60..80), r"\..\x".repeat(10_000));
    assert_eq!(endpoints(&table, &long), [2, 0, 1]);
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
fn is_plain_finds_every_byte_that_servers_differ_about() {
    // `Tree::find` reads `/call...` leniently, since only the literal tells that it is not plain.
    for path in ["/", "/call", "/v2/agent/5bc97541/executions", "/a:b", "/call...", "/a.b", "/+"] {
        assert!(is_plain(path.as_bytes()), "{path} is plain");
    }
    let odd = [
        "",
        "*",
        "call",
        "/%63all",
        "//call",
        "/call/",
        "/caf\u{e9}",
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
