//! Orchestrators that are on a voter's machine, by the addresses that both gave.

use crate::world::World;
use holdfast_types::VoterId;
use holdfast_vault_core::Command;

/// Orchestrators that stand beside a voter once this one has told `addr`.
fn beside(w: &mut World, orch: &crate::world::Machine, addr: &str) -> Vec<(String, VoterId)> {
    let keep = Command::KeepLease { orch: orch.orch(), session_addr: addr.into(), life_ms: 60_000 };
    w.propose(keep).result.unwrap();
    w.state.co_located(w.now)
}

#[test]
fn an_orchestrator_with_a_voters_host_is_co_located_and_no_other() {
    // The voter's addresses are `v:7443` and `v:7444`.
    let (mut w, orch, _) = World::shop();
    for elsewhere in ["o:7443", "vv:7410", "127.0.0.1:7410", "v", ":7443", ""] {
        assert!(beside(&mut w, &orch, elsewhere).is_empty(), "{elsewhere}");
    }
    for here in ["v:7410", "V:1"] {
        assert_eq!(beside(&mut w, &orch, here), [(orch.id.clone(), VoterId(1))], "{here}");
    }
}
