//! Plain data is written and read with `serde`.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bolna_rate_limit::layer::{OnStoreFailure, OnUnidentified};
use bolna_rate_limit::observe::MostRefused;
use bolna_rate_limit::store::{MemoryStore, Snapshot};
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::values::{Id, Kind};
use bolna_rate_limit::{Account, Endpoint, Enforcement, Limiter, Policy, Principal, Quota};
use serde::de::value::BytesDeserializer;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde::ser::{Impossible, Serialize, SerializeStruct, Serializer};
use serde_json::{Value, from_value, json, to_value};

/// Asserts that the value is written so, and read back from it.
#[track_caller]
fn assert_both_ways<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T, text: &Value) {
    assert_eq!(&to_value(value).unwrap(), text);
    assert_eq!(&T::deserialize(text).unwrap(), value);
}

/// Asserts that the text is refused for that reason.
#[track_caller]
fn assert_refused<T: DeserializeOwned + Debug>(text: Value, reason: &str) {
    let error = from_value::<T>(text).unwrap_err().to_string();
    assert!(error.contains(reason), "{error}");
}

#[test]
fn values_are_written_plainly_and_read_back() {
    assert_both_ways(&Endpoint::CALL, &json!("call"));
    assert_both_ways(&Kind::ADDRESS, &json!("address"));
    assert_both_ways(&Id::new("u-17").unwrap(), &json!("u-17"));
    let principal = Principal::organization("org-4").unwrap();
    assert_both_ways(&principal, &json!({ "kind": "organization", "id": "org-4" }));
    assert_both_ways(&Enforcement::percent(25).unwrap(), &json!(25));
    assert_both_ways(&OnUnidentified::Admit, &json!("admit"));
    assert_both_ways(&OnStoreFailure::Refuse, &json!("refuse"));
    let quota = Quota::per_minute(500).burst(50).build().unwrap();
    let period = json!({ "secs": 60, "nanos": 0 });
    assert_both_ways(&quota, &json!({ "limit": 500, "period": period, "burst": 50 }));
    let without_burst = from_value::<Quota>(json!({ "limit": 500, "period": period })).unwrap();
    assert_eq!(without_burst, Quota::per_minute(500).build().unwrap());
    let in_flight = Quota::concurrent(10).build().unwrap();
    assert_both_ways(&in_flight, &json!({ "limit": 10, "concurrent": true }));
    let with_burst = json!({ "limit": 10, "concurrent": true, "burst": 10 });
    assert_eq!(from_value::<Quota>(with_burst).unwrap(), in_flight);
}

#[test]
fn what_makes_no_sense_is_refused_with_the_reason() {
    assert_refused::<Endpoint>(json!("no spaces"), "no endpoint of that name is known");
    assert_refused::<Kind>(json!(""), "no kind of that name is known");
    assert_refused::<Id>(json!(""), "the id is empty");
    assert_refused::<Id>(json!(" \t"), "the id is empty or white space");
    // Of a long name, the reason holds the beginning.
    let (name, cut) = (json!("x".repeat(1000)), format!("{:?}\u{2026}: no ", "x".repeat(100)));
    assert_refused::<Endpoint>(name.clone(), &cut);
    assert_refused::<Kind>(name, &cut);
    assert_refused::<Principal>(json!({ "kind": "user", "id": "" }), "the id is empty");
    assert_refused::<Principal>(json!({ "kind": "user", "id": "u", "x": 1 }), "unknown field");
    assert_refused::<Enforcement>(json!(101), "from 0 to 100");
    let quota = |limit| json!({ "limit": limit, "period": { "secs": 60, "nanos": 0 } });
    assert_refused::<Quota>(quota(0), "limit is 0");
    assert_refused::<Quota>(json!({ "limit": 5 }), "missing field `period`");
    let mut both = quota(5);
    both["concurrent"] = json!(true);
    assert_refused::<Quota>(both, "a limit of requests in flight has no `period`");
    let in_flight = |limit: u32| json!({ "limit": limit, "concurrent": true });
    assert_refused::<Quota>(in_flight(0), "limit is 0");
    assert_refused::<Quota>(in_flight(1_000_000_001), "at most 1000000000");
    let burst = json!({ "limit": 5, "concurrent": true, "burst": 6 });
    assert_refused::<Quota>(burst, "no burst of its own");
}

