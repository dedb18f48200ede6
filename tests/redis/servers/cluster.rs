use redis::InfoDict;

use super::server::AT_ONCE;
use super::{Server, until, when};

const PRIMARIES: usize = 3;
const SLOTS: usize = 16_384;

/// Three primaries that share the slots. Each may have a replica.
#[derive(Debug)]
pub(crate) struct Cluster {
    nodes: Vec<Server>,
}

impl Cluster {
    /// Without replicas.
    pub(crate) async fn start() -> Self {
        Self::of(PRIMARIES).await
    }

    /// Node `i + 3` is the replica of node `i`, and takes over about a second after node `i` is
    /// killed.
    pub(crate) async fn with_replicas() -> Self {
        let cluster = Self::of(2 * PRIMARIES).await;
        let (primaries, replicas) = cluster.nodes.split_at(PRIMARIES);
        for (primary, replica) in primaries.iter().zip(replicas) {
            let id: String = primary.command(&["CLUSTER", "MYID"]).await.unwrap();
            replica.command::<()>(&["CLUSTER", "REPLICATE", &id]).await.unwrap();
        }
        for replica in replicas {
            replica.until_in_step().await;
        }
        // Each node has to know the replicas too, or none takes over.
        for node in &cluster.nodes {
            until("all know the replicas", async || {
                let nodes: String = node.command(&["CLUSTER", "NODES"]).await?;
                when(
                    nodes.lines().filter(|line| line.contains("slave")).count() == PRIMARIES,
                    nodes,
                )
            })
            .await;
        }
        cluster
    }

    async fn of(count: usize) -> Self {
        let mut nodes = Vec::new();
        for index in 0..count {
            let args = ["--cluster-enabled", "yes", "--cluster-node-timeout", "500"];
            let node = Server::with_args(&[&AT_ONCE[..], &args].concat()).await;
            // If the epochs differ from the start, they need no voting.
            node.command::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()])
                .await
                .unwrap();
            if index < PRIMARIES {
                let slots = index * SLOTS / PRIMARIES..(index + 1) * SLOTS / PRIMARIES;
                let slots: Vec<_> = slots.map(|slot| slot.to_string()).collect();
                let words: Vec<_> = ["CLUSTER", "ADDSLOTS"]
                    .into_iter()
                    .chain(slots.iter().map(String::as_str))
                    .collect();
                node.command::<()>(&words).await.unwrap();
            }
            nodes.push(node);
        }
        for node in &nodes[1..] {
            let port = node.port().to_string();
            nodes[0].command::<()>(&["CLUSTER", "MEET", "127.0.0.1", &port]).await.unwrap();
        }
        let cluster = Self { nodes };
        for node in &cluster.nodes {
            until("the cluster is whole", async || {
                let info: InfoDict = node.command(&["CLUSTER", "INFO"]).await?;
                let state = (info.get("cluster_state"), info.get("cluster_known_nodes"));
                when(state == (Some("ok".to_owned()), Some(count)), info)
            })
            .await;
        }
        cluster
    }

    pub(crate) fn nodes(&self) -> &[Server] {
        &self.nodes
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Server::url).collect()
    }
}
