//! The keys of buckets on the server: key format 2.
//!
//! * `<prefix>:2:{<kind>:<id>}:<limit>`, as in `bolna:2:{organization:org-4}:call`: the bucket of
//!   an account or an address.
//! * `<prefix>:2:{<kind>:<id>}:<limit>:<kind>:<id>`, as in
//!   `bolna:2:{organization:org-4}:call-user:user:u-17`: the bucket of a user within the principal
//!   that is billed.
//! * `<prefix>:2:{~everyone}:<limit>`: the bucket of everyone.
//!
//! The part in braces is the hash tag, by which a cluster chooses the slot. So all buckets of a
//! principal are in one slot, and one script can charge them. Those of everyone are in another, so
//! a script can charge both only if one server has all slots.
//!
//! The rules of formats:
//! * The number stands for the keys, for the values and for what the script makes of them. **A
//!   format is never changed in place.** A change takes a new number, and so new keys, which the
//!   script of another format never reads.
//! * So releases of different formats can share a server, though not their counts. While both run,
//!   a principal can spend a burst with each of them.
//! * Every key has an expiry. So the keys of a format that is no longer used disappear by
//!   themselves, those of format 1 as well.
//! * The quota is not part of the key. So units that were spent stay spent when quotas change.
//! * The parts of a key never contain `:`, `{` or `}`, apart from the prefix, which may contain
//!   `:`. So no id can choose its slot or have the key of another bucket.

use std::fmt::Write;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};

use crate::values::{Bucket, OwnedBucket, Principal};

/// The hash tag of a principal, without the braces: all that its slot in a cluster depends on.
pub(super) fn tag(principal: &Principal) -> String {
    if principal.is_everyone() { EVERYONE.to_owned() } else { encoded(principal) }
}

/// The hash tag of everyone. No other principal has it, since no name of a kind contains `~`.
const EVERYONE: &str = "~everyone";

fn encoded(principal: &Principal) -> String {
    let (kind, id) = (principal.kind().name(), principal.id().as_str());
    let mut text = String::with_capacity(kind.len() + id.len().min(LONGEST) + 16);
    text.push_str(kind);
    text.push(':');
    if id.len() <= LONGEST {
        text.extend(utf8_percent_encode(id, PLAIN));
    } else {
        // Writing to a string never fails.
        let _ = write!(text, "~{:x}", Sha256::digest(id));
    }
    text
}

/// The key of a bucket. `tag` is that of the principal whose request names it.
pub(super) fn key(prefix: &str, tag: &str, bucket: Bucket<'_>) -> String {
    let tag = if bucket.principal().is_everyone() { EVERYONE } else { tag };
    let name = bucket.name();
    match bucket.user() {
        None => [prefix, ":2:{", tag, "}:", name.name()].concat(),
        Some(user) => [prefix, ":2:{", tag, "}:", name.name(), ":", &encoded(user)].concat(),
    }
}

/// The pattern of the keys of such buckets, with a `*` for each id: errors are logged, and ids do
/// not belong in a log. `principal` is the one whose request names the bucket.
pub(super) fn pattern(prefix: &str, principal: &Principal, bucket: Option<&OwnedBucket>) -> String {
    let bucket = bucket.map(|bucket| bucket.borrow(principal));
    let principal = bucket.map_or(principal, |bucket| bucket.principal());
    let tag = if principal.is_everyone() {
        EVERYONE.to_owned()
    } else {
        format!("{}:*", principal.kind())
    };
    let name = bucket.map_or("*", |bucket| bucket.name().name());
    let user = bucket.and_then(|bucket| bucket.user());
    let user = user.map_or_else(String::new, |user| format!(":{}:*", user.kind()));
    format!("{prefix}:2:{{{tag}}}:{name}{user}")
}

/// The hash tag of a probe bucket. No principal has it, since no name of a kind contains `~`.
pub(super) fn probe_tag(number: u32) -> String {
    format!("~probe:{number}")
}

/// The key of a probe bucket.
pub(super) fn probe(prefix: &str, number: u32) -> String {
    format!("{prefix}:2:{{{}}}:probe", probe_tag(number))
}

/// Whether `prefix` can be the beginning of a key: 1 to 64 characters of `[A-Za-z0-9_.:/-]`. Braces
/// are excluded because they would choose the slot in a cluster.
pub(super) fn is_prefix(prefix: &str) -> bool {
    let ok =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b'/' | b'-');
    (1..=64).contains(&prefix.len()) && prefix.bytes().all(ok)
}

/// The longest id, in bytes, that is part of a key. Longer ids are hashed.
const LONGEST: usize = 64;

