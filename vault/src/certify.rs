//! Deciding on certificates where the issuer's key is in the token: a signature takes as long as the token does, so it is made
//! over a copy of the state, and no entry and no other caller waits for it. Who is refused anyway costs neither.

use crate::cluster::Cluster;
use crate::drive;
use crate::failure::refused;
use crate::keystore::{Absent, PortSigner, random32};
use holdfast_hsm::KeyId;
use holdfast_pki::issue::IssuerCa;
use holdfast_transport::failure::Failure;
use holdfast_vault_core::prepare::Leader;
use holdfast_vault_core::{CaKey, Entropy, Refusal, State};
use std::sync::Arc;

/// What is said in place of a signature while the state is held.
const LATER: &str = "the token is asked once the state is let go";

/// The issuer, which says that it signs later.
fn later(der: &[u8]) -> Result<IssuerCa<PortSigner>, Failure> {
    let signer = PortSigner::of_certificate(Arc::new(Absent(LATER)), KeyId([0; 16]), der)?;
    IssuerCa::open(der, signer).map_err(|e| Failure::failed("key-port", e.to_string()))
}

impl Cluster {
    /// As [`Cluster::decide`], for what may end in a certificate. Where that takes the token, `f` is asked twice.
    pub fn certify<T>(&self, f: impl Fn(&Leader<'_>, &mut Entropy) -> Result<T, Refusal>) -> Result<T, Failure> {
        let in_token = |s: &State| s.issuer().filter(|i| matches!(i.key, CaKey::Token(_))).map(|i| i.der.clone());
        let Some(der) = self.look(in_token)? else { return self.decide(f) };
        if self.opened.load().issuer.der() != der {
            drive::reopen(self)?;
        }
        let opened = self.opened.load_full();
        let judge = |state: &State, issuer: &IssuerCa<PortSigner>| -> Result<Result<T, Refusal>, Failure> {
            let mut entropy = Entropy::new(random32()?);
            Ok(f(&Leader { issuer, ..self.leader(state, &opened) }, &mut entropy))
        };
        let unsigned = later(&der)?;
        match self.look(|state| judge(state, &unsigned))?? {
            Err(refusal) if refusal.reason.contains(LATER) => {}
            judged => return judged.map_err(refused),
        }
        let state = self.look(State::clone)?;
        tokio::task::block_in_place(|| judge(&state, &opened.issuer))?.map_err(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_hsm::{KeyPort as _, Purpose, SoftwareKeys};
    use holdfast_pki::issue::{ISSUER_LIFE, ROOT_LIFE, RootCa, new_root};
    use holdfast_pki::keys::{CertSigner as _, SubjectKey};
    use holdfast_types::{ClusterId, Millis, Role, SpiffeId, TrustDomain};

    #[test]
    fn a_certificate_that_waits_for_the_token_is_told_from_one_that_is_refused() {
        let keys = Arc::new(SoftwareKeys::new());
        let signer = |purpose, name: &[u8]| PortSigner::new(&keys, keys.generate(purpose, name).unwrap()).unwrap();
        let (root, issuer) = (signer(Purpose::Root, b"root"), signer(Purpose::Issuer, b"issuer"));
        let (cluster, now) = (ClusterId::of_charter(b"one"), Millis(1_700_000_000_000));
        let root_der = new_root(&root, &cluster, [1; 16], now, ROOT_LIFE).unwrap().der;
        let key = SubjectKey::from_sec1(&issuer.sec1()).unwrap();
        let der = RootCa::open(&root_der, &root).unwrap().issuer(&key, [2; 16], now, ISSUER_LIFE).unwrap().der;
        let id = SpiffeId::new(TrustDomain::parse("one.test").unwrap(), Role::Node, "n-1");
        let leaf = |serial| later(&der).unwrap().leaf(&key, &id, serial, now, ISSUER_LIFE).err().unwrap().to_string();
        assert!(leaf([3; 16]).contains(LATER), "{}", leaf([3; 16]));
        assert!(!leaf([0; 16]).contains(LATER), "a serial number of 0 is refused before anything is signed");
    }
}