#[test]
fn an_operators_page_shows_what_was_decided() {
    let clock = ManualClock::new();
    let policy = Policy::bolna().quota("call", Quota::per_hour(1)).build().unwrap();
    let limiter = Limiter::with_store(policy, MemoryStore::with_clock(clock.clone())).unwrap();
    let refused = Arc::new(MostRefused::new(9).with_clock(clock.clone()));
    limiter.observe(Arc::clone(&refused));
    limiter.set_candidate(Policy::default()).unwrap();
    let account = Account::user("u").in_organization("o");
    let allowed = limiter.check_now(&account, "/call").unwrap();
    clock.advance(Duration::from_secs(600));
    let limited = limiter.check_now(&account, "/call").unwrap();

    let allowed = to_value(allowed).unwrap();
    assert_eq!(allowed["outcome"], "allowed");
    assert_eq!(allowed["decisions"][0]["remaining"], 0);
    assert_eq!(allowed["decisions"][0]["retry_after"], Value::Null);
    assert_eq!(allowed["candidate"][0]["remaining"], 499);
    assert_eq!(allowed["candidate"][1], Value::Null, "one limit, one decision");
    let limited = to_value(limited).unwrap();
    let wait = json!({ "secs": 3000, "nanos": 0 });
    let quota = json!({ "limit": 1, "period": { "secs": 3600, "nanos": 0 }, "burst": 1 });
    let decision = json!({
        "limit": "call", "scope": "account", "quota": quota, "allowed": false, "blocked": false,
        "cost": 1, "remaining": 0, "retry_after": wait, "reset": wait,
    });
    assert_eq!(limited["decisions"], json!([decision]));
    assert_eq!(
        (&limited["outcome"], &limited["enforced"], &limited["admitted"], &limited["endpoint"]),
        (&json!("limited"), &json!(true), &json!(false), &json!("call"))
    );

    let report = to_value(limiter.report()).unwrap();
    assert_eq!((&report["enforcement"], &report["store"]["buckets"]), (&json!(100), &json!(2)));
    let candidate = to_value(limiter.candidate_report()).unwrap();
    assert_eq!(
        (&candidate[2]["endpoint"], &candidate[2]["newly_allowed"]),
        (&json!("call"), &json!(1))
    );
    clock.advance(Duration::from_millis(3_600_500));
    let top = to_value(refused.top(9)).unwrap();
    let organization = json!({ "kind": "organization", "id": "o" });
    let ago = json!({ "secs": 3600, "nanos": 500_000_000 });
    let row = json!({
        "principal": organization, "user": null, "limit": "call", "scope": "account",
        "outcome": "limited", "endpoint": "call", "enforced": true, "refusals": 1, "at_least": 1,
        "first_ago": ago, "last_ago": ago,
    });
    assert_eq!(top, json!([row]));
}

#[test]
fn a_snapshot_is_written_as_text_and_read_back() {
    let clock = ManualClock::new();
    let limiter = Limiter::with_store(Policy::default(), MemoryStore::with_clock(clock.clone()));
    let (limiter, account) = (limiter.unwrap(), Account::user("u").in_organization("o"));
    assert!((0..500).all(|_| limiter.check_now(&account, "/call").unwrap().is_admitted()));
    let snapshot = limiter.store().snapshot();
    let text = serde_json::to_string(&snapshot).unwrap();
    assert_eq!(text.len(), snapshot.as_bytes().len() * 2 + 2);
    assert!(text.starts_with("\"626f6c6e612d726c0100000000000000"), "{text}");

    let read: Snapshot = serde_json::from_str(&text).unwrap();
    assert_eq!(read.as_bytes(), snapshot.as_bytes());
    let mut store = MemoryStore::with_clock(clock);
    store.restore_at(&read, read.taken_at()).unwrap();
    let limiter = Limiter::with_store(Policy::default(), store).unwrap();
    assert!(!limiter.check_now(&account, "/call").unwrap().is_admitted());

    for end in 0..text.len() {
        serde_json::from_str::<Snapshot>(&text[..end]).unwrap_err();
    }
    let digits = text.trim_matches('"');
    let refuse = |digits: &str, reason| assert_refused::<Snapshot>(json!(digits), reason);
    refuse(&digits[2..], "the bytes are not a snapshot of a store");
    refuse(&digits[..digits.len() - 2], "the snapshot is cut off: it has 127 bytes and needs 128");
    refuse(&digits[..digits.len() - 1], "it has to be pairs of digits 0-9 and a-f");
    refuse(&digits.replacen('6', "g", 1), "it has to be pairs of digits 0-9 and a-f");
    refuse(&digits.replacen("0100", "0200", 1), "the snapshot is of version 2");
    let flipped = if digits.ends_with('0') { "1" } else { "0" };
    refuse(&format!("{}{flipped}", &digits[..digits.len() - 1]), "the snapshot is damaged");
    assert_refused::<Snapshot>(json!(7), "a snapshot as bytes or as hexadecimal text");
}

/// Names are kept for the life of the process, and there can be 256 kinds.
#[test]
fn a_name_from_outside_is_not_kept() {
    for number in 0..300 {
        let principal = json!({ "kind": format!("kind-{number}"), "id": "x" });
        assert_refused::<Principal>(principal, "no kind of that name is known");
        let endpoint = json!(format!("endpoint-{number}"));
        assert_refused::<Endpoint>(endpoint, "no endpoint of that name is known");
    }
    assert_refused::<Endpoint>(json!("call+candidate"), "no endpoint of that name is known");
    let kind = Kind::new("api_key").unwrap();
    assert_both_ways(&Principal::new(kind, 7).unwrap(), &json!({ "kind": "api_key", "id": "7" }));
    assert_both_ways(&Endpoint::new("search").unwrap(), &json!("search"));
}

