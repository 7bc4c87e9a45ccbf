//! The leader dies in each step of a rotation: whoever leads next has the state, its own keys and the token, and nothing else.
//! Each step is taken by the driver's own functions (protocol, crash of the leader, step by step).

use super::*;
use crate::disk::ident::Ident;
use crate::found::{first_command, new_ident};
use crate::hsm::Token;
use crate::keystore;
use holdfast_hsm::KeyPort as _;
use holdfast_pki::bundle::{Admins, verify_bundle_chain};
use holdfast_pki::chain::{Anchors, Usage, verify_peer};
use holdfast_policy::Policies;
use holdfast_transport::keys::PrivateKey;
use holdfast_types::{Millis, TokenId, VoterId, kind, sha256};
use holdfast_vault_core::prepare::{JoinOutcome, Lives};
use holdfast_vault_core::{Refusal, Stamped};
use holdfast_wire::boxes::{self, Context};
use holdfast_wire::charter::CharterChain;
use holdfast_wire::keys::StatementSigner;
use holdfast_wire::statement;
use holdfast_wire::token::join_mac;
use holdfast_wire::v1;
use v1::command::Action;

/// The first and only voter.
const ME: VoterId = VoterId(1);
/// No rotation here takes more looks than this.
const MOST: usize = 24;

/// What was done last when the leader died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Dies {
    /// The order is committed.
    Ordered,
    /// The key is made, and nothing of it is committed.
    KeyMade,
    /// The root is trusted.
    Added,
    /// A machine said that it trusts it.
    Acked,
    /// It signs.
    Switched,
    /// It signed certificates that are not committed.
    LeafSigned,
    /// The old root is trusted no more.
    Dropped,
    /// Its key is destroyed, and that is not committed.
    KeyDestroyed,
}
const POINTS: [Dies; 8] = [
    Dies::Ordered,
    Dies::KeyMade,
    Dies::Added,
    Dies::Acked,
    Dies::Switched,
    Dies::LeafSigned,
    Dies::Dropped,
    Dies::KeyDestroyed,
];

/// A cluster of one voter and one node.
struct Vault {
    state: State,
    ident: Ident,
    token: Arc<Token>,
    policies: Policies,
    lives: Lives,
    operator: Ed25519Key,
    now: Millis,
    boots: u64,
    node: (String, PrivateKey),
    /// Every chain that left the vault, with the use it is for.
    released: Vec<(Vec<Vec<u8>>, Usage)>,
}

fn key() -> Ed25519Key {
    Ed25519Key::from_seed(Secret::take(&mut random32().unwrap()))
}

fn charter(operator: &Ed25519Key) -> v1::Statement {
    let admin = v1::Operator {
        id: "ada".into(),
        key: Some(operator.public()),
        roles: vec!["Admin".into()],
        owns: vec!["*".into()],
    };
    let charter = v1::Charter {
        version: 1,
        founding_nonce: vec![1; 32],
        trust_domain: "test.example".into(),
        operators: vec![admin],
        recovery: Some(v1::Recovery { public_key: vec![2; 32], k: 2, n: 3, share_digests: Vec::new() }),
        ..v1::Charter::default()
    };
    statement::sign(&charter, &[operator as &dyn StatementSigner]).unwrap()
}

impl Vault {
    /// Its root's key is where that of the next one will be.
    fn founded(kind: RootKind) -> Self {
        let (operator, ident, token) = (key(), new_ident().unwrap(), crate::hsm::tests::in_memory());
        let (lives, mut state) = (Lives::default(), State::default());
        let in_token = (kind == RootKind::Token).then_some(&token);
        let first = first_command(&charter(&operator), &ident, None, &lives, in_token).unwrap();
        state.apply(Stamped::decode(&first).unwrap()).result.unwrap();
        let (policies, node) = (Policies::builtin().unwrap(), (String::new(), PrivateKey::generate().unwrap()));
        let (now, boots, released) = (holdfast_transport::now(), 0, Vec::new());
        let mut v = Self { state, ident, token, policies, lives, operator, now, boots, node, released };
        v.report(false);
        v.join();
        v
    }

