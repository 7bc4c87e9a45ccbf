//! The laws, by name. Each reads a history as an outsider would: the leaves of the log, what was acknowledged to whom, and
//! the replicas at the end.

use super::history::{Ack, Fault, History};
use holdfast_wire::merkle::{Frontier, leaf_hash};
use holdfast_wire::v1;
use std::collections::{BTreeMap, BTreeSet};

/// A law: its name, whether it holds, and the fault that it must notice.
pub struct Law {
    pub name: &'static str,
    pub holds: fn(&History) -> Result<(), String>,
    pub fault: Fault,
}

pub const LAWS: &[Law] = &[
    Law {
        name: "replicas that applied the same log are the same",
        holds: replicas_agree,
        fault: Fault::SkippedCommand,
    },
    Law { name: "what was acknowledged is in every log", holds: acknowledged_stays, fault: Fault::LostWrite },
    Law { name: "a token admits as often as it was minted for", holds: tokens, fault: Fault::TokenGivenBack },
    Law { name: "a secret's versions go up by one and never come again", holds: versions, fault: Fault::VersionAgain },
    Law { name: "the holder of a lease changes with a higher fence", holds: fences, fault: Fault::FenceForgotten },
    Law { name: "a task's incarnations go up by one", holds: incarnations, fault: Fault::GrantTwice },
    Law { name: "what was removed is given nothing more", holds: removed, fault: Fault::RemovedCameBack },
    Law { name: "a command is carried out once", holds: once, fault: Fault::CommandTwice },
    Law { name: "time, revision and log never go back", holds: forward, fault: Fault::SetBack },
    Law { name: "the tree over the leaves is the one that the state knows", holds: tree, fault: Fault::LeafAltered },
    Law { name: "terms of the keyring go up by one", holds: terms, fault: Fault::TermAgain },
    Law { name: "a term is destroyed once, and never the newest", holds: destroyed, fault: Fault::TermNotGone },
    Law { name: "a voter's number is given once", holds: numbers, fault: Fault::NumberAgain },
    Law { name: "who was evicted is heard of no more", holds: evicted, fault: Fault::EvictedCameBack },
    Law { name: "an epoch has one unlock key, and takes over once", holds: epochs, fault: Fault::EpochAgain },
    Law { name: "charters go up by one", holds: charters, fault: Fault::CharterAgain },
    Law { name: "an era begins once, and ends what was signed before", holds: eras, fault: Fault::EraAgain },
    Law { name: "of one epoch there is one Bundle, and epochs go up", holds: bundles, fault: Fault::RootAddedAgain },
    Law { name: "another root signs by a switch to it alone", holds: switches, fault: Fault::SwitchForgotten },
    Law {
        name: "a root is dropped once, and nobody at work needs it any more",
        holds: dropped,
        fault: Fault::RootDroppedAgain,
    },
];

fn field<'a>(e: &'a v1::LogEntry, name: &str) -> Option<&'a str> {
    e.fields.iter().find(|f| f.name == name).map(|f| f.value.as_str())
}

fn number(e: &v1::LogEntry, name: &str) -> u64 {
    field(e, name).and_then(|v| v.parse().ok()).unwrap_or(0)
}

fn replicas_agree(h: &History) -> Result<(), String> {
    let first = &h.ends[0];
    match h.ends.iter().position(|e| e != first) {
        None => Ok(()),
        Some(n) => Err(format!("replica {n} differs from replica 0")),
    }
}

fn acknowledged_stays(h: &History) -> Result<(), String> {
    for Ack { leaf, kind, subject } in &h.acks {
        let found = h.entries.get(*leaf as usize);
        if !found.is_some_and(|e| e.kind == *kind && e.subject == *subject) {
            let there = found.map(|e| format!("{} {}", e.kind, e.subject));
            return Err(format!("{kind} {subject} was acknowledged at leaf {leaf}, where there is {there:?}"));
        }
    }
    Ok(())
}

fn tokens(h: &History) -> Result<(), String> {
    let mut left = BTreeMap::<&str, u64>::new();
    for e in &h.all {
        match e.kind.as_str() {
            "token.mint" => drop(left.insert(&e.subject, number(e, "uses"))),
            "token.use" => match left.get_mut(e.subject.as_str()) {
                Some(n) if *n > 0 => *n -= 1,
                _ => return Err(format!("token {} was used once more by {}", e.subject, e.actor)),
            },
            _ => {}
        }
    }
    Ok(())
}

