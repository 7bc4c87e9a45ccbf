//! The renewal chain with both its real halves: the vault's state machine, and the store in which a machine keeps its keys. Every
//! crash point of either, sleeps that outlast certificates, and random histories with a thief who copied the disk (the rules of
//! the model `renewfork.py`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected should stop there"
)]

#[path = "../../vault/core/tests/world/mod.rs"]
mod world;

use holdfast_pki::chain::{Peer, Usage, read_leaf};
use holdfast_transport::keys::PrivateKey;
use holdfast_transport::renew::{FileStore, KeyStore as _, Stored, pending_key};
use holdfast_transport::tls::LocalIdentity;
use holdfast_types::{Digest, Millis, Role};
use holdfast_vault_core::prepare::{self, Back, JoinOutcome};
use holdfast_vault_core::{IdentityState, Prepared, Refusal, State};
use holdfast_wire::v1;
use std::collections::BTreeSet;
use std::fs;
use tempfile::TempDir;
use world::World;

const HPKE: [u8; 32] = [3; 32];
/// Longer than a node's certificate lives.
const SLEEP: i64 = 73 * 3_600_000;
/// The issuer lives for 30 days, and nobody renews it here.
const SLEEPS: usize = 5;

/// Where a renewal is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// Nowhere.
    Never,
    /// The machine stops once its new key is on disk.
    KeyStored,
    /// The vault stops once it has decided, before that is committed.
    Decided,
    /// The vault stops once it is committed, or the reply is lost, or the machine stops before any of it is on disk.
    Committed,
    /// The machine stops between the two steps that put the new certificate in the place of the old one.
    HalfPromoted,
}
const CUTS: [Cut; 5] = [Cut::Never, Cut::KeyStored, Cut::Decided, Cut::Committed, Cut::HalfPromoted];

/// What a contact came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Met {
    LetIn,
    Refused,
    /// It did not come to an answer, and nothing was written.
    Nothing,
}

/// A disk with an identity on it.
struct Holder {
    dir: TempDir,
    store: FileStore,
}

impl Holder {
    fn empty() -> Self {
        // In memory: thousands of keys are written and synced.
        let dir = tempfile::Builder::new().prefix("hf-holder-").tempdir_in("/dev/shm").unwrap();
        let store = FileStore::new(dir.path());
        Self { dir, store }
    }
    fn copied(&self) -> Self {
        let copy = Self::empty();
        for file in fs::read_dir(self.dir.path()).unwrap().flatten() {
            fs::copy(file.path(), copy.dir.path().join(file.file_name())).unwrap();
        }
        copy
    }
    /// What it would show, as read from the disk anew: any process may be the first after a crash.
    fn shown(&self) -> (Peer, PrivateKey) {
        let Stored { chain, key } = self.store.load().unwrap().unwrap();
        let identity = LocalIdentity::new(&chain, &key).unwrap();
        (read_leaf(identity.chain(), Usage::Client).unwrap(), key)
    }
    /// The keys on the disk.
    fn keys(&self) -> BTreeSet<Digest> {
        let pending = self.store.load_pending().unwrap().map(|k| k.spki_sha256());
        pending.into_iter().chain([self.shown().0.spki_sha256]).collect()
    }
    fn promote(&self, chain: &[Vec<u8>], half: bool) {
        let pending = self.dir.path().join("pending.pem");
        let before = fs::read(&pending).unwrap();
        self.store.promote(chain).unwrap();
        if half {
            fs::write(&pending, before).unwrap();
        }
    }
}

struct Lab {
    w: World,
    base: State,
    begun: Millis,
    id: String,
    key: PrivateKey,
    chain: Vec<Vec<u8>>,
    slept: usize,
}

