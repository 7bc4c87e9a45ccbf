//! Charters: making the first one. What makes one believed is `holdfast_wire::charter`'s.

use crate::errors::Failure;
use crate::operator::Operator;
use data_encoding::BASE32_NOPAD;
use holdfast_types::{ClusterId, TrustDomain, sha256};
use holdfast_wire::charter::{CharterChain, MINT_ORCH, PUT_CHARTER};
use holdfast_wire::keys::StatementSigner as _;
use holdfast_wire::v1;

/// The commands that a charter sets a threshold for, as the policy schema names them; minting a token has two.
pub const ACTIONS: [&str; 23] = [
    "deploy",
    "retire",
    "approvePlacement",
    "putSecret",
    "rotateSecret",
    "deleteSecret",
    "approveNode",
    "setZone",
    "removeNode",
    "quarantineNode",
    "putMandate",
    "putPolicy",
    "rotateRoot",
    "rotateUnlock",
    "rotateKeyring",
    "admitVoter",
    "evictVoter",
    "mintToken",
    MINT_ORCH,
    "release",
    PUT_CHARTER,
    "lockdown",
    "seal",
];
const ROLES: [&str; 5] = ["Admin", "Deployer", "SecretOwner", "Approver", "Auditor"];
/// Upper bounds in seconds (protocol, defaults): leaf 7 d (the longest, a voter's), lease 24 h, grace 72 h.
const LIMITS: v1::Limits = v1::Limits { max_leaf_s: 7 * 86_400, max_lease_s: 86_400, max_grace_s: 72 * 3600 };

/// The charter that one person founds a cluster with: one operator with every role, every threshold 1.
pub fn founding(op: &Operator, nonce: [u8; 32], trust_domain: &TrustDomain, recovery_pk: [u8; 32]) -> v1::Charter {
    let all = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
    v1::Charter {
        version: 1,
        prev_sha256: Vec::new(),
        founding_nonce: nonce.to_vec(),
        trust_domain: trust_domain.as_str().to_owned(),
        operators: vec![v1::Operator {
            id: op.id.clone(),
            key: Some(op.key.public()),
            roles: all(&ROLES),
            owns: all(&["*"]),
        }],
        thresholds: ACTIONS.iter().map(|a| v1::Threshold { action: (*a).to_owned(), k: 1 }).collect(),
        // Every repository.
        publishers: vec![v1::Publisher {
            id: op.id.clone(),
            keys: vec![op.publisher.public()],
            threshold: 1,
            repo_prefixes: all(&["*"]),
        }],
        witnesses: Vec::new(),
        witness_quorum: 0,
        receipt_mode: 0,
        recovery: Some(v1::Recovery { public_key: recovery_pk.to_vec(), k: 1, n: 1, share_digests: Vec::new() }),
        limits: Some(LIMITS),
    }
}

/// The trust domain where the operator chose none: 16 characters of `H(founding_nonce ‖ operator key)` in base 32.
///
/// It cannot be made of the cluster id, as one might wish: that is the hash of the charter, which contains this name.
pub fn default_trust_domain(nonce: &[u8; 32], op: &Operator) -> Result<TrustDomain, Failure> {
    let digest = sha256(&[nonce, &op.key.public_bytes()]);
    let label: String = BASE32_NOPAD.encode(digest.as_bytes()).to_lowercase().chars().take(16).collect();
    TrustDomain::parse(&format!("{label}.holdfast")).map_err(Failure::untrusted)
}

/// Follows the chain from the cluster's name; the last charter is the current one.
pub fn verify_chain(chain: &[v1::Statement], cluster: &ClusterId) -> Result<CharterChain, Failure> {
    let chain = CharterChain::verify(chain).map_err(Failure::untrusted)?;
    if chain.cluster() == cluster {
        Ok(chain)
    } else {
        Err(Failure::untrusted("the first charter is not the one that this cluster is named after"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_wire::statement;

    fn charter(op: &Operator) -> (v1::Statement, ClusterId) {
        let td = default_trust_domain(&[3; 32], op).unwrap();
        let st = op.sign(&founding(op, [3; 32], &td, [4; 32])).unwrap();
        let id = ClusterId::of_charter(&st.payload);
        (st, id)
    }
    fn next(of: &v1::Statement, version: u64, change: impl Fn(&mut v1::Charter)) -> v1::Charter {
        let mut c = statement::peek::<v1::Charter>(of).unwrap();
        c.version = version;
        c.prev_sha256 = sha256(&[&of.payload]).to_vec();
        change(&mut c);
        c
    }

    #[test]
    fn the_chain_leads_from_the_clusters_name_to_the_current_charter() {
        let (a, b) = (Operator::generate("op-a").unwrap(), Operator::generate("op-b").unwrap());
        let (first, id) = charter(&a);
        let doc = next(&first, 2, |c| {
            c.operators = vec![v1::Operator { key: Some(b.key.public()), ..c.operators[0].clone() }]
        });
        let second = statement::sign(&doc, &[&a.key, &b.key]).unwrap();
        assert_eq!(verify_chain(&[first.clone(), second], &id).unwrap().head().version, 2);
        for half in [a.sign(&doc).unwrap(), b.sign(&doc).unwrap()] {
            assert!(verify_chain(&[first.clone(), half], &id).is_err());
        }
    }

    #[test]
    fn one_person_founds_a_cluster_whose_every_threshold_is_met_by_one_signature() {
        let op = Operator::generate("op-a").unwrap();
        let (st, _) = charter(&op);
        let c = statement::peek::<v1::Charter>(&st).unwrap();
        for action in ACTIONS {
            assert!(c.thresholds.iter().any(|t| t.action == action && t.k == 1), "{action}");
        }
        assert!(ACTIONS.contains(&"mintToken") && ACTIONS.contains(&MINT_ORCH));
    }

    #[test]
    fn gaps_other_names_and_other_ancestors_are_refused() {
        let a = Operator::generate("op-a").unwrap();
        let (first, id) = charter(&a);
        let (other, other_id) = charter(&Operator::generate("op-a").unwrap());
        assert!(verify_chain(std::slice::from_ref(&first), &other_id).is_err());
        assert!(verify_chain(&[], &id).is_err());
        for bad in [next(&first, 3, |_| ()), next(&first, 1, |_| ()), next(&other, 2, |_| ())] {
            assert!(verify_chain(&[first.clone(), a.sign(&bad).unwrap()], &id).is_err());
        }
    }

    #[test]
    fn a_default_trust_domain_is_a_name_of_16_characters() {
        let op = Operator::generate("op-a").unwrap();
        let td = default_trust_domain(&[1; 32], &op).unwrap();
        assert_eq!(td.as_str().len(), 16 + ".holdfast".len());
    }
}
