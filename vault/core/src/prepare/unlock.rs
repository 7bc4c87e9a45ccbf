//! What operators want of the unlock key, the keyring and the disk keys, in the policy's words.

use super::submit::Wish;
use crate::command::CaKey;
use crate::refusal::Refusal;
use crate::state::{State, UnlockKey};
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

/// A new term. Its intake key is listed in a Bundle, which the root that signs has to sign: one that is offline is not asked
/// for it.
pub(super) fn keyring_wish(state: &State) -> Result<Wish, Refusal> {
    if state.signing_root().is_some_and(|r| r.key == CaKey::Offline) {
        let why = "a new term needs a root that signs here, and the key of the one that signs is offline: rotate the root \
                   first, as with holdfast root rotate --software --without-old-root";
        return Err(Refusal::changed(why));
    }
    Ok(Wish::new(OperatorAct::RotateKeyring, Target::Cluster))
}
