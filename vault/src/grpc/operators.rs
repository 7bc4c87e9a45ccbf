//! Operators: submitting statements and looking at what is known.

use crate::cluster::Cluster;
use crate::members;
use crate::rights::Rpc;
use holdfast_transport::failure::{Failure, FailureKind};
use holdfast_transport::rpc::command_plane_server::CommandPlane;
use holdfast_transport::rpc::read_server::Read;
use holdfast_types::{Millis, NodeId, Role, SecretRef, ServiceRef, VoterId};
use holdfast_vault_core::{Accepted, NoteKind, State, VoterState, prepare};
use holdfast_wire::statement::{Document as _, peek};
use holdfast_wire::v1;
use holdfast_wire::v1::command::Action;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// How often a statement is prepared while what it was prepared on changes.
const TRIES: u32 = 3;

/// Serves operators.
#[derive(Clone)]
pub struct OperatorService(pub Arc<Cluster>);

#[tonic::async_trait]
impl CommandPlane for OperatorService {
    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Result<Response<v1::SubmitReply>, Status> {
        let caller = self.0.admit(&request, Rpc::Submit).await?;
        // Anybody may relay a statement, and send it again without end.
        self.0.entries.turn(&caller.id).await?;
        let r = request.into_inner();
        let st = super::present(r.statement, "the statement")?;
        if let Some(before) = self.known(&st)? {
            // Accepted already; perhaps only its answer was lost. A voter that does not lead may not know of it.
            self.0.confirm_leading().await?;
            return Ok(Response::new(reply(before.leaf, before.rev)));
        }
        // What is refused by right is refused first; only then is looked whether it can be done.
        let (mut tries, mut of_now) = (TRIES, false);
        let decided = loop {
            let prepared = self.0.decide(|l, e| prepare::submit(l, &st, &r.r#box, e));
            let decided = match prepared.and_then(|p| can_be_done(&self.0, &st).map(|()| p)) {
                // However many are on their way to the log: who comes behind them is not held up.
                Ok(p) if caller.role == Role::Op => self.0.entries.without(&caller.id, self.0.commit(p)).await,
                Ok(p) => self.0.commit(p).await,
                // A leader of a moment ago may not have applied what the one before it acknowledged, this statement even.
                Err(f) if !of_now && hangs_on_state(&f) => {
                    if let Err(f) = self.0.confirm_leading().await {
                        break Err(f);
                    }
                    of_now = true;
                    match self.known(&st) {
                        Ok(Some(before)) => return Ok(Response::new(reply(before.leaf, before.rev))),
                        Ok(None) => continue,
                        Err(f) => break Err(f),
                    }
                }
                Err(f) => break Err(f),
            };
            tries -= 1;
            // Something of the vault's own moved between the preparation and the entry, such as the keyring. What the
            // operator has to know of, the next preparation says.
            if tries == 0 || decided.as_ref().err().is_none_or(|f| f.kind != FailureKind::Changed) {
                break decided;
            }
        };
        // Operators whose statements count, or come after others that do, are as fast as the log.
        let in_vain =
            |f: &Failure| matches!(f.kind, FailureKind::Refused | FailureKind::Invalid | FailureKind::NotFound);
        if caller.role == Role::Op && !decided.as_ref().is_err_and(in_vain) {
            self.0.entries.give_back(&caller.id);
        }
        match decided {
            Ok(((), done)) => Ok(Response::new(reply(done.leaf(), done.rev()))),
            Err(f) => {
                // A refusal by right is written down; a mistake or an outage is not.
                if f.kind == FailureKind::Refused && self.0.evidence_allowed(&caller.id) {
                    self.0.note(NoteKind::CommandDeny, caller.short(), st.r#type, f.code.to_string()).await;
                }
                Err(f.into())
            }
        }
    }
}

/// Whether another state may say otherwise.
fn hangs_on_state(f: &Failure) -> bool {
    matches!(f.kind, FailureKind::Changed | FailureKind::Refused | FailureKind::NotFound)
}

/// An eviction takes those who stay, and a root in a token takes a token: the committed state knows of neither.
fn can_be_done(cluster: &Cluster, st: &v1::Statement) -> Result<(), Failure> {
    match peek::<v1::Command>(st).ok().and_then(|c| c.action) {
        Some(Action::EvictVoter(e)) => {
            // Who is evicted already takes nobody along any more; operators may say since that others had it.
            let id = VoterId(e.voter_id);
            let is_out = cluster.look(|s| s.voter(id).is_some_and(|v| v.state == VoterState::Evicted))?;
            if is_out { Ok(()) } else { members::can_do_without(cluster, id) }
        }
        Some(Action::RotateRoot(r)) if (r.kind == "hsm" || r.key == "hsm") && cluster.token_words().is_empty() => {
            Err(Failure::invalid("invalid-input", "no voter has a token that the root's key could be in")
                .help("see docs/operations/hsm.md"))
        }
        Some(_) | None => Ok(()),
    }
}

fn reply(leaf_index: u64, rev: u64) -> v1::SubmitReply {
    v1::SubmitReply { leaf_index, rev, result: Vec::new() }
}

impl OperatorService {
    /// What a statement that changes nothing is answered.
    fn known(&self, st: &v1::Statement) -> Result<Option<Accepted>, Failure> {
        if st.r#type == v1::Command::TYPE {
            // Most of what comes; nothing else is to be known of them.
            return self.0.look(|s| s.accepted(&st.payload));
        }
        self.0.decide(|l, _| Ok(prepare::known(l, st)))
    }
    async fn read<T, R>(
        &self,
        request: &Request<R>,
        rpc: Rpc,
        f: impl FnOnce(&holdfast_vault_core::State) -> T,
    ) -> Result<Response<T>, Status> {
        self.0.admit(request, rpc).await?;
        self.0.confirm_leading().await?;
        Ok(Response::new(self.0.look(f)?))
    }
    /// The roots as committed state knows them, and what this leader knows beside it.
    fn roots(&self, now: Millis) -> Result<v1::RootsView, Failure> {
        let mut view = self.0.look(|s| s.roots_view(now, |n| self.0.hub.is_connected(n)))?;
        let stalled = self.0.stalled.load();
        if !stalled.is_empty() {
            view.waits_for = stalled.to_string();
        }
        view.hsm = self.0.token_words();
        Ok(view)
    }
    fn connected(&self, id: &str) -> bool {
        NodeId::parse(id).is_ok_and(|n| self.0.hub.is_connected(&n))
    }
}

fn wanted(r: &v1::ListRequest, namespace: &str, name: &str) -> bool {
    (r.namespace.is_empty() || r.namespace == namespace) && (r.name.is_empty() || r.name == name)
}

#[tonic::async_trait]
impl Read for OperatorService {
    async fn get_status(&self, request: Request<v1::Ack>) -> Result<Response<v1::StatusView>, Status> {
        self.0.admit(&request, Rpc::GetStatus).await?;
        let now = self.0.now()?;
        let mut view = self.0.look(|s| s.status_view(now))?;
        let status = self.0.voter.status();
        view.state = if status.leader.is_some() { "ready" } else { "no-quorum" }.to_owned();
        members::fill(&self.0, &mut view.voters);
        (view.unlock, view.keyring) = self.0.look(|s| (Some(s.unlock_view()), Some(s.keyring_view())))?;
        view.root_rotation = Some(v1::RootsView { issuer_csr: Vec::new(), next_bundle: None, ..self.roots(now)? });
        view.alarms = super::alarms::all(&self.0, &view, now);
        Ok(Response::new(view))
    }

    async fn list_nodes(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::NodeList>, Status> {
        let r = request.get_ref().clone();
        let clock = self.0.clock.now();
        self.read(&request, Rpc::ListNodes, |s| {
            let ids = s.machine_ids().filter(|id| r.name.is_empty() || *id == r.name);
            let all = ids.filter_map(|id| s.node_view_at(id, self.connected(id), s.time(clock)));
            v1::NodeList { nodes: all.filter(|n| r.all || n.state != "removed").collect() }
        })
        .await
    }

    async fn list_services(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::ServiceList>, Status> {
        let r = request.get_ref().clone();
        self.read(&request, Rpc::ListServices, |s| {
            let names = s.service_names().filter(|n| wanted(&r, n.namespace.as_str(), n.name.as_str()));
            let mut services: Vec<_> = names.filter_map(|n| s.service_view(n)).collect();
            // A removed service still has a last version, which the next spec must follow.
            if services.is_empty()
                && r.all
                && let Ok(name) = ServiceRef::of(&r.namespace, &r.name)
                && s.last_version(&name) > 0
            {
                let gone = v1::ServiceVersion { version: s.last_version(&name), ..Default::default() };
                services.push(v1::ServiceView {
                    namespace: r.namespace.clone(),
                    service: r.name.clone(),
                    versions: vec![gone],
                    rev: 0,
                    removing: true,
                    done: Vec::new(),
                });
            }
            v1::ServiceList { services }
        })
        .await
    }

    async fn list_grants(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::GrantList>, Status> {
        let r = request.get_ref().clone();
        self.read(&request, Rpc::ListGrants, |s| {
            let views = s.grants().filter(|(_, g)| wanted(&r, g.service.namespace.as_str(), g.service.name.as_str()));
            let views = views.filter(|(_, g)| r.all || g.over.is_none()).filter_map(|(id, _)| s.grant_view(id));
            v1::GrantList { grants: views.collect() }
        })
        .await
    }

    async fn list_secrets(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::SecretList>, Status> {
        let r = request.get_ref().clone();
        self.read(&request, Rpc::ListSecrets, |s| {
            let views = s.secret_views().into_iter().filter(|v| wanted(&r, &v.namespace, &v.name));
            let name = SecretRef::of(&r.namespace, &r.name).ok().filter(|_| r.all);
            let deleted = name.and_then(|n| s.deleted_secret_view(&n));
            v1::SecretList { secrets: views.chain(deleted).collect() }
        })
        .await
    }

    async fn list_tokens(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::TokenList>, Status> {
        self.read(&request, Rpc::ListTokens, |s| v1::TokenList { tokens: s.token_views() }).await
    }

    async fn list_mandates(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::MandateList>, Status> {
        self.read(&request, Rpc::ListMandates, |s| v1::MandateList { mandates: s.mandate_views() }).await
    }

    async fn list_voters(&self, request: Request<v1::Ack>) -> Result<Response<v1::VoterList>, Status> {
        let list = |s: &State| v1::VoterList { voters: s.voter_views(), applicants: s.applicants() };
        let mut listed = self.read(&request, Rpc::ListVoters, list).await?;
        members::fill(&self.0, &mut listed.get_mut().voters);
        Ok(listed)
    }

    async fn get_unlock(&self, request: Request<v1::Ack>) -> Result<Response<v1::UnlockView>, Status> {
        self.read(&request, Rpc::GetUnlock, State::unlock_view).await
    }

    async fn get_roots(&self, request: Request<v1::Ack>) -> Result<Response<v1::RootsView>, Status> {
        self.0.admit(&request, Rpc::GetRoots).await?;
        self.0.confirm_leading().await?;
        Ok(Response::new(self.roots(self.0.now()?)?))
    }

    async fn get_trust(&self, request: Request<v1::Ack>) -> Result<Response<v1::TrustView>, Status> {
        self.0.admit(&request, Rpc::GetTrust).await?;
        let opened = self.0.opened.load();
        let status = self.0.status()?;
        let view = self.0.look(|s| {
            let revocations = prepare::revocations(s, &opened.stk).ok();
            v1::TrustView {
                charter_chain: s.charter_chain(),
                bundle_chain: s.bundle_chain(),
                status: Some(status),
                revocations,
                resets: s.resets(),
                ..v1::TrustView::default()
            }
        })?;
        Ok(Response::new(view))
    }
}
