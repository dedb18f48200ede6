//! The script that charges and changes buckets: how a request is encoded for it, and its reply
//! decoded. The encoding is described in `bucket.lua`.

use std::sync::LazyLock;

use redis::{Cmd, ErrorKind, RedisError, RedisResult, Script, Value};

use super::super::request::{Entries, Reply, Request, Run};
use super::key;
use crate::store::BucketState;
use crate::values::{OwnedBucket, Principal, Rate};

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(CODE));
const CODE: &str = include_str!("bucket.lua");

/// The call by the script's hash, which the server knows once it has run the script's text.
pub(super) fn by_hash(prefix: &str, request: &Request) -> Cmd {
    call("EVALSHA", SCRIPT.get_hash(), prefix, request)
}

/// The call by the script's text, from which the server learns the hash.
pub(super) fn by_text(prefix: &str, request: &Request) -> Cmd {
    call("EVAL", CODE, prefix, request)
}

/// The reply to a request.
///
/// # Errors
/// If the server replied with an error, or with what is no reply of the script to this request.
pub(super) fn reply(request: &Request, value: Value) -> RedisResult<Reply> {
    let Value::Array(values) = value.extract_error()? else { return Err(unexpected()) };
    match values[..] {
        [Value::Int(late)] if late < 0 => {
            Ok(Reply::Late { now: late.checked_neg().ok_or_else(unexpected)? })
        }
        [Value::Int(now), ref times @ ..]
            if now >= 0 && times.len() == 3 * request.buckets.len() =>
        {
            let states = times.chunks_exact(3).map(|times| state(times, request.now < 0));
            let states = states.collect::<Option<_>>();
            Ok(Reply::Done { now, states: states.ok_or_else(unexpected)? })
        }
        _ => Err(unexpected()),
    }
}

/// What is done to a probe bucket, which holds one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    Read,
    /// Charge the unit, which comes back after so many microseconds.
    Charge(u32),
    /// Fill it up again.
    Fill,
}

/// The call that does so, by `EVAL` or `EVALSHA`. `now` is 0 if the script asks for the time.
pub(super) fn probe(command: &'static str, key: &str, now: i64, what: Probe) -> Cmd {
    let script = if command == "EVAL" { CODE } else { SCRIPT.get_hash() };
    let mut cmd = redis::cmd(command);
    cmd.arg(script).arg(1).arg(key).arg(now).arg(0);
    match what {
        Probe::Read => {}
        Probe::Charge(micros) => {
            cmd.arg(1).arg(1).arg(micros).arg(micros);
        }
        Probe::Fill => {
            cmd.arg("d").arg(1);
        }
    }
    cmd
}

/// The server's time in the reply to a [`probe`].
///
/// # Errors
/// As those of [`reply`].
pub(super) fn shown(value: Value) -> RedisResult<i64> {
    match value.extract_error()? {
        Value::Array(values) => match values[..] {
            [Value::Int(now), ..] if now >= 0 => Ok(now),
            _ => Err(unexpected()),
        },
        _ => Err(unexpected()),
    }
}

/// The index of the bucket whose key holds something that is no bucket, from the script's error.
pub(super) fn foreign_bucket(error: &RedisError) -> Option<usize> {
    let number = error.detail()?.split("bucket ").nth(1)?;
    let digits = number.split(|other: char| !other.is_ascii_digit()).next()?;
    digits.parse::<usize>().ok()?.checked_sub(1)
}

fn call(command: &str, script: &str, prefix: &str, request: &Request) -> Cmd {
    let Request { principal, buckets, runs, deadline, now, .. } = request;
    let tag = key::tag(principal);
    let key_len = prefix.len() + tag.len() + 32;
    let mut cmd = Cmd::with_capacity(
        5 + buckets.len() + 4 * runs.len(),
        script.len() + buckets.len() * key_len + 64 + 48 * runs.len(),
    );
    cmd.arg(command).arg(script).arg(buckets.len());
    for bucket in buckets {
        cmd.arg(key::key(prefix, &tag, bucket.borrow(principal)));
    }
    cmd.arg(*now).arg(*deadline);
    let number = |bucket: &OwnedBucket| number(buckets, bucket);
    for run in runs {
        match run {
            // No request: the buckets are only read.
            Run::Charge { count: 0, .. } => {}
            Run::Charge { entries, count } => charge(&mut cmd, principal, buckets, entries, *count),
            Run::Settle { bucket, rate, time } => {
                cmd.arg("s").arg(number(bucket)).arg(micros(*time)).arg(refill(*rate));
            }
            Run::Refund { bucket, rate, time } => {
                cmd.arg("r").arg(number(bucket)).arg(micros(*time)).arg(refill(*rate));
            }
            Run::Reset { bucket } => {
                cmd.arg("d").arg(number(bucket));
            }
            Run::Block { bucket, time } => {
                cmd.arg("b").arg(number(bucket)).arg(micros(*time));
            }
        }
    }
    cmd
}

