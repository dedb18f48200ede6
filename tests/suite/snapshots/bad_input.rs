//! Bytes that are no snapshot, or no longer one.

use std::time::Duration;

use bolna_rate_limit::Policy;
use bolna_rate_limit::store::{Snapshot, SnapshotError};

use super::{admitted, member, snapshot};
use crate::support::{now, stopped_limiter};

/// With buckets and a block.
fn bytes() -> Vec<u8> {
    let (limiter, _) = stopped_limiter(Policy::default());
    for organization in ["acme", "other"] {
        assert_eq!(admitted(&limiter, &member("u", organization)), 500);
    }
    let endpoint = bolna_rate_limit::Endpoint::AGENT;
    now(limiter.block(&member("u", "acme"), endpoint, Duration::from_secs(60))).unwrap();
    snapshot(&limiter).as_bytes().to_vec()
}

#[test]
fn a_snapshot_that_is_cut_off_anywhere_is_refused() {
    let bytes = bytes();
    for end in 0..bytes.len() {
        let error = Snapshot::from_bytes(&bytes[..end]).unwrap_err();
        assert!(
            matches!(error, SnapshotError::Truncated { bytes, expected, .. }
                if bytes == end && expected > end as u64),
            "{end} bytes: {error:?}"
        );
    }
    let error = Snapshot::from_bytes(&bytes[..100]).unwrap_err().to_string();
    assert_eq!(
        error,
        "the snapshot is cut off: it has 100 bytes and needs 104; write it to another file first, \
         and rename that when it is complete"
    );
    assert!(Snapshot::from_bytes(bytes).is_ok());
}

#[test]
fn a_snapshot_in_which_a_bit_has_changed_is_refused() {
    let whole = bytes();
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(Snapshot::from_bytes(bytes).is_err(), "bit {bit}");
    }
}

#[test]
fn a_snapshot_with_more_behind_it_is_refused() {
    let mut bytes = bytes();
    bytes.push(0);
    let error = Snapshot::from_bytes(bytes).unwrap_err();
    assert_eq!(error, SnapshotError::Damaged);
    assert_eq!(
        error.to_string(),
        "the snapshot is damaged: its contents do not match its checksum, or make no sense; start \
         without it"
    );
}

#[test]
fn a_snapshot_of_a_later_version_is_refused_by_its_version() {
    // Whatever follows, since a later version may have another header.
    for rest in [&[][..], &[0; 7], &[1; 400]] {
        let bytes = [&b"bolna-rl"[..], &2_u64.to_le_bytes(), rest].concat();
        let error = Snapshot::from_bytes(bytes).unwrap_err();
        assert!(matches!(error, SnapshotError::Newer { version: 2, .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            "the snapshot is of version 2, and this release reads versions up to 1: it was taken \
             by a later release, so use that one or start without it"
        );
    }
}

#[test]
fn bytes_of_something_else_are_refused() {
    for bytes in
        [&b"{}"[..], b"\x89PNG\r\n\x1a\n0000", &[0; 1000], b"bolna-RL", b"bolna-rate-limit"]
    {
        let error = Snapshot::from_bytes(bytes).unwrap_err();
        assert_eq!(error, SnapshotError::Foreign);
        assert_eq!(
            error.to_string(),
            "the bytes are not a snapshot of a store: they do not begin as one; check which file \
             was read"
        );
    }
}

#[test]
fn numbers_of_buckets_that_can_not_be_there_allocate_nothing() {
    let whole = bytes();
    for count in [u64::MAX, u64::MAX / 24 + 1, 1 << 60, 1 << 40, 4] {
        for word in 5..11 {
            let mut bytes = whole.clone();
            bytes[word * 8..][..8].copy_from_slice(&count.to_le_bytes());
            let error = Snapshot::from_bytes(bytes).unwrap_err();
            let is_right =
                matches!(error, SnapshotError::Truncated { .. } | SnapshotError::Damaged);
            assert!(is_right, "{count}: {error:?}");
        }
    }
}
