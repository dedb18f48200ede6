//! Models of servers: how each reads a request target, step by step, and to which route it takes
//! the result.
//!
//! Nearly all of them are learnt from the recordings in `tests/vectors/servers`. Each names the
//! configurations that behave like it, and `fuzz/tests/recordings.rs` holds it against them. The
//! others are written after the servers' documentation.
//!
//! Servers of one kind may differ in the targets that they refuse. The model refuses none: it reads
//! a malformed escape literally, and stays at the root when dot segments would climb above it. A
//! server that refuses a target takes it to no route, so a path that escapes through that server
//! escapes through the model too.

pub mod routers;
pub mod steps;

use std::fmt;

use routers::{
    Route, Router, c_literals, empty_id, empty_inner_id, exact, regular, regular_parameters,
    trailing_dots, with_any_suffix, with_format, with_json_format, with_text_format,
};
use steps::{
    Step, any_host, backslashes, c_string, decode, decode_actix, decode_segments, decode_slashes,
    decode_u, decode_unreserved, decode_uri, drop_last_dots, drop_last_newline, drop_last_slash,
    drop_last_slash_and_newline, drop_last_slashes, drop_malformed_utf8, escape, fold_case,
    fragment, front_controller, host, host_with_user, last_parameters, merge, merge_first,
    parameters, query, request_line, request_target, resolve, resolve_escaped, resolve_to_the_end,
    resolve_with_parameters, semicolon, trim_end,
};

/// A server that may be behind the limiter.
pub struct Server {
    pub name: &'static str,
    /// The recorded configurations that behave like this.
    pub recorded: &'static [&'static str],
    steps: &'static [Step],
    router: Router,
}

/// A proxy in front of a server, which rewrites the target that it forwards.
pub struct Proxy {
    pub name: &'static str,
    steps: &'static [Step],
}

impl Server {
    /// The path as the server reads it, which it matches.
    pub fn read(&self, target: &[u8]) -> Vec<u8> {
        self.steps.iter().fold(target.to_vec(), |target, step| step(target))
    }

    /// The route that a request target reaches.
    pub fn route(&self, target: &[u8]) -> Route {
        (self.router)(&self.read(target))
    }

    pub fn named(name: &str) -> Option<&'static Self> {
        SERVERS.iter().find(|server| server.name == name)
    }
}

impl Proxy {
    /// The target that the proxy forwards.
    pub fn forward(&self, target: &[u8]) -> Vec<u8> {
        self.steps.iter().fold(target.to_vec(), |target, step| step(target))
    }

    pub fn named(name: &str) -> Option<&'static Self> {
        PROXIES.iter().find(|proxy| proxy.name == name)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

const fn server(
    name: &'static str,
    recorded: &'static [&'static str],
    steps: &'static [Step],
    router: Router,
) -> Server {
    Server { name, recorded, steps, router }
}

const fn proxy(name: &'static str, steps: &'static [Step]) -> Proxy {
    Proxy { name, steps }
}

