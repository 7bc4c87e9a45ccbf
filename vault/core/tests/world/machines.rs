//! Nodes and orchestrators: tokens, joins, renewals, leases, grant requests.

use super::World;
use holdfast_types::{Digest, GrantId, NodeId, OrchId, Role, Secret, TokenId, kind, sha256};
use holdfast_vault_core::prepare::{self, Approved, GrantBatch, GrantReply, JoinOutcome, Pin};
use holdfast_vault_core::{Command, Committed, NodeTaskReport, Refusal};
use holdfast_wire::boxes::{PrivateKey, derive_keypair};
use holdfast_wire::token::join_mac;
use holdfast_wire::v1;
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData as _, SigningKey as _};
use v1::command::Action;

pub struct Token {
    pub id: TokenId,
    pub mac: Secret<kind::TokenMac, 32>,
}

/// A CSR of a fresh key.
pub fn csr() -> (KeyPair, Vec<u8>) {
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let csr = super::csr_of(&key);
    (key, csr)
}

/// Who joined, with its own keys.
pub struct Machine {
    pub id: String,
    pub role: Role,
    pub key: KeyPair,
    pub spki: Digest,
    pub hpke: PrivateKey,
    pub hpke_pub: [u8; 32],
    /// As the vault sent it with the certificate; empty while pending and for orchestrators.
    pub psk: Vec<u8>,
    pub seq: u64,
}
impl Machine {
    pub fn node(&self) -> NodeId {
        NodeId::parse(&self.id).unwrap()
    }
    pub fn orch(&self) -> OrchId {
        OrchId::parse(&self.id).unwrap()
    }
}