fn charge(
    cmd: &mut Cmd,
    principal: &Principal,
    buckets: &[OwnedBucket],
    entries: &Entries,
    count: u32,
) {
    let is_plain = matches!(entries.as_slice(), [entry] if entry.is_binding());
    if !is_plain {
        cmd.arg("c").arg(count).arg(entries.as_slice().len());
    }
    for (bucket, entry) in entries.buckets(principal).zip(entries.as_slice()) {
        let number = number(buckets, &bucket);
        cmd.arg(if entry.is_binding() { number } else { -number });
        if is_plain {
            cmd.arg(count);
        }
        cmd.arg(micros(entry.time())).arg(refill(entry.rate()));
    }
}

/// The number of a bucket in the request: its place among the keys, from 1 on. For a bucket that is
/// not there it is 0, which no key has.
fn number(buckets: &[OwnedBucket], bucket: &OwnedBucket) -> i64 {
    let place = buckets.iter().position(|other| other == bucket);
    debug_assert!(place.is_some(), "a bucket of {} is not one of the request", bucket.name);
    place.and_then(|place| i64::try_from(place + 1).ok()).unwrap_or(0)
}

fn refill(rate: Rate) -> u64 {
    micros(rate.refill())
}

fn micros(nanos: u64) -> u64 {
    debug_assert!(nanos % 1000 == 0, "{nanos} ns are not whole microseconds");
    nanos / 1000
}

/// The state of one bucket, from its debt, its overdraft and its block in microseconds.
fn state(times: &[Value], is_estimate: bool) -> Option<BucketState> {
    let nanos = |value: &Value| match value {
        Value::Int(micros) => u64::try_from(*micros).ok()?.checked_mul(1000),
        _ => None,
    };
    let [debt, overdraft, blocked] = times else { return None };
    let (debt, overdraft, blocked) = (nanos(debt)?, nanos(overdraft)?, nanos(blocked)?);
    Some(BucketState { debt, overdraft, blocked, shared: false, is_estimate })
}

