//! The unlocked vault: everything a handler needs to look, decide, propose and answer.

use crate::awaits::Awaits;
use crate::clock::Clock;
use crate::config::Config;
use crate::failure::{refused, renew_first, stopped, unknown, unproposed};
use crate::hub::Hub;
use crate::keystore::{Opened, random32};
use crate::pace::Pace;
use crate::raft::{AuditStore, ProposeError, Voter};
use crate::registry::{Events, Registry};
use crate::rights::Rpc;
use crate::seen::addr_of;
use crate::standing::Standing;
use crate::throttle::Throttle;
use arc_swap::ArcSwap;
use holdfast_policy::{OperatorAct, OperatorFacts, Policies, Target};
use holdfast_transport::failure::{Failure, FailureKind};
use holdfast_transport::server::{ConnPeer, Connections, admit, is_replaced};
use holdfast_transport::tls::{IdentityCell, Peer, TrustCell};
use holdfast_types::{Digest, Millis, OperatorId, Role, VoterId};
use holdfast_vault_core::prepare::{self, Leader, Pin};
use holdfast_vault_core::{
    Command, Committed, Entropy, Event, NoteFacts, NoteKind, Prepared, Refusal, Stamped, State, VoterRow,
};
use holdfast_wire::{merkle, v1};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;

/// An unlocked voter at work.
pub struct Cluster {
    /// This voter.
    pub id: VoterId,
    /// What it is beneath: disk, peers, and what it answers them.
    pub standing: Arc<Standing>,
    /// Its log and state.
    pub voter: Voter<Registry>,
    /// Leaves and Merkle nodes.
    pub audit: AuditStore,
    /// What is open while unlocked; replaced when keys rotate.
    pub opened: ArcSwap<Opened>,
    /// Where time comes from.
    pub clock: Clock,
    /// The policies in force.
    pub policies: Policies,
    /// The configuration.
    pub config: Config,
    /// What confines this process less than it could be.
    pub weak: Vec<&'static str>,
    /// Addresses as others reach them.
    pub addrs: Addrs,
    /// Live node sessions and what is pushed to them.
    pub hub: Hub,
    /// Connections by identity.
    pub connections: Connections,
    /// This voter's TLS identity.
    pub identity: Arc<IdentityCell>,
    /// Trusted roots.
    pub trust: Arc<TrustCell>,
    /// What changed, for those who watch.
    pub broadcast: broadcast::Sender<Events>,
    /// Refusals and evidence written down for each caller in the current minute.
    pub throttle: Throttle,
    /// The same for those who have proved nothing: they take no room from the others.
    pub strangers: Throttle,
    /// Questions of applicants that were answered.
    pub awaits: Awaits,
    /// Whom the leader asks to renew, so that an old term of the keyring can end.
    pub calls: crate::keyring::Calls,
    /// Which Bundles machines said that they believe.
    pub acks: crate::roots::Acks,
    /// Whom the leader asks to renew, so that an old root can end.
    pub renewals: crate::roots::Calls,
    /// Why the last step of a rotation of the root failed; empty: it did not.
    pub stalled: ArcSwap<String>,
    /// Held while the keys are opened anew: the newest state's are the ones that are used.
    pub reopening: std::sync::Mutex<()>,
    /// How fast one caller may make entries of the log, or send statements that change nothing.
    pub entries: Pace,
    /// How fast orchestrators may ask for their leases, and whether those were extended since this voter leads.
    pub leases: crate::leases::Leases,
    /// How fast one machine may be given certificates.
    pub certificates: Pace,
    /// How the other voters follow, while this one leads.
    pub following: crate::members::Following,
    /// What is known of the voters' clocks.
    pub clocks: crate::clocks::Clocks,
    /// Voters that spoke as another.
    pub impostors: crate::unsaid::Impostors,
    /// From where machines called last.
    pub seen: crate::seen::Seen,
    /// What the voters say of their tokens.
    pub tokens: crate::hsm::tokens::Tokens,
    /// Orchestrators' lease streams, by where they come from.
    pub streams: crate::beside::Streams,
    /// Nodes that remember more than this cluster does.
    pub remembered: crate::unsaid::Remembered,
}

