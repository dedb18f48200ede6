use std::time::Duration;

use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::store::RedisStore;
use bolna_rate_limit::store::RedisStoreErrorKind::MissingPermission;
use bolna_rate_limit::{Account, Decision, Endpoint, Limiter, Policy, Principal};

use super::{
    LEFT_BY_SERVER, acme, as_user, assert_refused, connect, connect_degraded, lost, make_user,
    refusal, request, store, until_regained,
};
use crate::servers::Server;
use crate::support::once_an_hour;

const COMMANDS: [&str; 6] = ["+evalsha", "+eval", "+time", "+get", "+set", "+del"];
const KEYS: &str = "~bolna:2:*";

/// Makes a user with all permissions that the guide names.
async fn make_user_of_guide(server: &Server) {
    let guide = include_str!("../../../src/guide/replicas.md");
    let line = guide
        .lines()
        .find(|line| line.starts_with("ACL SETUSER limiter"))
        .expect("the guide has the line");
    server.command::<()>(&line.split_whitespace().collect::<Vec<_>>()).await.unwrap();
}

/// How many commands the server has refused to any user.
async fn refused_by(server: &Server) -> usize {
    server.command::<Vec<redis::Value>>(&["ACL", "LOG"]).await.unwrap().len()
}

async fn uses_everything(limiter: &Limiter<RedisStore>, who: &Principal) {
    let look = async || {
        let ruling = limiter.peek(who, Endpoint::DEFAULT).await.unwrap().unwrap();
        *ruling.decision().unwrap()
    };
    let left = async || look().await.remaining();
    assert_eq!(left().await, LEFT_BY_SERVER + 1);
    assert_eq!(request(limiter, who).await, LEFT_BY_SERVER);
    assert_eq!(request(limiter, who).await, LEFT_BY_SERVER - 1);
    assert_eq!(left().await, LEFT_BY_SERVER - 1);
    let grant = async |units| limiter.refund(who, Endpoint::DEFAULT, units).await.unwrap();
    grant(1).await;
    assert_eq!(left().await, LEFT_BY_SERVER);
    // A command is used once to write a time, and once to delete it.
    grant(100).await;
    for period in [Duration::from_secs(3600), Duration::ZERO] {
        limiter.block(who, Endpoint::DEFAULT, period).await.unwrap();
        assert_eq!(look().await.is_blocked(), !period.is_zero());
    }
    assert_eq!(request(limiter, who).await, LEFT_BY_SERVER);
    limiter.reset(who, Endpoint::DEFAULT).await.unwrap();
    assert_eq!(left().await, LEFT_BY_SERVER + 1);
}

#[tokio::test]
async fn each_missing_permission_is_named() {
    let server = Server::start().await;
    for missing in COMMANDS {
        let mut rules = vec![KEYS, "resetchannels", "-@all"];
        rules.extend(COMMANDS.into_iter().filter(|command| *command != missing));
        make_user(&server, &rules).await;
        let command = missing.trim_start_matches('+');
        let address = format!("127.0.0.1:{}", server.port());
        // The permission is in quotes, as the server says it; the store adds a list of all.
        assert_refused(
            &refusal(store(as_user(&server))).await,
            MissingPermission,
            &[&address, &format!("'{command}'")],
        );
    }
}

#[tokio::test]
async fn missing_keys_are_told() {
    let server = Server::start().await;
    for keys in [&[][..], &["~other:2:*"]] {
        make_user(&server, &[keys, &["-@all"], &COMMANDS].concat()).await;
        assert_refused(
            &refusal(store(as_user(&server))).await,
            MissingPermission,
            &["access", "~<prefix>:2:*"],
        );
    }
    // The prefix has to match the user's keys.
    let limiter = connect(store(as_user(&server)).prefix("other").without_fallback()).await;
    uses_everything(&limiter, &acme()).await;
}

#[tokio::test]
async fn a_database_other_than_0_takes_one_permission_more_which_is_named() {
    let server = Server::start().await;
    make_user(&server, &[&[KEYS, "-@all"][..], &COMMANDS].concat()).await;
    let refused = refusal(store(as_user(&server)).database(3)).await;
    assert_refused(&refused, MissingPermission, &["'select'", "+select"]);
    server.command::<()>(&["ACL", "SETUSER", "limiter", "+select"]).await.unwrap();
    uses_everything(
        &connect(store(as_user(&server)).database(3).without_fallback()).await,
        &acme(),
    )
    .await;
}

