//! Replicas that are processes, as their parent sees them.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{env, fmt};

use bolna_rate_limit::Quota;

use super::level;
use super::replica::{MARK, SERVER};
use super::traffic::{Caller, QUOTAS, REPLICAS};
use crate::servers::{until, when};

/// On a machine that is busy with other tests, an admission may be read, and so counted, this late.
/// So a bound is exceeded only by more than the limit allows in this time, and one unit for each
/// replica.
const LATE: Duration = Duration::from_millis(100);

/// Processes that run the same traffic against one server. They end with this process.
pub(crate) struct Replicas {
    processes: Vec<Child>,
    readers: Vec<JoinHandle<()>>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    ready: u32,
    admitted: Vec<(u64, String)>,
    /// For each replica, when it lost the server and when it regained it, in turn.
    turns: [Vec<u64>; REPLICAS as usize],
    kinds: Vec<String>,
    fallbacks: u64,
    owed: u64,
}

impl Replicas {
    /// Starts them, and waits until each has connected. `args` make this program call
    /// [`run_if_asked`](super::replica::run_if_asked).
    pub(crate) async fn start(args: &[&str], url: &str) -> Self {
        Self::start_each(args, [url; REPLICAS as usize]).await
    }

    /// Starts replicas that each reach the server by an address of their own.
    pub(crate) async fn start_each(args: &[&str], urls: [&str; REPLICAS as usize]) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let (mut processes, mut readers) = (Vec::new(), Vec::new());
        for (number, url) in urls.into_iter().enumerate() {
            let mut command = Command::new(env::current_exe().unwrap());
            command.args(args).env(SERVER, url).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut process = command.spawn().unwrap();
            let lines = BufReader::new(process.stdout.take().unwrap()).lines();
            let seen = Arc::clone(&seen);
            readers.push(std::thread::spawn(move || {
                for line in lines.map_while(Result::ok) {
                    if let Some(line) = line.strip_prefix(MARK) {
                        seen.lock().unwrap().add(number, line);
                    }
                }
            }));
            processes.push(process);
        }
        let replicas = Self { processes, readers, seen };
        until("all replicas are connected", async || {
            let ready = replicas.seen.lock().unwrap().ready;
            when(ready == REPLICAS, ready)
        })
        .await;
        replicas
    }

    pub(crate) async fn until_regained(&self) {
        until("all replicas have regained the server", async || {
            let turns = &self.seen.lock().unwrap().turns;
            when(turns.iter().all(|turns| turns.len() % 2 == 0), turns)
        })
        .await;
    }

    /// Stops the requests, lets the replicas charge back what they owe, and ends them.
    pub(crate) fn stop(mut self) -> Record {
        for process in &mut self.processes {
            drop(process.stdin.take());
            assert!(process.wait().unwrap().success(), "a replica has failed");
        }
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
        Record(std::mem::take(&mut *self.seen.lock().unwrap()))
    }
}

/// If the test has failed, the replicas end at once.
impl Drop for Replicas {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Seen {
    fn add(&mut self, replica: usize, line: &str) {
        let words: Vec<_> = line.split(' ').collect();
        let number = words[1].parse().unwrap();
        match words[0] {
            "ready" => self.ready += 1,
            "admitted" => self.admitted.push((number, words[2].to_owned())),
            "lost" => {
                self.turns[replica].push(number);
                self.kinds.push(words[2].to_owned());
            }
            "regained" => self.turns[replica].push(number),
            "ended" => {
                self.fallbacks += number;
                self.owed += words[2].parse::<u64>().unwrap();
            }
            other => panic!("{other}"),
        }
    }
}

/// What replicas have done.
pub(crate) struct Record(Seen);

/// One bucket of a [`Record`].
pub(crate) struct Bucket {
    pub(crate) name: String,
    quota: Quota,
    pub(crate) admitted: usize,
    /// The burst, and what the limit has allowed from the first request to the last.
    pub(crate) allowed: f64,
    highest: f64,
}

impl Record {
    pub(crate) fn buckets(&self) -> Vec<Bucket> {
        let of = |(name, times): (&str, Vec<u64>)| {
            let (_, quota) = *QUOTAS.iter().find(|(path, _)| name.ends_with(path)).unwrap();
            let lasted = (times[times.len() - 1] - times[0]) as f64;
            let allowed = lasted / quota.emission_interval().as_nanos() as f64;
            Bucket {
                name: name.to_owned(),
                quota,
                admitted: times.len(),
                allowed: allowed + f64::from(quota.burst()),
                highest: level::highest(quota, &times),
            }
        };
        level::by_bucket(&self.0.admitted).into_iter().map(of).collect()
    }

