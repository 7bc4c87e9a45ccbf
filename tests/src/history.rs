//! What clients were told, judged afterwards: was there one order of all that was acknowledged, as if one voter had done it?
//!
//! A secret is a register that only moves by compare-and-set: version n + 1 is accepted where version n is. So no search is
//! needed: at each moment at most one write can be next, and whatever only looks may be placed as early as it fits.
//! An operation whose outcome nobody knows may have happened at any time after it began, or never.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A moment of the one clock by which the clients were watched, in nanoseconds.
pub type Moment = u64;

/// What a client asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// This version of a key, accepted where the version before is the last.
    Put {
        /// The key.
        key: String,
        /// The version that it would become.
        version: u64,
    },
    /// Which version a key has; the answer is in the outcome.
    Read {
        /// The key.
        key: String,
    },
    /// To be admitted by a token that admits once.
    Use {
        /// The token.
        token: String,
    },
}

/// What came of it, as far as the client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged.
    Done,
    /// A read's answer: this version; 0 is none.
    Saw(u64),
    /// Refused because something else had happened.
    Refused,
    /// No answer: it happened, happens later, or never.
    Unknown,
}

/// One operation of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    /// Who asked.
    pub client: u32,
    /// For what.
    pub asked: Asked,
    /// When.
    pub from: Moment,
    /// When the answer came; of an unknown outcome it says nothing.
    pub until: Moment,
    /// The answer.
    pub outcome: Outcome,
}

/// That a holder could be sure of a lease: from the answer on, until the lease's life after the question was over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// What is leased.
    pub namespace: String,
    /// By whom.
    pub holder: String,
    /// The number of the tenure; another holder's is higher.
    pub fence: u64,
    /// From here.
    pub from: Moment,
    /// To here.
    pub until: Moment,
}

/// A history that no single voter could have answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A key's operations have no order.
    NoOrder {
        /// The key.
        key: String,
        /// The version that was reached before nothing fitted any more.
        reached: u64,
        /// The operation that had to fit next.
        stuck: Box<Op>,
    },
    /// One version of a key was acknowledged to two.
    VersionTwice {
        /// The key.
        key: String,
        /// The version.
        version: u64,
    },
    /// A token that admits once admitted more often.
    TokenTwice {
        /// The token.
        token: String,
        /// How often.
        times: usize,
    },
    /// A token was refused although nobody could have used it.
    TokenLost {
        /// The token.
        token: String,
    },
    /// Two were sure of one lease at the same time.
    LeaseTwice {
        /// The lease.
        namespace: String,
        /// The two.
        holders: (String, String),
    },
    /// A later tenure of another holder has no higher fence.
    FenceBack {
        /// The lease.
        namespace: String,
        /// The fences, in the order of the tenures.
        fences: (u64, u64),
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoOrder { key, reached, stuck } => {
                write!(f, "{key}: at version {reached} nothing explains {stuck:?}")
            }
            Self::VersionTwice { key, version } => write!(f, "{key}: version {version} was acknowledged twice"),
            Self::TokenTwice { token, times } => write!(f, "token {token} admitted {times} times"),
            Self::TokenLost { token } => write!(f, "token {token} was refused, and nobody had used it"),
            Self::LeaseTwice { namespace, holders } => {
                write!(f, "lease of {namespace}: {} and {} held it at once", holders.0, holders.1)
            }
            Self::FenceBack { namespace, fences } => {
                write!(f, "lease of {namespace}: fence {} after {} with another holder", fences.1, fences.0)
            }
        }
    }
}

/// Every fault of a history: one for each key, token and lease that has any.
pub fn judge(ops: &[Op], held: &[Held]) -> Vec<Fault> {
    let mut keys: BTreeMap<&str, Vec<&Op>> = BTreeMap::new();
    let mut tokens: BTreeMap<&str, Vec<&Op>> = BTreeMap::new();
    for op in ops {
        match &op.asked {
            Asked::Put { key, .. } | Asked::Read { key } => keys.entry(key).or_default().push(op),
            Asked::Use { token } => tokens.entry(token).or_default().push(op),
        }
    }
    let keys = keys.iter().filter_map(|(key, ops)| register(key, ops).err());
    let tokens = tokens.iter().filter_map(|(token, ops)| single_use(token, ops).err());
    keys.chain(tokens).chain(leases(held)).collect()
}

