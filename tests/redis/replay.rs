//! A server's answers to three replicas are those of a model at the times that the server reported.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bolna_rate_limit::{Policy, Quota};
use redis::{Parser, Value};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::servers::Server;
use crate::support::{Replica, organization, store};

/// All bytes that went each way over one connection.
#[derive(Clone, Debug, Default)]
struct Recording {
    asked: Arc<Mutex<Vec<u8>>>,
    answered: Arc<Mutex<Vec<u8>>>,
}

type Recordings = Arc<Mutex<Vec<Recording>>>;

/// Starts a proxy to the server that records everything, and returns its port.
async fn tap(server: u16, recordings: Recordings, tasks: &mut JoinSet<()>) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tasks.spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await.unwrap();
            let recording = Recording::default();
            recordings.lock().unwrap().push(recording.clone());
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::spawn(carry(from_client, to_server, recording.asked));
            tokio::spawn(carry(from_server, to_client, recording.answered));
        }
    });
    port
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    record: Arc<Mutex<Vec<u8>>>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        record.lock().unwrap().extend_from_slice(&buffer[..length]);
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

/// One call of the script, which charges requests of one bucket, and its answer.
#[derive(Debug)]
struct Call {
    key: String,
    deadline: i64,
    /// How many requests there are, and what each costs.
    wanted: i64,
    interval: i64,
    refill: i64,
    /// The time of the server.
    now: i64,
    /// The time until the bucket is full, as it was before; `None` if the call was late.
    debt: Option<i64>,
}

fn values(bytes: &[u8]) -> Vec<Value> {
    let (mut parser, mut left, mut values) = (Parser::new(), bytes, Vec::new());
    // The parser reads ahead, so that the rest of the input says nothing.
    while let Ok(value) = parser.parse_value(&mut left) {
        values.push(value);
    }
    values
}

fn calls(recording: &Recording) -> Vec<Call> {
    let (asked, answered) =
        (values(&recording.asked.lock().unwrap()), values(&recording.answered.lock().unwrap()));
    assert_eq!(asked.len(), answered.len(), "every call was answered");
    let call = |(asked, answer): (Value, Value)| {
        let words: Vec<String> = redis::from_redis_value(asked).unwrap();
        if !words[0].starts_with("EVAL") || words[3].contains("~probe") {
            return None;
        }
        // A call of an unknown script has charged nothing.
        let answer: Vec<i64> = redis::from_redis_value(answer).ok()?;
        let (now, debt) = match answer[..] {
            [late] => (-late, None),
            [now, debt, 0, 0] => (now, Some(debt)),
            _ => panic!("{answer:?}"),
        };
        // The name, the script, one key, the time, which the server tells, and one run.
        assert_eq!((&*words[2], &*words[4], &*words[6], words.len()), ("1", "0", "1", 10));
        let number = |place: usize| words[place].parse().unwrap();
        Some(Call {
            key: words[3].clone(),
            deadline: number(5),
            wanted: number(7),
            interval: number(8),
            refill: number(9),
            now,
            debt,
        })
    };
    asked.into_iter().zip(answered).filter_map(call).collect()
}

/// A token bucket that counts microseconds of refill, while the script stores a time.
struct Model {
    fill: i64,
    now: i64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_of_a_run_is_that_of_a_token_bucket() {
    const BURST: i64 = 20;
    // 300 a second: one unit every 3333.3... us, rounded up to 3334 us.
    const INTERVAL: i64 = 3334;
    const CALLERS: usize = 5;
    let server = Server::start().await;
    let policy = Policy::builder().default_quota(Quota::per_second(300).burst(20)).build().unwrap();
    let recordings = Recordings::default();
    let (mut taps, mut tasks, mut fleet) = (JoinSet::new(), JoinSet::new(), Vec::new());
    for _ in 0..3 {
        let port = tap(server.port(), Arc::clone(&recordings), &mut taps).await;
        fleet.push(
            Replica::connect(store(format!("redis://127.0.0.1:{port}")), policy.clone()).await,
        );
    }
    let began = Instant::now();
    for (number, replica) in fleet.iter().flat_map(|replica| [replica; 4]).cloned().enumerate() {
        tasks.spawn(async move {
            let mut admitted = [0; CALLERS];
            let mut turn = number;
            while began.elapsed() < Duration::from_millis(1500) {
                turn += 1;
                let caller = turn % CALLERS;
                let decision = replica.check(&organization(&caller.to_string())).await;
                assert_eq!(decision.quota().burst(), 20, "the server decides");
                admitted[caller] += i64::from(decision.is_allowed());
                if turn % 7 == 0 {
                    // Long enough for units to come back.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            admitted
        });
    }
    let mut admitted = [0; CALLERS];
    for of_one in tasks.join_all().await {
        admitted.iter_mut().zip(of_one).for_each(|(sum, of_one)| *sum += of_one);
    }
    for replica in &fleet {
        assert_eq!(replica.events.all().len(), 0, "{:?}", replica.events);
    }
    drop(fleet);

    let mut calls: Vec<_> = recordings.lock().unwrap().iter().flat_map(calls).collect();
    // In the order in which the server made them: within one microsecond, each charge adds to the
    // debt.
    calls.sort_by_key(|call| (call.now, call.debt));
    let mut buckets: HashMap<&str, Model> = HashMap::new();
    let mut granted: HashMap<&str, i64> = HashMap::new();
    for call in &calls {
        let capacity = BURST * INTERVAL;
        assert_eq!((call.interval, call.refill), (INTERVAL, capacity));
        if call.deadline > 0 && call.now > call.deadline {
            assert_eq!(call.debt, None, "{call:?}");
            continue;
        }
        let model = buckets.entry(&call.key).or_insert(Model { fill: capacity, now: call.now });
        model.fill = capacity.min(model.fill + call.now - model.now);
        model.now = call.now;
        assert_eq!(call.debt, Some(capacity - model.fill), "{call:?}");
        let grants = call.wanted.min(model.fill / INTERVAL);
        model.fill -= grants * INTERVAL;
        *granted.entry(&call.key).or_default() += grants;
    }
    for (caller, admitted) in admitted.iter().enumerate() {
        assert_eq!(
            granted[&*format!("bolna:2:{{organization:{caller}}}:default")],
            *admitted,
            "what was granted was given out"
        );
        assert!(*admitted > 2 * BURST, "units came back");
    }
}