    /// Asserts that no interval has seen more than so many bursts and the limit of each bucket, and
    /// that the replicas have charged back what they owed.
    ///
    /// Besides, replicas that are cut off while others are not may admit their shares of the limit,
    /// but that must not add up over several losses.
    #[track_caller]
    pub(crate) fn is_within(&self, bursts: f64) {
        println!("{self}");
        let apart = self.longest_apart().as_secs_f64();
        for bucket in self.buckets() {
            let refill = bucket.quota.emission_interval() * bucket.quota.burst();
            let most = bursts + apart / refill.as_secs_f64();
            assert!(bucket.bursts() <= most, "{bucket}\n{self}");
            // The limit must not refuse much more than it has to, either.
            let hammers = bucket.name.starts_with(Caller::Hammers.name());
            assert!(!hammers || bucket.admitted as f64 >= 0.8 * bucket.allowed, "{bucket}\n{self}");
        }
        assert_eq!(self.0.owed, 0, "what is owed is charged back");
    }

    /// How many requests the replicas have decided without the server.
    pub(crate) fn fallbacks(&self) -> u64 {
        self.0.fallbacks
    }

    /// The longest time for which some replicas had lost the server and some had not, as a share of
    /// the replicas: one of three that is back three seconds after the others makes one second.
    pub(crate) fn longest_apart(&self) -> Duration {
        let mut turns: Vec<_> = self
            .0
            .turns
            .iter()
            .flat_map(|turns| turns.iter().enumerate().map(|(number, at)| (*at, number % 2 == 0)))
            .collect();
        turns.sort_unstable();
        let (mut lost, mut before, mut apart, mut longest) = (0, 0, 0, 0);
        for (at, is_loss) in turns {
            if lost == 0 || lost == u64::from(REPLICAS) {
                apart = 0;
            } else {
                apart += (at - before) * lost / u64::from(REPLICAS);
            }
            longest = longest.max(apart);
            before = at;
            lost = if is_loss { lost + 1 } else { lost - 1 };
        }
        Duration::from_nanos(longest)
    }

    /// How long each loss has lasted.
    pub(crate) fn losses(&self) -> Vec<Duration> {
        let pairs = self.0.turns.iter().flat_map(|turns| turns.chunks_exact(2));
        pairs.map(|pair| Duration::from_nanos(pair[1] - pair[0])).collect()
    }
}

impl Bucket {
    /// The highest level in bursts.
    pub(crate) fn highest_in_bursts(&self) -> f64 {
        self.highest / f64::from(self.quota.burst())
    }

    /// The highest level in bursts, less what answers that are read late may add.
    fn bursts(&self) -> f64 {
        let late = LATE.as_secs_f64() / self.quota.emission_interval().as_secs_f64();
        (self.highest - late - f64::from(REPLICAS)) / f64::from(self.quota.burst())
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, admitted, allowed, .. } = self;
        write!(f, "{name:<13} {admitted:>5} for {allowed:>5.0}, at most ")?;
        write!(f, "{:.2} bursts of {}", self.highest_in_bursts(), self.quota.burst())
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for bucket in self.buckets() {
            writeln!(f, "{bucket}")?;
        }
        let losses = self.losses();
        let longest = losses.iter().max().copied().unwrap_or_default();
        write!(f, "{} fallbacks, {} losses, ", self.0.fallbacks, losses.len())?;
        write!(f, "the longest {longest:?}, {:?} apart, ", self.longest_apart())?;
        let mut kinds = self.0.kinds.clone();
        kinds.sort();
        kinds.dedup();
        write!(f, "of kinds {kinds:?}")
    }
}
