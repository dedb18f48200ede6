//! Policies: the endpoints to which each path is charged, and policies that can't be built.

use std::time::Duration;

use bolna_rate_limit::policy::{LimitBuilder, PathList, PolicyBuilder};
use bolna_rate_limit::values::{Kind, LimitName, QuotaBuilder, QuotaError};
use bolna_rate_limit::{Endpoint, Enforcement, Policy, PolicyError, Quota};

/// The error names the value and says what to do.
fn assert_says(builder: PolicyBuilder, value: &str, rule: &str) {
    let text = builder.build().expect_err("the policy makes no sense").to_string();
    assert!(
        text.contains(value) && text.contains(rule),
        "{text:?} names neither {value:?} nor {rule:?}"
    );
}

#[test]
fn the_default_is_bolnas_table() {
    let limits: Vec<_> = Policy::default()
        .endpoints()
        .map(|(endpoint, quota)| (endpoint.name(), quota.limit(), quota.burst()))
        .collect();
    assert_eq!(
        limits,
        [
            ("executions", 500, 500),
            ("agent", 500, 500),
            ("call", 500, 500),
            ("default", 1000, 1000)
        ]
    );
    assert!(
        Policy::default().endpoints().all(|(_, quota)| quota.period() == Duration::from_secs(60))
    );
}

#[test]
fn a_name_that_cannot_stand_in_a_header_field_is_an_error() {
    for name in ["", "a b", "a\"", "a;b", "caf\u{e9}", "a\r\nSet-Cookie: x", &"x".repeat(65)] {
        let minute = Quota::per_minute(1);
        let endpoint = Policy::builder().endpoint(name, minute, ["/x"]);
        assert_says(endpoint, &format!("endpoint name {name:?}"), "1 to 64 characters");
        let limit = LimitBuilder::account(name, minute);
        let also = Policy::bolna().also("call", limit.clone());
        for policy in [also, Policy::bolna().shared(limit, ["call", "agent"])] {
            assert_says(policy, &format!("limit name {name:?}"), "1 to 64 characters");
        }
    }
    let longest = "x".repeat(64);
    let policy = Policy::builder().endpoint(&longest, Quota::per_minute(1), ["/x"]);
    assert!(policy.clone().build().is_ok());
    // The share of a user has the name of the endpoint and `-user`.
    let share = policy.user_share(&longest, 20);
    assert_says(share, &format!("limit name \"{longest}-user\""), "1 to 64 characters");
}

#[test]
fn a_quota_that_makes_no_sense_is_an_error() {
    let with = |quota| Policy::bolna().quota("call", quota);
    assert_says(with(Quota::per_minute(0)), "\"call\"", "limit is 0");
    assert_says(with(Quota::per_minute(5).burst(0)), "\"call\"", "burst is 0");
    assert_says(with(Quota::per(5, Duration::ZERO)), "\"call\"", "period is 0");
    assert_says(with(Quota::per(1, Duration::MAX)), "\"call\"", "100 years");
    assert_says(with(Quota::per_hour(1).burst(u32::MAX)), "4294967295", "lower the burst");
    assert_says(Policy::builder().default_quota(Quota::per_second(0)), "\"default\"", "limit is 0");
    assert_eq!(Quota::per_second(0).build(), Err(QuotaError::ZeroLimit));
}

#[test]
fn invalid_limits_of_requests_in_flight_are_errors() {
    let with = |limit| Policy::bolna().concurrent("call", limit);
    assert!(with(1).build().is_ok() && with(Quota::MAX_CONCURRENT).build().is_ok());
    assert_says(with(0), "quota of \"call-concurrent\"", "limit is 0, which would refuse");
    assert_says(with(1_000_000_001), "1000000001 requests in flight", "at most 1000000000");
    let burst = Quota::concurrent(5).burst(6);
    let places = Policy::bolna().also("call", LimitBuilder::account("places", burst));
    let rule = "has no burst of its own; leave the burst out";
    assert_says(places, "quota of \"places\": burst is 6", rule);
    // What a policy reports as the burst can be set once more.
    assert_eq!(Quota::concurrent(5).burst(5).build(), Quota::concurrent(5).build());
    let places = LimitBuilder::user("places", Quota::concurrent(5));
    let costly = Policy::bolna().also("call", places.cost(6));
    let rule = "from 1 to 5, the most requests that it allows in flight";
    assert_says(costly, "cost of limit \"places\": it is 6", rule);
    assert_says(with(5).cost("call-concurrent", 0), "it is 0", "from 1 to 5");
    assert_says(Policy::bolna().concurrent("cal", 5), "\"cal\"", "no such endpoint");
    assert_says(with(5).concurrent("call", 6), "limit name \"call-concurrent\"", "taken");
    assert_eq!(Quota::concurrent(0).build(), Err(QuotaError::ZeroLimit));
}

