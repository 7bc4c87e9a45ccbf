//! Renewal: an identity asks for its next certificate, for itself and nobody else.

use crate::cluster::Cluster;
use crate::rights::Rpc;
use holdfast_transport::failure::Failure;
use holdfast_transport::rpc::identity_server::Identity;
use holdfast_vault_core::prepare;
use holdfast_wire::v1;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// Serves renewals.
pub struct IdentityService(pub Arc<Cluster>);

#[tonic::async_trait]
impl Identity for IdentityService {
    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::Issued>, Status> {
        let caller = self.0.admit(&request, Rpc::Renew).await?;
        self.0.may_have_certificate(&caller.id)?;
        let r = request.into_inner();
        let p = self.0.decide(|l, e| prepare::renew(l, &caller.id, &r, e))?;
        let (issued, _) = self.0.commit(p).await?;
        let fork = || {
            Failure::refused("identity-fork", "two keys claim this identity; it is quarantined")
                .help("join again with a new token")
        };
        Ok(Response::new(issued.ok_or_else(fork)?))
    }
}
