//! Clients in this process: each asks over connections of its own, and writes down what it asked and what it was told.

use crate::faults::{Draw, OFF_BY};
use crate::voters::Voters;
use crate::world::World;
use holdfast_orchestrator::trust::believe;
use holdfast_pki::chain::Anchors;
use holdfast_transport::client::{Dialer, Timing};
use holdfast_transport::failure::{Failure, FailureKind};
use holdfast_transport::join::{Admitted, Applicant, await_approval, read_token};
use holdfast_transport::keys::PrivateKey;
use holdfast_transport::rpc::command_plane_client::CommandPlaneClient;
use holdfast_transport::rpc::read_client::ReadClient;
use holdfast_transport::rpc::sched_plane_client::SchedPlaneClient;
use holdfast_transport::tls::{Alpn, ClientTls, Expect, IdentityCell, LocalIdentity, TrustCell};
use holdfast_types::{ClusterId, Digest, Role, Secret, TrustDomain, Zone, sha256};
use holdfast_wire::boxes::{self, derive_keypair};
use holdfast_wire::keys::Ed25519Key;
use holdfast_wire::token::TokenRole;
use holdfast_wire::v1::{self, command::Action};
use holdfast_wire::{padding, statement};
use prost::Message as _;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use suite::history::{Asked, Held, Moment, Op, Outcome};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status};

/// How many secrets there are to be fought over.
pub const KEYS: usize = 3;
pub const NAMESPACE: &str = "chaos";
/// How long a client waits for one answer.
const ANSWER: Duration = Duration::from_secs(3);
/// A lease's life, as the voters are configured.
const LEASE: Duration = Duration::from_secs(6);

/// `N` random bytes.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    bytes
}

/// What all clients write down.
pub struct Notes {
    begun: Instant,
    ops: Mutex<Vec<Op>>,
    held: Mutex<Vec<Held>>,
    /// Answers that nobody should ever get.
    strange: Mutex<Vec<String>>,
}

impl Notes {
    fn now(&self) -> Moment {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap()
    }
    fn op(&self, client: u32, asked: Asked, from: Moment, outcome: Outcome) {
        self.ops.lock().unwrap().push(Op { client, asked, from, until: self.now(), outcome });
    }
    fn strange(&self, what: &str, failure: &Failure) {
        self.strange.lock().unwrap().push(format!("{what}: {} {failure}", failure.code));
    }
    /// Everything that was written down, and what should never have been.
    pub fn taken(&self) -> (Vec<Op>, Vec<Held>, Vec<String>) {
        let ops = std::mem::take(&mut *self.ops.lock().unwrap());
        let held = std::mem::take(&mut *self.held.lock().unwrap());
        (ops, held, std::mem::take(&mut *self.strange.lock().unwrap()))
    }
}

/// What clients need to know of the cluster.
pub struct Clients {
    pub notes: Notes,
    pub stop: CancellationToken,
    cluster: ClusterId,
    era: u64,
    intake: Vec<u8>,
    key: Ed25519Key,
    operator: Arc<IdentityCell>,
    trust: Arc<TrustCell>,
    service: Vec<String>,
    join: Vec<String>,
}

