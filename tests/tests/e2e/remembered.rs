//! What an orchestrator remembers of the era before counts for the vault that came back with less, as what nodes keep does.

use super::backup::{burn, founded, nodes};
use super::world::eventually;
use serde_json::Value;

#[test]
fn who_was_removed_or_in_quarantine_after_the_backup_is_so_again_because_an_orchestrator_remembers_it() {
    let (mut w, recovery) = founded();
    w.add_orchestrator();
    let orch = nodes(&w)[0].0.clone();
    for _ in 0..2 {
        w.add_node("eu");
    }
    let machines: Vec<String> = nodes(&w).into_iter().map(|(id, _)| id).filter(|id| *id != orch).collect();
    let [gone, stopped] = machines.as_slice() else { panic!("two nodes, not {machines:?}") };
    let (file, socket) = (w.text("cluster.hfbackup"), w.socket());
    w.ok(&["backup", "create", &file, "--vault-socket", &socket]);
    // No node is left that could show anything.
    w.agents.iter_mut().for_each(super::world::Daemon::kill);
    w.ok(&["node", "rm", gone]);
    w.ok(&["node", "quarantine", stopped, "--reason", "its disk was copied"]);
    eventually("the orchestrator to have heard of both", || {
        w.orchestrator.as_ref()?.log_text().contains("revoked=2").then_some(())
    });

    burn(&mut w);
    let key = recovery.to_str().unwrap();
    w.ok(&["recover", "--backup", &file, "--key-file", key, "--vault-socket", &socket]);
    let wanted = [(gone.clone(), "removed".to_owned()), (stopped.clone(), "quarantined".to_owned())];
    eventually("both to be made up for", || {
        let now = nodes(&w);
        wanted.iter().all(|n| now.contains(n)).then_some(())
    });
    let entries = w.json(&["log", "tail", "-n", "1000"]);
    let entries = entries["entries"].as_array().unwrap();
    for (kind, id) in [("node.remove", gone), ("node.quarantine", stopped)] {
        let of = |e: &&Value| e["kind"] == kind && e["subject"] == id.as_str();
        let entry = entries.iter().rfind(of).unwrap_or_else(|| panic!("no {kind} of {id}"));
        assert_eq!(entry["fields"]["shown_by"], orch.as_str(), "{entry}");
    }
    assert!(nodes(&w).contains(&(orch, "ready".to_owned())), "nobody else is touched");
    w.ok(&["log", "verify"]);
}
