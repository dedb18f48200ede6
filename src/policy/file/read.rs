//! Reading a policy from a file or a text.

use std::fs;
use std::path::Path;
use std::str;

use super::document::{Mistake, Node};
use super::error::PolicyFileError;
use super::{from_json, from_toml, interpret};
use crate::policy::Policy;

type Format = fn(&str) -> Result<Node, Mistake>;

impl Policy {
    /// Reads a policy from a file. A name that ends in `.toml` is read as [TOML](Self::from_toml),
    /// one that ends in `.json` as [JSON](Self::from_json).
    ///
    /// This blocks while the file is read. To make the policy the active one, pass it to
    /// [`Limiter::set_policy`](crate::Limiter::set_policy), which keeps the buckets. The example
    /// `reload` does so whenever the file changes.
    ///
    /// # Format
    /// Both formats have the same keys; a table of TOML is an object of JSON. A key that is set
    /// replaces the setting of the base. A key that is not listed here is an error.
    ///
    /// Keys of the policy:
    ///
    /// * `base`: where to start from, `"bolna"` for [`Policy::bolna`] or `"empty"` for
    ///   [`Policy::builder`]. Defaults to `"bolna"`.
    /// * `enforce`: on which principals all quotas are
    ///   [enforced](crate::policy::PolicyBuilder::enforcement), `"full"`, `"shadow"`, or a whole
    ///   number of percent from 0 to 100. Defaults to `"full"`.
    /// * `exempt`: a list of paths that are [exempt](crate::policy::PolicyBuilder::exempt).
    ///   Defaults to none.
    /// * `stripped_prefixes`: a list of prefixes that
    ///   [the application strips](crate::policy::PolicyBuilder::stripped_prefix). Defaults to none.
    /// * `ignored_spellings`: a list of [kinds of spelling](crate::policy::Spelling::name) that
    ///   [are not read](crate::policy::PolicyBuilder::ignore_spellings). Defaults to none.
    /// * `default`: a table with settings of the endpoint `default`.
    /// * `endpoint`: a list of tables, each with the settings of one endpoint. An endpoint of the
    ///   base is changed. A new one is added after those of the base, in the order of the list.
    /// * `shared`: a list of tables, each with the settings of one limit that
    ///   [several endpoints share](crate::policy::PolicyBuilder::shared). Defaults to none.
    /// * `unidentified`: a table with the limit of
    ///   [requests without an account](crate::policy::PolicyBuilder::unidentified_quota), for each
    ///   address. Defaults to none.
    ///
    /// Keys of `default` and of each `endpoint`. A key that is not set stays as it is in the base,
    /// unless another default is given here:
    ///
    /// * `name`: the [name](crate::Endpoint) of the endpoint. Required, but not allowed in
    ///   `default`.
    /// * `limit`: the number of requests, from 1 to 4294967295. It must be set together with `per`.
    /// * `per`: the period, `"second"`, `"minute"`, `"hour"`, `"day"`, or a whole number of one of
    ///   them, in digits, such as `"10 seconds"`.
    /// * `burst`: the number of requests that can be admitted
    ///   [at one instant](crate::values::QuotaBuilder::burst), from 1 to 4294967295. Defaults to
    ///   `limit` if that is set.
    /// * `cost`: how many units of the endpoint's own limit a request
    ///   [costs](crate::policy::PolicyBuilder::cost), from 1 to the burst. Defaults to 1.
    /// * `enforce`: on which principals the endpoint's own limit is
    ///   [enforced](crate::policy::PolicyBuilder::enforce), with the values given above. Defaults
    ///   to `"full"`.
    /// * `user_share`: how much of its organization's limit
    ///   [one user may spend](crate::policy::PolicyBuilder::user_share), in percent from 1 to 100.
    ///   It adds a limit with the name of the endpoint and `-user`. Defaults to no such limit.
    /// * `concurrent`: how many requests of an account to the endpoint can be
    ///   [in flight](crate::policy::PolicyBuilder::concurrent), from 1 to 1000000000. It adds a
    ///   limit with the name of the endpoint and `-concurrent`. Defaults to no such limit.
    /// * `paths`: a list of [path templates](crate::policy::PolicyBuilder#paths), which replaces
    ///   that of the base.
    /// * `also`: a list of tables, each with the settings of one
    ///   [further limit](crate::policy::PolicyBuilder::also). It comes after those of `user_share`
    ///   and `concurrent`.
    ///   In TOML each table begins with `[[endpoint.also]]` or `[[default.also]]`, and comes after
    ///   the keys of the endpoint itself.
    ///
    /// A new endpoint needs `limit`, `per` and `paths`. An endpoint has at most four limits, its
    /// own and shared ones included.
    ///
    /// Keys of each `also` and `shared`:
    ///
    /// * `name`: the [name](crate::values::LimitName) of the limit. No other limit or endpoint of
    ///   the policy has it. Required.
    /// * `scope`: which requests are [counted together](crate::values::Scope), those of an
    ///   `"account"`, of a `"user"`, or of `"everyone"`. Defaults to `"account"`.
    /// * `limit`, `per` and `burst`, as above. `limit` and `per` are required, unless there is
    ///   `concurrent`.
    /// * `concurrent`: how many requests can be in flight, from 1 to 1000000000, in place of
    ///   `limit`, `per` and `burst`.
    /// * `cost` and `enforce`, as above.
    /// * `endpoints`, in `shared` only: a list of the names of the endpoints, which can be
    ///   `default`. Required, and not empty.
    ///
    /// Keys of `unidentified`: `limit`, `per`, `burst`, `cost` and `enforce`, as above. `limit` and
    /// `per` are required.
    ///
    /// An empty file is an error, because an editor may leave one behind for a moment while it
    /// writes.
    ///
    /// # Errors
    /// If the file can't be read, if its name ends in neither `.toml` nor `.json`, if it is not
    /// valid TOML or JSON in UTF-8, or if a setting is wrong. The error holds the line and the
    /// rule.
    ///
    /// ```
    /// use std::fs;
    /// use bolna_rate_limit::Policy;
    ///
    /// # let folder = format!("bolna-rate-limit-{}", std::process::id());
    /// # let folder = std::env::temp_dir().join(folder);
    /// # fs::create_dir_all(&folder)?;
    /// let path = folder.join("limits.toml");
    /// fs::write(&path, "[[endpoint]]\nname = \"call\"\nlimit = 0\nper = \"minute\"\n")?;
    /// let error = Policy::read(&path).expect_err("a limit of 0");
    /// assert_eq!((error.path(), error.line()), (Some(path.as_path()), Some(3)));
    /// let place = "limits.toml:3:9: quota of \"call\": limit is 0, which";
    /// assert!(error.to_string().contains(place));
    /// # fs::remove_dir_all(&folder)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[cfg_attr(docsrs, doc(cfg(feature = "policy-file")))]
    pub fn read(path: impl AsRef<Path>) -> Result<Self, PolicyFileError> {
        let path = path.as_ref();
        let Some(format) = format_of(path) else {
            return Err(PolicyFileError::of_file(
                path,
                "the name of a policy's file ends in .toml or .json",
            ));
        };
        let bytes = fs::read(path).map_err(|error| PolicyFileError::reading(path, error))?;
        parse(&bytes, format).map_err(|error| error.in_file(path))
    }

