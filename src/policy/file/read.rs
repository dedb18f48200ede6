//! Reading a policy.

use std::fs;
use std::path::Path;
use std::str;

use super::document::{Mistake, Node};
use super::error::PolicyFileError;
use super::{from_json, from_toml, interpret};
use crate::policy::Policy;

type Format = fn(&str) -> Result<Node, Mistake>;

impl Policy {
    /// Reads a policy from a file: `.toml` as [TOML](Self::from_toml), `.json` as
    /// [JSON](Self::from_json).
    ///
    /// It blocks while the file is read. To replace the policy in force by what the file says now,
    /// hand it to [`Limiter::set_policy`](crate::Limiter::set_policy), which keeps what was
    /// spent; the example `reload` does so whenever the file changes.
    ///
    /// # Format
    /// Both formats hold the same keys, a table of TOML being an object of JSON. What is not set
    /// stays as the base has it; what is set replaces it. A key that is not listed here is an
    /// error.
    ///
    /// | key | value | if it is not set |
    /// |---|---|---|
    /// | `base` | `"bolna"`: [`Policy::bolna`]; `"empty"`: [`Policy::builder`] | `"bolna"` |
    /// | `enforce` | on whom any quota is [enforced](crate::PolicyBuilder::enforcement): `"full"`, `"shadow"`, or a whole number of percent, 0 to 100 | `"full"` |
    /// | `exempt` | a list of paths that are [not counted](crate::PolicyBuilder::exempt) | none |
    /// | `default` | a table: the endpoint of every path that no other claims | as the base has it |
    /// | `endpoint` | a list of tables, an endpoint each: those of the base are changed, others are added behind them, in the order of the list | none |
    ///
    /// In `default` and in each `endpoint`:
    ///
    /// | key | value | if it is not set |
    /// |---|---|---|
    /// | `name` | the endpoint's [name](crate::Endpoint); not in `default` | an error |
    /// | `limit` | how many requests, 1 to 4294967295; together with `per` | as the base has it |
    /// | `per` | in what time: `"second"`, `"minute"`, `"hour"`, `"day"`, or a number of them, as in `"10 seconds"` | as the base has it |
    /// | `burst` | how many of them [at one instant](crate::QuotaBuilder::burst) | the limit; as the base has it if that is not set either |
    /// | `enforce` | on whom this quota is [enforced](crate::PolicyBuilder::enforce), as above | `"full"` |
    /// | `paths` | a list of [templates](crate::PolicyBuilder#paths); they replace those of the base | as the base has it |
    ///
    /// An endpoint that the base does not have needs `limit`, `per` and `paths`. An empty file is
    /// an error: it is what an editor leaves behind for a moment while it writes.
    ///
    /// # Errors
    /// When the file can't be read, is neither TOML nor JSON, or when anything in it is wrong: the
    /// error names the line and the rule.
    ///
    /// ```
    /// use std::fs;
    /// use bolna_rate_limit::Policy;
    ///
    /// # let folder = std::env::temp_dir().join(format!("bolna-rate-limit-{}", std::process::id()));
    /// # fs::create_dir_all(&folder)?;
    /// let path = folder.join("limits.toml");
    /// fs::write(&path, "[[endpoint]]\nname = \"call\"\nlimit = 0\nper = \"minute\"\n")?;
    /// let error = Policy::read(&path).expect_err("a limit of 0");
    /// assert_eq!((error.path(), error.line()), (Some(path.as_path()), Some(3)));
    /// assert!(error.to_string().contains("limits.toml:3:9: quota of endpoint \"call\": limit is 0, which"));
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
    ///     name = "call"                 # Bolna's has it: only what stands here changes
    ///     burst = 50
    ///
    ///     [[endpoint]]
    ///     name = "search"
    ///     limit = 5
    ///     per = "10 seconds"
    ///     burst = 2
    ///     enforce = 25                  # on a quarter of the callers, for a start
    ///     paths = ["/search", "/search/{topic}"]
    ///     "#,
    /// )?;
    ///
    /// assert_eq!(policy.endpoint_of("/healthz"), None);
    /// assert_eq!(policy.endpoint_of("/search/help"), Some(Endpoint::DEFAULT));
    /// assert_eq!(policy.quota_of(Endpoint::CALL), Quota::per_minute(500).burst(50).build().ok());
    /// let search = policy.endpoint_of("/search/books").expect("it is counted");
    /// assert_eq!(policy.quota_of(search), Quota::per(5, Duration::from_secs(10)).burst(2).build().ok());
    /// assert_eq!(policy.enforcement_of(search), Some(Enforcement::percent(25)));
    /// # Ok::<(), bolna_rate_limit::policy::PolicyFileError>(())
    /// ```
    ///
    /// # Errors
    /// When anything in it is wrong: the error names the line and the rule.
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
    ///         "default": { "limit": 600, "per": "minute", "paths": ["/v2/agent/all", "/search/help"] },
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
    /// When anything in it is wrong: the error names the line and the rule.
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
    // The mark that some editors begin a file with.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let document = match str::from_utf8(bytes) {
        Ok(text) => format(text),
        Err(error) => Err(Mistake::new(error.valid_up_to(), "the file is not in UTF-8")),
    };
    let policy = document.and_then(|document| interpret::policy(&document));
    policy.map_err(|mistake| PolicyFileError::in_text(bytes, mistake))
}
