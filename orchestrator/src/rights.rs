//! Rights on the orchestrator's own listener: every RPC with the roles that may call it. What is not here, nobody may
//! call. Nothing gained here is authority: nodes judge what is signed, whoever relays it.

use holdfast_transport::failure::Failure;
use holdfast_transport::server::admit;
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

/// The whole table: RPC, path, roles, authority.
pub const TABLE: &[(Rpc, &str, &[Role], &str)] = &[
    (Rpc::Session, "Session/Session", &[Role::Node], "for itself alone; pinned by the directory"),
    (Rpc::Logs, "Deploy/Logs", &[Role::Op], "the statement inside, which nodes verify"),
];

impl Rpc {
    /// Admits a call: the verified peer, if its role may make it.
    pub fn admit<T>(self, request: &tonic::Request<T>) -> Result<&Peer, Failure> {
        let row = TABLE.iter().find(|(rpc, ..)| *rpc == self);
        let (path, roles) = row.map_or(("this", &[] as &[Role]), |(_, path, roles, _)| (path, roles));
        admit(request, path, roles)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_transport::server::rpcs_of;

    #[test]
    fn every_rpc_of_the_listener_is_in_the_table_and_nothing_else() {
        let mut table: Vec<&str> = TABLE.iter().map(|(_, path, ..)| *path).collect();
        table.sort_unstable();
        assert_eq!(rpcs_of(include_str!("../../wire/proto/session.proto")), table);
    }
}