#[tokio::test]
async fn what_the_guide_asks_for_is_enough() {
    let server = Server::start().await;
    make_user_of_guide(&server).await;
    // Only the server decides, without a fallback.
    let limiter = connect(store(as_user(&server)).without_fallback()).await;
    uses_everything(&limiter, &acme()).await;
    assert_eq!(refused_by(&server).await, 0);
}

#[tokio::test]
async fn what_the_guide_asks_for_is_enough_for_limits_of_users_and_of_everyone() {
    let server = Server::start().await;
    make_user_of_guide(&server).await;
    let limiter = connect(store(as_user(&server)).without_fallback()).await;
    let policy = policy_of_all_scopes();
    limiter.set_policy(policy).expect("the store can do what the policy asks for");
    let caller = Account::user("u-1").in_organization("o-1");
    for left in (0..3).rev() {
        let ruling = limiter.check(&caller, "/").unwrap().wait().await.unwrap();
        let all: Vec<_> = ruling.decisions().iter().map(Decision::remaining).collect();
        assert_eq!(all, [left; 3]);
    }
    limiter.reset(&caller, Endpoint::DEFAULT).await.unwrap();
    limiter.block_user(&caller, Endpoint::DEFAULT, Duration::from_secs(3600)).await.unwrap();
    assert_eq!(refused_by(&server).await, 0);
}

/// Three requests of each account, of each user and of everyone.
fn policy_of_all_scopes() -> Policy {
    Policy::builder()
        .default_quota(once_an_hour(3))
        .also("default", LimitBuilder::user("user", once_an_hour(3)))
        .also("default", LimitBuilder::everyone("all", once_an_hour(3)))
        .build()
        .unwrap()
}

#[tokio::test]
async fn a_permission_that_is_given_later_is_found() {
    let server = Server::start().await;
    make_user_of_guide(&server).await;
    server.command::<()>(&["ACL", "SETUSER", "limiter", "-set"]).await.unwrap();
    let (limiter, events) = connect_degraded(store(as_user(&server)).without_fallback()).await;
    assert_refused(&lost(&events), "missing_permission", &["'set'"]);
    server.command::<()>(&["ACL", "SETUSER", "limiter", "+set"]).await.unwrap();
    until_regained(&events).await;
    uses_everything(&limiter, &acme()).await;
}

#[tokio::test]
async fn a_cluster_takes_two_permissions_more() {
    let cluster = crate::servers::Cluster::start().await;
    let builder = || {
        super::patient(RedisStore::cluster(cluster.urls()))
            .user("limiter")
            .password("secret")
            .without_fallback()
    };
    for node in cluster.nodes() {
        make_user_of_guide(node).await;
    }
    assert_refused(&refusal(builder()).await, MissingPermission, &["'cluster", "+cluster|slots"]);
    for node in cluster.nodes() {
        let more = ["ACL", "SETUSER", "limiter", "+cluster|slots", "+asking"];
        node.command::<()>(&more).await.unwrap();
        node.command::<()>(&["ACL", "LOG", "RESET"]).await.unwrap();
    }
    let limiter = connect(builder()).await;
    for id in 0..30 {
        uses_everything(&limiter, &Principal::organization(id.to_string()).unwrap()).await;
    }
    for node in cluster.nodes() {
        assert_eq!(refused_by(node).await, 0);
        // Each node got its share of the calls.
        assert!(node.calls_of("del").await > 1);
    }

    // While a slot is being migrated, new buckets are on the other node.
    let [from, to, ..] = cluster.nodes() else { unreachable!("there are three") };
    let (id, slot) = of_first_node(from).await;
    let slot = slot.to_string();
    let id_of = async |node: &Server| node.command::<String>(&["CLUSTER", "MYID"]).await.unwrap();
    for (node, words) in
        [(to, ["IMPORTING", &id_of(from).await]), (from, ["MIGRATING", &id_of(to).await])]
    {
        let words = [&["CLUSTER", "SETSLOT", &slot], &words[..]].concat();
        node.command::<()>(&words).await.unwrap();
    }
    uses_everything(&limiter, &Principal::organization(id).unwrap()).await;
    assert!(to.calls_of("asking").await > 0);
    assert_eq!((refused_by(from).await, refused_by(to).await), (0, 0));
}

/// An organization whose buckets are on the first node, and their slot.
async fn of_first_node(node: &Server) -> (String, u16) {
    for number in 100.. {
        let id = number.to_string();
        let key = format!("bolna:2:{{organization:{id}}}:default");
        let slot = node.command(&["CLUSTER", "KEYSLOT", &key]).await.unwrap();
        if slot < 16_384 / 3 {
            return (id, slot);
        }
    }
    unreachable!("a third of all are")
}