    /// Does something as a leader that has just opened everything.
    fn with<T>(&self, work: impl FnOnce(&Leader<'_>, &Opened, &mut Entropy) -> T) -> T {
        let opened = keystore::open(&self.state, &self.ident, ME, self.now, Some(&self.token)).unwrap();
        let leader = Leader {
            state: &self.state,
            keys: &opened.keyring,
            policies: &self.policies,
            issuer: &opened.issuer,
            lives: &self.lives,
            now: self.state.time(self.now),
        };
        work(&leader, &opened, &mut Entropy::new(random32().unwrap()))
    }
    fn commit<T>(&mut self, p: Prepared<T>) -> T {
        let Prepared { command, held } = p;
        let done = self.state.apply(command).result.unwrap();
        held.release(done).unwrap().0
    }
    fn propose(&mut self, command: Command) {
        let stamped = Stamped { at: self.now, salt_seed: random32().unwrap(), command };
        self.state.apply(stamped).result.unwrap();
    }
    /// The process ends: what is left is what was committed.
    fn crash(&mut self) {
        self.state = State::decode(&self.state.encode()).unwrap();
    }

    fn submit(&mut self, id: [u8; 16], action: Action, sealed: &[u8]) -> Result<(), Refusal> {
        let command = v1::Command {
            cluster_id: self.state.cluster_id().unwrap().0.to_vec(),
            era: 1,
            command_id: id.to_vec(),
            expires_at_ms: self.now.0 + 3_600_000,
            expect_rev: 0,
            action: Some(action),
        };
        let st = statement::sign(&command, &[&self.operator as &dyn StatementSigner]).unwrap();
        let p = self.with(|leader, _, entropy| prepare::submit(leader, &st, sealed, entropy))?;
        let Prepared { command, .. } = p;
        self.state.apply(command).result.map(drop)
    }
    fn fresh16() -> [u8; 16] {
        let mut id = [0; 16];
        id.copy_from_slice(&random32().unwrap()[..16]);
        id
    }
    fn join(&mut self) {
        let (token, id) = (TokenId::from_slice(&[7; 8]).unwrap(), Self::fresh16());
        let mac: Secret<kind::TokenMac, 32> = Secret::take(&mut random32().unwrap());
        let cluster = self.state.cluster_id().unwrap();
        let (_, intake) = self.with(|leader, _, _| leader.keys.intake(leader.keys.active())).unwrap();
        let aad = boxes::intake_aad(&format!("token/{}", token.hex()), 0, &id);
        let context = Context { purpose: "intake", cluster: &cluster, aad: &aad };
        let sealed = boxes::seal(&intake, &context, None, mac.expose(), random32().unwrap()).unwrap();
        let mint = v1::MintToken {
            token_id: token.to_vec(),
            box_sha256: sha256(&[&sealed]).to_vec(),
            role: "node".into(),
            expires_at_ms: self.now.0 + 3_600_000,
            uses: 1,
            zone: "eu".into(),
            ..v1::MintToken::default()
        };
        self.submit(id, Action::MintToken(mint), &sealed).unwrap();
        let (nonce, csr, hpke_pub) = ([3; 32], self.node.1.csr().unwrap(), boxes::derive_keypair(&[4; 32]).1);
        let mac = join_mac(&mac, &nonce, &csr, &hpke_pub);
        let proof = v1::Proof { csr, hpke_pub: hpke_pub.to_vec(), mac };
        let p = self.with(|leader, _, entropy| prepare::join(leader, token, &nonce, &proof, entropy)).unwrap();
        let JoinOutcome::Issued(issued) = self.commit(p) else { panic!("a node waits for nobody") };
        self.node.0 = issued.id;
        self.released.push((issued.chain, Usage::Client));
    }
    /// The voter's own next certificate; `lost`: signed, and not committed.
    fn report(&mut self, lost: bool) {
        self.boots += 1;
        let row = self.state.voter(ME).unwrap();
        let csr = PrivateKey::from_pkcs8(self.ident.tls_key.expose()).unwrap().csr().unwrap();
        let said = v1::VoterReport {
            boot: Some(v1::Boot { count: self.boots, id: vec![1; 16] }),
            peer_addr: "v:7402".into(),
            service_addr: "v:7443".into(),
            join_addr: "v:7444".into(),
            recovery_version: 1,
            unlock_epoch: row.unlock_epoch,
            disk_key_order: row.disk_key_order,
            kem_gen: row.kem_gen,
            kem_pk: row.kem_pk.to_vec(),
            csr,
            ..v1::VoterReport::default()
        };
        let p = self.with(|leader, _, entropy| prepare::voter_said(leader, ME, &said, None, entropy)).unwrap();
        if !lost {
            let reply = self.commit(p.expect("a new boot is news"));
            self.released.push((reply.chain, Usage::Server));
        }
    }
    /// The node's next certificate, for the key that it has.
    fn renew(&mut self, lost: bool) {
        let (id, bundle_epoch) = (self.node.0.clone(), self.state.bundle_epoch());
        let ask = v1::RenewRequest { csr: self.node.1.csr().unwrap(), hpke_pub: vec![5; 32], bundle_epoch };
        let p = self.with(|leader, _, entropy| prepare::renew(leader, &id, &ask, entropy)).unwrap();
        if lost {
            return;
        }
        let issued = self.commit(p).unwrap();
        self.released.push((issued.chain, Usage::Client));
        let serial = self.state.node_view(&id, true).unwrap().pending_serial;
        self.propose(Command::Activate { id, serial });
    }

    /// One step as the driver takes it; `lost`: its work is done, and nothing of it is committed.
    fn step(&mut self, lost: bool) -> RootStep {
        let step = self.state.root_step(self.state.time(self.now));
        if matches!(step, RootStep::Nothing | RootStep::Renew) {
            return step;
        }
        let prepared = match &step {
            RootStep::Make(target) => Some(self.with(|l, o, e| made(l, o, target, e)).unwrap()),
            RootStep::Drop(root) => Some(self.with(|l, o, e| dropped(l, o, root, e)).unwrap()),
            RootStep::Destroy(root) => {
                let retired = self.state.rotation().retired.iter().find(|r| r.sha256 == *root).unwrap();
                self.with(|_, opened, _| destroy_keys(retired, opened)).unwrap();
                None
            }
            RootStep::Nothing | RootStep::Renew | RootStep::Switch(_) => None,
        };
        match (prepared, &step) {
            _ if lost => {}
            (Some(p), _) => self.commit(p),
            (None, RootStep::Switch(to)) => self.propose(Command::RootSwitch { to: *to }),
            (None, RootStep::Destroy(root)) => self.propose(Command::RootDestroyed { root: *root }),
            (None, _) => panic!("{step:?} without an entry"),
        }
        step
    }
    /// Everything up to this point, each by another leader.
    fn until(&mut self, dies: Dies) {
        for at in POINTS.into_iter().take_while(|at| *at <= dies) {
            let before = self.state.encode();
            match at {
                Dies::Ordered => {
                    let kind = if self.token_keys() > 0 { "hsm" } else { "software" };
                    let order = v1::RotateRoot { kind: kind.into(), ..v1::RotateRoot::default() };
                    self.submit(Self::fresh16(), Action::RotateRoot(order), &[]).unwrap();
                }
                Dies::KeyMade => assert!(matches!(self.step(true), RootStep::Make(_))),
                Dies::Added => assert!(matches!(self.step(false), RootStep::Make(_))),
                Dies::Acked => self.ack(),
                Dies::Switched => assert!(matches!(self.step(false), RootStep::Switch(_))),
                Dies::LeafSigned => {
                    self.report(true);
                    self.renew(true);
                }
                Dies::Dropped => {
                    self.report(false);
                    self.renew(false);
                    assert!(matches!(self.step(false), RootStep::Drop(_)));
                }
                Dies::KeyDestroyed => assert!(matches!(self.step(true), RootStep::Destroy(_))),
            }
            if matches!(at, Dies::KeyMade | Dies::LeafSigned | Dies::KeyDestroyed) {
                assert!(self.state.encode() == before, "{at:?}: what was not committed is there");
            }
            self.crash();
        }
    }
    fn ack(&mut self) {
        let said = vec![(self.node.0.clone(), self.state.bundle_epoch())];
        self.propose(Command::Acked(said));
    }
    /// The rest of it, each step by another leader, with the machines doing their part.
    fn settle(&mut self) {
        for _ in 0..MOST {
            let step = self.step(false);
            self.crash();
            let signer = self.state.signing_root_sha256();
            if self.state.voter(ME).and_then(|v| v.cert.as_ref()).map(|c| c.root) != signer {
                self.report(false);
            }
            self.ack();
            if self.state.roots_of(&self.node.0).into_iter().any(|root| Some(root) != signer) {
                self.renew(false);
            }
            if step == RootStep::Nothing && self.state.root_phase() == "stable" {
                return;
            }
        }
        panic!("the rotation does not end: {:?}", self.state.roots_view(self.now, |_| true).waits_for);
    }

    /// Keys in the token: none but those of roots are made there.
    fn token_keys(&self) -> usize {
        self.token.list().unwrap().len()
    }
    /// All that ever left is believed by who knows the first root alone: nothing was signed that was not committed to be.
    fn released_is_believed(&self, first: &[u8]) {
        let anchors = Anchors::new(&[first], self.state.trust_domain().unwrap().clone()).unwrap();
        for (chain, usage) in &self.released {
            let chain: Vec<_> = chain.iter().map(|c| c.as_slice().into()).collect();
            verify_peer(&chain, &anchors, self.now, *usage).unwrap();
        }
        let cluster = self.state.cluster_id().unwrap();
        let charters = CharterChain::verify(&self.state.charter_chain()).unwrap();
        let newest =
            verify_bundle_chain(&self.state.bundle_chain(), &[first], Admins::ever(&charters), &cluster).unwrap();
        assert_eq!(newest.doc.roots, self.state.roots_der());
    }
}

/// At each point the leader dies, and the rotation ends all the same: at the new root, or back at the old one.
fn swept(kind: RootKind, abort: bool) {
    for dies in POINTS {
        let mut v = Vault::founded(kind);
        let (first, keys) = (v.state.roots_der().remove(0), v.token_keys());
        v.until(dies);
        let aborted = abort && v.submit(Vault::fresh16(), Action::AbortRoot(v1::AbortRoot::default()), &[]).is_ok();
        assert_eq!(aborted, abort && dies < Dies::Dropped, "{dies:?}: what can be taken back is, and nothing else");
        v.settle();
        let all = v.state.roots_der();
        assert_eq!((all.len(), all[0] == first), (1, aborted), "{dies:?}");
        assert_eq!(v.state.roots_of(&v.node.0), [sha256(&[&all[0]])], "{dies:?}");
        let retired = &v.state.rotation().retired;
        assert!(retired.iter().all(|r| r.destroyed && r.key == CaKey::Offline), "{dies:?}: a key is kept");
        // Of an order that was taken back right after its key was made, the token keeps a key that never was a root's.
        let orphan = usize::from(aborted && dies == Dies::KeyMade && kind == RootKind::Token);
        assert_eq!(v.token_keys(), keys + orphan, "{dies:?}: one key a root, however often it was made or destroyed");
        v.released_is_believed(&first);
    }
}

#[test]
fn a_leader_that_dies_at_any_point_of_a_rotation_leaves_one_that_the_next_leader_ends() {
    swept(RootKind::Software, false);
    swept(RootKind::Token, false);
}

#[test]
fn a_rotation_whose_leader_died_at_any_point_is_taken_back_as_long_as_the_old_root_is_trusted() {
    swept(RootKind::Software, true);
    swept(RootKind::Token, true);
}