/// The models of servers, by what they do to a path.
pub static SERVERS: &[Server] = &[
    // Those that match the path as it came.
    server(
        "literal",
        &[
            "envoy",
            "haproxy",
            "koa12",
            "nodesplit",
            "varnish",
            "rack+puma",
            "rack+unicorn",
            "rack+thin",
            "tornado",
            "express4strict",
            "express5strict",
            "nginx>express5strict",
            "gorilla-enc",
        ],
        &[query],
        exact,
    ),
    server("axum", &["axum", "poem", "chi", "echo"], &[query], empty_inner_id),
    server("lenient", &["warp"], &[query, drop_last_slash], exact),
    server("polka", &["polka", "robyn", "echo-rmslash"], &[query, drop_last_slash], empty_inner_id),
    server("sanic", &["sanic"], &[query, drop_last_slashes], exact),
    server("webrick", &["rack+webrick"], &[query, merge], exact),
    server(
        "trimming",
        &["axum+NormalizePath"],
        &[query, merge_first, drop_last_slashes],
        empty_inner_id,
    ),
    server("python", &["stdlib"], &[query, merge_first, last_parameters], exact),
    server(
        "php",
        &["php-S-router", "nginx>php-fpm-plain", "apache>php-fallback-plain"],
        &[query, host],
        exact,
    ),
    server("rfc-3986-reference", &[], &[query, host, decode_unreserved, resolve], exact),
    // Those that ignore case.
    server(
        "express",
        &["express4", "express5", "nest", "goproxy>express4", "nginx>express4"],
        &[query, fragment, fold_case, drop_last_slash],
        exact,
    ),
    server(
        "koa",
        &["koa", "blacksheep+uvicorn", "nginx>koa"],
        &[query, fold_case, drop_last_slash],
        exact,
    ),
    // Those that decode once.
    server(
        "starlette",
        &[
            "fastapi+uvicorn",
            "starlette+uvicorn-httptools",
            "starlette+uvicorn-h11",
            "starlette+hypercorn",
            "starlette+daphne",
            "starlette+granian",
            "fastapimount+uvicorn",
            "envoy>fastapi",
            "haproxy>fastapi",
            "caddy>fastapi",
            "goproxy>fastapi",
            "nginx>fastapi",
            "nginx>starlette-httptools",
        ],
        &[query, fragment, decode],
        regular,
    ),
    server(
        "django",
        &[
            "django+gunicorn",
            "django+uvicorn",
            "go-urlpath",
            "gorilla",
            "go-mux1.19",
            "nginx>php-fpm-fastroute",
        ],
        &[query, decode],
        exact,
    ),
    server("gin", &["gin", "httprouter", "nginx>gin"], &[query, decode], empty_inner_id),
    server(
        "django-re",
        &["djangore+gunicorn", "djangore+uvicorn", "nginx>django-re-gunicorn"],
        &[query, decode, drop_last_slash],
        exact,
    ),
    server("mojolicious", &["mojolicious"], &[query, decode, drop_last_slash_and_newline], exact),
    server(
        "django-re-waitress",
        &["djangore+waitress"],
        &[query, decode, merge_first, drop_last_slash],
        exact,
    ),
    server("go-trim", &["go-urlpath-trim"], &[query, decode, drop_last_slashes], exact),
    server(
        "flask",
        &[
            "flask+gunicorn",
            "flask+granian",
            "flask+waitress",
            "flask+werkzeug",
            "quart+hypercorn",
            "nginx>flask-gunicorn",
        ],
        &[query, decode, merge_first],
        exact,
    ),
    server("pyramid", &["pyramid+waitress"], &[query, decode, merge_first], regular),
    server(
        "falcon",
        &["falcon+gunicorn", "falconasgi+uvicorn"],
        &[query, decode, merge_first],
        empty_id,
    ),
    server(
        "bottle",
        &["bottle+gunicorn"],
        &[query, decode, drop_malformed_utf8],
        regular_parameters,
    ),
    server(
        "bottle-waitress",
        &["bottle+waitress"],
        &[query, decode, merge_first, drop_malformed_utf8],
        regular_parameters,
    ),
    server("litestar", &["litestar+uvicorn"], &[query, decode, merge, drop_last_slash], exact),
    server("jdk", &["jdk-httpserver"], &[query, host, decode], exact),
    server("dancer", &["dancer2+starman"], &[query, decode, c_string], regular),
    server("haproxy-decoding", &["haproxy-url_dec"], &[query, decode], c_literals),
    server("stripping", &[], &[query, decode, trim_end], exact),
    server("parsing-again", &[], &[query, decode, query, fragment], exact),
    // Those that decode some characters, or each segment.
    server("aiohttp", &["aiohttp", "aiohttpnorm"], &[query, decode_unreserved], exact),
    server(
        "grape",
        &["grape+puma"],
        &[query, decode_unreserved, merge, drop_last_slashes],
        with_text_format,
    ),
    server("actix", &["actix", "ntex"], &[query, decode_actix], exact),
    server("actix-merging", &["actix+MergeOnly"], &[query, merge, decode_actix], exact),
    server(
        "actix-normalizing",
        &["actix+NormalizePath"],
        &[query, merge, drop_last_slashes, decode_actix],
        exact,
    ),
    server("mux", &["go-mux1.22+", "nginx>mux122"], &[query, decode_segments], exact),
    server(
        "rocket",
        &["rocket", "salvo"],
        &[query, merge, drop_last_slashes, decode_segments],
        exact,
    ),
    server(
        "cherrypy",
        &["cherrypy"],
        &[query, host, merge, drop_last_slashes, decode_segments],
        exact,
    ),
    server("h3", &["h3"], &[query, decode_segments, query, drop_last_slash], empty_inner_id),
    server("fastify", &["fastify5", "nginx>fastify5"], &[query, decode_uri], empty_id),
    // `;` begins the query.
    server(
        "fastify-4",
        &["fastify4", "caddy>fastify4", "goproxy>fastify4", "nginx>fastify4"],
        &[query, semicolon, decode_uri],
        empty_id,
    ),
    server(
        "fastify-lax",
        &["fastify4lax", "fastify5lax"],
        &[query, semicolon, merge, drop_last_slashes, decode_uri],
        empty_id,
    ),
    server(
        "restify",
        &["restify"],
        &[query, semicolon, backslashes, host_with_user, decode_segments],
        empty_id,
    ),
    server(
        "restify-merging",
        &["restifydedupe"],
        &[query, merge, drop_last_slashes, semicolon, backslashes, decode_segments],
        empty_id,
    ),
    // Those that parse the target as a URL.
    server("node-parse", &["nodeurlparse"], &[query, backslashes, host_with_user], exact),
    server("node-url", &["nodeurl"], &[query, any_host, backslashes, resolve_escaped], exact),
    server("node-url-path", &["nodeurlhost"], &[query, backslashes, resolve_escaped], exact),
    server(
        "node-url-decoding",
        &["nodeurldecode"],
        &[query, any_host, backslashes, resolve_escaped, decode],
        exact,
    ),
    server("itty", &["itty"], &[query, backslashes, resolve_escaped, drop_last_slashes], exact),
    server(
        "hono",
        &["hono", "nginx>hono"],
        &[query, backslashes, resolve_escaped, decode_segments],
        exact,
    ),
    server(
        "hono-lax",
        &["honolax"],
        &[query, backslashes, resolve_escaped, drop_last_slash, decode_segments],
        exact,
    ),
    server("hapi", &["hapi"], &[query, resolve_escaped, decode_segments], exact),
    server(
        "hapi-lax",
        &["hapilax"],
        &[query, resolve_escaped, drop_last_slash, decode_segments],
        exact,
    ),
    // Those that resolve dot segments and merge slashes, in one order or the other.
    server("nginx", &["nginx", "nginx-i"], &[query, decode, merge, resolve], regular_parameters),
    server(
        "nginx-unmerged",
        &["nginx-merge_slashes-off"],
        &[query, decode, resolve],
        regular_parameters,
    ),
    server(
        "lighttpd",
        &["lighttpd", "fasthttp", "lighttpd>fastapi", "apache-proxypass-prefix-aeson"],
        &[query, decode, merge, resolve],
        exact,
    ),
    server(
        "apache",
        &["apache-rewrite", "apache-proxypassmatch", "apache>nodesplit"],
        &[query, decode_segments, merge, resolve],
        exact,
    ),
    server(
        "chi-cleaning",
        &["chi-cleanpath", "gin-raw-extra"],
        &[query, merge, resolve, drop_last_slashes],
        exact,
    ),
    server(
        "haproxy-normalizing",
        &["haproxy-normalize"],
        &[query, decode_unreserved, resolve, merge],
        exact,
    ),
    server("envoy-unescaping", &["envoy-unescape-nonorm"], &[query, decode_slashes, merge], exact),
    server(
        "envoy-normalizing",
        &["envoy-normalize+merge"],
        &[query, backslashes, decode_unreserved, resolve_with_parameters, merge],
        exact,
    ),
    server(
        "envoy-unescaping-normalizing",
        &["envoy-unescape_slashes"],
        &[query, decode_slashes, backslashes, decode_unreserved, resolve_with_parameters, merge],
        exact,
    ),
    server(
        "sinatra",
        &["sinatra+puma", "nginx>sinatra", "apache-nocanon>sinatra"],
        &[query, decode, backslashes, merge, resolve],
        exact,
    ),
    server(
        "caddy-expression",
        &["caddy-path_regexp"],
        &[query, decode, merge, resolve_to_the_end],
        exact,
    ),
    // Dots and spaces at the end are dropped, and case is ignored. What was recorded matches
    // `/v2/agent/*`, which has any number of segments.
    server(
        "caddy",
        &["caddy"],
        &[query, decode, merge, resolve_to_the_end, fold_case],
        trailing_dots,
    ),
    server("kestrel", &[], &[query, decode_segments, resolve], exact),
    server(
        "iis",
        &[],
        &[query, decode_u, decode, backslashes, resolve, drop_last_dots, fold_case],
        exact,
    ),
    // Those that cut `;parameters`.
    server(
        "tomcat",
        &["tomcat10", "nginx>tomcat", "apache-nocanon>tomcat"],
        &[query, parameters, decode, merge, resolve_to_the_end],
        exact,
    ),
    server(
        "tomcat-solidus",
        &["tomcat10-solidus-decode"],
        &[query, parameters, decode, backslashes, merge, resolve_to_the_end],
        exact,
    ),
    server(
        "tomcat-encoded-solidus",
        &["tomcat10-solidus-pass"],
        &[query, parameters, decode_segments, backslashes, merge, resolve_to_the_end],
        exact,
    ),
    server("late-servlet", &[], &[query, decode, parameters, merge, resolve], exact),
    server(
        "jetty",
        &["jetty9", "jetty9-legacy", "nginx>jetty"],
        &[query, parameters, decode_u, decode, resolve],
        exact,
    ),
    server(
        "jetty-compact",
        &["jetty9-compact"],
        &[query, parameters, decode_u, decode, resolve, merge],
        exact,
    ),
    server(
        "spring",
        &["spring4.3", "nginx>spring"],
        &[query, parameters, decode, resolve, merge],
        with_any_suffix,
    ),
    server(
        "spring-without-suffix",
        &["spring4.3-nosuffix"],
        &[query, parameters, decode, resolve, merge],
        exact,
    ),
    // A literal may have a format.
    server(
        "rails",
        &["rails6.1+puma", "nginx>rails"],
        &[query, merge, drop_last_slashes],
        with_format,
    ),
    server("django-rest-framework", &["drf+gunicorn"], &[query, decode], with_json_format),
    // A front controller's name is cut.
    server(
        "symfony",
        &[
            "nginx>php-fpm-symfony",
            "apache>php-fallback-symfony",
            "apache>php-htaccess-symfony",
            "php-S-docroot-symfony",
            "caddy>php-symfony",
        ],
        &[query, front_controller, decode],
        exact,
    ),
    server(
        "laravel",
        &["nginx>php-fpm-laravel"],
        &[query, front_controller, drop_last_slashes, decode],
        exact,
    ),
    server(
        "php-path-info",
        &["nginx>php-fpm-pathinfo-split"],
        &[query, decode, merge, resolve, front_controller, query],
        regular,
    ),
    // Those that decode twice.
    server(
        "mono",
        &["mono-httplistener-abspath"],
        &[query, decode, backslashes, decode_segments, resolve, query, fragment, trim_end],
        exact,
    ),
    server(
        "mono-decoding",
        &["mono-httplistener-localpath"],
        &[
            query,
            decode,
            backslashes,
            decode_segments,
            resolve,
            decode,
            query,
            fragment,
            decode,
            trim_end,
        ],
        exact,
    ),
];

