//! What operators want of the unlock key, the keyring and the disk keys, in the policy's words.

use super::submit::Wish;
use crate::refusal::Refusal;
use crate::state::UnlockKey;
use holdfast_policy::{OperatorAct, Target};
use holdfast_wire::v1;

/// A next unlock key: refused here already if what it says does not fit together.
pub(super) fn prepare_wish(p: &v1::UnlockPrepare) -> Result<Wish, Refusal> {
    UnlockKey::read(p)?;
    Ok(slots_wish())
}

/// Whatever changes what opens the voters' disks.
pub(super) fn slots_wish() -> Wish {
    Wish::new(OperatorAct::RotateUnlock, Target::Cluster)
}

/// A new term.
pub(super) fn keyring_wish() -> Wish {
    Wish::new(OperatorAct::RotateKeyring, Target::Cluster)
}