fn versions(h: &History) -> Result<(), String> {
    let mut last = BTreeMap::<&str, u64>::new();
    for e in h.all.iter().filter(|e| e.kind == "secret.put") {
        let (before, version) = (last.entry(&e.subject).or_default(), number(e, "version"));
        if version != *before + 1 {
            return Err(format!("version {version} of {} after {before}", e.subject));
        }
        *before = version;
    }
    Ok(())
}

fn fences(h: &History) -> Result<(), String> {
    let mut held = BTreeMap::<&str, (u64, i64)>::new();
    for (at, namespace, holder, fence) in &h.leases {
        let (before, since) = held.get(namespace.as_str()).copied().unwrap_or((0, 0));
        if *fence < before {
            return Err(format!("fence {fence} of {namespace} after {before}, at {at} (held since {since})"));
        }
        if *fence == before && h.leases.iter().any(|(_, n, other, f)| n == namespace && f == fence && other != holder) {
            return Err(format!("fence {fence} of {namespace} has two holders"));
        }
        held.insert(namespace, (*fence, *at));
    }
    Ok(())
}

fn incarnations(h: &History) -> Result<(), String> {
    let mut last = BTreeMap::<&str, u64>::new();
    for (task, generation) in &h.grants {
        let before = last.entry(task).or_default();
        if *generation <= *before {
            return Err(format!("incarnation {generation} of {task} was granted after {before}"));
        }
        *before = *generation;
    }
    Ok(())
}

fn removed(h: &History) -> Result<(), String> {
    let mut gone = BTreeSet::<&str>::new();
    for e in &h.all {
        if e.kind == "node.remove" {
            gone.insert(&e.subject);
        }
        let given = e.kind == "cert.issue" || e.kind == "node.create";
        if given && gone.iter().any(|id| e.subject.ends_with(id)) {
            return Err(format!("{} {} after its removal", e.kind, e.subject));
        }
        if e.kind == "grant.issued" && field(e, "node").is_some_and(|n| gone.contains(n)) {
            return Err(format!("a grant for {:?} after its removal", field(e, "node")));
        }
    }
    Ok(())
}

fn once(h: &History) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for e in h.all.iter().filter(|e| e.kind != "init") {
        let Some(st) = &e.statement else { continue };
        let effect = (st.payload.clone(), e.kind.clone(), e.subject.clone());
        if st.r#type == "application/vnd.holdfast.command.v1" && !seen.insert(effect) {
            return Err(format!("{} {} was carried out twice by one command", e.kind, e.subject));
        }
    }
    Ok(())
}

fn forward(h: &History) -> Result<(), String> {
    for pair in h.marks.windows(2) {
        let (before, after) = (pair[0], pair[1]);
        if after.0 < before.0 || after.1 < before.1 || after.2 < before.2 {
            return Err(format!("(time, revision, leaves) went from {before:?} to {after:?}"));
        }
    }
    Ok(())
}

fn tree(h: &History) -> Result<(), String> {
    let mut frontier = Frontier::default();
    for l in &h.leaves {
        frontier.push(leaf_hash(&l.salt, &l.entry));
    }
    let (size, root) = h.head;
    if (frontier.size(), frontier.root()) != (size, root) {
        return Err(format!("{} leaves do not give the root of {size}", frontier.size()));
    }
    Ok(())
}

/// The numbers that the leaves of this kind are about, in order.
fn numbered<'a>(h: &'a History, kind: &'a str) -> impl Iterator<Item = u64> + 'a {
    h.all.iter().filter(move |e| e.kind == kind).map(|e| e.subject.parse().unwrap())
}

fn by_one(what: &str, numbers: impl Iterator<Item = u64>) -> Result<(), String> {
    let mut last = None;
    for n in numbers {
        if let Some(before) = last.replace(n)
            && n != before + 1
        {
            return Err(format!("{what} {n} after {before}"));
        }
    }
    Ok(())
}

fn terms(h: &History) -> Result<(), String> {
    by_one("term", numbered(h, "keyring.add"))
}

fn destroyed(h: &History) -> Result<(), String> {
    let (mut newest, mut gone) = (0, BTreeSet::new());
    for e in h.all.iter().filter(|e| e.kind == "keyring.add" || e.kind == "keyring.destroy") {
        let term: u64 = e.subject.parse().unwrap();
        if e.kind == "keyring.add" {
            newest = term;
        } else if term >= newest || !gone.insert(term) {
            return Err(format!("term {term} was destroyed, of {newest}; before it {gone:?}"));
        }
    }
    Ok(())
}