/// The limit with the name of an endpoint is what is counted for each of its requests.
#[test]
fn an_endpoints_own_limit_is_a_rate() {
    let ten = Quota::concurrent(10);
    for (limit, policy) in [
        ("call", Policy::bolna().quota("call", ten)),
        ("call", Policy::bolna().quota("call", ten).user_share("call", 50)),
        ("search", Policy::builder().endpoint("search", ten, ["/search"])),
        ("default", Policy::bolna().default_quota(ten)),
        ("default", Policy::builder().default_quota(ten).user_share("default", 50)),
        ("unidentified", Policy::bolna().unidentified_quota(ten)),
    ] {
        let error = policy.clone().build().unwrap_err();
        assert!(matches!(&error, PolicyError::Concurrent { limit: of, .. } if of == limit));
        let rule = "it limits requests in flight, and must be a rate, such as 500 a minute";
        assert_says(policy, &format!("quota of {limit:?}"), rule);
        // Requests without an account have no other limit.
        let advice = "; to limit requests in flight too, add `concurrent(...)` or `also(...)`";
        assert_eq!(error.to_string().contains(advice), limit != "unidentified");
    }
}

#[test]
fn requests_in_flight_are_a_limit_beside_that_of_the_endpoint() {
    let policy = Policy::bolna()
        .concurrent("call", 10)
        .also("call", LimitBuilder::user("call-user-concurrent", Quota::concurrent(1)))
        .shared(
            LimitBuilder::everyone("all-concurrent", Quota::concurrent(1000)),
            ["call", "default"],
        )
        .cost("all-concurrent", 3)
        .enforce("call-concurrent", Enforcement::SHADOW)
        .build()
        .unwrap();
    let limits: Vec<_> = policy.limits_of(Endpoint::CALL).map(|it| it.to_string()).collect();
    let expected = [
        "call, 500 requests per minute for each account",
        "call-concurrent, 10 requests at once for each account",
        "call-user-concurrent, 1 request at once for each user",
        "all-concurrent, 1000 requests at once for all accounts together",
    ];
    assert_eq!(limits, expected);
    assert_eq!(policy.limits_of(Endpoint::DEFAULT).count(), 2);
    let name = |name| LimitName::new(name).unwrap();
    assert_eq!(policy.cost_of(name("all-concurrent")), Some(3));
    assert_eq!(policy.enforcement_of(name("call-concurrent")), Some(Enforcement::SHADOW));
    assert_eq!(policy.enforcement_of(Endpoint::CALL), Some(Enforcement::FULL));
    // It is no quota so fast that it never binds.
    assert_eq!(policy.lint(), []);
}

#[test]
fn a_path_that_makes_no_sense_is_an_error() {
    let rules = [
        ("", "starts with `/`"),
        ("call", "starts with `/`"),
        ("https://api.example/call", "starts with `/`"),
        ("/call/", "trailing slash"),
        ("//call", "after decoding"),
        ("/a//b", "after decoding"),
        ("/../call", "after decoding"),
        ("/a/./b", "after decoding"),
        ("/a%20b", "after decoding"),
        ("/a b", "after decoding"),
        ("/call?x", "after decoding"),
        ("/call;v=1", "after decoding"),
        ("/agent/:id", "`{name}`"),
        ("/agent/*rest", "`{*name}`"),
        ("/health*", "`{*name}`"),
        ("/v*/agent", "`{*name}`"),
        ("/agent/{}", "whole segment"),
        ("/agent/{*}", "whole segment"),
        ("/agent/{id", "whole segment"),
        ("/agent/id}", "whole segment"),
        ("/agent/v{id}", "whole segment"),
        ("/agent/{id}.json", "whole segment"),
        ("/agent/{a}{b}", "whole segment"),
        ("/agent/{id:[0-9]+}", "whole segment"),
        ("/{*rest}/x", "the last segment"),
        ("/{*rest}/{*more}", "the last segment"),
        ("/x/{*rest}/{*more}", "the last segment"),
    ];
    for (path, rule) in rules {
        assert_says(
            Policy::builder().endpoint("x", Quota::per_minute(1), [path]),
            &format!("{path:?}"),
            rule,
        );
        assert_says(Policy::builder().exempt([path]), &format!("{path:?}"), rule);
        assert_says(Policy::builder().default_paths([path]), &format!("{path:?}"), rule);
    }
}