/// When an operation is over at the latest; never, if nobody knows.
fn end(op: &Op) -> Moment {
    if op.outcome == Outcome::Unknown { Moment::MAX } else { op.until }
}

/// Places all operations of one key in one order, or says where that ends.
fn register(key: &str, ops: &[&Op]) -> Result<(), Fault> {
    let mut acknowledged = BTreeSet::new();
    for op in ops {
        if let (Asked::Put { version, .. }, Outcome::Done) = (&op.asked, op.outcome)
            && !acknowledged.insert(*version)
        {
            return Err(Fault::VersionTwice { key: key.to_owned(), version: *version });
        }
    }
    let mut left: Vec<&Op> = ops.to_vec();
    left.sort_by_key(|op| op.from);
    let mut now = 0;
    loop {
        // Whoever must come before anything else may come: the one that was over first.
        let Some(next) = left.iter().filter(|op| op.outcome != Outcome::Unknown).min_by_key(|op| op.until).copied()
        else {
            return Ok(());
        };
        let may = |op: &Op| op.from <= end(next);
        let looks = |op: &Op| match (&op.asked, op.outcome) {
            (Asked::Read { .. }, Outcome::Saw(version)) => version == now,
            // A read without an answer says nothing, wherever it stands.
            (Asked::Read { .. }, Outcome::Done | Outcome::Refused | Outcome::Unknown) => true,
            (Asked::Put { version, .. }, Outcome::Refused) => *version != now + 1,
            (Asked::Put { .. } | Asked::Use { .. }, _) => false,
        };
        let before = left.len();
        left.retain(|op| !(may(op) && looks(op)));
        if left.len() < before {
            continue;
        }
        // Versions are told apart by number: if the next one was acknowledged to somebody, it is that write and no other.
        let writes = |op: &Op| {
            let (Asked::Put { version, .. }, Outcome::Done | Outcome::Unknown) = (&op.asked, op.outcome) else {
                return false;
            };
            let theirs = op.outcome == Outcome::Done || !acknowledged.contains(version);
            *version == now + 1 && theirs && may(op)
        };
        let Some(at) = left.iter().position(|op| writes(op)) else {
            return Err(Fault::NoOrder { key: key.to_owned(), reached: now, stuck: Box::new(next.clone()) });
        };
        left.remove(at);
        now += 1;
    }
}

fn single_use(token: &str, ops: &[&Op]) -> Result<(), Fault> {
    let times = ops.iter().filter(|op| op.outcome == Outcome::Done).count();
    if times > 1 {
        return Err(Fault::TokenTwice { token: token.to_owned(), times });
    }
    let may_have_used = |refused: &Op| {
        ops.iter().any(|op| matches!(op.outcome, Outcome::Done | Outcome::Unknown) && op.from < refused.until)
    };
    let lost = ops.iter().any(|op| op.outcome == Outcome::Refused && !may_have_used(op));
    if lost { Err(Fault::TokenLost { token: token.to_owned() }) } else { Ok(()) }
}

fn leases(held: &[Held]) -> Vec<Fault> {
    let mut by_name: BTreeMap<&str, Vec<&Held>> = BTreeMap::new();
    for h in held {
        by_name.entry(&h.namespace).or_default().push(h);
    }
    by_name.into_iter().filter_map(|(namespace, held)| one_lease(namespace, held).err()).collect()
}

fn one_lease(namespace: &str, mut held: Vec<&Held>) -> Result<(), Fault> {
    held.sort_by_key(|h| h.from);
    // Of each holder only the tenure that lasts longest can meet a later one.
    let mut sure: BTreeMap<&str, &Held> = BTreeMap::new();
    for h in held {
        for other in sure.values().filter(|o| o.holder != h.holder) {
            if other.until > h.from {
                let holders = (other.holder.clone(), h.holder.clone());
                return Err(Fault::LeaseTwice { namespace: namespace.to_owned(), holders });
            }
            if other.fence >= h.fence {
                let fences = (other.fence, h.fence);
                return Err(Fault::FenceBack { namespace: namespace.to_owned(), fences });
            }
        }
        let last = sure.entry(&h.holder).or_insert(h);
        if h.until >= last.until {
            *last = h;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