    /// Reads a policy from TOML 1.1, in the [format of policy files](Self::read).
    ///
    /// ```
    /// use std::time::Duration;
    /// use bolna_rate_limit::{Endpoint, Enforcement, Policy, Quota};
    ///
    /// let policy = Policy::from_toml(
    ///     r#"
    ///     base = "bolna"
    ///     exempt = ["/healthz"]
    ///
    ///     [default]
    ///     limit = 600
    ///     per = "minute"
    ///     paths = ["/v2/agent/all", "/search/help"]
    ///
    ///     [[endpoint]]
    ///     name = "call"                 # an endpoint of the base: only its burst changes
    ///     burst = 50
    ///     user_share = 20               # of an organization's 500, one user gets 100
    ///     concurrent = 10               # at most 10 requests of an organization in flight
    ///
    ///     [[endpoint.also]]
    ///     name = "call-all"             # a further limit of "call"
    ///     scope = "everyone"
    ///     limit = 5000
    ///     per = "minute"
    ///
    ///     [[endpoint]]
    ///     name = "search"
    ///     limit = 5
    ///     per = "10 seconds"
    ///     burst = 2
    ///     enforce = 25                  # on a quarter of the principals, for a start
    ///     paths = ["/search", "/search/{topic}"]
    ///     "#,
    /// )?;
    ///
    /// assert_eq!(policy.endpoint_of("/healthz"), None);
    /// assert_eq!(policy.endpoint_of("/search/help"), Some(Endpoint::DEFAULT));
    /// assert_eq!(policy.quota_of(Endpoint::CALL), Quota::per_minute(500).burst(50).build().ok());
    /// let limits: Vec<_> = policy.limits_of(Endpoint::CALL).map(|it| it.to_string()).collect();
    /// assert_eq!(
    ///     limits,
    ///     [
    ///         "call, 500 requests per minute for each account",
    ///         "call-user, 100 requests per minute for each user",
    ///         "call-concurrent, 10 requests at once for each account",
    ///         "call-all, 5000 requests per minute for all accounts together",
    ///     ],
    /// );
    /// let search = policy.endpoint_of("/search/books").expect("it is counted");
    /// let quota = Quota::per(5, Duration::from_secs(10)).burst(2).build();
    /// assert_eq!(policy.quota_of(search), quota.ok());
    /// assert_eq!(policy.enforcement_of(search), Enforcement::percent(25).ok());
    /// # Ok::<(), bolna_rate_limit::policy::PolicyFileError>(())
    /// ```
    ///
    /// # Errors
    /// If the text is not valid, or a setting is wrong. The error holds the line and the rule.
    #[cfg_attr(docsrs, doc(cfg(feature = "policy-file")))]
    pub fn from_toml(text: &str) -> Result<Self, PolicyFileError> {
        parse(text.as_bytes(), from_toml::document)
    }

