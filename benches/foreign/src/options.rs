//! The options of both programs, which are environment variables.

use std::env;
use std::fmt::Display;
use std::str::FromStr;

/// The value of the variable `name`, or `default` if it is not set.
///
/// # Errors
/// If the value is not of that type.
pub fn option<T: FromStr<Err: Display>>(name: &str, default: T) -> Result<T, String> {
    match env::var(name) {
        Ok(value) => value.parse().map_err(|error| format!("{name} is {value:?}: {error}")),
        Err(_) => Ok(default),
    }
}
