//! Errors that say that a connection broke.

use std::any::Any;
use std::error::Error;
use std::io::{self, ErrorKind};

use tower::BoxError;

/// When a connection broke, as far as an error shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// While the request was being written: the server has not got all of it.
    Sending,
    /// At some time before the response: the server may have got all of the request.
    Unanswered,
}

// hyper's error has a method for the second of these, but none for the first, so that depending on
// hyper would not help. Some versions append the cause. tests/client/uploads.rs fails if the texts
// change.

/// hyper's text for a write to a connection of HTTP/1 that has failed.
const WRITE_FAILED: &str = "error writing a body to connection";

/// hyper's text for a connection that was closed without a response.
const NO_RESPONSE: &str = "connection closed before message completed";

/// Whether an error says that a connection broke. Errors of other types than [`BoxError`] and
/// [`io::Error`] are not looked into.
pub(super) fn broken<E: 'static>(error: &E) -> Option<Broken> {
    let error: &dyn Any = error;
    if let Some(error) = error.downcast_ref::<BoxError>() {
        return broken_error(&**error);
    }
    broken_error(error.downcast_ref::<io::Error>()?)
}

fn broken_error(error: &(dyn Error + 'static)) -> Option<Broken> {
    let (mut next, mut is_write) = (Some(error), false);
    while let Some(error) = next {
        match error.downcast_ref::<io::Error>().map(io::Error::kind) {
            // Only a write fails in this way.
            Some(ErrorKind::BrokenPipe) => return Some(Broken::Sending),
            Some(
                ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::UnexpectedEof,
            ) => return Some(if is_write { Broken::Sending } else { Broken::Unanswered }),
            _ => {}
        }
        let text = error.to_string();
        if text.starts_with(NO_RESPONSE) {
            return Some(Broken::Unanswered);
        }
        is_write |= text.starts_with(WRITE_FAILED);
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    /// An error with that text, because of another one.
    #[derive(Debug)]
    struct Because(&'static str, Option<BoxError>);

    impl fmt::Display for Because {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Because {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_ref().map(|source| &**source as _)
        }
    }

    fn because(text: &'static str, source: impl Into<BoxError>) -> BoxError {
        Box::new(Because(text, Some(source.into())))
    }

    #[test]
    fn a_broken_connection_is_found_below_other_errors() {
        for (kind, reading, writing) in [
            (ErrorKind::BrokenPipe, Some(Broken::Sending), Some(Broken::Sending)),
            (ErrorKind::ConnectionReset, Some(Broken::Unanswered), Some(Broken::Sending)),
            (ErrorKind::ConnectionAborted, Some(Broken::Unanswered), Some(Broken::Sending)),
            (ErrorKind::UnexpectedEof, Some(Broken::Unanswered), Some(Broken::Sending)),
            (ErrorKind::ConnectionRefused, None, None),
            (ErrorKind::TimedOut, None, None),
            (ErrorKind::Other, None, None),
        ] {
            let error = || io::Error::from(kind);
            assert_eq!(broken(&error()), reading, "{kind:?}");
            assert_eq!(broken::<BoxError>(&error().into()), reading, "{kind:?}");
            let read = because("client error (SendRequest)", because("connection error", error()));
            assert_eq!(broken(&read), reading, "{kind:?}");
            let write = because("client error (SendRequest)", because(WRITE_FAILED, error()));
            assert_eq!(broken(&write), writing, "{kind:?}");
        }
        let closed: BoxError = Box::new(Because(NO_RESPONSE, None));
        assert_eq!(
            broken(&because("client error (SendRequest)", closed)),
            Some(Broken::Unanswered)
        );
    }

    #[test]
    fn other_errors_are_no_broken_connections() {
        let reset = || io::Error::from(ErrorKind::ConnectionReset);
        assert_eq!(broken(&because("timed out", "at last")), None);
        assert_eq!(broken(&Because("of another type", Some(reset().into()))), None);
        assert_eq!(broken(&()), None);
    }
}
