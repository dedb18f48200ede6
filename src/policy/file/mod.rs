//! Policies that are read from files.

mod document;
mod error;
mod from_json;
mod from_toml;
mod interpret;
mod keys;
mod places;
mod read;
mod setting;
mod table;

pub use error::PolicyFileError;
