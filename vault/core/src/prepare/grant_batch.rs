//! A batch of grants: decided one by one, committed as one command.

use super::{Leader, prepared};
use crate::command::{Command, GrantOrder, RequestKey};
use crate::entropy::Entropy;
use crate::held::Prepared;
use crate::refusal::Refusal;
use holdfast_types::{Digest, GrantId, Millis, NodeId, OrchId, TaskId, sha256};
use holdfast_wire::keys::StatementSigner;
use holdfast_wire::v1;
use prost::Message as _;
use std::collections::BTreeMap;

/// Most grants in one request.
pub const MAX_BATCH: usize = 1000;
/// One order's answer, before its receipt is known.
pub enum GrantReply {
    /// Signed grant and boxes: to be sent with a receipt once committed.
    Issued {
        /// Its id.
        id: GrantId,
        /// The signed grant.
        grant: v1::Statement,
        /// One box per secret of the grant, in order.
        boxes: Vec<Vec<u8>>,
    },
    /// Refused.
    Denied(Refusal),
}

/// A batch that is being decided, one order at a time, so that the state is never held for as long as a batch takes.
/// What changes in between is found out when the batch is applied, like what changes before that.
pub struct GrantBatch<'r> {
    orch: &'r OrchId,
    key: RequestKey,
    left: std::slice::Iter<'r, v1::GrantRequest>,
    shared: Shared,
    orders: Vec<GrantOrder>,
    replies: Vec<GrantReply>,
}

impl<'r> GrantBatch<'r> {
    /// The orders of `request`, none of them decided.
    pub fn of(orch: &'r OrchId, request: &'r v1::RequestGrantsRequest) -> Result<Self, Refusal> {
        let id = <[u8; 16]>::try_from(request.request_id.as_slice())
            .map_err(|_| Refusal::invalid("a request id has 16 bytes"))?;
        if request.requests.len() > MAX_BATCH {
            return Err(Refusal::invalid(format!("at most {MAX_BATCH} grants are asked for at a time")));
        }
        let body = sha256(&[b"holdfast/v1/request\0", orch.as_str().as_bytes(), b"\0", &request.encode_to_vec()]);
        let left = request.requests.iter();
        Ok(Self { orch, key: (id, body), left, shared: Shared::default(), orders: Vec::new(), replies: Vec::new() })
    }

    /// What tells this request from every other.
    pub fn key(&self) -> RequestKey {
        self.key
    }

    /// Decides the next order; false once all are. `fresh` says whether a node was heard of lately; it is the leader's
    /// own observation.
    pub fn decide_one(
        &mut self,
        leader: &Leader<'_>,
        stk: &dyn StatementSigner,
        fresh: &dyn Fn(&NodeId) -> bool,
        entropy: &mut Entropy,
    ) -> Result<bool, Refusal> {
        leader.state.new_request(&self.key.0, &self.key.1)?;
        let Some(r) = self.left.next() else { return Ok(false) };
        let (order, reply) = match leader.one(stk, self.orch, r, fresh, &mut self.shared, entropy) {
            Ok((fact, reply)) => (GrantOrder::Issue(fact), reply),
            Err(refusal) => (denial(r, &refusal), GrantReply::Denied(refusal)),
        };
        self.orders.push(order);
        self.replies.push(reply);
        Ok(true)
    }

    /// What was decided, to be committed.
    pub fn prepared(self, now: Millis, entropy: &mut Entropy) -> Prepared<Vec<GrantReply>> {
        let (request, body) = self.key;
        let command = Command::Grants { orch: self.orch.clone(), request, body, orders: self.orders };
        prepared(now, entropy, command, self.replies)
    }
}

/// What the caller wrote goes into the log: shortened and printable, whatever it was.
fn denial(r: &v1::GrantRequest, refusal: &Refusal) -> GrantOrder {
    GrantOrder::Deny {
        service: format!("{}/{}", shown(&r.namespace), shown(&r.service)),
        node: shown(&r.node_id),
        code: refusal.code.as_str().to_owned(),
        reason: refusal.reason.clone(),
        policies: refusal.policies.clone(),
    }
}

/// What the grants of one batch share.
#[derive(Default)]
pub(super) struct Shared {
    /// Incarnations given out so far.
    pub(super) gens: BTreeMap<TaskId, u64>,
    /// Who vouches for an image, by digest and source: the signatures are checked once a batch.
    pub(super) publishers: BTreeMap<(Digest, String), Vec<String>>,
}

/// At most 64 printable characters of what a caller wrote.
fn shown(text: &str) -> String {
    text.chars().filter(char::is_ascii_graphic).take(64).collect()
}