    /// Reads a policy from JSON, in the [format of policy files](Self::read).
    ///
    /// ```
    /// use bolna_rate_limit::{Enforcement, Endpoint, Policy};
    ///
    /// let policy = Policy::from_json(
    ///     r#"{
    ///         "base": "bolna",
    ///         "exempt": ["/healthz"],
    ///         "default": {
    ///             "limit": 600,
    ///             "per": "minute",
    ///             "paths": ["/v2/agent/all", "/search/help"]
    ///         },
    ///         "endpoint": [
    ///             { "name": "call", "burst": 50 },
    ///             {
    ///                 "name": "search",
    ///                 "limit": 5,
    ///                 "per": "10 seconds",
    ///                 "burst": 2,
    ///                 "enforce": 25,
    ///                 "paths": ["/search", "/search/{topic}"]
    ///             }
    ///         ]
    ///     }"#,
    /// )?;
    ///
    /// let names: Vec<_> = policy.endpoints().map(|(endpoint, _)| endpoint.name()).collect();
    /// assert_eq!(names, ["executions", "agent", "call", "search", "default"]);
    /// # Ok::<(), bolna_rate_limit::policy::PolicyFileError>(())
    /// ```
    ///
    /// # Errors
    /// If the text is not valid, or a setting is wrong. The error holds the line and the rule.
    #[cfg_attr(docsrs, doc(cfg(feature = "policy-file")))]
    pub fn from_json(text: &str) -> Result<Self, PolicyFileError> {
        parse(text.as_bytes(), from_json::document)
    }
}

fn format_of(path: &Path) -> Option<Format> {
    let extension = path.extension()?;
    if extension.eq_ignore_ascii_case("toml") {
        Some(from_toml::document)
    } else if extension.eq_ignore_ascii_case("json") {
        Some(from_json::document)
    } else {
        None
    }
}

fn parse(bytes: &[u8], format: Format) -> Result<Policy, PolicyFileError> {
    // A byte order mark, with which some editors begin a file.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let document = match str::from_utf8(bytes) {
        Ok(text) => format(text),
        Err(error) => Err(Mistake::new(error.valid_up_to(), "the file is not in UTF-8")),
    };
    let policy = document.and_then(|document| interpret::policy(&document));
    policy.map_err(|mistake| PolicyFileError::in_text(bytes, mistake))
}
