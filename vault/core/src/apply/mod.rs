//! `apply`: what every voter does with a committed command. Deterministic: no clock, no entropy, no policy engine.
//!
//! LAW: the same commands give the same state everywhere (test `replaying_the_log_gives_the_same_state`).

mod approval;
mod charter;
mod denials;
mod denied;
mod founding;
mod grants;
mod identity;
mod keyring;
mod leases;
mod rejoin;
mod reset;
mod retired;
mod roots;
mod secrets;
mod stops;
mod submit;
mod tick;
mod unlock;
mod voters;
mod vouchers;

use crate::command::{Command, Stamped};
use crate::log::{Draft, Leaf, append};
use crate::observation::NoteFacts;
use crate::refusal::Refusal;
use crate::state::{Accepted, State};
use holdfast_types::{GrantId, Millis, Role, ServiceRef};
use holdfast_wire::merkle::Frontier;
use std::collections::HashSet;

/// The witness that a command was committed and applied. Only `apply` makes one.
#[derive(Debug)]
pub struct Committed {
    of: [u8; 32],
    leaf: u64,
    rev: u64,
    orders: Vec<Result<u64, Refusal>>,
}
impl Committed {
    /// Whether it witnesses the command with this salt seed.
    pub(crate) fn is_of(&self, seed: &[u8; 32]) -> bool {
        self.of == *seed
    }
    /// Index of the newest leaf once the command was applied: its own last one, if it wrote any.
    pub fn leaf(&self) -> u64 {
        self.leaf
    }
    /// Directory revision after it.
    pub fn rev(&self) -> u64 {
        self.rev
    }
    /// For `Grants`: the leaf of each order, or why it was refused after all.
    pub fn orders(&self) -> &[Result<u64, Refusal>] {
        &self.orders
    }
}

/// What changed, for those who watch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// An identity appeared or changed.
    Identity(String),
    /// An identity's certificates must not count any more: close its connections.
    Revoked(String),
    /// A service appeared, changed or went.
    Service(ServiceRef),
    /// A grant appeared or changed.
    Grant(GrantId),
    /// A grant was taken back: its node must be told.
    GrantRevoked(GrantId),
    /// A grant's lease is longer now: its node must be told.
    GrantExtended(GrantId),
    /// A grant is no longer kept.
    GrantGone(GrantId),
    /// Bundle, charter, revocations, leases or lockdown changed: a new Status is due.
    Trust,
    /// Keys were created: the shell opens them.
    Keys,
    /// The unlock key, the recovery key or the order to replace disk keys changed: each voter sees to its slots.
    Slots,
    /// A voter was admitted, evicted, or said something new of itself.
    Voters,
}

/// What applying one command gave.
#[derive(Debug)]
pub struct Applied {
    /// The witness, or why nothing was changed.
    pub result: Result<Committed, Refusal>,
    /// Leaves to store, in order.
    pub leaves: Vec<Leaf>,
    /// What changed.
    pub events: Vec<Event>,
}

/// One command at work.
pub(crate) struct Step<'a> {
    pub state: &'a mut State,
    pub at: Millis,
    seed: [u8; 32],
    frontier: Frontier,
    leaves: Vec<Leaf>,
    events: Vec<Event>,
    told: HashSet<Event>,
    orders: Vec<Result<u64, Refusal>>,
    /// The answer of the statement that this one repeats.
    again: Option<Accepted>,
}

impl Step<'_> {
    /// Writes a leaf and returns its index.
    pub fn leaf(&mut self, d: Draft) -> u64 {
        let leaf = append(&mut self.frontier, d, self.at, &self.seed, self.leaves.len() as u64);
        let index = leaf.index;
        self.leaves.push(leaf);
        index
    }
    pub fn event(&mut self, e: Event) {
        // Who applies for a voter's place is no machine of the directory: those who watch voters hear of it.
        let is_applicant = |id: &str| self.state.role_of(id) == Some(Role::Vault);
        let applicant = matches!(&e, Event::Identity(id) | Event::Revoked(id) if is_applicant(id));
        let e = if applicant { Event::Voters } else { e };
        if self.told.insert(e.clone()) {
            self.events.push(e);
        }
    }
    /// A new directory revision.
    pub fn next_rev(&mut self) -> u64 {
        self.state.rev += 1;
        self.state.rev
    }
    /// Something about trust changed: the epoch moves and a new Status is due.
    pub fn next_epoch(&mut self) -> u64 {
        self.state.epoch += 1;
        self.event(Event::Trust);
        self.state.epoch
    }
}