impl Clients {
    /// As the tool's own context has it.
    pub fn of(v: &Voters) -> Self {
        let context = v.w.path("home").join("contexts/default");
        let settings: toml::Table = toml::from_str(&fs::read_to_string(context.join("context.toml")).unwrap()).unwrap();
        let setting = |key: &str| settings[key].as_str().unwrap().to_owned();
        let believed = v1::TrustView::decode(fs::read(context.join("trust.pb")).unwrap().as_slice()).unwrap();
        let bundle = statement::peek::<v1::Bundle>(believed.bundle_chain.last().unwrap()).unwrap();
        let anchors = Anchors::new(&bundle.roots, TrustDomain::parse(&setting("trust-domain")).unwrap()).unwrap();
        let seed = Digest::parse(fs::read_to_string(context.join("operator.key")).unwrap().trim()).unwrap();
        let login = PrivateKey::from_pkcs8(&fs::read(context.join("login.key")).unwrap()).unwrap();
        let issued = v1::Issued::decode(fs::read(context.join("login.pb")).unwrap().as_slice()).unwrap();
        let addrs = |port: fn(&crate::voters::Voter) -> u16| {
            v.all.iter().map(|voter| format!("{}:{}", voter.host, port(voter))).collect::<Vec<_>>()
        };
        Self {
            notes: Notes {
                begun: Instant::now(),
                ops: Mutex::default(),
                held: Mutex::default(),
                strange: Mutex::default(),
            },
            stop: CancellationToken::new(),
            cluster: ClusterId::parse(&setting("cluster-id")).unwrap(),
            era: bundle.era,
            intake: bundle.intake_pk,
            key: Ed25519Key::from_seed(Secret::from_slice(&seed.0).unwrap()),
            operator: IdentityCell::new(LocalIdentity::new(&issued.chain, &login).unwrap()),
            trust: TrustCell::new(anchors),
            service: addrs(|voter| voter.service),
            join: addrs(|voter| voter.join),
        }
    }
    fn timing() -> Timing {
        let one = Duration::from_secs(1);
        Timing { connect: one, keep_alive: one, keep_alive_timeout: one }
    }
    fn dialer(&self, identity: &Arc<IdentityCell>) -> Dialer {
        let expect = Expect::Role(Role::Vault);
        let tls = ClientTls::mutual(identity.clone(), self.trust.clone(), expect, Alpn::Service);
        Dialer::new(self.service.clone(), tls, Self::timing())
    }

