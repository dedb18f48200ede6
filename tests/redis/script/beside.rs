//! Two releases whose keys have different formats share a server.

use bolna_rate_limit::Endpoint;

use super::{Bench, Call, Run, entry, micros};

/// The script of format 1, as it was released.
const FORMAT_1: &str = include_str!("format1.lua");
const KEY_1: &str = "bolna:1:call:o:org-4";
/// The key of the same bucket in format 2 is `bolna:2:{organization:org-4}:call`.
const TAG_2: &str = "bolna:2:{organization:org-4}";

#[test]
fn the_former_format_is_neither_read_nor_touched() {
    let mut bench = Bench::new();
    let entry = entry(Endpoint::CALL, 60_000_000, 10);
    let charge_1 = |bench: &mut Bench| -> i64 {
        let call = ["EVAL", FORMAT_1, "1", KEY_1, "60000000", "600000000", "1", "0"];
        bench.ask::<(i64, i64, i64)>(&call).0
    };
    let charge_2 = Call::one(TAG_2, Run::charge(1, entry), 0);
    let debt = |bench: &mut Bench| micros(bench.states(&charge_2)[0].until_full());
    for charged in 0..10 {
        let value_2 = bench.get(TAG_2, Endpoint::CALL);
        assert_eq!(charge_1(&mut bench), 1);
        assert_eq!(bench.get(TAG_2, Endpoint::CALL), value_2);

        let value_1: Option<String> = bench.ask(&["GET", KEY_1]);
        let before = debt(&mut bench);
        assert_eq!(bench.ask::<Option<String>>(&["GET", KEY_1]), value_1);
        assert_eq!(before.div_ceil(60_000_000), charged);
    }
    assert_eq!(charge_1(&mut bench), 0);
    assert_eq!(debt(&mut bench).div_ceil(60_000_000), 10);
    let mut keys: Vec<String> = bench.ask(&["KEYS", "*"]);
    keys.sort();
    assert_eq!(keys, [KEY_1, "bolna:2:{organization:org-4}:call"]);
    // Both disappear by themselves.
    for key in keys {
        assert!((1..=600_002).contains(&bench.ask::<i64>(&["PTTL", &key])), "{key}");
    }
}
