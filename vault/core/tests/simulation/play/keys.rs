//! What is decided about the cluster itself: terms of the keyring, voters, the unlock key, the charter, and a new era.

use super::Play;
use crate::world::{SoftKey, csr, named_key};
use holdfast_types::{Secret, sha256};
use holdfast_vault_core::prepare::{self, AtRest, FoundingKeys, Resetting};
use holdfast_vault_core::{Command, Keyring, command_voter};
use holdfast_wire::boxes::{self, Context, derive_keypair};
use holdfast_wire::v1;
use v1::command::Action;

const ADMINS: &[&str] = &["ada", "ben"];
/// Batches after which everything has moved to the newest term.
const BATCHES: usize = 64;

impl Play {
    /// Submits what both Admins sign: at once, later, or never.
    fn order(&mut self, action: Action) {
        let st = self.w.sign(&self.w.command(action), ADMINS);
        let prepared = prepare::submit(&self.w.leader(), &st, &[], &mut self.w.entropy());
        self.commit(prepared, |_, (), _| ());
    }

    /// A new term of the keyring.
    pub(super) fn term(&mut self) {
        let fresh = Secret::take(&mut self.w.entropy().draw("fresh term"));
        let signer = self.root_key(&self.w.state.signing_root_sha256().unwrap());
        let prepared = prepare::new_term(&self.w.leader(), signer, fresh, &mut self.w.entropy());
        drop(self.w.commit(prepared));
        self.w.reopen();
    }

    /// Everything moves to the newest term, and what nobody needs any more is destroyed.
    pub(super) fn retire(&mut self) {
        if self.w.state.keyring_view().older.is_empty() {
            self.term();
        }
        for _ in 0..BATCHES {
            let batch = prepare::rewrap(&self.w.leader(), 8, &mut self.w.entropy());
            let Ok(Some(batch)) = batch else { break };
            drop(self.w.propose(batch));
        }
        let nodes: Vec<String> = self.w.state.nodes_under_older_terms("").cloned().collect();
        for id in nodes {
            let (_, hpke) = derive_keypair(&self.w.entropy().draw("next hpke"));
            if self.w.renew(&id, &csr().1, &hpke).is_ok()
                && let Some(Command::Renew { cert, .. }) = self.w.log.last().map(|c| c.command.clone())
            {
                drop(self.w.propose(Command::Activate { id, serial: cert.serial }));
            }
        }
        let terms = self.w.state.destroyable_terms();
        if !terms.is_empty() {
            drop(self.w.propose(Command::KeyringDestroy(terms)));
            self.w.reopen();
        }
    }

    /// One more voter.
    pub(super) fn admit(&mut self) {
        let m = self.w.applicant();
        if self.w.admit(&m).is_err() {
            return;
        }
        if let Ok(Some(told)) = self.w.collect_voter(&m) {
            let said = self.w.voter_report(told.voter_id, 1);
            drop(self.w.says(told.voter_id, &said, None));
            self.roots.voters.insert(told.voter_id, m);
        }
    }

    /// One voter less, if there is another than the first.
    pub(super) fn evict(&mut self) {
        let others: Vec<u64> = self.w.state.voters().map(|(id, _)| id.0).filter(|id| *id != 1).collect();
        if others.is_empty() {
            return self.admit();
        }
        let (voter_id, compromised) = (others[self.draw.below(others.len())], self.draw.one_in(2));
        self.order(Action::EvictVoter(v1::EvictVoter { voter_id, compromised }));
    }

    /// The next unlock key; or, while one waits, every voter's word that it has a slot for it, and the end of the old one.
    pub(super) fn unlock(&mut self) {
        let view = self.w.state.unlock_view();
        if view.pending == 0 {
            let to = self.w.state.next_unlock_epoch();
            let (_, pk) = derive_keypair(&sha256(&[b"unlock", &to.to_be_bytes()]).0);
            let aad = [view.epoch.to_be_bytes(), to.to_be_bytes()].concat();
            let c = Context { purpose: "unlock-chain", cluster: &self.w.cluster, aad: &aad };
            let chained = || boxes::seal(&pk, &c, None, &[3; 32], self.w.entropy().draw("chain")).unwrap();
            let chain = if view.autolock { chained() } else { Vec::new() };
            let next = v1::UnlockPrepare { epoch: to, pk: pk.to_vec(), chain, ..v1::UnlockPrepare::default() };
            return self.order(Action::UnlockPrepare(next));
        }
        let members: Vec<u64> = self.w.state.voters().map(|(id, _)| id.0).collect();
        for id in members {
            let said = v1::VoterReport { unlock_epoch: view.pending, ..self.w.voter_report(id, 1) };
            drop(self.w.says(id, &said, None));
        }
        self.order(Action::UnlockFinalize(v1::UnlockFinalize { epoch: view.pending }));
    }

    /// The next charter: one operator's role is another.
    pub(super) fn charter(&mut self) {
        let last = self.w.state.charter_chain().pop().unwrap();
        let now = self.w.state.charter().clone();
        let mut next = v1::Charter {
            version: now.version + 1,
            prev_sha256: sha256(&[&last.payload]).to_vec(),
            founding_nonce: Vec::new(),
            ..now
        };
        for o in next.operators.iter_mut().filter(|o| o.id == "dora") {
            let was = o.roles.iter().any(|r| r == "Deployer");
            o.roles = vec![if was { "Auditor" } else { "Deployer" }.to_owned()];
        }
        let st = self.w.sign(&next, ADMINS);
        let prepared = prepare::submit(&self.w.leader(), &st, &[], &mut self.w.entropy());
        self.commit(prepared, |_, (), _| ());
    }

    /// A new era, with which this history's leader is at its end: it has none of the new keys. What it had decided, and
    /// what operators had signed, comes all the same.
    pub(super) fn reset(&mut self) {
        let next = self.w.state.active_term() + 1;
        let mut terms = self.w.terms();
        terms.push((next, Secret::take(&mut [21; 32])));
        let keys = Keyring::open_all(self.w.cluster, Secret::take(&mut [8; 32]), terms, next);
        let (root, issuer, stk) = (SoftKey::new(), SoftKey::new(), named_key("stk of the next era"));
        let (root_pkcs8, issuer_pkcs8) = (root.private(), issuer.private());
        let made = FoundingKeys {
            root: &root,
            root_key: AtRest::Sealed(&root_pkcs8),
            issuer: &issuer,
            issuer_key: AtRest::Sealed(&issuer_pkcs8),
            stk: &stk,
        };
        let resetting = Resetting {
            state: &self.w.state,
            keys: &keys,
            made: &made,
            voter: command_voter(self.w.state.next_voter(), derive_keypair(&[31; 32]).1),
            spki: sha256(&[b"its tls key"]),
            unlock_pk: Some([5; 32]),
            checkpoint: prepare::checkpoint(&self.w.state, &self.w.stk).unwrap(),
            reason: "the others burnt".into(),
            removed: Vec::new(),
            compromised: false,
        };
        let now = self.w.state.time(self.w.now);
        let plan = prepare::plan_reset(resetting, self.w.lives.issuer, now, &mut self.w.entropy()).unwrap();
        let st = self.w.sign(plan.document(), ADMINS);
        let prepared = plan.complete(&st, now, &mut self.w.entropy());
        self.w.commit(prepared).unwrap();
        self.over = true;
    }
}
