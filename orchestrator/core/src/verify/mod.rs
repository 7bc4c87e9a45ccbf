//! The node's judgement: what an agent believes, and the checks an order passes before anything starts.
//!
//! * [`NodeTrust`]: charter, bundle, status, revocations, checkpoint, each verified from the anchor pinned at join;
//! * [`verify_assign`] and [`use_up`]: the ten checks of an assignment, in the protocol's order;
//! * [`verify_stop`], [`verify_revoke`], [`verify_lease_ext`], [`verify_logs_request`]: the other orders.
//!
//! Pure: no clock, no file, no key but the node's own. Nothing here may answer "yes" because something was missing.

mod assign;
mod boxes;
mod bundle;
mod memory;
mod orders;
mod receipt;
mod refusal;
mod spec;
mod times;
mod trust;
mod vouchers;

pub use holdfast_wire::charter::{CharterChain, NewCharter};
pub use holdfast_wire::statement::News;

pub use assign::{Accepted, NodeKey, NodeSelf, OpenedSecret, use_up, verify_assign};
pub use bundle::{BundleChain, NewBundle};
pub use memory::{Fence, TaskMemory};
pub use orders::{
    Extended, RunningTask, StopAllowed, verify_lease_ext, verify_logs_request, verify_revoke, verify_stop,
};
pub use receipt::Gap;
pub use refusal::Refusal;
pub use trust::{Before, NewCheckpoint, NewEra, NewRevocations, NewStatus, NodeTrust, Saved};
pub use vouchers::AcceptedImage;
