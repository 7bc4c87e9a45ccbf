//! What `status` warns of: things that are so and should not stay so. The list is explained in docs/operations/running.md.

use crate::clock::complaint;
use crate::cluster::Cluster;
use crate::keyring;
use crate::members;
use crate::roots;
use holdfast_types::{Millis, VoterId};
use holdfast_vault_core::{Notice, State};
use holdfast_wire::v1;
use std::time::{Duration, Instant};

/// At most this many things are named in one alarm; of the others there is a number.
const NAMED: usize = 10;

/// What takes longer than this is worth an alarm.
const LATE: Duration = Duration::from_secs(3600);

/// What was noticed of machines.
const NOTICES: [(Notice, &str, &str); 3] = [
    (
        Notice::Fork,
        "identity-fork",
        "are quarantined, since two keys claimed each, from the addresses that are named. Release it with the key on the right \
         machine's console (holdfast node release), or remove it",
    ),
    (
        Notice::Concurrent,
        "identity-concurrent",
        "had two sessions at a time within the day, from the addresses that are named: one of them may be a thief's",
    ),
    (
        Notice::Rejoin,
        "identity-rejoin",
        "came back within the day after their certificates were over: make sure that it was the machine itself",
    ),
];

/// What [`holdfast_types::any_unlocked`] comes to.
const UNLOCKED: &str =
    "the kernel locks no more memory for the vault, so keys could be swapped out: raise LimitMEMLOCK";

/// What [`State::keyring_waits`] comes to.
const KEYRING_WAITS: &str = "the next term of the keyring is due and waits for a root that signs here: whoever held the one in use, an \
                             evicted voter too, can read what comes; rotate with: holdfast root rotate --software --without-old-root";

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
    let unlocked = holdfast_types::any_unlocked().then_some(UNLOCKED);
    let weak: Vec<&str> = cluster.weak.iter().copied().chain(unlocked).collect();
    if !weak.is_empty() {
        raise("weak-confinement", weak.join("; "));
    }
    for (code, text) in cluster.look(|s| committed(s, now)).unwrap_or_default() {
        raise(code, text);
    }
    for (code, text) in voters(cluster).into_iter().chain(cluster.token_alarms(now)) {
        raise(code, text);
    }
    if let Some(text) = keyring::alarm(cluster, now) {
        raise("keyring-late", text);
    }
    if let Some(text) = complaint(holdfast_transport::now(), now) {
        raise("clock", text);
    }
    all
}

/// Those that the leader sees of the other voters.
fn voters(cluster: &Cluster) -> Vec<(&'static str, String)> {
    let names = |ids: Vec<VoterId>| ids.iter().map(|v| format!("voter {v}")).collect::<Vec<_>>();
    let (now, votes) = (Instant::now(), cluster.voter.members().voters());
    let mut all: Vec<_> =
        cluster.clocks.alarm(cluster.id, &votes, now).map(|text| ("clock-off", text)).into_iter().collect();
    all.extend(told("voter-unreachable", &names(members::lost(cluster)), "did not answer for more than a minute"));
    all.extend(told(
        "set-back",
        &cluster.remembered.all(now),
        "remember a newer state of this cluster than it has: its voters were put back to where they were; bring it back \
         with holdfast recover, which begins a new era",
    ));
    all.extend(told(
        "impostor",
        &names(cluster.impostors.all(now)),
        "spoke as another voter within the hour, as the log says, and was refused: find out why, or evict it",
    ));
    all
}

/// An even number of voters endures no more than one fewer does.
fn even(voters: usize) -> Option<(&'static str, String)> {
    (voters > 0 && voters.is_multiple_of(2)).then(|| {
        let text = format!(
            "{voters} voters endure the loss of {}, as {} do: admit one more or evict one",
            voters / 2 - 1,
            voters - 1
        );
        ("voters-even", text)
    })
}

/// What was begun more than an hour ago and is not done.
fn unfinished(unlock: &v1::UnlockView, keyring: &v1::KeyringView, now: Millis) -> Vec<(&'static str, String)> {
    let is_late = |since: i64| now.since(Millis(since)) >= LATE;
    let mut all = Vec::new();
    if unlock.pending > 0 && is_late(unlock.since_ms) {
        let missing: Vec<String> = unlock.missing.iter().map(ToString::to_string).collect();
        let missing = if missing.is_empty() { "none".to_owned() } else { missing.join(", ") };
        let text = format!("the rotation of the unlock key is not done; voters that are not ready: {missing}");
        all.push(("rotation-late", text));
    }
    if keyring.left > 0 && is_late(keyring.since_ms) {
        let text = format!("{} records lie under an older term of the keyring still", keyring.left);
        all.push(("keyring-late", text));
    }
    all
}

