//! A root that no root can sign for: Admins sign the bundle that lists it, each on a machine of their own.
//!
//! LAW: what is signed is the bundle that is believed here with one root more, and nothing else
//! (`an_admin_signs_for_one_root_more_and_for_nothing_else`).

use super::{hex, show, view, wait};
use crate::app::App;
use crate::client::Cluster;
use crate::clock;
use crate::errors::{Code, Failure};
use crate::trust::Trust;
use holdfast_pki::given::check_root;
use holdfast_types::sha256;
use holdfast_wire::{statement, v1};
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

/// How long the vault may take to make the root that was ordered.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);

/// The root that waits for Admins, as it is shown: nothing of it is verified.
pub fn root_of(v: &v1::RootsView) -> Option<Vec<u8>> {
    let shown: v1::Bundle = statement::peek(v.to_approve.as_ref()?).ok()?;
    shown.roots.into_iter().find(|r| !v.trusted.iter().any(|t| t.der == *r))
}

/// `root approve`.
pub async fn approve(app: &App, wanted: &str, detach: bool) -> Result<(), Failure> {
    let mut c = Cluster::connect(app).await?;
    let Some(shown) = view(&c).await?.to_approve else {
        let help = "order such a root with `holdfast root rotate --without-old-root`";
        return Err(Failure::new(Code::Changed, "no root waits for Admins to sign", help));
    };
    let root = one_root_more(&c.trust, &shown)?;
    let found = hex(&sha256(&[&root]).0);
    if found != wanted.to_lowercase() {
        let what = format!("the root that is shown is {found}, not the one that was named");
        return Err(Failure::new(Code::InvalidInput, what, "ask whoever ordered it for its SHA-256"));
    }
    sign(&c, &shown, &root).await?;
    if detach {
        return app.out.done(&json!({"approved": found}), "the signature is accepted: see `holdfast root status`");
    }
    let v = view(&c).await?;
    if v.to_approve.is_some() || super::is_stable(&v) {
        show(app, &v)
    } else {
        wait(app, &mut c, super::is_stable).await
    }
}

