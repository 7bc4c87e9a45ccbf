//! A complete honest world: charter, bundle, status, revocations, log, grant, receipt, spec, vouchers, boxes.
//!
//! Every document passes through an `edit_*` hook just before it is signed, so that a test tells one lie and everything
//! around it stays consistent. Keys come from fixed seeds, only the CA root's is fresh.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use holdfast_orchestrator_core::verify::{
    Accepted, News, NodeKey, NodeSelf, NodeTrust, Refusal, TaskMemory, verify_assign,
};
use holdfast_pki::issue::{ROOT_LIFE, new_root};
use holdfast_pki::keys::{CertSigner, RootStatementSigner};
use holdfast_types::{ClusterId, Digest, Millis, NodeId, Secret, SpiffeId, sha256};
use holdfast_wire::keys::{Ed25519Key, SignError, StatementSigner, key_id};
use holdfast_wire::statement::{Document, sign};
use holdfast_wire::{boxes, padding, v1};
use prost::Message as _;

/// 2027-01-15T08:00:00Z.
pub const NOW: i64 = 1_800_000_000_000;
pub const MINUTE: i64 = 60_000;
pub const DAY: i64 = 86_400_000;
pub const DOMAIN: &str = "prod.example.org";
pub const ME: &str = "node-1";
pub const ORCH: &str = "orch-1";
pub const SEQ: u64 = 4;
pub const VALUE: &[u8] = b"correct horse battery staple";

/// Seeds of the people and machines.
pub mod who {
    pub const ADMINS: [u8; 3] = [1, 2, 3];
    pub const DEPLOYER: u8 = 11;
    pub const SECOND_DEPLOYER: u8 = 12;
    pub const DEPLOYER_ELSEWHERE: u8 = 13;
    pub const PUBLISHER: [u8; 2] = [21, 22];
    pub const OTHER_PUBLISHER: u8 = 23;
    pub const STK: u8 = 31;
    pub const OLD_STK: u8 = 32;
    pub const STRANGER: u8 = 99;
}

mod log;
pub mod next;
mod papers;
pub use log::Log;
pub use papers::{FOUNDERS, charter};
use papers::{grant, spec};

pub fn key(seed: u8) -> Ed25519Key {
    Ed25519Key::from_seed(Secret::take(&mut [seed; 32]))
}
pub fn signed<T: Document>(doc: &T, seeds: &[u8]) -> v1::Statement {
    let keys: Vec<_> = seeds.iter().map(|s| key(*s)).collect();
    sign(doc, &keys.iter().map(|k| k as &dyn StatementSigner).collect::<Vec<_>>()).unwrap()
}
pub fn hash(st: &v1::Statement) -> Digest {
    sha256(&[&st.payload])
}

/// A CA root in memory.
pub struct RootKey(EcdsaKeyPair);
impl RootKey {
    pub fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap())
    }
    pub fn certificate(&self, cluster: &ClusterId) -> Vec<u8> {
        new_root(self, cluster, [5; 16], Millis(NOW - DAY), ROOT_LIFE).unwrap().der
    }
    pub fn sign_bundle(&self, b: &v1::Bundle) -> v1::Statement {
        sign(b, &[&RootStatementSigner(self)]).unwrap()
    }
}
impl CertSigner for RootKey {
    fn sec1(&self) -> Vec<u8> {
        self.0.public_key().as_ref().to_vec()
    }
    fn sign(&self, msg: &[u8]) -> Result<Vec<u8>, SignError> {
        Ok(self.0.sign(&SystemRandom::new(), msg).unwrap().as_ref().to_vec())
    }
}

/// One generation of the node's keys, always the same for the same `seq`.
pub fn node_key(seq: u64) -> NodeKey {
    let seed = sha256(&[b"node", &seq.to_be_bytes()]).0;
    let (hpke, _) = boxes::derive_keypair(&seed);
    NodeKey { seq, hpke, psk: Secret::take(&mut sha256(&[b"psk", &seq.to_be_bytes()]).0) }
}
pub fn node_public(seq: u64) -> [u8; 32] {
    boxes::derive_keypair(&sha256(&[b"node", &seq.to_be_bytes()]).0).1
}