/// The models of proxies that rewrite the target.
pub static PROXIES: &[Proxy] = &[
    proxy("nginx(URI)", &[query, decode, merge, resolve, escape]),
    proxy("nginx-rewrite", &[query, decode, merge, resolve, drop_last_newline, escape]),
    // The variable is the decoded path, and is not escaped again.
    proxy("nginx$uri", &[query, decode, merge, resolve, request_line]),
    proxy("nginx~$1", &[query, decode, merge, resolve, drop_last_newline, request_line]),
    proxy("apache", &[query, decode_segments, merge, resolve, escape]),
    proxy("apache-nocanon", &[merge_first]),
    proxy("lighttpd", &[query, decode, merge, resolve, escape]),
    proxy("haproxy-setpath-url_dec", &[query, decode, fragment, request_target]),
    proxy("haproxy-normalizing", &[query, decode_unreserved, resolve, merge]),
    proxy("envoy-normalizing", &[query, backslashes, decode_unreserved, resolve_with_parameters]),
    proxy(
        "envoy-unescape",
        &[query, decode_slashes, backslashes, decode_unreserved, resolve_with_parameters, merge],
    ),
    // One whose client parses URLs as the WHATWG specifies, as reqwest does.
    proxy("url-parser", &[query, backslashes, resolve_escaped]),
];
