//! The cluster as verbs see it: calls that find the leader, commands that are signed, documents that are verified.

use crate::app::App;
use crate::clock;
use crate::context::Context;
use crate::era;
use crate::errors::{Code, Failure};
use crate::login;
use crate::operator::Operator;
use crate::trust::Trust;
use holdfast_pki::chain::Anchors;
use holdfast_transport::check_clock;
use holdfast_transport::client::{Dialer, Timing};
use holdfast_transport::rpc::command_plane_client::CommandPlaneClient;
use holdfast_transport::rpc::read_client::ReadClient;
use holdfast_transport::tls::{Alpn, ClientTls, Expect, IdentityCell, TrustCell};
use holdfast_types::{Millis, Role, sha256};
use holdfast_wire::boxes;
use holdfast_wire::statement::Document;
use holdfast_wire::v1;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::Channel;
use v1::command::Action;

/// How long a command may be submitted that is submitted at once; one that is written to a file lives longer.
const COMMAND_LIFE: Duration = Duration::from_secs(600);
/// Largest answer: a list of everything there is, or the trust chains.
const MAX_ANSWER: usize = 64 << 20;

/// A cluster that this operator is logged in to.
pub struct Cluster {
    /// What is stored about it.
    pub ctx: Context,
    /// Who we are.
    pub operator: Operator,
    /// What is believed of it.
    pub trust: Trust,
    roots: Arc<TrustCell>,
    identity: Arc<IdentityCell>,
    dialer: Dialer,
    patience: Duration,
}

/// A command's id, drawn before its box is sealed, for the box is bound to it.
#[derive(Debug, Clone, Copy)]
pub struct NewCommand {
    /// 16 random bytes.
    pub id: [u8; 16],
}

