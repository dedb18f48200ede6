//! The keys of buckets on the server.

use std::fmt::Write;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};

use crate::values::{Endpoint, Kind, Principal};

/// The longest id, in bytes, that is part of a key. Longer ids are hashed.
const LONGEST: usize = 64;

/// The characters that are not encoded: letters, digits, `-`, `_` and `.`. Others must be encoded:
/// `:` separates the parts of a key, `~` marks a hash, and with `{` and `}` an id could choose its
/// slot in a cluster.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// The key of a bucket: `<prefix>:1:<endpoint>:<kind>:<id>`, where 1 is the version of the format.
/// The kind is `o` for an organization, `u` for a user, and `~` with its name for any other.
///
/// The limit is not part of the key, so units that were spent stay spent when limits change.
pub(super) fn key(prefix: &str, endpoint: Endpoint, principal: &Principal) -> String {
    let (id, kind) = (principal.id().as_str(), principal.kind());
    let mut key =
        String::with_capacity(prefix.len() + endpoint.name().len() + id.len().min(LONGEST) + 16);
    // Writing to a string never fails.
    let _ = if kind == Kind::ORGANIZATION {
        write!(key, "{prefix}:1:{endpoint}:o:")
    } else if kind == Kind::USER {
        write!(key, "{prefix}:1:{endpoint}:u:")
    } else {
        write!(key, "{prefix}:1:{endpoint}:~{kind}:")
    };
    if id.len() <= LONGEST {
        key.extend(utf8_percent_encode(id, PLAIN));
    } else {
        let _ = write!(key, "~{:x}", Sha256::digest(id));
    }
    key
}

/// A key without the principal's id: errors are logged, and ids do not belong in a log.
pub(super) fn without_id(key: &str) -> &str {
    key.rsplit_once(':').map_or("", |(class, _)| class)
}

/// The key of a probe bucket, which belongs to no principal.
pub(super) fn probe(prefix: &str, number: u32) -> String {
    format!("{prefix}:1:probe:{number}")
}

/// Whether `prefix` can be the beginning of a key: 1 to 64 characters of `[A-Za-z0-9_.:/-]`. Braces
/// are excluded because they would choose the slot in a cluster.
pub(super) fn is_prefix(prefix: &str) -> bool {
    let ok =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b'/' | b'-');
    (1..=64).contains(&prefix.len()) && prefix.bytes().all(ok)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::key;
    use crate::values::{Endpoint, Kind, Principal};

    #[test]
    fn ids_never_collide_and_never_choose_their_slot() {
        let long = "x".repeat(10_240);
        let hash_of_long = key("p", Endpoint::CALL, &Principal::user(&long).expect("not empty"));
        let hash_of_long = hash_of_long.rsplit(':').next().expect("there are parts").to_owned();
        let cut = "x".repeat(10_239);
        let ids = [
            "a",
            "A",
            "a:b",
            "a%3Ab",
            "a%3ab",
            "{a}",
            "{a}b",
            "a{b}",
            "{}",
            "%7Ba%7D",
            " ",
            "a b",
            "a\r\nb",
            "a\0b",
            "a\0",
            "ä",
            "a\u{308}",
            "%C3%A4",
            "~",
            "o:a",
            "u:a",
            ":",
            "::",
            &long,
            &cut,
            &hash_of_long,
            &hash_of_long[1..],
        ];
        let mut keys = HashSet::new();
        for id in ids {
            let kinds = ["organization", "user", "address", "o", "u"].map(Kind::new);
            for kind in kinds.into_iter().flatten() {
                let principal = Principal::new(kind, id).expect("the id is not empty");
                for endpoint in [Endpoint::CALL, Endpoint::AGENT] {
                    let key = key("p", endpoint, &principal);
                    assert!(
                        key.bytes()
                            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}')),
                        "{key}"
                    );
                    assert_eq!(key.split(':').count(), 5, "{key}");
                    assert!(key.len() < 256, "{key}");
                    assert!(keys.insert(key), "{id:?}");
                }
            }
        }
        assert_eq!(keys.len(), 10 * ids.len());
    }
}
