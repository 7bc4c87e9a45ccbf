//! What `status` warns of: things that are so and should not stay so. The list is explained in docs/operations/running.md.

use crate::clock::complaint;
use crate::cluster::Cluster;
use holdfast_types::Millis;
use holdfast_vault_core::State;
use holdfast_wire::v1;

/// At most this many things are named in one alarm; of the others there is a number.
const NAMED: usize = 10;

/// Every alarm of this moment.
pub fn all(cluster: &Cluster, view: &v1::StatusView, now: Millis) -> Vec<v1::Alarm> {
    let mut all = Vec::new();
    let mut raise = |code: &str, text: String| all.push(v1::Alarm { code: code.to_owned(), text });
    if !view.autolock {
        raise(
            "autolock-off",
            "the disk key lies in clear on the voter's disk: whoever takes the disk has everything".into(),
        );
    }
    if view.lockdown {
        raise("lockdown", "the cluster is locked down: nothing new starts".into());
    }
    if !cluster.weak.is_empty() {
        raise("weak-confinement", cluster.weak.join("; "));
    }
    for (code, text) in cluster.look(|s| committed(s, now)).unwrap_or_default() {
        raise(code, text);
    }
    if let Some(text) = complaint(holdfast_transport::now(), now) {
        raise("clock", text);
    }
    all
}

/// Those that committed state tells.
fn committed(s: &State, now: Millis) -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    if s.charter().operators.len() == 1 {
        all.push(("one-person", "one operator alone holds every right".to_owned()));
    }
    let over: Vec<_> = s.over_budget(now).map(ToString::to_string).collect();
    all.extend(told("budget", &over, "met the end of a budget of their mandate within the hour"));
    let beside: Vec<_> = s.co_located(now).iter().map(|(orch, v)| format!("{orch} with voter {v}")).collect();
    all.extend(told(
        "co-located",
        &beside,
        "are on one machine, where users and filters alone keep an orchestrator from the vault",
    ));
    let held: Vec<_> = s.held_placements(now).map(|(service, node)| format!("{service} on {node}")).collect();
    all.extend(told("first-placement", &held, "are held as first placements of sensitive services"));
    let mandates: Vec<_> = s.mandates_ending(now).iter().map(|(ns, end)| ends(ns, *end)).collect();
    all.extend(told(
        "mandate-ends",
        &mandates,
        "and without a mandate nothing is started or extended there; give the next one with: holdfast mandate put",
    ));
    let specs: Vec<_> = s.specs_ending(now).iter().map(|(name, end)| ends(name, Some(*end))).collect();
    all.extend(told(
        "spec-ends",
        &specs,
        "and nothing of a service is started or extended after that; sign it anew with: holdfast service deploy",
    ));
    all
}

fn ends(what: impl std::fmt::Display, end: Option<Millis>) -> String {
    end.map_or_else(|| format!("{what} has none"), |end| format!("{what} ends {end}"))
}

fn told(code: &'static str, things: &[String], what: &str) -> Option<(&'static str, String)> {
    let (named, others) = things.split_at(things.len().min(NAMED));
    let more = if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
    (!named.is_empty()).then(|| (code, format!("{}{more} {what}", named.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_names_ten_things_and_counts_the_others() {
        assert_eq!(told("x", &[], "are so"), None);
        let names: Vec<String> = (0..12).map(|n| n.to_string()).collect();
        assert_eq!(told("x", &names[..1], "are so").unwrap().1, "0 are so");
        assert_eq!(told("x", &names, "are so").unwrap().1, "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more are so");
    }
}