/// The honest world, ready for one lie.
pub struct World {
    pub edit_charter: fn(&mut v1::Charter),
    pub edit_bundle: fn(&mut v1::Bundle),
    pub edit_status: fn(&mut v1::Status),
    pub edit_revocations: fn(&mut v1::Revocations),
    pub edit_spec: fn(&mut v1::Spec),
    pub edit_voucher: fn(&mut v1::Voucher),
    pub edit_grant: fn(&mut v1::Grant),
    pub edit_entry: fn(&mut v1::LogEntry),
    pub edit_scene: fn(&mut Scene),
    pub spec_signers: &'static [u8],
    pub voucher_signers: &'static [u8],
    pub grant_signer: u8,
    pub checkpoint_signer: u8,
    pub secret_generation: u64,
}
impl Default for World {
    fn default() -> Self {
        Self {
            edit_charter: |_| {},
            edit_bundle: |_| {},
            edit_status: |_| {},
            edit_revocations: |_| {},
            edit_spec: |_| {},
            edit_voucher: |_| {},
            edit_grant: |_| {},
            edit_entry: |_| {},
            edit_scene: |_| {},
            spec_signers: &[who::DEPLOYER],
            voucher_signers: &who::PUBLISHER,
            grant_signer: who::STK,
            checkpoint_signer: who::STK,
            secret_generation: SEQ,
        }
    }
}

/// What a node has in its hands when an assignment arrives.
pub struct Scene {
    pub root: RootKey,
    pub cluster: ClusterId,
    pub trust: NodeTrust,
    pub me: NodeSelf,
    pub memory: TaskMemory,
    pub peer: SpiffeId,
    pub now: i64,
    pub assign: v1::Assign,
    pub log: Log,
}
impl Scene {
    pub fn honest() -> Self {
        World::default().build()
    }
    pub fn verify(&self) -> Result<Accepted, Refusal> {
        verify_assign(&self.trust, &self.me, &self.memory, &self.peer, Millis(self.now), &self.assign)
    }
    pub fn grant(&self) -> v1::Grant {
        v1::Grant::decode(self.assign.grant.as_ref().unwrap().payload.as_slice()).unwrap()
    }
    /// A Status like the held one but for `edit`.
    pub fn status(&self, edit: impl FnOnce(&mut v1::Status)) -> v1::Statement {
        let mut s = self.trust.status().unwrap().clone();
        edit(&mut s);
        signed(&s, &[who::STK])
    }
    pub fn adopt_status(&mut self, st: &v1::Statement) {
        let n = todo(self.trust.observe_status(Millis(self.now), st));
        self.trust.adopt_status(n);
    }
}

pub fn todo<T: std::fmt::Debug, E: std::fmt::Debug>(r: Result<News<T>, E>) -> T {
    match r {
        Ok(News::Todo(t)) => t,
        other => panic!("expected news, got {other:?}"),
    }
}

pub fn stk(seed: u8, from_ms: i64, until_ms: i64) -> v1::Stk {
    v1::Stk { key: Some(key(seed).public()), from_ms, until_ms }
}

impl World {
    pub fn build(self) -> Scene {
        let mut c = charter();
        (self.edit_charter)(&mut c);
        let charter = signed(&c, &FOUNDERS);
        let cluster = ClusterId(hash(&charter).0);
        let root = RootKey::new();
        let der = root.certificate(&cluster);
        let mut b = v1::Bundle {
            cluster_id: cluster.0.to_vec(),
            era: 1,
            epoch: 10,
            roots: vec![der.clone()],
            stks: vec![stk(who::STK, NOW - DAY, NOW + 20 * DAY), stk(who::OLD_STK, NOW - 30 * DAY, NOW - DAY)],
            intake_pk: vec![6; 32],
            ..v1::Bundle::default()
        };
        (self.edit_bundle)(&mut b);
        let bundle = root.sign_bundle(&b);
        let mut trust =
            NodeTrust::join(cluster.anchor(&der), std::slice::from_ref(&charter), std::slice::from_ref(&bundle))
                .unwrap();

        let mut revocations =
            v1::Revocations { cluster_id: cluster.0.to_vec(), era: 1, epoch: 10, ..v1::Revocations::default() };
        (self.edit_revocations)(&mut revocations);
        let revocations = signed(&revocations, &[who::STK]);

        let (assign, log) = self.assign(&cluster);
        let mut s = v1::Status {
            cluster_id: cluster.0.to_vec(),
            era: 1,
            epoch: 10,
            issued_at_ms: NOW - 10_000,
            expires_at_ms: NOW + 110_000,
            charter_version: 1,
            bundle_sha256: hash(&bundle).to_vec(),
            revocations_sha256: hash(&revocations).to_vec(),
            policy_version: 1,
            holders: vec![v1::Holder { namespace: "shop".into(), orch_id: ORCH.into(), fence: 5 }],
            lockdown: false,
            checkpoint: log.checkpoint(1).sign(&key(who::STK)).unwrap(),
        };
        (self.edit_status)(&mut s);
        let news = todo(trust.observe_status(Millis(NOW - 9_000), &signed(&s, &[who::STK])));
        trust.adopt_status(news);
        let news = todo(trust.observe_revocations(Millis(NOW - 9_000), &revocations));
        trust.adopt_revocations(news);

        let me = NodeSelf { node_id: NodeId::parse(ME).unwrap(), keys: vec![node_key(SEQ), node_key(SEQ - 1)] };
        let peer = SpiffeId::parse(&format!("spiffe://{DOMAIN}/orch/{ORCH}")).unwrap();
        let mut scene = Scene { root, cluster, trust, me, memory: TaskMemory::default(), peer, now: NOW, assign, log };
        (self.edit_scene)(&mut scene);
        scene
    }