#[test]
fn a_path_with_too_many_segments_is_an_error() {
    for segment in ["/a", "/{a}"] {
        let longest = segment.repeat(256);
        assert!(Policy::bolna().exempt([&longest]).build().is_ok());
        // As many as would use up the stack if each were within the one before it.
        for too_many in [256 + 1, 500_000] {
            let builder = Policy::bolna().exempt([segment.repeat(too_many)]);
            assert_says(builder, "exempt path \"/", "at most 256 segments");
        }
    }
}

#[test]
fn two_templates_for_the_same_paths_are_an_error() {
    assert_says(Policy::bolna().exempt(["/call"]), "\"/call\"", "same paths as `/call`");
    let twice = Policy::bolna().endpoint("other", Quota::per_minute(1), ["/v2/agent/{id}"]);
    assert_says(twice, "\"/v2/agent/{id}\"", "same paths");
}

#[test]
fn endpoints_that_nothing_could_reach_are_an_error() {
    assert_says(
        Policy::bolna().endpoint("call", Quota::per_minute(1), ["/x"]),
        "\"call\"",
        "taken",
    );
    assert_says(
        Policy::bolna().endpoint("default", Quota::per_minute(1), ["/x"]),
        "\"default\"",
        "default_quota",
    );
    assert_says(Policy::bolna().endpoint("x", Quota::per_minute(1), [""; 0]), "\"x\"", "no paths");
    assert_says(Policy::bolna().quota("cal", Quota::per_minute(1)), "\"cal\"", "no such endpoint");
}

/// Names are never freed, so a policy that is never made must not use one up.
#[test]
fn a_policy_that_cannot_be_built_leaves_no_name_behind() {
    let minute = Quota::per_minute(1);
    let good = |name| Policy::builder().endpoint(name, minute, [format!("/{name}")]);
    let broken = [
        good("broken-1").endpoint("a b", minute, ["/x"]),
        good("broken-2").endpoint("broken-2", minute, ["/x"]),
        good("broken-3").endpoint("default", minute, ["/x"]),
        good("broken-4").endpoint("x", minute, [""; 0]),
        good("broken-5").endpoint("x", Quota::per_minute(0), ["/x"]),
        good("broken-6").endpoint("x", minute, ["/broken-6"]),
        good("broken-7").default_quota(Quota::per_minute(0)),
        good("broken-8").default_paths(["/x/"]),
        good("broken-9").exempt(["x"]),
        good("broken-10").quota("x", minute),
    ];
    for (number, builder) in (1..).zip(broken) {
        assert!(builder.build().is_err());
        assert_eq!(Endpoint::known(&format!("broken-{number}")), None);
    }
    assert!(good("built").build().is_ok());
    assert_eq!(Endpoint::known("built").map(|endpoint| endpoint.name()), Some("built"));
}