impl Lab {
    fn new() -> Self {
        let mut w = World::new();
        let token = w.mint("node");
        let key = PrivateKey::generate().unwrap();
        let (csr, nonce) = (key.csr().unwrap(), w.entropy().draw("nonce"));
        let proof = w.proof(&token, &nonce, &csr, &HPKE);
        let p = prepare::join(&w.leader(), token.id, &nonce, &proof, &mut w.entropy());
        let (JoinOutcome::Issued(issued), _) = w.commit(p).unwrap() else { panic!("it has to be approved") };
        w.checked = false;
        Self { base: w.state.clone(), begun: w.now, id: issued.id, key, chain: issued.chain, slept: 0, w }
    }
    /// The beginning of a history: the machine has just joined.
    fn owner(&mut self) -> Holder {
        self.w.state = self.base.clone();
        self.w.leaves.truncate(self.base.log_head().0 as usize);
        self.w.log.clear();
        (self.w.now, self.slept) = (self.begun, 0);
        let owner = Holder::empty();
        owner.store.save_pending(&self.key).unwrap();
        owner.store.promote(&self.chain).unwrap();
        owner
    }
    fn view(&self) -> v1::NodeView {
        self.w.state.node_view(&self.id, false).unwrap()
    }
    fn quarantined(&self) -> bool {
        self.view().state == "quarantined"
    }
    /// All machines are off for a while, until the certificates of all are over: time that is counted, and not waited for.
    fn be_off(&mut self) {
        if self.slept < SLEEPS {
            self.slept += 1;
            self.w.pass(SLEEP);
        }
    }
    /// A vault that stops and starts again has what was committed, and nothing else.
    fn restart(&mut self) {
        self.w.state = State::decode(&self.w.state.encode()).unwrap();
    }
    fn show(&mut self, peer: &Peer) -> Met {
        let let_in = self.w.show(Role::Node, &self.id.clone(), &peer.serial_hex, &peer.spki_sha256);
        if let_in { Met::LetIn } else { Met::Refused }
    }
    /// One contact; whoever's certificate is over comes back first.
    fn uses(&mut self, h: &Holder) -> Met {
        let (peer, _) = h.shown();
        if peer.not_after > self.w.now { self.show(&peer) } else { self.rejoins(h, Cut::Never) }
    }
    fn renews(&mut self, h: &Holder, cut: Cut) -> Met {
        let (peer, _) = h.shown();
        if peer.not_after <= self.w.now {
            return self.rejoins(h, cut);
        }
        if self.show(&peer) == Met::Refused {
            return Met::Refused;
        }
        let key = pending_key(&h.store).unwrap();
        if cut == Cut::KeyStored {
            return Met::LetIn;
        }
        let r = v1::RenewRequest { csr: key.csr().unwrap(), hpke_pub: HPKE.to_vec(), bundle_epoch: 1 };
        let p = prepare::renew(&self.w.leader(), &self.id, &r, &mut self.w.entropy());
        // It was let in, whatever becomes of its request.
        match self.answer(h, p, cut) {
            Met::Nothing => Met::LetIn,
            met @ (Met::LetIn | Met::Refused) => met,
        }
    }
    fn rejoins(&mut self, h: &Holder, cut: Cut) -> Met {
        let ((_, old), key) = (h.shown(), pending_key(&h.store).unwrap());
        if cut == Cut::KeyStored {
            return Met::Nothing;
        }
        let (csr, nonce) = (key.csr().unwrap(), self.w.entropy().draw("nonce"));
        let signature = old.sign(&prepare::rejoin_message(&nonce, &self.id, &csr, &HPKE)).unwrap();
        let spki = old.spki_der().to_vec();
        let proof = v1::RejoinProof { csr, hpke_pub: HPKE.to_vec(), spki, signature, bundle_epoch: 1 };
        let back = prepare::rejoin(&self.w.leader(), &nonce, &self.id, &proof, "10.0.0.1:1", &mut self.w.entropy());
        let p = back.and_then(|back| match back {
            Back::Comes(p) => Ok(*p),
            Back::Removed => Err(IdentityState::Removed.into()),
        });
        self.answer(h, p, cut)
    }
    fn answer(&mut self, h: &Holder, p: Result<Prepared<Option<v1::Issued>>, Refusal>, cut: Cut) -> Met {
        let Ok(p) = p else { return Met::Refused };
        if cut == Cut::Decided {
            self.restart();
            return Met::Nothing;
        }
        let Ok((Some(issued), _)) = self.w.commit(Ok(p)) else { return Met::Refused };
        if cut == Cut::Committed {
            self.restart();
        } else {
            h.promote(&issued.chain, cut == Cut::HalfPromoted);
        }
        Met::LetIn
    }
    /// An honest machine goes on as if nothing had been, and the registry knows it by what is on its disk.
    fn goes_on(&mut self, owner: &Holder, history: &str) {
        for _ in 0..2 {
            assert_eq!(self.renews(owner, Cut::Never), Met::LetIn, "{history}");
            assert_eq!(self.uses(owner), Met::LetIn, "{history}");
        }
        let (view, (peer, _)) = (self.view(), owner.shown());
        assert_eq!((view.state.as_str(), view.serial), ("ready", peer.serial_hex), "{history}");
    }
}