impl World {
    pub fn mint_as(&mut self, who: &[&str], t: v1::MintToken) -> Result<Token, Refusal> {
        let r = self.fresh16();
        let id = TokenId::from_slice(&r[..8]).unwrap();
        let mac = Secret::take(&mut sha256(&[b"mac", &r]).0);
        let command_id = self.fresh16();
        let sealed = self.intake(&format!("token/{}", id.hex()), 0, &command_id, mac.expose());
        let t = v1::MintToken { token_id: id.to_vec(), box_sha256: sha256(&[&sealed]).to_vec(), ..t };
        let c = v1::Command { command_id: command_id.to_vec(), ..self.command(Action::MintToken(t)) };
        let st = self.sign(&c, who);
        self.submit(&st, &sealed)?;
        Ok(Token { id, mac })
    }
    pub fn token(&self, role: &str) -> v1::MintToken {
        v1::MintToken {
            role: role.into(),
            expires_at_ms: self.now.0 + 3_600_000,
            uses: 1,
            zone: "eu/west".into(),
            ..Default::default()
        }
    }
    pub fn mint(&mut self, role: &str) -> Token {
        let t = self.token(role);
        // One Admin mints a node's; the charter lists nothing for others, so that every Admin has to.
        let who: &[&str] = if role == "node" { &["ada"] } else { &["ada", "ben"] };
        self.mint_as(who, t).unwrap()
    }
    pub fn proof(&self, token: &Token, nonce: &[u8; 32], csr: &[u8], hpke_pub: &[u8]) -> v1::Proof {
        v1::Proof { csr: csr.to_vec(), hpke_pub: hpke_pub.to_vec(), mac: join_mac(&token.mac, nonce, csr, hpke_pub) }
    }
    pub fn try_join(&mut self, token: &Token) -> Result<Machine, Refusal> {
        self.try_join_with(token, csr().0)
    }
    /// The same with a TLS key of the caller's.
    pub fn try_join_with(&mut self, token: &Token, key: KeyPair) -> Result<Machine, Refusal> {
        let csr = super::csr_of(&key);
        let (hpke, hpke_pub) = derive_keypair(&self.entropy().draw("node hpke"));
        let nonce = self.entropy().draw("nonce");
        let proof = self.proof(token, &nonce, &csr, &hpke_pub);
        let p = prepare::join(&self.leader(), token.id, &nonce, &proof, &mut self.entropy());
        let (outcome, _) = self.commit(p)?;
        let spki = sha256(&[&key.subject_public_key_info()]);
        let (id, psk, seq) = match outcome {
            JoinOutcome::Issued(i) => (i.id, i.node_psk, i.seq),
            JoinOutcome::Pending(p) => (p.id, Vec::new(), 0),
        };
        let role = self.state.role_of(&id).unwrap();
        Ok(Machine { id, role, key, spki, hpke, hpke_pub, psk, seq })
    }
    /// A ready node in zone `eu/west`.
    pub fn node(&mut self) -> Machine {
        let t = self.mint("node");
        self.try_join(&t).unwrap()
    }
    pub fn await_request(&self, m: &Machine) -> v1::AwaitRequest {
        let signature = m.key.sign(&prepare::await_message(&m.id, self.now.0)).unwrap();
        v1::AwaitRequest { id: m.id.clone(), at_ms: self.now.0, signature, spki: Vec::new() }
    }
    /// Collects a certificate; `None` while pending.
    pub fn collect(&mut self, m: &Machine) -> Result<Option<v1::Issued>, Refusal> {
        let r = self.await_request(m);
        match prepare::approved(&self.leader(), &r, &mut self.entropy())? {
            Approved::Issued(p) => self.commit(Ok(p)).map(|(i, _)| Some(i)),
            Approved::Waits => Ok(None),
            Approved::Voter(_) => panic!("{} is admitted as a voter", m.id),
        }
    }
    pub fn approve(&mut self, m: &Machine) -> Result<Committed, Refusal> {
        self.act(
            &["ada"],
            Action::ApproveIdentity(v1::ApproveIdentity { id: m.id.clone(), spki_sha256: m.spki.to_vec() }),
        )
    }
    /// A ready orchestrator.
    pub fn orchestrator(&mut self) -> Machine {
        let t = self.mint("orchestrator");
        let m = self.try_join(&t).unwrap();
        self.approve(&m).unwrap();
        self.collect(&m).unwrap().unwrap();
        m
    }
    pub fn keep_lease(&mut self, orch: &Machine) -> Result<Committed, Refusal> {
        let life_ms = self.lives.lease.as_millis() as i64;
        self.propose(Command::KeepLease { orch: orch.orch(), session_addr: "o:1".into(), life_ms }).result
    }
    pub fn fence(&self) -> (String, u64) {
        self.state.lease_views().first().map(|l| (l.holder.clone(), l.fence)).unwrap()
    }
    pub fn renew(&mut self, id: &str, csr: &[u8], hpke_pub: &[u8]) -> Result<Option<v1::Issued>, Refusal> {
        let bundle_epoch = self.state.bundle_epoch();
        let r = v1::RenewRequest { csr: csr.to_vec(), hpke_pub: hpke_pub.to_vec(), bundle_epoch };
        let p = prepare::renew(&self.leader(), id, &r, &mut self.entropy());
        self.commit(p).map(|(i, _)| i)
    }
    /// Shows a certificate, as listener S does at every connection; true if the caller is let in.
    pub fn show(&mut self, role: Role, id: &str, serial: &str, spki: &Digest) -> bool {
        match prepare::pin(&self.state, role, id, serial, spki, self.now) {
            Pin::Good => true,
            Pin::Activate(serial) => self.propose(Command::Activate { id: id.to_owned(), serial }).result.is_ok(),
            Pin::Fork => {
                self.propose(Command::Fork { id: id.to_owned(), detail: "retired".into() }).result.unwrap();
                false
            }
            Pin::Unknown | Pin::Released | Pin::State(_) => false,
        }
    }
    pub fn state_of(&self, id: &str) -> String {
        self.state.node_view(id, false).unwrap().state
    }
    pub fn ask(&self, service: &str, node: &Machine, slot: u32) -> v1::GrantRequest {
        v1::GrantRequest {
            namespace: "shop".into(),
            service: service.into(),
            version: 0,
            node_id: node.id.clone(),
            task_id: format!("shop.{service}.{slot}"),
            params: Vec::new(),
        }
    }
    pub fn prepare_grants(
        &self,
        orch: &Machine,
        requests: Vec<v1::GrantRequest>,
    ) -> Result<holdfast_vault_core::Prepared<Vec<GrantReply>>, Refusal> {
        let r = v1::RequestGrantsRequest { request_id: self.fresh16().to_vec(), requests };
        self.decide(orch, &r, true)
    }
    /// A batch, decided to its end; `fresh`: whether nodes were heard of lately.
    pub fn decide(
        &self,
        orch: &Machine,
        r: &v1::RequestGrantsRequest,
        fresh: bool,
    ) -> Result<holdfast_vault_core::Prepared<Vec<GrantReply>>, Refusal> {
        let (orch, leader, mut entropy) = (orch.orch(), self.leader(), self.entropy());
        let mut batch = GrantBatch::of(&orch, r)?;
        while batch.decide_one(&leader, &self.stk, &|_| fresh, &mut entropy)? {}
        Ok(batch.prepared(self.now, &mut entropy))
    }
    pub fn grants(
        &mut self,
        orch: &Machine,
        requests: Vec<v1::GrantRequest>,
    ) -> Result<(Vec<GrantReply>, Committed), Refusal> {
        let p = self.prepare_grants(orch, requests);
        self.commit(p)
    }
    /// One grant; the refusal that its order met, by policy or at commit.
    pub fn grant(
        &mut self,
        orch: &Machine,
        request: v1::GrantRequest,
    ) -> Result<(v1::Statement, Vec<Vec<u8>>, u64), Refusal> {
        let (mut replies, done) = self.grants(orch, vec![request])?;
        let leaf = done.orders()[0].clone();
        match replies.remove(0) {
            GrantReply::Issued { grant, boxes, .. } => leaf.map(|l| (grant, boxes, l)),
            GrantReply::Denied(r) => {
                assert!(leaf.is_err());
                Err(r)
            }
        }
    }
    /// A cluster in which `shop/web` with secret `db` may run: an orchestrator with mandate and lease, and one node.
    pub fn shop() -> (Self, Machine, Machine) {
        let mut w = Self::new();
        let (orch, node) = (w.orchestrator(), w.node());
        w.put_secret("db", 1, b"first value", &["shop/web"]).unwrap();
        w.vouch("web").unwrap();
        let spec = w.spec("web", 1, &["db"]);
        w.deploy(&spec).unwrap();
        let m = w.mandate("m1", &[&orch.id]);
        w.put_mandate(&m).unwrap();
        w.keep_lease(&orch).unwrap();
        (w, orch, node)
    }
}

impl World {
    /// What a node says of one of its tasks.
    pub fn report(&mut self, node: &Machine, grant: &[u8], state: &str) -> Result<Committed, Refusal> {
        let grant = GrantId::from_slice(grant).unwrap();
        let task = NodeTaskReport { grant, state: state.into(), exit_code: 0, detail: String::new(), restarts: 0 };
        self.propose(Command::Reports { node: node.node(), tasks: vec![task] }).result
    }
}
