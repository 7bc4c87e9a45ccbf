//! The look-up behind each listener's table of rights: a call is admitted by the caller's verified role, or refused.
//!
//! The tables are the listeners' own. What is not in one, nobody may call.

use super::peer_of;
use crate::failure::Failure;
use crate::tls::Peer;
use holdfast_types::Role;

/// The verified peer that sent `request`, if it has one of `roles`; `path` is what it calls, `Service/Method`.
pub fn admit<'a, T>(request: &'a tonic::Request<T>, path: &str, roles: &[Role]) -> Result<&'a Peer, Failure> {
    let peer = peer_of(request)?;
    if roles.contains(&peer.id.role) {
        Ok(peer)
    } else {
        Err(Failure::refused("not-allowed", format!("{} may not call {path}", peer.id.short())))
    }
}

/// Every `Service/Method` that the text of a `.proto` file declares, sorted: what a table is compared with.
pub fn rpcs_of(proto: &str) -> Vec<String> {
    let (mut service, mut found) = ("", Vec::new());
    for line in proto.lines() {
        if let Some(rest) = line.strip_prefix("service ") {
            service = rest.split([' ', '{']).next().unwrap_or_default();
        }
        let methods = line.split("rpc ").skip(1).filter_map(|part| part.split('(').next());
        found.extend(methods.map(|method| format!("{service}/{method}")));
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::ConnPeer;
    use holdfast_types::{Digest, Millis, SpiffeId};
    use std::net::SocketAddr;
    use std::sync::Arc;

    fn call(role: Option<&str>) -> tonic::Request<()> {
        let peer = role.map(|role| Peer {
            id: SpiffeId::parse(&format!("spiffe://a.example/{role}/one")).unwrap(),
            serial_hex: String::new(),
            spki_sha256: Digest([0; 32]),
            not_after: Millis(0),
            leaf_der: Vec::new(),
            root_sha256: Digest([0; 32]),
        });
        let mut request = tonic::Request::new(());
        request.extensions_mut().insert(Arc::new(ConnPeer {
            peer,
            addr: SocketAddr::from(([127, 0, 0, 1], 1)),
            replaced: std::sync::atomic::AtomicBool::new(false),
        }));
        request
    }

    #[test]
    fn only_the_roles_of_the_row_are_admitted_and_nobody_without_a_certificate() {
        assert!(admit(&call(Some("node")), "A/B", &[Role::Orch, Role::Node]).is_ok());
        for (role, roles) in [(Some("op"), &[Role::Node] as &[Role]), (Some("node"), &[]), (None, &[Role::Node])] {
            assert!(admit(&call(role), "A/B", roles).is_err(), "{role:?}");
        }
    }

    #[test]
    fn every_rpc_of_a_proto_is_found_under_its_service() {
        let text =
            "service A { rpc X(M) returns (N); }\nservice B {\n  rpc Y(M) returns (N); rpc Z(M) returns (N);\n}\n";
        assert_eq!(rpcs_of(text), ["A/X", "B/Y", "B/Z"]);
    }
}
