//! Replicas admit together exactly what each limit allows.

use std::collections::BTreeMap;

use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::store::RedisStore;
use tokio::task::JoinSet;

use super::{call, calls, charges, left, member, nothing_was_lost};
use crate::servers::{Cluster, Server};
use crate::support::{Replica, charged, once_an_hour, patient};

/// A user, and the organization.
type Who = (usize, usize);

/// Four tasks on each replica send so many calls of each of these in turn. Returns how many were
/// admitted.
async fn hammer(fleet: &[Replica], who: &[Who], times: usize) -> BTreeMap<Who, u64> {
    let mut tasks = JoinSet::new();
    for (task, replica) in fleet.iter().flat_map(|replica| [replica; 4]).enumerate() {
        let (replica, who) = (replica.clone(), who.to_vec());
        tasks.spawn(async move {
            let mut admitted = Vec::new();
            for turn in 0..times * who.len() {
                // Each task begins with another one.
                let (user, organization) = who[(turn + 5 * task) % who.len()];
                let account = member(&format!("u-{user}"), &format!("o-{organization}"));
                if call(&replica.limiter, &account).await.is_admitted() {
                    admitted.push((user, organization));
                }
            }
            admitted
        });
    }
    let mut admitted = BTreeMap::new();
    for who in tasks.join_all().await.into_iter().flatten() {
        *admitted.entry(who).or_default() += 1;
    }
    admitted
}

fn key_of_user((user, organization): Who) -> String {
    format!("bolna:2:{{organization:o-{organization}}}:call-user:user:u-{user}")
}

fn key_of_organization(organization: usize) -> String {
    format!("bolna:2:{{organization:o-{organization}}}:call")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_admit_exactly_the_limit_of_each() {
    const OF_USER: u64 = 15;
    const OF_ORGANIZATION: u64 = 40;
    const OF_EVERYONE: u64 = 130;
    let server = Server::start().await;
    let policy = calls(40, 15).also("call", LimitBuilder::everyone("call-all", once_an_hour(130)));
    let policy = policy.build().unwrap();
    let mut fleet = Vec::new();
    for _ in 0..3 {
        fleet.push(Replica::on(&server, policy.clone()).await);
    }
    let mut all = BTreeMap::<Who, u64>::new();
    let mut add = |admitted: BTreeMap<Who, u64>| {
        let sum: u64 = admitted.values().sum();
        admitted.into_iter().for_each(|(who, count)| *all.entry(who).or_default() += count);
        sum
    };
    // The user's limit decides, then the organization's, and in the end everyone's: the other
    // organizations could have 120 calls.
    assert_eq!(add(hammer(&fleet, &[(0, 0)], 20).await), OF_USER);
    let of_first: Vec<Who> = (0..4).map(|user| (user, 0)).collect();
    assert_eq!(add(hammer(&fleet, &of_first, 10).await), OF_ORGANIZATION - OF_USER);
    let of_all: Vec<Who> = (0..12).map(|number| (number % 3, number / 3)).collect();
    assert_eq!(add(hammer(&fleet, &of_all, 12).await), OF_EVERYONE - OF_ORGANIZATION);

    let mut expected: BTreeMap<_, _> =
        all.iter().map(|(who, admitted)| (key_of_user(*who), *admitted)).collect();
    for organization in 0..4 {
        let of =
            all.iter().filter(|((_, of), _)| *of == organization).map(|(_, admitted)| admitted);
        let admitted: u64 = of.sum();
        assert!((10..=OF_ORGANIZATION).contains(&admitted), "{all:?}");
        expected.insert(key_of_organization(organization), admitted);
    }
    assert!(all.values().all(|admitted| *admitted <= OF_USER), "{all:?}");
    expected.insert("bolna:2:{~everyone}:call-all".to_owned(), OF_EVERYONE);
    assert_eq!(charges(&server).await, expected);
    for replica in &fleet {
        assert_eq!(left(&replica.limiter, &member("u-7", "o-7")).await[2], ("call-all", 0));
    }
    nothing_was_lost(&fleet);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_of_a_cluster_admit_exactly_the_limits_of_accounts_and_users() {
    const ORGANIZATIONS: usize = 20;
    let cluster = Cluster::start().await;
    let mut fleet = Vec::new();
    for _ in 0..3 {
        let builder = patient(RedisStore::cluster(cluster.urls()));
        fleet.push(Replica::connect(builder, calls(10, 4).build().unwrap()).await);
    }
    let first: Vec<Who> = (0..ORGANIZATIONS).map(|organization| (0, organization)).collect();
    let admitted = hammer(&fleet, &first, 1).await;
    assert_eq!(admitted, first.iter().map(|who| (*who, 4)).collect());
    let others: Vec<Who> =
        (0..2 * ORGANIZATIONS).map(|number| (1 + number % 2, number / 2)).collect();
    let mut of_others = hammer(&fleet, &others, 1).await;
    for organization in 0..ORGANIZATIONS {
        let of = |user| of_others.get(&(user, organization)).copied().unwrap_or_default();
        assert_eq!(of(1) + of(2), 6, "{of_others:?}");
        assert!(of(1) <= 4 && of(2) <= 4, "{of_others:?}");
    }
    of_others.extend(admitted);
    let mut found = 0;
    for node in cluster.nodes() {
        let keys: Vec<String> = node.command(&["KEYS", "bolna:2:{organization:*"]).await.unwrap();
        // That a node has none of the organizations happens once in a thousand runs of other ids.
        assert_ne!(keys.len(), 0);
        for (who, admitted) in &of_others {
            // All buckets of an organization are on one node.
            if keys.contains(&key_of_user(*who)) {
                assert_eq!(charged(node, &key_of_user(*who)).await, *admitted);
                assert_eq!(charged(node, &key_of_organization(who.1)).await, 10);
                found += 1;
            }
        }
    }
    assert_eq!(found, of_others.len());
    nothing_was_lost(&fleet);
}
