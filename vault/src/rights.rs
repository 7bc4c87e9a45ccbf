//! Rights: every RPC of the vault with its listener and the roles that may call it. What is not here, nobody may call.
//!
//! One table. The reference page and the test matrix are made from it, and a test compares it with the `.proto` files.

use holdfast_types::Role;

/// On which socket an RPC is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// J: TLS server authentication only.
    Join,
    /// S: mTLS, pinned.
    Service,
    /// U: unix socket, root on the host.
    Local,
    /// P: mTLS, members only.
    Peer,
}

macro_rules! rights {
    ($($rpc:ident = $path:literal, $listener:ident, [$($role:ident),*], $why:literal;)*) => {
        /// The RPCs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Rpc {
            $(#[doc = $why] $rpc,)*
        }
        /// The whole table: RPC, path, listener, roles, authority.
        pub const TABLE: &[(Rpc, &str, Listener, &[Role], &str)] =
            &[$((Rpc::$rpc, $path, Listener::$listener, &[$(Role::$role),*], $why)),*];
    };
}

rights! {
    JoinJoin = "Join/Join", Join, [], "a join token, proven by MAC";
    JoinAwait = "Join/Await", Join, [], "a signature by the applicant's key";
    JoinLogin = "Join/Login", Join, [], "a statement by a charter operator's key";
    JoinRejoin = "Join/Rejoin", Join, [], "a signature by the key that the registry knows";
    JoinTrust = "Join/Trust", Join, [], "public documents; each proves itself";
    Renew = "Identity/Renew", Service, [Orch, Node], "for itself alone";
    Sync = "NodePlane/Sync", Service, [Node], "for itself alone";
    ReportEvidence = "NodePlane/ReportEvidence", Service, [Node], "its name is attached";
    KeepLease = "SchedPlane/KeepLease", Service, [Orch], "namespaces of its live mandates";
    RequestGrants = "SchedPlane/RequestGrants", Service, [Orch], "mandate, lease, policy, budgets";
    ReleaseGrants = "SchedPlane/ReleaseGrants", Service, [Orch], "its own, or of namespaces it leases";
    WatchDirectory = "SchedPlane/WatchDirectory", Service, [Orch], "no secrets in it";
    Submit = "CommandPlane/Submit", Service, [Orch, Node, Op], "the authority is inside the statement";
    GetStatus = "Read/GetStatus", Service, [Op], "any operator";
    ListNodes = "Read/ListNodes", Service, [Op], "any operator";
    ListServices = "Read/ListServices", Service, [Op], "any operator";
    ListGrants = "Read/ListGrants", Service, [Op], "any operator";
    ListSecrets = "Read/ListSecrets", Service, [Op], "any operator; names and versions, never values";
    ListTokens = "Read/ListTokens", Service, [Op], "any operator; never token secrets";
    ListMandates = "Read/ListMandates", Service, [Op], "any operator";
    GetTrust = "Read/GetTrust", Service, [Op], "public documents";
    ListVoters = "Read/ListVoters", Service, [Op], "any operator";
    GetUnlock = "Read/GetUnlock", Service, [Op], "any operator; never an unlock secret";
    GetRoots = "Read/GetRoots", Service, [Op], "any operator; certificates and numbers, never a key";
    Checkpoint = "Log/Checkpoint", Service, [Orch, Node, Op], "sizes and hashes";
    Inclusion = "Log/Inclusion", Service, [Op], "policy readAudit";
    Consistency = "Log/Consistency", Service, [Orch, Node, Op], "sizes and hashes";
    Entries = "Log/Entries", Service, [Op], "policy readAudit";
    Init = "Local/Init", Local, [], "root on the host";
    SealStatus = "Local/SealStatus", Local, [], "root on the host";
    GetSlotBoxes = "Local/GetSlotBoxes", Local, [], "root on the host";
    OpenSlot = "Local/OpenSlot", Local, [], "root on the host, with the disk key";
    Backup = "Local/Backup", Local, [], "root on the host; opens with the recovery key alone";
    Recover = "Local/Recover", Local, [], "root on the host, with the recovery key's boxes or the survivor's disk opened, and a Reset signed";
    Seal = "Local/Seal", Local, [], "root on the host";
    Append = "Peer/Append", Peer, [Vault], "a member, as itself";
    Vote = "Peer/Vote", Peer, [Vault], "a member, as itself";
    PreVote = "Peer/PreVote", Peer, [Vault], "a member, as itself";
    Snapshot = "Peer/Snapshot", Peer, [Vault], "a member, as itself";
    TransferLeader = "Peer/TransferLeader", Peer, [Vault], "a member, as itself";
    HighWater = "Peer/HighWater", Peer, [Vault], "about itself alone";
    Report = "Peer/Report", Peer, [Vault], "about itself alone";
    Backfill = "Peer/Backfill", Peer, [Vault], "a member";
}

impl Rpc {
    /// The roles that may call it over listener S.
    pub fn roles(self) -> &'static [Role] {
        let on_s = TABLE.iter().find(|(rpc, _, listener, ..)| *rpc == self && *listener == Listener::Service);
        on_s.map_or(&[], |(_, _, _, roles, _)| roles)
    }
    /// `Service/Method`.
    pub fn path(self) -> &'static str {
        TABLE.iter().find(|(rpc, ..)| *rpc == self).map_or("", |(_, path, ..)| path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_transport::server::rpcs_of;

    #[test]
    fn every_rpc_of_the_vault_is_in_the_table_and_nothing_else() {
        let mut table: Vec<&str> = TABLE.iter().map(|(_, path, ..)| *path).collect();
        table.sort_unstable();
        assert_eq!(rpcs_of(include_str!("../../wire/proto/vault.proto")), table);
    }

    #[test]
    fn workloads_and_voters_may_call_nothing_on_s() {
        assert!(TABLE.iter().all(|(rpc, ..)| [Role::Svc, Role::Vault].iter().all(|r| !rpc.roles().contains(r))));
    }
}
