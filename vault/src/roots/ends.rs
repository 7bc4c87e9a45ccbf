//! The end of a dropped root's keys.

use super::{no_token, port};
use crate::keystore::Opened;
use holdfast_hsm::{KeyId, Purpose};
use holdfast_transport::failure::Failure;
use holdfast_vault_core::{CaKey, RetiredRoot};

/// Destroys what was made here. A key that operators made in their token has another id there, and stays theirs to destroy.
pub(super) fn destroy_keys(root: &RetiredRoot, opened: &Opened) -> Result<(), Failure> {
    if let Some((at, id)) = opened.place(Purpose::Root, &root.key) {
        at.destroy(&id).map_err(port)?;
    } else if matches!(root.key, CaKey::Token(_)) {
        return Err(no_token());
    }
    for name in &root.issuers {
        let token = opened.token.as_ref().ok_or_else(no_token)?;
        token.destroy(&KeyId::of(Purpose::Issuer, name.as_bytes())).map_err(port)?;
    }
    Ok(())
}