fn numbers(h: &History) -> Result<(), String> {
    let mut given = BTreeSet::new();
    match h.all.iter().find(|e| e.kind == "voter.admit" && !given.insert(&e.subject)) {
        Some(e) => Err(format!("{} was given again", e.subject)),
        None => Ok(()),
    }
}

fn evicted(h: &History) -> Result<(), String> {
    // Of each that is gone: whether it is known that others had its keys.
    let mut gone = BTreeMap::<&str, bool>::new();
    for e in &h.all {
        let again = matches!(&*e.kind, "voter.admit" | "voter.evict" | "voter.up" | "unlock.slotready");
        let compromised = e.kind == "voter.evict" && field(e, "compromised") == Some("true");
        // That others had them may be found out later, once.
        let found_out = compromised && gone.get(e.subject.as_str()) == Some(&false);
        if again && !found_out && gone.contains_key(e.subject.as_str()) {
            return Err(format!("{} of {} after its eviction", e.kind, e.subject));
        }
        if e.kind == "voter.evict" {
            gone.insert(&e.subject, compromised);
        }
    }
    Ok(())
}

fn epochs(h: &History) -> Result<(), String> {
    let (mut named, mut taken_over) = (0, 0);
    for e in h.all.iter().filter(|e| e.kind == "unlock.prepare" || e.kind == "unlock.finalize") {
        let epoch: u64 = e.subject.parse().unwrap();
        if e.kind == "unlock.prepare" {
            if epoch <= named {
                return Err(format!("an unlock key of epoch {epoch} after one of {named}"));
            }
            named = epoch;
        } else {
            if epoch != named || epoch <= taken_over {
                return Err(format!("epoch {epoch} took over after {taken_over}; the one that waited was {named}"));
            }
            taken_over = epoch;
        }
    }
    Ok(())
}

fn charters(h: &History) -> Result<(), String> {
    by_one("charter", numbered(h, "charter"))
}

fn eras(h: &History) -> Result<(), String> {
    let mut era = 1;
    for e in &h.all {
        if e.kind == "reset" {
            let next: u64 = e.subject.parse().unwrap();
            if next != era + 1 {
                return Err(format!("era {next} after {era}"));
            }
            era = next;
        }
        let Some(st) = &e.statement else { continue };
        if st.r#type != "application/vnd.holdfast.command.v1" {
            continue;
        }
        let signed: v1::Command = holdfast_wire::statement::peek(st).unwrap();
        if signed.era != era {
            return Err(format!("{} {}, signed in era {}, in era {era}", e.kind, e.subject, signed.era));
        }
    }
    Ok(())
}

fn bundles(h: &History) -> Result<(), String> {
    for pair in h.bundles.windows(2) {
        let ((era_before, before, old), (era, epoch, new)) = (pair[0], pair[1]);
        // Epochs begin anew with an era.
        if (era, epoch) < (era_before, before) || ((era, epoch) == (era_before, before) && old != new) {
            return Err(format!("the Bundle {new} of epoch {epoch} came after {old} of epoch {before}"));
        }
    }
    Ok(())
}

fn switches(h: &History) -> Result<(), String> {
    for pair in h.signers.windows(2) {
        let ((before, from), (signer, to)) = (pair[0], pair[1]);
        let switch = |e: &v1::LogEntry| e.kind == "root.switch" && e.subject == signer.hex();
        // A new era has roots of its own.
        let said = |e: &v1::LogEntry| e.kind == "reset" || switch(e);
        if signer != before && !h.all[from..to].iter().any(said) {
            return Err(format!("{signer} signs after {before}, and nothing led there"));
        }
    }
    Ok(())
}

fn dropped(h: &History) -> Result<(), String> {
    if let Some(who) = h.stranded.first() {
        return Err(format!("{who} needs a root that is not trusted"));
    }
    let mut gone = BTreeSet::<&str>::new();
    for e in &h.all {
        let again = match e.kind.as_str() {
            "root.drop" => !gone.insert(&e.subject),
            "root.add" | "root.switch" => gone.contains(e.subject.as_str()),
            _ => false,
        };
        if again {
            return Err(format!("{} {} after it was dropped", e.kind, e.subject));
        }
    }
    Ok(())
}
