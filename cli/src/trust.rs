//! What this machine believes of its cluster: the charter chain from the cluster's name, the bundle chain from the anchor.
//!
//! Belief only moves forward: an older bundle or charter than the stored one is never taken.

use crate::charter;
use crate::context::Context;
use crate::errors::Failure;
use holdfast_pki::bundle::{Admins, follow, verify_bundle_chain};
use holdfast_pki::chain::Anchors;
use holdfast_pki::era::verify_era;
use holdfast_types::{ClusterId, Digest, TrustDomain};
use holdfast_wire::charter::CharterChain;
use holdfast_wire::statement::{self, News, Verified};
use holdfast_wire::v1;

/// Verified charters and the bundle in force.
#[derive(Debug, Clone)]
pub struct Trust {
    charters: CharterChain,
    bundle: Verified<v1::Bundle>,
    chains: v1::TrustView,
    cluster: ClusterId,
}

impl Trust {
    /// Believes chains that start at the cluster's name and at a root that `anchor` commits to.
    pub fn verify(chains: v1::TrustView, cluster: &ClusterId, anchor: &Digest) -> Result<Self, Failure> {
        let charters = charter::verify_chain(&chains.charter_chain, cluster)?;
        let first =
            chains.bundle_chain.first().ok_or_else(|| Failure::untrusted("there is no bundle in the answer"))?;
        let mut roots = statement::peek::<v1::Bundle>(first).map_err(Failure::untrusted)?.roots;
        roots.retain(|r| cluster.anchor(r) == *anchor);
        if roots.is_empty() {
            return Err(Failure::untrusted("no root of the first bundle is the one that the anchor names"));
        }
        let bundle = verify_bundle_chain(&chains.bundle_chain, &roots, Admins::ever(&charters), cluster);
        let bundle = bundle.map_err(Failure::untrusted)?;
        Ok(Self { charters, bundle, chains, cluster: *cluster })
    }
    /// Believes chains that start at the anchor of `ctx`, or at that of an era before.
    pub fn verify_for(ctx: &Context, chains: &v1::TrustView) -> Result<Self, Failure> {
        let refused = match Self::verify(chains.clone(), &ctx.cluster, &ctx.anchor) {
            Ok(trust) => return Ok(trust),
            Err(refused) => refused,
        };
        let mut earlier = ctx.earlier_anchors()?.into_iter();
        earlier.find_map(|anchor| Self::verify(chains.clone(), &ctx.cluster, &anchor).ok()).ok_or(refused)
    }
    /// What the context has stored. Whoever was cut off while it followed into a new era holds the documents of the one before
    /// beside the new anchor, and follows once more.
    pub fn stored(ctx: &Context) -> Result<Self, Failure> {
        Self::verify_for(ctx, &ctx.stored_trust()?)
    }
    /// Believes what the cluster says now, if it continues what is believed already; `true` if there was news.
    pub fn advance(&mut self, answer: &v1::TrustView) -> Result<bool, Failure> {
        let mut next = self.clone();
        for st in &answer.charter_chain {
            if let News::Todo(newer) = next.charters.observe(st).map_err(Failure::untrusted)? {
                next.charters.adopt(newer);
                next.chains.charter_chain.push(st.clone());
            }
        }
        let mut held = self.charters.head().version;
        for st in &answer.bundle_chain {
            if statement::peek::<v1::Bundle>(st).map_err(Failure::untrusted)?.epoch > next.bundle.doc.epoch {
                let admins = Admins::since(&next.charters, held);
                next.bundle = follow(&next.bundle, st, admins, &self.cluster).map_err(Failure::untrusted)?;
                held = held.max(next.bundle.doc.charter_version);
                next.chains.bundle_chain.push(st.clone());
            }
        }
        let news = next.chains != self.chains;
        *self = next;
        Ok(news)
    }
    /// What `shown` proves of an era after the one believed, with the anchor of it; `None`: nothing.
    pub fn next_era(&self, shown: &v1::TrustView) -> Result<Option<(Self, Digest)>, Failure> {
        let Some(era) = verify_era(&self.charters, self.bundle.doc.era, shown).map_err(Failure::untrusted)? else {
            return Ok(None);
        };
        let chains = v1::TrustView {
            charter_chain: era.charters.statements().to_vec(),
            bundle_chain: shown.bundle_chain.clone(),
            resets: shown.resets.clone(),
            ..v1::TrustView::default()
        };
        let next = Self { charters: era.charters, bundle: era.bundle, chains, cluster: self.cluster };
        Ok(Some((next, era.anchor)))
    }
    /// Whose it is.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }
    /// The chains, for storing.
    pub fn chains(&self) -> &v1::TrustView {
        &self.chains
    }
    /// The bundle in force.
    pub fn bundle(&self) -> &v1::Bundle {
        &self.bundle.doc
    }
    /// What the next bundle calls it.
    pub fn bundle_sha256(&self) -> Digest {
        self.bundle.sha256
    }
    /// The charter in force.
    pub fn charter(&self) -> &v1::Charter {
        self.charters.head()
    }
    /// The trust domain, as the charter names it.
    pub fn trust_domain(&self) -> &TrustDomain {
        self.charters.trust_domain()
    }
    /// The roots in force, for TLS.
    pub fn anchors(&self) -> Result<Anchors, Failure> {
        Anchors::new(&self.bundle.doc.roots, self.trust_domain().clone()).map_err(Failure::untrusted)
    }
    /// Every statement key that the bundles ever listed: old checkpoints were signed by old keys.
    pub fn checkpoint_keys(&self) -> Vec<v1::PublicKey> {
        let mut keys: Vec<v1::PublicKey> = Vec::new();
        // Each link was verified before it was taken into the chain.
        for link in self.chains.bundle_chain.iter().filter_map(|st| statement::peek::<v1::Bundle>(st).ok()) {
            for key in link.stks.into_iter().filter_map(|s| s.key) {
                if !keys.contains(&key) {
                    keys.push(key);
                }
            }
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::{ContextDir, Settings};
    use crate::operator::Operator;
    use holdfast_pki::issue::{ISSUER_LIFE, IssuerCa, ROOT_LIFE, RootCa, new_root};
    use holdfast_pki::keys::{CertSigner, RootStatementSigner, SubjectKey};
    use holdfast_transport::keys::PrivateKey;
    use holdfast_transport::tls::LocalIdentity;
    use holdfast_types::{Role, SpiffeId, sha256};
    use holdfast_wire::keys::{SignError, StatementSigner as _};

    struct Root(PrivateKey);
    impl CertSigner for Root {
        fn sec1(&self) -> Vec<u8> {
            SubjectKey::from_spki(self.0.spki_der()).unwrap().sec1().unwrap().to_vec()
        }
        fn sign(&self, msg: &[u8]) -> Result<Vec<u8>, SignError> {
            self.0.sign(msg).map_err(|e| SignError(e.to_string()))
        }
    }

    struct Founded {
        op: Operator,
        charter: v1::Statement,
        cluster: ClusterId,
        domain: TrustDomain,
    }

    fn founded() -> Founded {
        let op = Operator::generate("op-a").unwrap();
        let domain = TrustDomain::parse("a.example").unwrap();
        let charter = op.sign(&charter::founding(&op, [1; 32], &domain, [2; 32])).unwrap();
        let cluster = ClusterId::of_charter(&charter.payload);
        Founded { op, charter, cluster, domain }
    }

    /// What an operator of `root` logs in with.
    fn login(root: &Root, root_der: &[u8], domain: &TrustDomain) -> LocalIdentity {
        let now = crate::clock::now();
        let (issuer_key, key) = (Root(PrivateKey::generate().unwrap()), PrivateKey::generate().unwrap());
        let issuer_public = SubjectKey::from_spki(issuer_key.0.spki_der()).unwrap();
        let issuer =
            RootCa::open(root_der, root).unwrap().issuer(&issuer_public, [6; 16], now, ISSUER_LIFE).unwrap().der;
        let id = SpiffeId::new(domain.clone(), Role::Op, "op-a");
        let public = SubjectKey::from_spki(key.spki_der()).unwrap();
        let day = std::time::Duration::from_secs(86_400);
        let leaf = IssuerCa::open(&issuer, &issuer_key).unwrap().leaf(&public, &id, [7; 16], now, day).unwrap().der;
        LocalIdentity::new(&[leaf, issuer], &key).unwrap()
    }

    #[test]
    fn a_rotation_is_followed_and_a_login_of_the_root_that_went_is_of_no_use() {
        let Founded { op, charter, cluster, domain } = founded();
        let roots = [(); 2].map(|()| Root(PrivateKey::generate().unwrap()));
        let [old, new] =
            roots.each_ref().map(|r| new_root(r, &cluster, [5; 16], crate::clock::now(), ROOT_LIFE).unwrap().der);
        let mut chain: Vec<v1::Statement> = Vec::new();
        for (epoch, trusted) in [(1, vec![&old]), (2, vec![&old, &new]), (3, vec![&new])] {
            let doc = v1::Bundle {
                cluster_id: cluster.0.to_vec(),
                era: 1,
                epoch,
                roots: trusted.into_iter().cloned().collect(),
                stks: vec![v1::Stk { key: Some(op.key.public()), from_ms: 1, until_ms: 2 }],
                intake_pk: vec![6; 32],
                prev_sha256: chain.last().map_or_else(Vec::new, |st| sha256(&[&st.payload]).to_vec()),
                ..v1::Bundle::default()
            };
            chain.push(statement::sign(&doc, &[&RootStatementSigner(&roots[0])]).unwrap());
        }
        let view = |bundle_chain: &[v1::Statement]| v1::TrustView {
            charter_chain: vec![charter.clone()],
            bundle_chain: bundle_chain.to_vec(),
            ..Default::default()
        };
        let mut trust = Trust::verify(view(&chain[..1]), &cluster, &cluster.anchor(&old)).unwrap();
        let (before, after) = (login(&roots[0], &old, &domain), login(&roots[1], &new, &domain));
        let usable = |trust: &Trust| [&before, &after].map(|held| crate::login::is_believed(held, trust));
        assert_eq!(usable(&trust), [true, false]);
        assert!(trust.advance(&view(&chain[..2])).unwrap());
        assert_eq!(usable(&trust), [true, true]);
        assert!(trust.advance(&view(&chain)).unwrap());
        assert_eq!(usable(&trust), [false, true]);
        // What is stored leads there again from the anchor of the root that went.
        let stored = Trust::verify(trust.chains().clone(), &cluster, &cluster.anchor(&old)).unwrap();
        assert_eq!(stored.bundle().roots, [new]);
    }

    #[test]
    fn whoever_was_cut_off_between_the_anchor_of_an_era_and_its_documents_holds_those_before() {
        let Founded { charter, cluster, .. } = founded();
        let root = Root(PrivateKey::generate().unwrap());
        let der = new_root(&root, &cluster, [5; 16], crate::clock::now(), ROOT_LIFE).unwrap().der;
        let doc = v1::Bundle {
            cluster_id: cluster.0.to_vec(),
            era: 1,
            epoch: 1,
            roots: vec![der.clone()],
            stks: vec![v1::Stk { key: Some(Operator::generate("stk").unwrap().key.public()), from_ms: 1, until_ms: 2 }],
            intake_pk: vec![6; 32],
            ..v1::Bundle::default()
        };
        let bundle_chain = vec![statement::sign(&doc, &[&RootStatementSigner(&root)]).unwrap()];
        let view = v1::TrustView { charter_chain: vec![charter], bundle_chain, ..v1::TrustView::default() };
        let home = tempfile::tempdir().unwrap();
        let dir = ContextDir::new(home.path(), "x").unwrap();
        dir.create().unwrap();
        let settings = Settings {
            cluster_id: cluster.hex(),
            trust_domain: "a.example".into(),
            anchor: cluster.anchor(&der).hex(),
            operator: "op-a".into(),
            service_addrs: vec![],
            join_addrs: vec![],
            vault_socket: None,
            vault_sockets: vec![],
        };
        dir.write_settings(&settings).unwrap();
        let mut ctx = dir.load().unwrap();
        ctx.store_trust(&view).unwrap();
        ctx.begin_era(Digest([9; 32])).unwrap();
        ctx.dir.write_settings(&ctx.settings).unwrap();
        let again = ctx.dir.load().unwrap();
        assert_eq!(again.anchor, Digest([9; 32]));
        assert_eq!(Trust::stored(&again).unwrap().bundle().roots, [der]);
        // Nothing is believed for another cluster.
        let strange = Context { cluster: ClusterId::of_charter(b"two"), ..again };
        assert!(Trust::stored(&strange).is_err());
    }

    /// Only the newest bundle's keys were taken, and a checkpoint of last month looked forged.
    #[test]
    fn keys_of_earlier_bundles_still_verify_earlier_checkpoints() {
        let Founded { charter: founding, cluster, .. } = founded();
        let root = Root(PrivateKey::generate().unwrap());
        let der = new_root(&root, &cluster, [5; 16], crate::clock::now(), ROOT_LIFE).unwrap().der;
        let stks = [Operator::generate("old").unwrap(), Operator::generate("new").unwrap()].map(|o| o.key.public());
        let bundle = |epoch: u64, prev: Option<&v1::Statement>| {
            let stk = v1::Stk { key: Some(stks[usize::try_from(epoch).unwrap() - 1].clone()), from_ms: 1, until_ms: 2 };
            let doc = v1::Bundle {
                cluster_id: cluster.0.to_vec(),
                era: 1,
                epoch,
                roots: vec![der.clone()],
                stks: vec![stk],
                intake_pk: vec![6; 32],
                prev_sha256: prev.map_or_else(Vec::new, |st| sha256(&[&st.payload]).to_vec()),
                ..v1::Bundle::default()
            };
            statement::sign(&doc, &[&RootStatementSigner(&root)]).unwrap()
        };
        let first = bundle(1, None);
        let second = bundle(2, Some(&first));
        let view =
            |bundle_chain| v1::TrustView { charter_chain: vec![founding.clone()], bundle_chain, ..Default::default() };
        let mut trust = Trust::verify(view(vec![first.clone()]), &cluster, &cluster.anchor(&der)).unwrap();
        assert_eq!(trust.checkpoint_keys(), [stks[0].clone()]);
        assert!(trust.advance(&view(vec![first, second])).unwrap());
        assert_eq!(trust.checkpoint_keys(), stks);
    }
}