fn unexpected() -> RedisError {
    (ErrorKind::UnexpectedReturnType, "a reply that is not one of the script").into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use redis::{Arg, Value};
    use smallvec::{SmallVec, smallvec};

    use super::super::super::request::{Entries, Reply, Request, Run};
    use super::{CODE, SCRIPT, by_hash, by_text, reply};
    use crate::store::{Bucket, BucketState, Charge, Entry};
    use crate::values::{Endpoint, Limit, OwnedBucket, Principal, Quota, Scope};

    fn organization() -> Principal {
        Principal::organization("org-4").expect("not empty")
    }

    fn bucket(endpoint: Endpoint) -> OwnedBucket {
        OwnedBucket::of(Bucket::of_account(&organization(), endpoint))
    }

    fn request(runs: SmallVec<[Run; 1]>) -> Request {
        Request {
            principal: organization(),
            buckets: smallvec![bucket(Endpoint::CALL), bucket(Endpoint::AGENT)],
            runs,
            deadline: 7,
            now: 5,
            asking: false,
        }
    }

    fn entry(endpoint: Endpoint) -> Entry {
        Entry::new(endpoint, Quota::per_minute(500).build().expect("valid"))
    }

    /// The words of the call after the time and the deadline.
    fn words(runs: SmallVec<[Run; 1]>) -> String {
        let cmd = by_hash("p", &request(runs));
        let words = cmd.args_iter().skip(7).map(|arg| match arg {
            Arg::Simple(word) => std::str::from_utf8(word).expect("text"),
            _ => panic!("an argument without a text"),
        });
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_call_names_the_keys_the_time_and_the_deadline() {
        let text = "\r\n$1\r\n2\r\n$29\r\np:2:{organization:org-4}:call\r\n\
                    $30\r\np:2:{organization:org-4}:agent\r\n$1\r\n5\r\n$1\r\n7\r\n";
        let request = request(smallvec![]);
        let packed = String::from_utf8(by_hash("p", &request).get_packed_command());
        let hash = SCRIPT.get_hash();
        assert_eq!(packed, Ok(format!("*7\r\n$7\r\nEVALSHA\r\n$40\r\n{hash}{text}")));
        let packed = String::from_utf8(by_text("p", &request).get_packed_command());
        let len = CODE.len();
        assert_eq!(packed, Ok(format!("*7\r\n$4\r\nEVAL\r\n${len}\r\n{CODE}{text}")));
    }

    #[test]
    fn a_run_is_a_kind_and_its_numbers() {
        let rate = entry(Endpoint::CALL).rate();
        let charge = |entries: &[Entry], count| Run::Charge { entries: entries.into(), count };
        let (call, agent) = (entry(Endpoint::CALL), entry(Endpoint::AGENT));
        let costly = agent.with_cost(3).expect("within the burst");
        assert_eq!(words(smallvec![]), "");
        assert_eq!(words(smallvec![charge(&[call], 9)]), "1 9 120000 60000000");
        assert_eq!(words(smallvec![charge(&[costly], 1)]), "2 1 360000 60000000");
        assert_eq!(words(smallvec![charge(&[agent.shadow()], 4)]), "c 4 1 -2 120000 60000000");
        assert_eq!(
            words(smallvec![charge(&[costly.shadow(), call], 4)]),
            "c 4 2 -2 360000 60000000 1 120000 60000000"
        );
        assert_eq!(words(smallvec![charge(&[call], 0)]), "");
        let (bucket, time) = (|| bucket(Endpoint::AGENT), 2_000_000);
        assert_eq!(
            words(smallvec![Run::Settle { bucket: bucket(), rate, time }]),
            "s 2 2000 60000000"
        );
        assert_eq!(
            words(smallvec![Run::Refund { bucket: bucket(), rate, time }]),
            "r 2 2000 60000000"
        );
        assert_eq!(words(smallvec![Run::Block { bucket: bucket(), time }]), "b 2 2000");
        assert_eq!(
            words(smallvec![
                Run::Reset { bucket: bucket() },
                charge(&[call], 1),
                Run::Block { bucket: bucket(), time: 0 }
            ]),
            "d 2 1 1 120000 60000000 b 2 0"
        );
    }

    #[test]
    fn the_buckets_of_users_and_of_everyone_are_keys_of_the_same_call() {
        let quota = Quota::per_minute(500).build().expect("valid");
        let of = |scope| Entry::of(Limit::new(Endpoint::CALL, quota).with_scope(scope));
        let entries = [entry(Endpoint::AGENT), of(Scope::User), of(Scope::Everyone)];
        let (principal, users) =
            (organization(), ["u-17", "u-18"].map(|id| Principal::user(id).expect("not empty")));
        let charges = users
            .iter()
            .map(|user| Charge::with_user(&principal, user, &entries).expect("three buckets"));
        let mut buckets: SmallVec<[_; 1]> = SmallVec::new();
        for bucket in charges.clone().flat_map(|charge| charge.buckets()).map(OwnedBucket::of) {
            if !buckets.contains(&bucket) {
                buckets.push(bucket);
            }
        }
        let runs = charges.map(|charge| Run::Charge { entries: Entries::of(&charge), count: 2 });
        let request = Request { buckets, runs: runs.collect(), ..request(smallvec![]) };
        let cmd = by_hash("p", &request);
        let words = cmd.args_iter().skip(2).map(|arg| match arg {
            Arg::Simple(word) => std::str::from_utf8(word).expect("text"),
            _ => panic!("an argument without a text"),
        });
        assert_eq!(
            words.collect::<Vec<_>>().join(" "),
            "4 p:2:{organization:org-4}:agent p:2:{organization:org-4}:call:user:u-17 \
             p:2:{~everyone}:call p:2:{organization:org-4}:call:user:u-18 5 7 \
             c 2 3 1 120000 60000000 2 120000 60000000 3 120000 60000000 \
             c 2 3 1 120000 60000000 4 120000 60000000 3 120000 60000000"
        );
    }

    #[test]
    fn a_reply_is_the_time_and_the_states() {
        let ints = |ints: &[i64]| Value::Array(ints.iter().copied().map(Value::Int).collect());
        let request = request(smallvec![]);
        let read = |value| reply(&request, value);
        let micros = Duration::from_micros;
        let drained = BucketState::default().full_after(micros(60)).overdrawn(micros(7));
        let blocked = BucketState::default().blocked_for(micros(1));
        assert_eq!(
            read(ints(&[5, 60, 7, 0, 0, 0, 1])),
            Ok(Reply::Done { now: 5, states: smallvec![drained, blocked] })
        );
        assert_eq!(read(ints(&[-8])), Ok(Reply::Late { now: 8 }));

        let text = |text: &str| Value::BulkString(text.into());
        let unexpected = [
            ints(&[]),
            ints(&[5]),
            ints(&[i64::MIN]),
            ints(&[5, 60, 7, 0, 0, 0]),
            ints(&[5, 60, 7, 0, 0, 0, 0, 0]),
            ints(&[5, 60, 7, 0, 0, 0, -1]),
            ints(&[5, 60, 7, 0, 0, 0, i64::MAX]),
            ints(&[-5, 60, 7, 0, 0, 0, 0]),
            Value::Array(vec![text("5"); 7]),
            Value::Array(vec![Value::Nil; 7]),
            Value::Nil,
            Value::Okay,
            Value::Int(5),
            text("5"),
        ];
        for value in unexpected {
            assert!(read(value.clone()).is_err(), "{value:?}");
        }
    }
}
