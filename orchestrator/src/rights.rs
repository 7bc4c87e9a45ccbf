//! Rights on the orchestrator's own listener: every RPC with the one role that may call it. What is not here, nobody may
//! call. Nothing gained here is authority: nodes judge what is signed, whoever relays it.

use holdfast_transport::failure::Failure;
use holdfast_transport::server::peer_of;
use holdfast_transport::tls::Peer;
use holdfast_types::Role;

/// The RPCs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rpc {
    /// A node's session.
    Session,
    /// An operator asks nodes for logs.
    Logs,
}

/// The whole table: RPC, path, role, authority.
pub const TABLE: &[(Rpc, &str, Role, &str)] = &[
    (Rpc::Session, "Session/Session", Role::Node, "for itself alone; pinned by the directory"),
    (Rpc::Logs, "Deploy/Logs", Role::Op, "the statement inside, which nodes verify"),
];

impl Rpc {
    /// Admits a call: the verified peer, if its role may make it.
    pub fn admit<T>(self, request: &tonic::Request<T>) -> Result<&Peer, Failure> {
        let peer = peer_of(request)?;
        let row = TABLE.iter().find(|(rpc, ..)| *rpc == self);
        match row {
            Some((_, _, role, _)) if *role == peer.id.role => Ok(peer),
            Some((_, path, ..)) => {
                Err(Failure::refused("not-allowed", format!("{} may not call {path}", peer.id.short())))
            }
            None => Err(Failure::refused("not-allowed", "nobody may call this")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rpc_of_the_listener_is_in_the_table_and_nothing_else() {
        let proto = include_str!("../../wire/proto/session.proto");
        let (mut service, mut found) = (String::new(), Vec::new());
        for line in proto.lines() {
            if let Some(rest) = line.strip_prefix("service ") {
                service = rest.split([' ', '{']).next().unwrap().to_owned();
            }
            for part in line.split("rpc ").skip(1) {
                found.push(format!("{service}/{}", part.split('(').next().unwrap()));
            }
        }
        let mut table: Vec<String> = TABLE.iter().map(|(_, path, ..)| (*path).to_owned()).collect();
        found.sort();
        table.sort();
        assert_eq!(found, table);
    }
}