/// Signs for the root that was ordered a moment ago, as soon as it is made.
pub async fn ordered(app: &App, c: &mut Cluster) -> Result<(), Failure> {
    let deadline = Instant::now() + app.timeout(PATIENCE);
    loop {
        let v = view(c).await?;
        if let Some(shown) = v.to_approve {
            // What it follows may be newer than what was known when this began.
            c.learn().await?;
            let root = one_root_more(&c.trust, &shown)?;
            return sign(c, &shown, &root).await;
        }
        if Instant::now() >= deadline {
            let help = "see `holdfast root status`; once it is made, sign for it with `holdfast root approve`";
            return Err(Failure::new(Code::TimedOut, "the new root is not made yet", help));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn sign(c: &Cluster, shown: &v1::Statement, root: &[u8]) -> Result<(), Failure> {
    let mut mine = v1::Statement { sigs: Vec::new(), ..shown.clone() };
    let signed = statement::add_signature(&mut mine, &c.operator.key);
    signed.map_err(|e| Failure::new(Code::Failed, e, "check the key files of the context"))?;
    c.believe_too(root)?;
    c.submit(mine, Vec::new()).await?;
    Ok(())
}

/// The new root of a bundle that follows ours and adds one root, or why it is not signed.
fn one_root_more(trust: &Trust, shown: &v1::Statement) -> Result<Vec<u8>, Failure> {
    let other = || Failure::untrusted("the vault shows another bundle to sign than ours with one root more");
    let (ours, b) = (trust.bundle(), statement::peek::<v1::Bundle>(shown).map_err(Failure::untrusted)?);
    let follows = b.cluster_id == ours.cluster_id
        && b.era == ours.era
        && b.epoch > ours.epoch
        && b.prev_sha256 == trust.bundle_sha256().0
        && b.charter_version == trust.charter().version;
    let new: Vec<&Vec<u8>> = b.roots.iter().filter(|r| !ours.roots.contains(r)).collect();
    let kept = ours.roots.iter().all(|r| b.roots.contains(r));
    let same = b.intake_pk == ours.intake_pk && b.stks.iter().all(|s| ours.stks.contains(s));
    match new.as_slice() {
        [one] if follows && kept && same && check_root(one, &trust.cluster(), clock::now()).is_ok() => {
            Ok((*one).clone())
        }
        _ => Err(other()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::charter;
    use crate::operator::Operator;
    use holdfast_pki::issue::{ROOT_LIFE, new_root};
    use holdfast_pki::keys::{CertSigner, RootStatementSigner, SubjectKey};
    use holdfast_transport::keys::PrivateKey;
    use holdfast_types::{ClusterId, TrustDomain};
    use holdfast_wire::keys::{SignError, StatementSigner as _};

    struct Key(PrivateKey);
    impl CertSigner for Key {
        fn sec1(&self) -> Vec<u8> {
            SubjectKey::from_spki(self.0.spki_der()).unwrap().sec1().unwrap().to_vec()
        }
        fn sign(&self, msg: &[u8]) -> Result<Vec<u8>, SignError> {
            self.0.sign(msg).map_err(|e| SignError(e.to_string()))
        }
    }

    fn root(cluster: &ClusterId) -> (Key, Vec<u8>) {
        let key = Key(PrivateKey::generate().unwrap());
        let der = new_root(&key, cluster, [5; 16], clock::now(), ROOT_LIFE).unwrap().der;
        (key, der)
    }

    #[test]
    fn an_admin_signs_for_one_root_more_and_for_nothing_else() {
        let op = Operator::generate("op-a").unwrap();
        let domain = TrustDomain::parse("a.example").unwrap();
        let charter = op.sign(&charter::founding(&op, [1; 32], &domain, [2; 32])).unwrap();
        let cluster = ClusterId::of_charter(&charter.payload);
        let ((key, old), (_, new), (_, third)) = (root(&cluster), root(&cluster), root(&cluster));
        let stk = |until_ms| v1::Stk { key: Some(op.key.public()), from_ms: 1, until_ms };
        let first = v1::Bundle {
            cluster_id: cluster.0.to_vec(),
            era: 1,
            epoch: 1,
            roots: vec![old.clone()],
            stks: vec![stk(2)],
            intake_pk: vec![6; 32],
            ..v1::Bundle::default()
        };
        let chain = statement::sign(&first, &[&RootStatementSigner(&key)]).unwrap();
        let good = v1::Bundle {
            epoch: 7,
            roots: vec![old.clone(), new.clone()],
            prev_sha256: sha256(&[&chain.payload]).to_vec(),
            charter_version: 1,
            ..first
        };
        let view = |bundle| v1::TrustView {
            charter_chain: vec![charter.clone()],
            bundle_chain: vec![bundle],
            ..v1::TrustView::default()
        };
        let mut trust = Trust::verify(view(chain.clone()), &cluster, &cluster.anchor(&old)).unwrap();
        let shown = |b: &v1::Bundle| statement::sign(b, &[]).unwrap();
        assert_eq!(one_root_more(&trust, &shown(&good)).unwrap(), new);
        let foreign = root(&ClusterId::of_charter(b"two")).1;
        let lies = [
            v1::Bundle { epoch: 1, ..good.clone() },
            v1::Bundle { era: 2, ..good.clone() },
            v1::Bundle { cluster_id: vec![1; 32], ..good.clone() },
            v1::Bundle { prev_sha256: vec![1; 32], ..good.clone() },
            v1::Bundle { charter_version: 0, ..good.clone() },
            v1::Bundle { charter_version: 2, ..good.clone() },
            v1::Bundle { roots: vec![new.clone()], ..good.clone() },
            v1::Bundle { roots: vec![old.clone()], ..good.clone() },
            v1::Bundle { roots: vec![old.clone(), new.clone(), third], ..good.clone() },
            v1::Bundle { roots: vec![old.clone(), foreign], ..good.clone() },
            v1::Bundle { stks: vec![stk(9)], ..good.clone() },
            v1::Bundle { intake_pk: vec![7; 32], ..good.clone() },
        ];
        for lie in lies {
            assert_eq!(one_root_more(&trust, &shown(&lie)).unwrap_err().code, "untrusted", "{lie:?}");
        }
        // With its signature it is believed, without it is not.
        assert!(trust.clone().advance(&view(shown(&good))).is_err());
        assert!(trust.advance(&view(op.sign(&good).unwrap())).unwrap());
        assert_eq!(trust.bundle().roots, [old, new]);
    }
}
