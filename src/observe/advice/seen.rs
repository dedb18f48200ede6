//! What advice needs of a request besides its account.

use super::charged_twice::Mark;

/// What is looked at in a request besides its account. The layer implements it for HTTP requests.
pub(crate) trait Seen {
    /// Whether it is a CORS preflight.
    fn is_preflight(&self) -> bool {
        false
    }

    /// Whether it has credentials, be they right or wrong.
    fn has_credentials(&self) -> bool {
        false
    }

    /// Its path, if it has one.
    fn path(&self) -> Option<&str> {
        None
    }

    /// Whether a mark can be left in it.
    fn can_be_marked(&self) -> bool {
        false
    }

    /// The mark that another limiter has left in it.
    fn mark(&self) -> Option<&Mark> {
        None
    }
}

/// Stands for the request in a check without one.
pub(crate) struct Nothing;

impl Seen for Nothing {}