impl Cluster {
    /// Loads the context, logs in if needed, and learns what is news about charter and bundle. A vault that is not believed
    /// may be that of a new era.
    pub async fn connect(app: &App) -> Result<Self, Failure> {
        match Self::attempt(app).await {
            Err(failure) if era::may_explain(&failure) => {
                if era::follow(app).await.unwrap_or(false) {
                    Self::attempt(app).await
                } else {
                    Err(failure)
                }
            }
            answer => answer,
        }
    }
    async fn attempt(app: &App) -> Result<Self, Failure> {
        let ctx = app.context()?;
        let operator = Operator::load(&ctx)?;
        let trust = Trust::stored(&ctx)?;
        let patience = app.timeout(Duration::from_secs(15));
        let identity = IdentityCell::new(login::identity(&ctx, &operator, &trust, patience, None).await?);
        let roots = TrustCell::new(trust.anchors()?);
        let tls = ClientTls::mutual(identity.clone(), roots.clone(), Expect::Role(Role::Vault), Alpn::Service);
        let dialer = Dialer::new(ctx.settings.service_addrs.clone(), tls, Timing::default());
        let mut cluster = Self { ctx, operator, trust, roots, identity, dialer, patience };
        cluster.learn().await?;
        Ok(cluster)
    }
    /// Our certificate is not believed. A new login needs nothing but the operator's key; a program beside us may have made it
    /// already, and another one would make that one's certificate obsolete.
    pub async fn log_in_again(&self) -> Result<(), Failure> {
        let held = self.identity.current();
        let next = login::identity(&self.ctx, &self.operator, &self.trust, self.patience, held.as_deref()).await?;
        self.identity.swap(next);
        Ok(())
    }
    /// Until when our certificate lasts.
    pub fn logged_in_until(&self) -> Option<Millis> {
        self.identity.current().map(|held| held.not_after())
    }
    /// Takes the certificate that a program beside us has stored, whose login made ours obsolete; false if there is none.
    fn take_over(&self) -> bool {
        let stored = login::usable(&self.ctx, &self.trust, self.identity.current().as_deref());
        stored.map(|stored| self.identity.swap(stored)).is_some()
    }
    /// Believes a root that this operator signed for, before the others' signatures say so: the vault may show it at once.
    pub fn believe_too(&self, root: &[u8]) -> Result<(), Failure> {
        let roots: Vec<&[u8]> = self.trust.bundle().roots.iter().map(Vec::as_slice).chain([root]).collect();
        let anchors = Anchors::new(&roots, self.trust.trust_domain().clone()).map_err(Failure::untrusted)?;
        self.roots.swap(anchors);
        Ok(())
    }
    /// Learns what is news about charter and bundle.
    pub async fn learn(&mut self) -> Result<(), Failure> {
        let answer = self.read(async |mut r| r.get_trust(v1::Ack {}).await).await?;
        answer.status.as_ref().map_or(Ok(()), check_clock)?;
        if self.trust.advance(&answer)? {
            self.ctx.store_trust(self.trust.chains())?;
            self.roots.swap(self.trust.anchors()?);
        }
        // A vault may still take a certificate of a root that was given up, orchestrators do not.
        match self.identity.current() {
            Some(held) if !login::is_believed(&held, &self.trust) => self.log_in_again().await,
            Some(_) | None => Ok(()),
        }
    }
    /// Makes a call on whichever voter answers it, within the patience of `--timeout`. A certificate that is not taken any more, as
    /// when its root was rotated out meanwhile, is replaced once.
    pub async fn call<T, Op, Fut>(&self, op: Op) -> Result<T, Failure>
    where
        Op: Fn(Channel) -> Fut,
        Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let once = async || self.dialer.call(self.patience, &op).await.map_err(Failure::from);
        let answer = match once().await {
            Err(failure) if failure.code == Code::CertificateRefused.word() => {
                self.log_in_again().await?;
                once().await
            }
            Err(failure) if failure.code == Code::IdentityRefused.word() && self.take_over() => once().await,
            answer => answer,
        };
        if answer.as_ref().is_err_and(|f| f.code == Code::IdentityRefused.word()) {
            login::forget(&self.ctx);
        }
        answer
    }
    /// A call of the service `Read`.
    pub async fn read<T, Op, Fut>(&self, op: Op) -> Result<T, Failure>
    where
        Op: Fn(ReadClient<Channel>) -> Fut,
        Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        self.call(|c| op(ReadClient::new(c).max_decoding_message_size(MAX_ANSWER))).await
    }
    /// Submits a signed statement, with the sealed value that it speaks of.
    pub async fn submit(&self, statement: v1::Statement, sealed: Vec<u8>) -> Result<v1::SubmitReply, Failure> {
        let request = v1::SubmitRequest { statement: Some(statement), r#box: sealed };
        self.call(|c| {
            let request = request.clone();
            async move { CommandPlaneClient::new(c).submit(request).await }
        })
        .await
    }
    /// Signs a document with the operator key and submits it.
    pub async fn sign_and_submit<T: Document>(&self, doc: &T) -> Result<v1::SubmitReply, Failure> {
        self.submit(self.operator.sign(doc)?, Vec::new()).await
    }
    /// Signs and submits a command without a sealed value.
    pub async fn command(&self, action: Action) -> Result<v1::SubmitReply, Failure> {
        self.command_with(NewCommand::draw()?, action, Vec::new()).await
    }
    /// Signs and submits a command whose box was sealed for `new`.
    pub async fn command_with(
        &self,
        new: NewCommand,
        action: Action,
        sealed: Vec<u8>,
    ) -> Result<v1::SubmitReply, Failure> {
        let command = self.to_command(new, action, COMMAND_LIFE);
        self.submit(self.operator.sign(&command)?, sealed).await
    }
    /// A command that may be submitted for `life`.
    pub fn to_command(&self, new: NewCommand, action: Action, life: Duration) -> v1::Command {
        v1::Command {
            cluster_id: self.ctx.cluster.0.to_vec(),
            era: self.era(),
            command_id: new.id.to_vec(),
            expires_at_ms: clock::now().plus(life).0,
            expect_rev: 0,
            action: Some(action),
        }
    }
    /// Seals `value` to the vault's intake key for the command `new` about `subject`: the box and its digest.
    pub fn seal(&self, new: NewCommand, subject: &str, rev: u64, value: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Failure> {
        let aad = boxes::intake_aad(subject, rev, &new.id);
        let context = boxes::Context { purpose: "intake", cluster: &self.ctx.cluster, aad: &aad };
        let sealed = boxes::seal(&self.trust.bundle().intake_pk, &context, None, value, clock::random()?);
        let sealed = sealed.map_err(Failure::untrusted)?;
        let digest = sha256(&[&sealed]).to_vec();
        Ok((sealed, digest))
    }
    /// The era that commands are signed for.
    pub fn era(&self) -> u64 {
        self.trust.bundle().era
    }
    /// A dialer to an orchestrator's listener.
    pub fn orchestrator(&self, addr: &str) -> Result<Dialer, Failure> {
        let roots = TrustCell::new(self.trust.anchors()?);
        let tls = ClientTls::mutual(self.identity.clone(), roots, Expect::Role(Role::Orch), Alpn::Orchestrator);
        Ok(Dialer::new([addr], tls, Timing::default()))
    }
    /// How long a call may take.
    pub fn patience(&self) -> Duration {
        self.patience
    }
}

impl NewCommand {
    /// A fresh id.
    pub fn draw() -> Result<Self, Failure> {
        Ok(Self { id: clock::random()? })
    }
}