/// How long connections of a replaced certificate go on.
const MOVING: Duration = Duration::from_secs(1);

/// Addresses of the listeners, `host:port`, as others reach them.
#[derive(Debug, Clone)]
pub struct Addrs {
    /// Listener S.
    pub service: String,
    /// Listener J.
    pub join: String,
    /// Listener P.
    pub peer: String,
}

/// A caller on listener S, after role, registry pin and renewal chain were checked for this call.
pub struct Caller {
    /// Its role.
    pub role: Role,
    /// Its id.
    pub id: String,
    /// When its certificate ends.
    pub not_after: Millis,
}
impl Caller {
    /// `role/id`.
    pub fn short(&self) -> String {
        format!("{}/{}", self.role, self.id)
    }
}

impl Cluster {
    /// Looks at committed state.
    pub fn look<T>(&self, f: impl FnOnce(&State) -> T) -> Result<T, Failure> {
        self.voter.machine().read(|r| f(r.state())).map_err(stopped)
    }

    /// The time that a command proposed now would bear.
    pub fn now(&self) -> Result<Millis, Failure> {
        self.look(|s| s.time(self.clock.now()))
    }

    /// Runs one of the core's preparations with everything it needs.
    pub fn decide<T>(&self, f: impl FnOnce(&Leader<'_>, &mut Entropy) -> Result<T, Refusal>) -> Result<T, Failure> {
        // Another root signs since a moment ago: its issuer is opened first.
        if self.look(|s| s.issuer().is_some_and(|i| i.der != self.opened.load().issuer.der()))? {
            crate::drive::reopen(self)?;
        }
        let opened = self.opened.load();
        let mut entropy = Entropy::new(random32()?);
        self.look(|state| f(&self.leader(state, &opened), &mut entropy).map_err(refused))?
    }

    /// What the core's preparations are given: `state`, and what is open here.
    pub fn leader<'a>(&'a self, state: &'a State, opened: &'a Opened) -> Leader<'a> {
        Leader {
            state,
            keys: &opened.keyring,
            policies: &self.policies,
            issuer: &opened.issuer,
            lives: &self.config.lives,
            now: state.time(self.clock.now()),
        }
    }

    /// Proposes what was prepared, and releases what it holds once it is committed.
    pub async fn commit<T>(&self, p: Prepared<T>) -> Result<(T, Committed), Failure> {
        let committed = self
            .voter
            .proposer()
            .propose(p.command.encode())
            .await
            .map_err(|e| self.unproposed(e))?
            .map_err(refused)?;
        let foreign = || Failure::failed("failed", "the log answered for another command");
        p.held.release(committed).ok_or_else(foreign)
    }

    /// Proposes a command that nobody waits for an answer to.
    pub async fn propose(&self, command: Command) -> Result<Committed, Failure> {
        let stamped = Stamped { at: self.now()?, salt_seed: random32()?, command };
        self.voter.proposer().propose(stamped.encode()).await.map_err(|e| self.unproposed(e))?.map_err(refused)
    }

    /// Whether this voter leads, as far as it knows.
    pub fn leads(&self) -> bool {
        self.voter.status().leader == Some(self.id)
    }

    /// A follower's answer: where the leader is, by the listener that the caller dialled.
    pub fn elsewhere(&self, listener: impl Fn(&VoterRow) -> String) -> Failure {
        let leader = self.voter.status().leader.filter(|l| *l != self.id);
        let addr = leader.and_then(|l| self.look(|s| s.voter(l).map(&listener)).ok().flatten());
        match addr.filter(|a| !a.is_empty()) {
            Some(addr) => Failure::not_leader([addr]),
            None => {
                Failure::unavailable("no-leader", "no voter leads at the moment; try again").help("see holdfast status")
            }
        }
    }

    /// The same for whoever dialled J.
    pub fn on_join(&self, f: Failure) -> Failure {
        if f.kind == FailureKind::NotLeader { self.elsewhere(|v| v.join_addr.clone()) } else { f }
    }

    pub(crate) fn unproposed(&self, e: ProposeError) -> Failure {
        match e {
            ProposeError::NotLeader { .. } => self.elsewhere(|v| v.service_addr.clone()),
            ProposeError::Unavailable | ProposeError::Unknown | ProposeError::TooLong | ProposeError::Stopped => {
                unproposed(e)
            }
        }
    }

    /// Writes an observation down; a failure to do so is logged, never passed on.
    pub async fn note(&self, kind: NoteKind, actor: String, subject: String, detail: String) {
        self.note_facts(NoteFacts { kind, actor, subject, detail, count: 1 }).await;
    }

    /// The same for one that stands for several.
    pub async fn note_facts(&self, note: NoteFacts) {
        let kind = note.kind;
        if let Err(e) = self.propose(Command::Note(note)).await {
            tracing::warn!(kind = kind.as_str(), error = %e, "an observation could not be written to the log");
        }
    }

    /// Admits a call on S: only on the leader, and by role, pin, renewal chain. Every handler on S starts with it.
    pub async fn admit<T>(&self, request: &tonic::Request<T>, rpc: Rpc) -> Result<Caller, Failure> {
        if !self.leads() {
            return Err(self.elsewhere(|v| v.service_addr.clone()));
        }
        let peer = admit(request, rpc.path(), rpc.roles())?;
        let (role, id) = (peer.id.role, peer.id.name.clone());
        if !peer.has_path() && rpc != Rpc::Renew {
            // Believed by its key alone, since its chain ends in a root of an era before.
            return Err(renew_first("this certificate is of an era before: renew it first"));
        }
        match self.pin(peer)? {
            Pin::Activate(serial) => {
                let (of, new) = (peer.id.clone(), peer.serial_hex.clone());
                let older = move |c: &ConnPeer| c.peer.as_ref().is_some_and(|p| p.serial_hex != new);
                // Marked before it is retired: what the old certificate's connections still bring is no thief's.
                self.connections.replace_those(&of, &older);
                self.propose(Command::Activate { id: id.clone(), serial }).await?;
                // They end a little later, when what runs over them has moved to the new one.
                let connections = self.connections.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(MOVING).await;
                    let closed = connections.close_those(&of, older);
                    tracing::debug!(identity = %of.short(), closed, "a renewed certificate is in use");
                });
            }
            Pin::Fork if is_replaced(request) => {
                return Err(Failure::unavailable(
                    "connection-lost",
                    "this connection's certificate was replaced; call again over a new one",
                ));
            }
            Pin::Fork => {
                let detail = self.seen.reused(&id, &peer.serial_hex, addr_of(request));
                self.propose(Command::Fork { id: id.clone(), detail }).await?;
                return Err(Failure::refused(
                    "identity-fork",
                    "this certificate was retired; the identity is quarantined",
                ));
            }
            Pin::Unknown => {
                self.unknown_certificate(peer).await;
                return Err(unknown());
            }
            Pin::Released if rpc != Rpc::Renew => {
                return Err(renew_first("this identity is quarantined, and renews with the key that operators named"));
            }
            Pin::Good | Pin::Released => {}
            Pin::State(s) => return Err(refused(s.into())),
        }
        if let Some(addr) = addr_of(request) {
            self.seen.note(&id, &peer.serial_hex, addr, self.clock.now());
        }
        Ok(Caller { role, id, not_after: peer.not_after })
    }

    /// What the registry says of a peer's certificate.
    pub fn pin(&self, peer: &Peer) -> Result<Pin, Failure> {
        self.look(|s| {
            let now = s.time(self.clock.now());
            prepare::pin(s, peer.id.role, &peer.id.name, &peer.serial_hex, &peer.spki_sha256, now)
        })
    }

    pub(crate) async fn unknown_certificate(&self, peer: &Peer) {
        if !self.strangers.allows(&format!("unknown/{}", peer.id.short()), self.clock.now()) {
            return;
        }
        let detail = format!("serial {}", peer.serial_hex);
        self.note(NoteKind::UnknownCert, peer.id.short(), peer.id.short(), detail).await;
    }

    /// Asks the policy whether an operator may read the log.
    pub fn may_read_audit(&self, caller: &Caller) -> Result<(), Failure> {
        self.look(|s| {
            let o = s
                .operator(&caller.id)
                .ok_or_else(|| Failure::refused("policy-denied", "only operators read the log"))?;
            let facts = OperatorFacts {
                operator: OperatorId::parse(&o.id).map_err(|e| Failure::refused("policy-denied", e.to_string()))?,
                roles: o.roles.clone(),
                owns: o.owns.clone(),
                act: OperatorAct::ReadAudit,
                target: Target::Cluster,
            };
            self.policies.decide_operator(&facts).map(drop).map_err(|r| refused(r.into()))
        })?
    }

    /// Inclusion proof of a leaf in the tree of `size` leaves.
    pub fn inclusion(&self, leaf: u64, size: u64) -> Result<Vec<Vec<u8>>, Failure> {
        let proof = merkle::inclusion(leaf, size, |l, i| self.node(l, i))?;
        let proof = proof
            .ok_or_else(|| Failure::not_found("not-found", format!("leaf {leaf} is not in a log of {size} leaves")))?;
        Ok(proof.into_iter().map(Digest::to_vec).collect())
    }

    /// A complete subtree's hash from the audit store.
    pub fn node(&self, level: u8, index: u64) -> Result<Digest, Failure> {
        let missing = || Failure::failed("corrupt", format!("the log's node {level}/{index} is missing"));
        let found = self.audit.node(level, index).map_err(|e| Failure::failed("corrupt", e.to_string()))?;
        found.map(Digest).ok_or_else(missing)
    }

    /// Salt and entry of a leaf.
    pub fn leaf(&self, index: u64) -> Result<(Vec<u8>, Vec<u8>), Failure> {
        let size = self.look(|s| s.log_head().0)?;
        let missing = || {
            if index < size {
                let what = format!("leaf {index} is not on this voter yet: it is being fetched from the others");
                return Failure::unavailable("unavailable", what).help("try again in a moment");
            }
            Failure::not_found("not-found", format!("there is no leaf {index}"))
        };
        let raw = self.audit.leaf(index).map_err(|e| Failure::failed("corrupt", e.to_string()))?.ok_or_else(missing)?;
        let (salt, entry) = raw.expose().split_at_checked(32).ok_or_else(missing)?;
        Ok((salt.to_vec(), entry.to_vec()))
    }

    /// The signed Status of this moment.
    pub fn status(&self) -> Result<v1::Statement, Failure> {
        let opened = self.opened.load();
        self.look(|s| prepare::status(s, &opened.stk, s.time(self.clock.now()), self.config.lives.status))?
            .map_err(refused)
    }

    /// Proof of the latest checkpoint: note, size, root.
    pub fn checkpoint(&self) -> Result<(Vec<u8>, u64, Digest), Failure> {
        let opened = self.opened.load();
        self.look(|s| {
            let (size, root) = s.log_head();
            prepare::checkpoint(s, &opened.stk).map(|note| (note, size, root)).map_err(refused)
        })?
    }

    /// Whether this voter leads; a follower says where the leader is.
    pub async fn confirm_leading(&self) -> Result<(), Failure> {
        self.voter.confirm_leading().await.map_err(|e| self.unproposed(e))
    }

    /// Watches what changes from now on.
    pub fn events(&self) -> broadcast::Receiver<Events> {
        self.broadcast.subscribe()
    }

    /// Says that something changed which is not part of committed state, such as a node's connection.
    pub fn announce(&self, e: Event) {
        drop(self.broadcast.send(Arc::new(vec![e])));
    }

    /// Whether `id` may be given one more certificate now: a machine needs one in a third of its life, not one after the other.
    pub fn may_have_certificate(&self, id: &str) -> Result<(), Failure> {
        self.certificates.take(id, tokio::time::Instant::now()).map_err(|wait| {
            let what =
                format!("this machine was given many certificates in a row; the next one in {} s", wait.as_secs() + 1);
            Failure::exhausted("too-many-requests", what)
        })
    }

    /// Whether one more observation about `caller` is written down in this minute.
    pub fn evidence_allowed(&self, caller: &str) -> bool {
        self.throttle.allows(caller, self.clock.now())
    }
    /// Ends the connections of an identity whose certificates no longer count.
    pub fn close(&self, id: &str) {
        let n = self.connections.close_where(|c| c.peer.as_ref().is_some_and(|p| p.id.name == id));
        if n > 0 {
            tracing::info!(identity = id, connections = n, "closed connections of a revoked identity");
        }
    }
}