/// All characters are encoded but letters, digits, `-`, `_` and `.`. So `~` marks a hash, and no id
/// contains `:`, `{` or `}`: see the rules above.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{is_prefix, key, pattern, probe, probe_tag, tag};
    use crate::values::{Bucket, Endpoint, Kind, LimitName, OwnedBucket, Principal};

    #[test]
    fn keys_look_as_documented() {
        let principal = Principal::organization("org-4").expect("not empty");
        let user = Principal::user("u 17").expect("not empty");
        let name = LimitName::new("call-user").expect("a valid name");
        let key = |bucket| key("bolna", &tag(&principal), bucket);
        assert_eq!(tag(&principal), "organization:org-4");
        let bucket = Bucket::of_account(&principal, Endpoint::CALL);
        assert_eq!(key(bucket), "bolna:2:{organization:org-4}:call");
        let bucket = Bucket::of_user(&principal, &user, name);
        assert_eq!(key(bucket), "bolna:2:{organization:org-4}:call-user:user:u%2017");
        let bucket = Bucket::of_everyone(Endpoint::CALL);
        assert_eq!(key(bucket), "bolna:2:{~everyone}:call");
        assert_eq!(tag(Principal::everyone()), "~everyone");
        assert_eq!(probe("bolna", 7), "bolna:2:{~probe:7}:probe");
        let long = Principal::user("x".repeat(65)).expect("not empty");
        let hash = "9537c5fdf120482f7d58d25e9ed583f52c02b4e304ea814db1633ad565aed7e9";
        assert_eq!(tag(&long), format!("user:~{hash}"));
        let bucket = Bucket::of_user(&principal, &long, name);
        assert_eq!(key(bucket), format!("bolna:2:{{organization:org-4}}:call-user:user:~{hash}"));
    }

    #[test]
    fn a_pattern_shows_no_id() {
        let principal = Principal::organization("org-4").expect("not empty");
        let user = Principal::user("u-17").expect("not empty");
        let shown = |principal, bucket| pattern("bolna", principal, Some(&OwnedBucket::of(bucket)));
        let account = Bucket::of_account(&principal, Endpoint::CALL);
        assert_eq!(shown(&principal, account), "bolna:2:{organization:*}:call");
        let of_user = Bucket::of_user(&principal, &user, Endpoint::CALL);
        assert_eq!(shown(&principal, of_user), "bolna:2:{organization:*}:call:user:*");
        let everyones = Bucket::of_everyone(Endpoint::CALL);
        for principal in [&principal, Principal::everyone()] {
            assert_eq!(shown(principal, everyones), "bolna:2:{~everyone}:call");
        }
        assert_eq!(pattern("bolna", &principal, None), "bolna:2:{organization:*}:*");
    }

    #[test]
    fn ids_never_collide_and_never_choose_their_slot() {
        let long = "x".repeat(10_240);
        let hash_of_long = tag(&Principal::user(&long).expect("not empty"));
        let hash_of_long = hash_of_long.strip_prefix("user:").expect("the kind comes first");
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
            "}",
            "%7Ba%7D",
            " a",
            "a b",
            "a\r\nb",
            "a\0b",
            "a\0",
            "ä",
            "a\u{308}",
            "%C3%A4",
            "~",
            "~everyone",
            "all",
            "7",
            "organization:a",
            "user:a",
            "call:user:a",
            ":",
            "::",
            &long,
            &cut,
            hash_of_long,
            &hash_of_long[1..],
        ];
        let kinds = ["organization", "user", "address", "probe", "o", "2"].map(Kind::new);
        let all: Vec<_> = ids
            .iter()
            .flat_map(|id| kinds.iter().flatten().map(move |kind| (id, *kind)))
            .map(|(id, kind)| Principal::new(kind, id).expect("the id is not empty"))
            .collect();
        let mut keys = HashSet::from([probe("p", 7)]);
        let mut insert = |tag: &str, hashed: &str, bucket| {
            let key = key("p", tag, bucket);
            // What a cluster hashes: from the first `{` to the first `}` behind it.
            let part = key.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
            assert_eq!(part.map(|(part, _)| part), Some(hashed), "{key}");
            assert!(key.len() < 64 + 1 + 2 * (64 + 3 * 64) + 64, "{key}");
            assert!(keys.insert(key), "{bucket}");
        };
        for principal in &all {
            let tag = tag(principal);
            let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}');
            assert!(tag.bytes().all(is_plain), "{tag}");
            assert_eq!(tag.matches(':').count(), 1, "{tag}");
            assert_ne!(tag, probe_tag(7));
            for name in [Endpoint::CALL, Endpoint::AGENT] {
                insert(&tag, &tag, Bucket::of_account(principal, name));
                for user in &all {
                    insert(&tag, &tag, Bucket::of_user(principal, user, name));
                }
            }
        }
        for name in [Endpoint::CALL, Endpoint::AGENT] {
            // It is the same for the request of every principal.
            insert(&tag(&all[0]), "~everyone", Bucket::of_everyone(name));
        }
        assert_eq!(keys.len(), 1 + 2 * all.len() * (1 + all.len()) + 2);
    }

    #[test]
    fn a_prefix_never_chooses_the_slot() {
        for prefix in ["bolna", "a", "eu:prod/limits.v1_x-", &"x".repeat(64)] {
            assert!(is_prefix(prefix), "{prefix}");
        }
        for prefix in ["", "{a}", "a b", "ä", "a\n", "a~", &"x".repeat(65)] {
            assert!(!is_prefix(prefix), "{prefix}");
        }
    }
}
