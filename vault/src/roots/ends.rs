//! The end of a dropped root's keys, and of keys in the token that nothing uses any more.

use super::{no_token, port};
use crate::cluster::Cluster;
use crate::keystore::Opened;
use holdfast_hsm::{KeyError, KeyId, KeyPort, Purpose};
use holdfast_transport::failure::Failure;
use holdfast_vault_core::{CaKey, Command, RetiredRoot, State};
use std::sync::Arc;

/// Names of keys that one look destroys at most.
const AT_ONCE: usize = 16;

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
    let mut spent = cluster.look(State::spent_keys)?;
    // What a slow token can do within the time of one look.
    spent.truncate(AT_ONCE);
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

/// Those of `names` of which nothing is left in the token. One that it will not destroy keeps no other; once it does not answer
/// it is asked no more.
fn destroy_spent(token: &dyn KeyPort, names: Vec<String>) -> Vec<String> {
    let mut gone = Vec::new();
    for name in names {
        let purpose = if name.starts_with("root/") { Purpose::Root } else { Purpose::Issuer };
        match token.destroy(&KeyId::of(purpose, name.as_bytes())) {
            Ok(()) => gone.push(name),
            Err(e) => {
                tracing::debug!(name, "a key that nothing uses is not destroyed yet: {e}");
                if !matches!(e, KeyError::Refused(_)) {
                    break;
                }
            }
        }
    }
    gone
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

    /// A token that says this of one key, and destroys all others.
    struct Keeps(KeyId, KeyError);

    impl KeyPort for Keeps {
        fn generate(&self, _: Purpose, _: &[u8]) -> Result<KeyId, KeyError> {
            Err(self.1.clone())
        }
        fn public(&self, _: &KeyId) -> Result<Vec<u8>, KeyError> {
            Err(self.1.clone())
        }
        fn sign_p256(&self, _: &KeyId, _: &[u8]) -> Result<Vec<u8>, KeyError> {
            Err(self.1.clone())
        }
        fn destroy(&self, id: &KeyId) -> Result<(), KeyError> {
            if *id == self.0 { Err(self.1.clone()) } else { Ok(()) }
        }
        fn list(&self) -> Result<Vec<KeyId>, KeyError> {
            Err(self.1.clone())
        }
    }

    #[test]
    fn a_key_that_the_token_will_not_destroy_keeps_no_other_and_a_token_that_is_away_is_asked_once() {
        let kept = KeyId::of(Purpose::Issuer, b"issuer/c/2");
        let names = ["root/c/1", "issuer/c/2", "issuer/c/3"].map(str::to_owned).to_vec();
        let left = |says: KeyError| destroy_spent(&Keeps(kept, says), names.clone());
        assert_eq!(left(KeyError::Refused("not this one".to_owned())), ["root/c/1", "issuer/c/3"]);
        assert_eq!(left(KeyError::Unavailable("away".to_owned())), ["root/c/1"]);
    }
}