    /// Reads and writes secrets until it is stopped.
    pub async fn write(self: Arc<Self>, client: u32, mut draw: Draw) {
        let dialer = self.dialer(&self.operator);
        let mut known: BTreeMap<String, u64> = BTreeMap::new();
        while !self.stop.is_cancelled() {
            let key = format!("k{}", draw.below(KEYS));
            // Whoever knows a version tries the next one, now and then without having looked.
            match known.get(&key).copied().filter(|_| draw.below(4) > 0) {
                Some(version) => {
                    if self.put(&dialer, client, &key, version + 1).await == Outcome::Done {
                        known.insert(key, version + 1);
                    } else {
                        known.remove(&key);
                    }
                }
                None => {
                    if let Some(version) = self.read(&dialer, client, &key, ANSWER).await {
                        known.insert(key, version);
                    }
                }
            }
            sleep(draw.wait(1, 40)).await;
        }
    }
    async fn put(&self, dialer: &Dialer, client: u32, key: &str, version: u64) -> Outcome {
        let (id, subject) = (random::<16>(), format!("{NAMESPACE}/{key}"));
        let aad = boxes::intake_aad(&subject, version, &id);
        let context = boxes::Context { purpose: "intake", cluster: &self.cluster, aad: &aad };
        let value = padding::pad(format!("client {client}, version {version}").as_bytes());
        let sealed = boxes::seal(&self.intake, &context, None, &value, random()).unwrap();
        let put = v1::PutSecret {
            namespace: NAMESPACE.to_owned(),
            name: key.to_owned(),
            version,
            box_sha256: sha256(&[&sealed]).to_vec(),
            readers: vec![format!("{NAMESPACE}/*")],
            zones: vec![Zone::all().as_str().to_owned()],
            attested_only: false,
        };
        let expires_at_ms = holdfast_transport::now().plus(Duration::from_secs(300)).0;
        let command = v1::Command {
            cluster_id: self.cluster.0.to_vec(),
            era: self.era,
            command_id: id.to_vec(),
            expires_at_ms,
            expect_rev: 0,
            action: Some(Action::PutSecret(put)),
        };
        let signed = statement::sign(&command, &[&self.key]).unwrap();
        let request = v1::SubmitRequest { statement: Some(signed), r#box: sealed };
        let (from, attempts) = (self.notes.now(), AtomicU32::new(0));
        let answer = dialer
            .call(ANSWER, |channel| {
                attempts.fetch_add(1, Ordering::Relaxed);
                let request = request.clone();
                async move { CommandPlaneClient::new(channel).submit(request).await }
            })
            .await;
        let outcome = match answer {
            Ok(_) => Outcome::Done,
            // Refused for what came before; asked twice, it may have been our own first question.
            Err(f) if f.kind == FailureKind::Changed && attempts.load(Ordering::Relaxed) == 1 => Outcome::Refused,
            Err(f) => {
                if matches!(f.kind, FailureKind::Refused | FailureKind::Invalid | FailureKind::NotFound) {
                    self.notes.strange(&format!("version {version} of {key}"), &f);
                }
                Outcome::Unknown
            }
        };
        self.notes.op(client, Asked::Put { key: key.to_owned(), version }, from, outcome);
        outcome
    }
    async fn read(&self, dialer: &Dialer, client: u32, key: &str, patience: Duration) -> Option<u64> {
        let from = self.notes.now();
        let answer = dialer
            .call(patience, |channel| {
                let request = v1::ListRequest { namespace: NAMESPACE.to_owned(), name: key.to_owned(), all: false };
                async move { ReadClient::new(channel).list_secrets(request).await }
            })
            .await;
        let seen = match answer {
            Ok(list) => Some(list.secrets.iter().find(|s| s.name == key).map_or(0, |s| s.version)),
            Err(f) if f.may_pass() || f.kind == FailureKind::Exhausted => None,
            Err(f) => {
                self.notes.strange(&format!("a look at {key}"), &f);
                None
            }
        };
        let outcome = seen.map_or(Outcome::Unknown, Outcome::Saw);
        self.notes.op(client, Asked::Read { key: key.to_owned() }, from, outcome);
        seen
    }
    /// Looks at everything once more, when all is well again.
    pub async fn look(&self, patience: Duration) {
        let dialer = self.dialer(&self.operator);
        for n in 0..KEYS {
            let seen = self.read(&dialer, 0, &format!("k{n}"), patience).await;
            assert!(seen.is_some(), "k{n} cannot be looked at when all is well again");
        }
    }

    /// Tries to use each of these tokens, in a race with others who do.
    pub async fn use_tokens(self: Arc<Self>, client: u32, tokens: Vec<PathBuf>, mut draw: Draw) {
        for token in tokens {
            while !self.stop.is_cancelled() && !self.use_token(client, &token).await {
                sleep(draw.wait(50, 500)).await;
            }
            sleep(draw.wait(10, 800)).await;
        }
    }
    /// Whether that token is done with.
    async fn use_token(&self, client: u32, path: &Path) -> bool {
        let token = read_token(path, TokenRole::Node).unwrap();
        let (key, (_, hpke_pub)) = (PrivateKey::generate().unwrap(), derive_keypair(&random()));
        let dialer = Dialer::new(self.join.clone(), ClientTls::join(token.anchor), Self::timing());
        let applicant = Applicant { token: &token, key: &key, hpke_pub: &hpke_pub };
        let judge = |server: &_, shown: &_| believe(token.anchor, server, shown);
        for _ in 0..self.join.len() {
            let from = self.notes.now();
            // Once: a second question in the same name could be refused for the first.
            let answer = timeout(ANSWER, applicant.join(&dialer, Duration::ZERO, &self.stop, judge)).await;
            let outcome = match answer {
                Ok(Ok((_, Admitted::Issued(_) | Admitted::Pending(_)))) => Outcome::Done,
                // A follower has done nothing; the next one may lead.
                Ok(Err(f)) if f.kind == FailureKind::NotLeader => {
                    dialer.prefer(f.leader_addrs());
                    continue;
                }
                Ok(Err(f)) if f.kind == FailureKind::Refused => Outcome::Refused,
                Ok(Err(f)) => {
                    if matches!(f.kind, FailureKind::Invalid | FailureKind::NotFound) {
                        self.notes.strange("a join", &f);
                    }
                    Outcome::Unknown
                }
                Err(_) => Outcome::Unknown,
            };
            let token = path.file_name().unwrap().to_str().unwrap().to_owned();
            self.notes.op(client, Asked::Use { token }, from, outcome);
            return outcome != Outcome::Unknown;
        }
        false
    }

    /// An orchestrator that may schedule in the namespace: its id, and who it is.
    pub async fn orchestrator(&self, w: &World) -> (String, Arc<IdentityCell>) {
        let path = w.token("orchestrator", &[]);
        let token = read_token(&path, TokenRole::Orchestrator).unwrap();
        let key = PrivateKey::generate().unwrap();
        let dialer = Dialer::new(self.join.clone(), ClientTls::join(token.anchor), Timing::default());
        let applicant = Applicant { token: &token, key: &key, hpke_pub: &[] };
        let judge = |server: &_, shown: &_| believe(token.anchor, server, shown);
        let (_, admitted) = applicant.join(&dialer, LEASE * 4, &self.stop, judge).await.unwrap();
        let issued = match admitted {
            Admitted::Issued(issued) => issued,
            Admitted::Pending(pending) => {
                w.ok(&["node", "approve", &pending.id, "--key", &key.spki_sha256().hex()]);
                await_approval(&dialer, &pending.id, &key, &self.stop).await.unwrap()
            }
        };
        w.ok(&["mandate", "put", "--orchestrator", &issued.id, "--namespace", NAMESPACE]);
        (issued.id, IdentityCell::new(LocalIdentity::new(&issued.chain, &key).unwrap()))
    }
    /// Keeps the namespace's lease for a while, lets it go, and tries again.
    pub async fn keep(self: Arc<Self>, id: String, identity: Arc<IdentityCell>, mut draw: Draw) {
        let dialer = self.dialer(&identity);
        while !self.stop.is_cancelled() {
            for _ in 0..=draw.below(4) {
                self.keep_once(&dialer, &id).await;
                sleep(draw.wait(100, 900)).await;
            }
            // Long enough for it to lapse: the other may have it then.
            sleep(LEASE.mul_f32(0.5) + draw.wait(0, 4000)).await;
        }
    }
    async fn keep_once(&self, dialer: &Dialer, id: &str) {
        let from = self.notes.now();
        let answer = dialer
            .call(ANSWER, |channel| async move {
                let request = v1::KeepLeaseRequest { session_addr: String::new(), bundle_epoch: 0 };
                let answers = SchedPlaneClient::new(channel).keep_lease(tokio_stream::once(request)).await?;
                let none = || Status::unavailable("the stream ended without an answer");
                Ok(Response::new(answers.into_inner().message().await?.ok_or_else(none)?))
            })
            .await;
        let answered = self.notes.now();
        let leases = match answer {
            Ok(reply) => reply.leases,
            Err(f) if f.may_pass() || f.kind == FailureKind::Exhausted => return,
            Err(f) => return self.notes.strange("a lease", &f),
        };
        // Sure of it for its life after it was asked for, less what two clocks may be off; with a little to spare.
        let sure = LEASE - OFF_BY * 2 - Duration::from_millis(500);
        let until = from + u64::try_from(sure.as_nanos()).unwrap();
        let mine = leases.into_iter().filter(|l| l.namespace == NAMESPACE && l.holder.ends_with(id));
        let held = mine.filter(|_| until > answered).map(|l| Held {
            namespace: l.namespace,
            holder: l.holder,
            fence: l.fence,
            from: answered,
            until,
        });
        self.notes.held.lock().unwrap().extend(held);
    }
}