impl State {
    /// Applies a committed command. A refused one changes nothing but the time and, where it says so, the log.
    pub fn apply(&mut self, stamped: Stamped) -> Applied {
        let at = self.time(stamped.at);
        self.heard_at(at);
        let mut step = Step {
            frontier: self.frontier(),
            state: self,
            at,
            seed: stamped.salt_seed,
            leaves: Vec::new(),
            events: Vec::new(),
            told: HashSet::new(),
            orders: Vec::new(),
            again: None,
        };
        let done = step.run(stamped.command);
        let Step { frontier, leaves, events, orders, again, .. } = step;
        self.log_size = frontier.size();
        self.log_peaks = frontier.peaks().to_vec();
        let result = done.map(|()| Committed {
            of: stamped.salt_seed,
            leaf: again.map_or(self.log_size.saturating_sub(1), |a| a.leaf),
            rev: again.map_or(self.rev, |a| a.rev),
            orders,
        });
        Applied { result, leaves, events }
    }
}

impl Step<'_> {
    fn run(&mut self, command: Command) -> Result<(), Refusal> {
        self.still_trusted(&command)?;
        match command {
            Command::Found(f) => self.found(*f),
            Command::Submit(s) => self.submit(&s),
            Command::Join { token, id, role, cert, spki_der, spki, hpke } => {
                let applicant = identity::Applicant { id, role, cert, spki_der, spki, hpke };
                self.join(token, applicant)
            }
            Command::IssueFirst { id, cert, .. } if self.state.role_of(&id) == Some(Role::Vault) => {
                self.issue_voter(&id, cert)
            }
            Command::IssueFirst { id, cert, hpke } => self.issue_first(&id, cert, hpke),
            Command::Login { id, statement, cert } => self.login(&id, &statement, cert),
            Command::Renew { id, cert, hpke, acked } => self.renew(&id, cert, hpke, acked),
            Command::Activate { id, serial } => self.activate(&id, &serial),
            Command::Fork { id, detail } => self.fork(&id, &detail),
            Command::KeepLease { orch, session_addr, life_ms } => self.keep_lease(&orch, session_addr, life_ms),
            Command::Grants { orch, request, body, orders } => self.grants(&orch, (request, body), orders),
            Command::Reports { node, tasks } => self.reports(&node, tasks),
            Command::ReleaseGrants { orch, grants, reason } => self.release_grants(&orch, &grants, &reason),
            Command::Extend { grants, away } => self.extend(grants, &away),
            Command::NewIssuer { root, der, key, not_after } => self.new_issuer(root, der, key, not_after),
            Command::NewStk { stk, bundle } => self.new_stk(stk, bundle),
            Command::Note(n) => self.note(n),
            Command::Tick => self.tick(),
            Command::VoterReported { id, leads, facts, cert, terms } => {
                self.voter_reported(id, leads, facts, cert, terms)
            }
            Command::Progress(marks) => self.progress(&marks),
            Command::KeyringAdd(t) => self.keyring_add(*t),
            Command::Rewrap(records) => self.rewrap(records),
            Command::KeyringDestroy(terms) => self.keyring_destroy(&terms),
            Command::Reset(r) => self.reset(*r),
            Command::RootAdd(r) => self.root_add(*r),
            Command::RootSwitch { to } => self.root_switch(to),
            Command::RootDrop { root, bundle } => self.root_drop(root, bundle),
            Command::RootDestroyed { root } => self.root_destroyed(root),
            Command::Acked(said) => self.acked(&said),
            Command::Rejoin { id, cert, hpke, acked, from } => self.rejoin(&id, cert, hpke, acked, &from),
            Command::Concurrent { id, detail } => self.concurrent(&id, &detail),
            Command::RootAsk(a) => self.root_ask(*a),
            Command::RootPropose(r) => self.root_propose(*r),
            Command::KeysDestroyed(names) => self.keys_destroyed(&names),
            Command::ExtendLeases { since, life_ms } => self.extend_leases(since, life_ms),
            Command::MergeRemoved { ids, shown_by, sha256 } => self.merge_removed(&ids, &shown_by, &sha256),
            Command::MergeQuarantined { ids, shown_by, sha256, epoch } => {
                self.merge_quarantined(&ids, &shown_by, &sha256, epoch)
            }
        }
    }
    fn note(&mut self, n: NoteFacts) -> Result<(), Refusal> {
        self.leaf(Draft::new(n.kind.as_str(), n.actor, n.subject).with("detail", n.detail).with("count", n.count));
        Ok(())
    }
}
