//! What all streams of one node share.

use crate::believed::Believed;
use crate::evidence::Accuser;
use crate::reports::Reports;
use crate::tasks::Tasks;
use crate::tasks::ground::Ground;
use holdfast_transport::client::Dialer;
use holdfast_transport::renew::Renewals;
use holdfast_transport::tls::IdentityCell;
use holdfast_wire::v1::Resources;
use std::sync::Arc;

/// One node at work.
pub struct Node<G: Ground> {
    /// What it believes and remembers.
    pub believed: Arc<Believed>,
    /// What it runs.
    pub tasks: Arc<Tasks<G>>,
    /// What became of that.
    pub reports: Arc<Reports>,
    /// Where refusals go.
    pub accuser: Accuser,
    /// The way to the vault.
    pub vault: Arc<Dialer>,
    /// Who it is, on the wire.
    pub identity: Arc<IdentityCell>,
    /// When it gets a new certificate.
    pub renewals: Arc<Renewals>,
    /// What it offers to tasks.
    pub capacity: Resources,
}