/// The values may come from a file or a form, and the errors go to a log.
#[test]
fn an_error_quotes_at_most_a_hundred_characters_of_a_value() {
    let minute = Quota::per_minute(1);
    let quoted = |letter: &str, mark: &str| format!("{:?}{mark}", letter.repeat(100));
    for letter in ["J", "\u{e9}", "\u{1f980}"] {
        let (whole, long) = (letter.repeat(100), letter.repeat(101));
        for (value, mark) in [(whole, ""), (long, "\u{2026}")] {
            let errors = [
                Endpoint::new(&value).unwrap_err().to_string(),
                Kind::new(&value).unwrap_err().to_string(),
                Policy::builder().endpoint(&value, minute, ["/x"]).build().unwrap_err().to_string(),
                Policy::bolna().quota(&value, minute).build().unwrap_err().to_string(),
                Policy::bolna().exempt([&value]).build().unwrap_err().to_string(),
                Policy::bolna().default_paths([&value]).build().unwrap_err().to_string(),
            ];
            for error in errors {
                let quoted = quoted(letter, mark);
                assert!(error.contains(&quoted), "{error} does not quote {quoted}");
                assert_eq!(error.matches(letter).count(), 100, "{error}");
            }
        }
    }
    // The template that matches the same paths is quoted too.
    let path = "/xxxxxxxxx".repeat(100);
    let error = Policy::bolna().exempt([&path, &path]).build().unwrap_err().to_string();
    let cut = &path[..100];
    assert_eq!(
        error,
        format!(
            "exempt path {cut:?}\u{2026}: it matches the same paths as `{cut}`\u{2026}; a path \
             belongs to one endpoint or is exempt, so leave one of the two out"
        )
    );
}

#[test]
fn an_error_says_which_list_and_endpoint_it_is_about() {
    let in_agent = Policy::bolna().paths("agent", ["/a", "/a/"]).build().unwrap_err();
    let PolicyError::Path { list: PathList::Endpoint(name), index: 1, .. } = in_agent else {
        panic!("{in_agent:?}");
    };
    assert_eq!(name, "agent");
    let quota = Policy::bolna().quota("call", Quota::per_minute(0)).build().unwrap_err();
    assert!(matches!(quota, PolicyError::Quota { limit, .. } if limit == "call"));
}

#[test]
fn a_literal_beats_a_parameter_and_the_rest_of_a_path_can_be_named() {
    let policy = Policy::builder()
        .endpoint("files", Quota::per_minute(1), ["/files/{*path}"])
        .endpoint("one", Quota::per_minute(1), ["/x/{id}", "/y/{a}/{b}"])
        .endpoint("literal", Quota::per_minute(1), ["/x/special", "/y/special/only", "/"])
        .exempt(["/.well-known/{name}"])
        .build()
        .unwrap();
    let name = |path| policy.endpoint_of(path).map_or("exempt", |endpoint| endpoint.name());
    let charged = [
        ("/files/a/b/c", "files"),
        ("/files", "default"),
        ("/x/1", "one"),
        ("/x/special", "literal"),
        ("/x/specially", "one"),
        ("/y/1/2", "one"),
        ("/y/special/only", "literal"),
        ("/y/special/2", "one"),
        ("/y/special", "default"),
        ("/x/", "default"),
        ("/files/", "default"),
        ("/files/a/", "files"),
        ("/y/1", "default"),
        ("/", "literal"),
        ("/.well-known/change-password", "exempt"),
        ("/.well-known", "default"),
    ];
    for (path, endpoint) in charged {
        assert_eq!(name(path), endpoint, "{path}");
    }
}

#[test]
fn no_spelling_opens_an_exempt_path() {
    let policy = Policy::bolna().exempt(["/healthz", "/public/{*file}"]).build().unwrap();
    assert_eq!(policy.endpoint_of("/healthz"), None);
    assert_eq!(policy.endpoint_of("/public/a/b"), None);
    for (path, endpoint) in [
        // An exemption has to match the path as it is written, its slash included.
        ("/healthz/", Endpoint::DEFAULT),
        ("/public/", Endpoint::DEFAULT),
        // Malformed.
        ("/public/%", Endpoint::DEFAULT),
        ("/public/%zz", Endpoint::DEFAULT),
        ("/public/%ff", Endpoint::DEFAULT),
        ("/public/%00", Endpoint::DEFAULT),
        ("/%68ealthz", Endpoint::DEFAULT),
        ("/healthz;/../call", Endpoint::CALL),
        ("/public/../call", Endpoint::CALL),
        ("/public/%2e%2e/call", Endpoint::CALL),
        ("/public/..%2fv2/agent/1/executions", Endpoint::EXECUTIONS),
        ("/public\\..\\call", Endpoint::CALL),
        ("/healthz%00", Endpoint::DEFAULT),
        // Paths that two servers, one behind the other, would decode twice.
        ("/public/%252e%252e/call", Endpoint::CALL),
        ("/public/..%252fcall", Endpoint::CALL),
    ] {
        let endpoints = policy.endpoints_of(path);
        assert!(endpoints.contains(&endpoint), "{path}: {endpoints:?}");
    }
    for path in ["/public/a%20b", "/public/a%2fb", "/public/100%25", "/public/caf%c3%a9.css"] {
        assert_eq!(policy.endpoints_of(path), [], "{path}");
    }
}

