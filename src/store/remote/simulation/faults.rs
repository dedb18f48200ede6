//! What goes wrong in a simulated fleet.

use std::mem;

use super::fleet::{Connection, Event, Fleet, Message};
use super::scenario::Fault;

impl Fleet {
    pub(super) fn next_fault(&mut self) {
        let sizes = [self.servers.len(), self.replicas.len(), self.principals.len()];
        if let Some((wait, fault)) = self.scenario.next(&mut self.random, sizes) {
            if self.now + wait < self.faults_end {
                self.later(wait, Event::Fails(fault));
            }
        }
    }

    pub(super) fn fails(&mut self, fault: Fault) {
        match fault {
            Fault::Freeze { server, time } => {
                let until = &mut self.servers[server].frozen_until;
                *until = (*until).max(self.now + time);
            }
            Fault::Kill { server, time } => {
                self.servers[server].dead_until = self.now + time;
                self.cut(|connection| connection.server == server);
            }
            Fault::Cut => self.cut(|_| true),
            Fault::Partition { replica, time } => {
                self.replicas[replica].partitioned_until = self.now + time;
            }
            Fault::Delay { most, time } => self.delay = (self.now + time, most),
            // A clock that is set can't be noticed before the next beat.
            Fault::Clock { .. } if self.names_time => {}
            Fault::Clock { server, by } => {
                self.servers[server].ahead += by;
                // A step forward is as if so much time had passed.
                let step = u64::try_from(by).unwrap_or(0) * 1000;
                let owners = &self.owners;
                let of = |principal: usize| if owners[principal].0 == server { step } else { 0 };
                self.referee.pass(self.now, of);
            }
            Fault::Move { principal, to, time } => {
                let (owner, heir) = &mut self.owners[principal];
                if heir.is_none() && *owner != to {
                    *heir = Some(to);
                    self.later(time / 2, Event::HasMigrated { principal, half: true });
                    self.later(time, Event::HasMigrated { principal, half: false });
                }
            }
        }
    }

    /// Breaks connections. What was sent and has not arrived is lost.
    pub(super) fn cut(&mut self, which: impl Fn(&Connection) -> bool) {
        for connection in 0..self.connections.len() {
            if self.connections[connection].is_alive && which(&self.connections[connection]) {
                let of = &mut self.connections[connection];
                of.is_alive = false;
                let (replica, server, paying) = (of.replica, of.server, mem::take(&mut of.paying));
                // The replica learns of it in a moment, over what is left of the connection.
                self.connections.push(Connection {
                    replica,
                    server,
                    is_alive: true,
                    last: [0; 2],
                    paying,
                });
                let last = self.connections.len() - 1;
                if self.replicas[replica].connected[server] == Some(connection) {
                    self.replicas[replica].connected[server] = Some(last);
                    self.connections[last].server = server;
                    self.send_to_replica(last, Message::Closed);
                }
            }
        }
    }

    /// All buckets of the principal have been migrated, or the new server has become the owner.
    pub(super) fn has_migrated(&mut self, principal: usize, half: bool) {
        let (owner, Some(heir)) = self.owners[principal] else { return };
        let buckets = self.servers[owner].give_up(&self.principals[principal]);
        self.servers[heir].receive(buckets);
        if !half {
            self.owners[principal] = (heir, None);
        }
    }
}