#[test]
fn a_snapshot_is_bytes_in_formats_that_are_not_for_humans() {
    let limiter = Limiter::new(Policy::default());
    limiter.check_now(&Account::user("u"), "/call").unwrap();
    let snapshot = limiter.store().snapshot();
    let bytes = snapshot.serialize(Compact(&[])).unwrap();
    assert_eq!(bytes, snapshot.as_bytes());
    let read = Snapshot::deserialize(Compact(&bytes)).unwrap();
    assert_eq!(read.as_bytes(), snapshot.as_bytes());
    // Behind `untagged` and the like, serde says that such bytes are in a format for humans.
    let content = BytesDeserializer::<serde::de::value::Error>::new(&bytes);
    assert!(content.is_human_readable());
    assert_eq!(Snapshot::deserialize(content).unwrap().as_bytes(), snapshot.as_bytes());
    let error = Snapshot::deserialize(Compact(&bytes[1..])).unwrap_err().to_string();
    assert!(error.starts_with("the bytes are not a snapshot of a store"), "{error}");
}

/// Some of these formats find fields by their places, not by their names.
#[test]
fn a_quota_has_all_fields_in_formats_that_are_not_for_humans() {
    let rate = Quota::per_minute(500).burst(50).build().unwrap();
    let in_flight = Quota::concurrent(10).build().unwrap();
    for (quota, places) in [
        (rate, json!([500, { "secs": 60, "nanos": 0 }, 50, false])),
        (in_flight, json!([10, null, null, true])),
    ] {
        let names = quota.serialize(Compact(&[])).unwrap();
        assert_eq!(String::from_utf8(names).unwrap(), "limit, period, burst, concurrent, ");
        assert_eq!(from_value::<Quota>(places).unwrap(), quota);
    }
}

/// A format that is not for humans and has nothing but bytes. Of structs it writes the names of the
/// fields.
struct Compact<'a>(&'a [u8]);

impl<'de> Deserializer<'de> for Compact<'_> {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_byte_buf(self.0.to_vec())
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct Names(Vec<u8>);

impl SerializeStruct for Names {
    type Ok = Vec<u8>;
    type Error = serde_json::Error;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        _: &T,
    ) -> Result<(), Self::Error> {
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b", ");
        Ok(())
    }

    fn end(self) -> Result<Vec<u8>, Self::Error> {
        Ok(self.0)
    }
}

type Never = Impossible<Vec<u8>, serde_json::Error>;

macro_rules! refuse {
    ($($name:ident($($argument:ty),*) -> $result:ty;)+) => {$(
        fn $name(self, $(_: $argument),*) -> Result<$result, Self::Error> {
            Err(serde::ser::Error::custom("not bytes"))
        }
    )+};
}

impl Serializer for Compact<'_> {
    type Ok = Vec<u8>;
    type Error = serde_json::Error;
    type SerializeSeq = Never;
    type SerializeTuple = Never;
    type SerializeTupleStruct = Never;
    type SerializeTupleVariant = Never;
    type SerializeMap = Never;
    type SerializeStruct = Names;
    type SerializeStructVariant = Never;

    fn serialize_bytes(self, bytes: &[u8]) -> Result<Vec<u8>, Self::Error> {
        Ok(bytes.to_vec())
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Names, Self::Error> {
        Ok(Names(Vec::new()))
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Vec<u8>, Self::Error> {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Vec<u8>, Self::Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<Vec<u8>, Self::Error> {
        value.serialize(self)
    }

    refuse! {
        serialize_bool(bool) -> Vec<u8>;
        serialize_i8(i8) -> Vec<u8>;
        serialize_i16(i16) -> Vec<u8>;
        serialize_i32(i32) -> Vec<u8>;
        serialize_i64(i64) -> Vec<u8>;
        serialize_u8(u8) -> Vec<u8>;
        serialize_u16(u16) -> Vec<u8>;
        serialize_u32(u32) -> Vec<u8>;
        serialize_u64(u64) -> Vec<u8>;
        serialize_f32(f32) -> Vec<u8>;
        serialize_f64(f64) -> Vec<u8>;
        serialize_char(char) -> Vec<u8>;
        serialize_str(&str) -> Vec<u8>;
        serialize_none() -> Vec<u8>;
        serialize_unit() -> Vec<u8>;
        serialize_unit_struct(&'static str) -> Vec<u8>;
        serialize_unit_variant(&'static str, u32, &'static str) -> Vec<u8>;
        serialize_seq(Option<usize>) -> Never;
        serialize_tuple(usize) -> Never;
        serialize_tuple_struct(&'static str, usize) -> Never;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Never;
        serialize_map(Option<usize>) -> Never;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Never;
    }
}