    fn assign(&self, cluster: &ClusterId) -> (v1::Assign, Log) {
        let mut spec = v1::Spec { cluster_id: cluster.0.to_vec(), ..spec() };
        (self.edit_spec)(&mut spec);
        let spec_st = signed(&spec, self.spec_signers);
        let vouchers = spec.images.iter().map(|i| {
            let mut v = v1::Voucher {
                cluster_id: cluster.0.to_vec(),
                repository: "r.local:5000/shop/web".into(),
                digest: i.digest.clone(),
                issued_at_ms: NOW - DAY,
            };
            (self.edit_voucher)(&mut v);
            signed(&v, self.voucher_signers)
        });
        let vouchers = vouchers.collect();

        let mut g = v1::Grant { cluster_id: cluster.0.to_vec(), spec_sha256: hash(&spec_st).to_vec(), ..grant() };
        let k = node_key(self.secret_generation);
        let pk = node_public(self.secret_generation);
        g.hpke_kid = key_id(&pk).to_vec();
        let mut sealed = Vec::new();
        for (i, m) in spec.secrets.iter().enumerate() {
            let aad = boxes::secret_aad(&g.grant_id, &m.name, 2, ME, SEQ);
            let c = boxes::Context { purpose: "secret", cluster, aad: &aad };
            let b = boxes::seal(&pk, &c, Some(&k.psk), &padding::pad(VALUE), [u8::try_from(i).unwrap(); 32]).unwrap();
            g.secrets.push(v1::GrantSecret {
                name: m.name.clone(),
                version: 2,
                target: m.target.clone(),
                mode: m.mode,
                uid: m.uid,
                gid: m.gid,
                box_sha256: sha256(&[&b]).to_vec(),
            });
            sealed.push(b);
        }
        (self.edit_grant)(&mut g);
        let grant = signed(&g, &[self.grant_signer]);
        let (receipt, log) = self.receipt(&grant);
        (v1::Assign { grant: Some(grant), receipt: Some(receipt), spec: Some(spec_st), vouchers, boxes: sealed }, log)
    }

    fn receipt(&self, grant: &v1::Statement) -> (v1::Receipt, Log) {
        let mut log = Log::default();
        log.fill(5);
        let field = |name: &str, value: String| v1::Field { name: name.into(), value };
        let mut e = v1::LogEntry {
            index: log.size(),
            at_ms: NOW - 900,
            kind: "grant.issued".into(),
            actor: format!("orch/{ORCH}"),
            subject: "shop.web.2".into(),
            fields: vec![field("grant_sha256", hash(grant).hex()), field("node", ME.into())],
            statement: None,
        };
        (self.edit_entry)(&mut e);
        let (leaf_index, entry, salt) = (log.size(), e.encode_to_vec(), vec![3; 32]);
        log.push(&salt, &entry);
        log.fill(3);
        let inclusion = log.inclusion(leaf_index);
        let checkpoint = log.checkpoint(1).sign(&key(self.checkpoint_signer)).unwrap();
        (v1::Receipt { leaf_index, entry, salt, inclusion, checkpoint }, log)
    }
}
