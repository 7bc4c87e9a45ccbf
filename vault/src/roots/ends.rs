//! The end of a dropped root's keys, and of keys in the token that nothing uses any more.

use super::{no_token, port};
use crate::cluster::Cluster;
use crate::keystore::Opened;
use holdfast_hsm::{KeyId, KeyPort, Purpose};
use holdfast_transport::failure::Failure;
use holdfast_vault_core::{CaKey, Command, RetiredRoot, State};
use std::sync::Arc;

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

/// Destroys what the state says that nothing uses any more. A token that does not answer keeps nothing else waiting: it is
/// tried again with a later look.
pub(super) async fn sweep(cluster: &Arc<Cluster>) -> Result<(), Failure> {
    let spent = cluster.look(State::spent_keys)?;
    if spent.is_empty() {
        return Ok(());
    }
    let Some(token) = cluster.opened.load().token.clone() else { return Ok(()) };
    let destroyed = tokio::task::spawn_blocking(move || destroy_spent(&*token, spent)).await;
    let gone = destroyed.map_err(|_| Failure::failed("failed", "the destruction of a key met an error of its own"))?;
    if gone.is_empty() {
        return Ok(());
    }
    cluster.propose(Command::KeysDestroyed(gone)).await.map(drop)
}

/// Those of `names` of which nothing is left in the token.
fn destroy_spent(token: &dyn KeyPort, names: Vec<String>) -> Vec<String> {
    let gone = |name: &String| {
        let purpose = if name.starts_with("root/") { Purpose::Root } else { Purpose::Issuer };
        let done = token.destroy(&KeyId::of(purpose, name.as_bytes()));
        done.inspect_err(|e| tracing::debug!(name, "a key that nothing uses is not destroyed yet: {e}")).is_ok()
    };
    names.into_iter().take_while(gone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_hsm::SoftwareKeys;

    #[test]
    fn what_nothing_uses_is_destroyed_by_its_name_and_nothing_else() {
        let token = SoftwareKeys::new();
        token.generate(Purpose::Root, b"root/c/1").unwrap();
        token.generate(Purpose::Issuer, b"issuer/c/2").unwrap();
        let kept = token.generate(Purpose::Issuer, b"issuer/c/3").unwrap();
        let names = ["root/c/1", "issuer/c/2", "issuer/root/c/1"].map(str::to_owned).to_vec();
        assert_eq!(destroy_spent(&token, names.clone()), names, "one that was never made is gone as well");
        assert_eq!(token.list().unwrap(), [kept]);
    }
}