#[test]
fn whatever_crash_follows_whichever_an_honest_machine_is_never_quarantined() {
    let mut lab = Lab::new();
    for first in CUTS {
        for second in CUTS {
            for habit in 0..32_u8 {
                let is = |bit: u8| habit >> bit & 1 == 1;
                let history = format!("{first:?}, {second:?}, {habit:05b}");
                let owner = lab.owner();
                for (cut, sleeps, uses) in [(first, is(0), is(1)), (second, is(2), is(3))] {
                    if sleeps {
                        lab.be_off();
                    }
                    assert_ne!(lab.renews(&owner, cut), Met::Refused, "{history}");
                    if uses {
                        assert_eq!(lab.uses(&owner), Met::LetIn, "{history}");
                    }
                    assert!(!lab.quarantined(), "{history}");
                }
                if is(4) {
                    lab.be_off();
                }
                lab.goes_on(&owner, &history);
            }
        }
    }
}

/// Numbers that are the same at each run.
struct Dice(u64);
impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

#[test]
fn honest_histories_of_any_kind_end_well() {
    let (mut lab, mut dice) = (Lab::new(), Dice(1));
    for n in 0..1000 {
        let owner = lab.owner();
        let mut history = format!("{n}:");
        for _ in 0..dice.below(12) {
            let act = dice.below(10);
            history += &format!(" {act}");
            let met = match act {
                0..=4 => lab.renews(&owner, CUTS[act]),
                5 | 6 => lab.uses(&owner),
                7 => {
                    lab.be_off();
                    Met::Nothing
                }
                8 => {
                    lab.restart();
                    Met::Nothing
                }
                _ => lab.rejoins(&owner, CUTS[dice.below(CUTS.len())]),
            };
            assert_ne!(met, Met::Refused, "{history}");
            assert!(!lab.quarantined(), "{history}");
        }
        lab.goes_on(&owner, &history);
    }
}

#[test]
fn of_an_owner_and_a_thief_with_keys_of_their_own_no_two_go_on_however_long_they_sleep() {
    let (mut lab, mut dice) = (Lab::new(), Dice(2));
    let (mut caught, mut by_sleepers) = (0, 0);
    for n in 0..1200 {
        let owner = lab.owner();
        let (mut thief, mut owns) = (None::<Holder>, false);
        let mut owners = owner.keys();
        let mut history = format!("{n}:");
        for _ in 0..4 + dice.below(20) {
            let (by_thief, act) = (dice.below(2) == 1, dice.below(12));
            history += &format!(" {}{act}", if by_thief { "t" } else { "o" });
            match act {
                9 => lab.be_off(),
                10 | 11 if thief.is_none() => thief = Some(owner.copied()),
                _ => {}
            }
            let Some(who) = (if by_thief { thief.as_ref() } else { Some(&owner) }) else { continue };
            let (view, (peer, _)) = (lab.view(), who.shown());
            let (before, over) = (lab.quarantined(), peer.not_after <= lab.w.now);
            let is = |spki: &[u8]| spki == peer.spki_sha256.to_vec();
            let stale = !is(&view.spki_sha256) && !is(&view.pending_spki_sha256);
            let met = match act {
                0..=4 => lab.renews(who, CUTS[act]),
                5..=8 => lab.uses(who),
                _ => continue,
            };
            if !by_thief {
                owners.extend(owner.keys());
            }
            if met == Met::Nothing {
                continue;
            }
            if stale {
                assert_eq!(met, Met::Refused, "a stale copy was let in: {history}");
                assert!(lab.quarantined(), "a stale copy went unnoticed: {history}");
            }
            if by_thief {
                owns |= met == Met::LetIn && !owners.contains(&peer.spki_sha256);
            } else {
                assert!(before || !owns || lab.quarantined(), "the thief lives on beside the owner: {history}");
            }
            by_sleepers += u32::from(!before && over && lab.quarantined());
        }
        caught += u32::from(lab.quarantined());
    }
    assert!(caught > 300 && by_sleepers > 20, "the histories do reach forks: {caught}, {by_sleepers} by sleepers");
}