/// Those that committed state tells.
fn committed(s: &State, now: Millis) -> Vec<(&'static str, String)> {
    let mut all = unfinished(&s.unlock_view(), &s.keyring_view(), now);
    all.extend(roots::alarms(s, now));
    if s.keyring_waits(now, keyring::LIFE) {
        all.push(("keyring-late", KEYRING_WAITS.to_owned()));
    }
    all.extend(even(s.voters().count()));
    for (what, code, text) in NOTICES {
        let seen: Vec<String> =
            s.noticed_of(what, now).into_iter().map(|(id, detail)| with_detail(id, detail)).collect();
        all.extend(told(code, &seen, text));
    }
    let open: Vec<_> =
        s.compromised_voters().iter().map(|(id, left)| format!("voter {id} ({})", left.join(", "))).collect();
    all.extend(told("compromised", &open, "were evicted as compromised, and what they held is in use still"));
    if s.charter().operators.len() == 1 {
        all.push(("one-person", "one operator alone holds every right".to_owned()));
    }
    let over: Vec<_> = s.over_budget(now).map(ToString::to_string).collect();
    all.extend(told("budget", &over, "met the end of a budget of their mandate within the hour"));
    let stopping: Vec<_> = s.stopping(now).map(ToString::to_string).collect();
    all.extend(told(
        "stop-rate",
        &stopping,
        "stopped many tasks within a minute of the last hour that their owners want, of a lost node or for no reason",
    ));
    let denied: Vec<_> = s.denied_running().iter().map(|(name, tasks)| format!("{name} ({tasks} granted)")).collect();
    all.extend(told("denied-digest", &denied, "run an image that is denied: deploy another one, or end them"));
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

/// A machine, with what was seen of it.
fn with_detail(id: &str, detail: &str) -> String {
    if detail.is_empty() { id.to_owned() } else { format!("{id} ({detail})") }
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
    fn an_even_number_of_voters_is_warned_of() {
        let warned: Vec<usize> = (0..6).filter(|n| even(*n).is_some()).collect();
        assert_eq!(warned, [2, 4]);
        assert!(even(2).unwrap().1.starts_with("2 voters endure the loss of 0, as 1 do"));
    }

    #[test]
    fn a_rotation_that_is_not_done_after_an_hour_is_warned_of() {
        let unlock = v1::UnlockView { pending: 2, since_ms: 5_000, missing: vec![3], ..v1::UnlockView::default() };
        let keyring = v1::KeyringView { term: 2, older: vec![1], left: 7, since_ms: 5_000 };
        let codes = |now: i64, u: &v1::UnlockView, k: &v1::KeyringView| {
            unfinished(u, k, Millis(now)).into_iter().map(|(code, _)| code).collect::<Vec<_>>()
        };
        assert!(codes(5_000 + 3_599_999, &unlock, &keyring).is_empty());
        assert_eq!(codes(5_000 + 3_600_000, &unlock, &keyring), ["rotation-late", "keyring-late"]);
        let done = v1::UnlockView { pending: 0, ..unlock };
        // Terms may wait for nodes that are away: that is no work left undone.
        let waits = v1::KeyringView { left: 0, ..keyring };
        assert!(codes(i64::MAX, &done, &waits).is_empty());
    }

    #[test]
    fn a_machine_is_named_with_what_was_seen_of_it() {
        assert_eq!(with_detail("node-1", ""), "node-1");
        assert_eq!(with_detail("node-1", "from 10.0.0.1 and 10.0.0.2"), "node-1 (from 10.0.0.1 and 10.0.0.2)");
    }

    #[test]
    fn an_alarm_names_ten_things_and_counts_the_others() {
        assert_eq!(told("x", &[], "are so"), None);
        let names: Vec<String> = (0..12).map(|n| n.to_string()).collect();
        assert_eq!(told("x", &names[..1], "are so").unwrap().1, "0 are so");
        assert_eq!(told("x", &names, "are so").unwrap().1, "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more are so");
    }
}