#[test]
fn a_first_host_is_read_as_one_too() {
    let policy = Policy::default();
    let paths = [
        ("//x/call", Endpoint::CALL),
        ("///x/call", Endpoint::CALL),
        ("/\\x/call", Endpoint::CALL),
        // Here RFC 3986 takes `x\\y` as the host, and the URL parser of a browser takes `x`.
        ("//x\\y/call", Endpoint::CALL),
        ("//x\\call", Endpoint::CALL),
        ("//x", Endpoint::DEFAULT),
        ("//call", Endpoint::CALL),
    ];
    for (path, endpoint) in paths {
        let endpoints = policy.endpoints_of(path);
        assert!(endpoints.contains(&endpoint), "{path}: {endpoints:?}");
    }
}

#[test]
fn targets_that_are_no_paths_are_the_defaults() {
    let policy = Policy::default();
    for path in ["", "*", "call", "api.example:443", "?", "%2Fcall"] {
        assert_eq!(policy.endpoint_of(path), Some(Endpoint::DEFAULT), "{path:?}");
    }
}

#[test]
fn the_longest_targets_are_classified() {
    let policy = Policy::default();
    let id = "x".repeat(64 * 1024);
    assert_eq!(policy.endpoint_of(&format!("/v2/agent/{id}")), Some(Endpoint::AGENT));
    assert_eq!(policy.endpoint_of(&format!("/{id}")), Some(Endpoint::DEFAULT));
    let id = "%e0%a4%95".repeat(7 * 1024);
    assert_eq!(policy.endpoints_of(&format!("/v2/agent/{id}/executions")), [Endpoint::EXECUTIONS]);
    // However a path is spelled and however long it is, it is read to its end.
    for odd in
        ["%2e", "/..", "/.", ";/", "//", "%", "\\", "a//b;c%2f%2e%2e/%3bd/\\e/%00f%3fg%23h%20"]
    {
        let path = format!("/{}/x", odd.repeat(64 * 1024 / odd.len()));
        assert_eq!(policy.endpoints_of(&path), [Endpoint::DEFAULT], "{odd}");
        let endpoints = policy.endpoints_of(&format!("{path}/../call"));
        assert_eq!(endpoints, [Endpoint::DEFAULT, Endpoint::CALL], "{odd}");
    }
}

#[test]
fn quotas_say_what_they_are() {
    let texts = [
        (Quota::per_second(1), "1 request per second"),
        (Quota::per_minute(500), "500 requests per minute"),
        (Quota::per_hour(2), "2 requests per hour"),
        (Quota::per(5, Duration::from_secs(10)), "5 requests per 10 seconds"),
        (Quota::per(5, Duration::from_millis(1500)), "5 requests per 1.5s"),
        (Quota::concurrent(1), "1 request at once"),
        (Quota::concurrent(10), "10 requests at once"),
    ];
    for (quota, text) in texts {
        assert_eq!(quota.build().unwrap().to_string(), text);
    }
    assert_eq!(
        Quota::per_second(7).build().unwrap().emission_interval(),
        Duration::from_nanos(142_857_143)
    );
    // Units of requests in flight do not come back with time.
    let quota = Quota::concurrent(10).build().unwrap();
    assert!(quota.is_concurrent() && !Quota::per_second(10).build().unwrap().is_concurrent());
    assert_eq!((quota.limit(), quota.burst()), (10, 10));
    let times = [quota.period(), quota.emission_interval(), quota.refill_time()];
    assert_eq!(times, [Duration::ZERO; 3]);
    assert_eq!(QuotaBuilder::from(quota).build(), Ok(quota));
}
