//! Renewal: an identity asks for its next certificate, for itself and nobody else.

use crate::cluster::Cluster;
use crate::failure::fork;
use crate::rights::Rpc;
use crate::seen::{addr_of, from};
use holdfast_transport::rpc::identity_server::Identity;
use holdfast_transport::server::peer_of;
use holdfast_vault_core::{Command, prepare};
use holdfast_wire::v1;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// Serves renewals.
pub struct IdentityService(pub Arc<Cluster>);

#[tonic::async_trait]
impl Identity for IdentityService {
    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::Issued>, Status> {
        let caller = self.0.admit(&request, Rpc::Renew).await?;
        let (addr, serial) = (addr_of(&request), peer_of(&request)?.serial_hex.clone());
        self.0.may_have_certificate(&caller.id)?;
        let r = request.into_inner();
        let mut p = self.0.certify(|l, e| prepare::renew(l, &caller.id, &r, e))?;
        if let Command::Fork { detail, .. } = &mut p.command.command {
            let elsewhere = self.0.seen.elsewhere(&caller.id, &serial, addr.map(|a| a.ip()));
            *detail = format!("{detail}; this one came from {}; {elsewhere}", from(addr));
        }
        let (issued, _) = self.0.commit(p).await?;
        Ok(Response::new(issued.ok_or_else(fork)?))
    }
}
