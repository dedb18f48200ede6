//! A million requests that end in all ways, on several threads.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::thread;

use bolna_rate_limit::limiter::Admission;
use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::store::{MemoryStore, Store};
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{Account, Endpoint, Limiter, Policy, Quota};
use tokio_test::block_on;

const THREADS: u32 = 2;
const REQUESTS: u32 = 1_000_000;
const ORGANIZATIONS: usize = 4;

/// The numbers that follow each other in Marsaglia's xorshift generator.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from(self.0 >> 33).unwrap() % bound
    }
}

fn accounts() -> Vec<Account> {
    let of = |it: usize| Account::user((it % 2).to_string()).in_organization((it / 2).to_string());
    (0..2 * ORGANIZATIONS).map(of).collect()
}

/// A request that was admitted, of the organization, and the units that it has paid.
struct Kept {
    admission: Admission,
    organization: usize,
    paid: u32,
}

impl Kept {
    /// Ends the request in one of many ways. Returns what it has paid in the end.
    fn end(self, random: &mut Random) -> u32 {
        let Self { admission, paid, .. } = self;
        match random.below(8) {
            0 => {
                admission.refund();
                admission.refund();
                0
            }
            1 => {
                admission.end();
                drop(admission.clone());
                admission.settle(Endpoint::CALL, 0);
                0
            }
            2 => {
                let units = random.below(100);
                admission.settle(Endpoint::CALL, units);
                units
            }
            3 => {
                let clone = admission.clone();
                drop(admission);
                clone.settle(Endpoint::CALL, 7);
                clone.settle(Endpoint::CALL, 3);
                clone.end();
                clone.settle(Endpoint::AGENT, 50);
                3
            }
            4 => {
                admission.settle(Endpoint::CALL, 50);
                admission.refund();
                admission.settle(Endpoint::CALL, 50);
                0
            }
            _ => paid,
        }
    }
}

/// Sends requests, of which some are in flight at any time. Returns what each organization has
/// paid, and how many requests were admitted.
fn send<St: Store>(limiter: &Limiter<St>, seed: u64) -> ([u64; ORGANIZATIONS], u64) {
    let (accounts, mut random) = (accounts(), Random(seed));
    let (mut paid, mut admitted) = ([0; ORGANIZATIONS], 0);
    let mut kept: Vec<Kept> = Vec::new();
    for _ in 0..REQUESTS / THREADS {
        let index = random.below(8) as usize;
        let answer = limiter.admit(&accounts[index], "/call").unwrap();
        if let Some(admission) = block_on(answer.wait()).unwrap().admission {
            admitted += 1;
            kept.push(Kept { admission, organization: index / 2, paid: 1 });
        }
        while !kept.is_empty() && random.below(12) > 5 {
            let of = kept.len().try_into().unwrap();
            let ended = kept.swap_remove(random.below(of) as usize);
            let organization = ended.organization;
            paid[organization] += u64::from(ended.end(&mut random));
        }
    }
    for ended in kept {
        paid[ended.organization] += u64::from(ended.paid);
    }
    (paid, admitted)
}

#[test]
fn a_million_requests_leave_no_place_taken_and_no_unit_unaccounted() {
    const BURST: u32 = 1_000_000_000;
    let policy = Policy::bolna()
        .quota("call", Quota::per_day(1_000_000).burst(BURST))
        .concurrent("call", 5)
        .also("call", LimitBuilder::user("call-user-concurrent", Quota::concurrent(4)))
        .also("call", LimitBuilder::everyone("all-concurrent", Quota::concurrent(16)))
        .build()
        .unwrap();
    let store = MemoryStore::with_clock(ManualClock::new());
    let limiter = Limiter::with_store(policy, store).unwrap();
    let sums: Vec<_> = thread::scope(|scope| {
        let limiter = &limiter;
        let threads: Vec<_> = (1..=u64::from(THREADS))
            .map(|seed| {
                scope.spawn(move || send(limiter, seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(limiter.report().in_flight, 0);
    assert_eq!(limiter.report().failed_corrections, 0);
    for (organization, account) in accounts().iter().step_by(2).enumerate() {
        let paid: u64 = sums.iter().map(|(paid, _)| paid[organization]).sum();
        let ruling = block_on(limiter.peek(account, Endpoint::CALL)).unwrap().unwrap();
        let [own, places @ ..] = ruling.decisions() else { panic!("{ruling:?}") };
        assert_eq!(u64::from(BURST - own.remaining()), paid);
        assert!(places.iter().all(|it| it.remaining() == it.quota().limit()));
    }
    // Some were refused, and most were not.
    let admitted: u64 = sums.iter().map(|(_, admitted)| admitted).sum();
    let share = admitted * 100 / u64::from(REQUESTS);
    assert!((20..99).contains(&share), "{share} percent");
}
