//! Bundles that Admins sign in the place of roots: by the charter in force, in its number, and nobody else.

use crate::bundle::bundle;
use crate::world::{CLUSTER, Ca, NOW, new_ca_root};
use holdfast_pki::bundle::{Admins, BundleError, follow, verify_bundle, verify_bundle_chain};
use holdfast_pki::issue::ROOT_LIFE;
use holdfast_pki::keys::RootStatementSigner;
use holdfast_types::{Secret, sha256};
use holdfast_wire::charter::{ADMIN, CharterChain, PUT_CHARTER};
use holdfast_wire::keys::{Ed25519Key, StatementSigner};
use holdfast_wire::statement::{StatementError, sign};
use holdfast_wire::v1;
use proptest::prelude::*;

fn person(seed: u8) -> Ed25519Key {
    Ed25519Key::from_seed(Secret::take(&mut [seed; 32]))
}

/// Charters in a row with these Admins, two of whom change it, or the only one; and a deployer.
pub fn charters(admins: &[&[u8]]) -> CharterChain {
    let mut chain: Vec<v1::Statement> = Vec::new();
    let operator = |seed: u8, role: &str| v1::Operator {
        id: format!("op-{seed}"),
        key: Some(person(seed).public()),
        roles: vec![role.to_owned()],
        owns: vec!["*".to_owned()],
    };
    for (n, (version, seeds)) in (1..).zip(admins).enumerate() {
        let mut operators: Vec<_> = seeds.iter().map(|s| operator(*s, ADMIN)).collect();
        operators.push(operator(DEPLOYER, "Deployer"));
        let c = v1::Charter {
            version,
            prev_sha256: chain.last().map(|st| sha256(&[&st.payload]).to_vec()).unwrap_or_default(),
            founding_nonce: if n == 0 { vec![1; 32] } else { Vec::new() },
            trust_domain: "a.example".to_owned(),
            operators,
            thresholds: vec![v1::Threshold { action: PUT_CHARTER.to_owned(), k: if seeds.len() == 1 { 1 } else { 2 } }],
            ..v1::Charter::default()
        };
        // Everybody of the one before and of this one.
        let mut all: Vec<u8> = admins[n.saturating_sub(1)..=n].concat();
        all.push(DEPLOYER);
        all.sort_unstable();
        all.dedup();
        let keys: Vec<Ed25519Key> = all.into_iter().map(person).collect();
        let signers: Vec<&dyn StatementSigner> = keys.iter().map(|k| k as &dyn StatementSigner).collect();
        chain.push(sign(&c, &signers).unwrap());
    }
    CharterChain::verify(&chain).unwrap()
}

const DEPLOYER: u8 = 90;

/// Signed by these people and roots.
fn signed(b: &v1::Bundle, people: &[u8], roots: &[&Ca]) -> v1::Statement {
    let people: Vec<Ed25519Key> = people.iter().map(|s| person(*s)).collect();
    let roots: Vec<_> = roots.iter().map(|ca| RootStatementSigner(&ca.key)).collect();
    let people = people.iter().map(|k| k as &dyn StatementSigner);
    let all: Vec<&dyn StatementSigner> = people.chain(roots.iter().map(|r| r as &dyn StatementSigner)).collect();
    sign(b, &all).unwrap()
}

fn named(b: v1::Bundle, charter_version: u64) -> v1::Bundle {
    v1::Bundle { charter_version, ..b }
}

fn good(e: &BundleError) -> Option<usize> {
    if let BundleError::Statement(StatementError::Threshold { good, .. }) = e { Some(*good) } else { None }
}

#[test]
fn where_no_root_can_sign_admins_add_one_and_it_signs_what_follows() {
    let charters = charters(&[&[1, 2, 3]]);
    let (a, b) = (new_ca_root(NOW, ROOT_LIFE), new_ca_root(NOW, ROOT_LIFE));
    let first = signed(&bundle(1, &[&a], None), &[], &[&a]);
    let add = signed(&named(bundle(9, &[&a, &b], Some(&first)), 1), &[1, 3], &[&b]);
    let drop = signed(&bundle(10, &[&b], Some(&add)), &[], &[&b]);
    let chain = [first, add, drop];
    for admins in [Admins::in_force(&charters), Admins::ever(&charters)] {
        let last = verify_bundle_chain(&chain, &[&a.der], admins, &CLUSTER).unwrap();
        assert_eq!((last.doc.epoch, &last.doc.roots), (10, &vec![b.der.clone()]));
    }
    // What they sign continues the one before, as any other.
    let current = verify_bundle(&chain[0], &[&a.der], &CLUSTER).unwrap();
    let refused = |b: v1::Bundle| {
        follow(&current, &signed(&named(b, 1), &[1, 2, 3], &[]), Admins::in_force(&charters), &CLUSTER).unwrap_err()
    };
    assert_eq!(refused(bundle(1, &[&b], Some(&chain[0]))), BundleError::Epoch { ours: 1, got: 1 });
    assert_eq!(refused(bundle(9, &[&b], None)), BundleError::Previous);
    let next_era = v1::Bundle { era: 2, ..bundle(9, &[&b], Some(&chain[0])) };
    assert_eq!(refused(next_era), BundleError::Era { ours: 1, got: 2 });
    let other = v1::Bundle { cluster_id: vec![1; 32], ..bundle(9, &[&b], Some(&chain[0])) };
    assert_eq!(refused(other), BundleError::Cluster);
}

#[test]
fn admins_of_a_charter_that_was_replaced_add_no_root() {
    let (old, new) = (charters(&[&[1, 2, 3]]), charters(&[&[1, 2, 3], &[4, 5]]));
    let (a, b) = (new_ca_root(NOW, ROOT_LIFE), new_ca_root(NOW, ROOT_LIFE));
    let first = signed(&bundle(1, &[&a], None), &[], &[&a]);
    let current = verify_bundle(&first, &[&a.der], &CLUSTER).unwrap();
    let by_old = signed(&named(bundle(2, &[&a, &b], Some(&first)), 1), &[1, 2, 3], &[&b]);
    let by_new = signed(&named(bundle(2, &[&a, &b], Some(&first)), 2), &[4, 5], &[]);
    let judge = |st: &v1::Statement, admins| follow(&current, st, admins, &CLUSTER);
    assert_eq!(good(&judge(&by_old, Admins::in_force(&new)).unwrap_err()), Some(0));
    assert!(judge(&by_new, Admins::in_force(&new)).is_ok());
    // Who held the old charter until now is shown both, as by whoever slept; who knows the old one alone, not yet.
    assert!(judge(&by_old, Admins::since(&new, 1)).is_ok() && judge(&by_old, Admins::ever(&new)).is_ok());
    assert_eq!(judge(&by_new, Admins::in_force(&old)).unwrap_err(), BundleError::CharterVersion(2));
    // After a link that names the new one, none that names the old one follows.
    let back = signed(&named(bundle(3, &[&b], Some(&by_new)), 1), &[1, 2, 3], &[]);
    let chain = [first.clone(), by_new, back];
    let refused = verify_bundle_chain(&chain, &[&a.der], Admins::ever(&new), &CLUSTER).unwrap_err();
    assert_eq!(good(&refused), Some(0));
    // A link of the old one may be signed by those of the new one too, and then counts under both.
    let both = signed(&named(bundle(2, &[&a, &b], Some(&first)), 1), &[1, 2, 4, 5], &[]);
    assert!(judge(&both, Admins::in_force(&new)).is_ok() && judge(&both, Admins::in_force(&old)).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// INV8, over everybody who could sign something.
    #[test]
    fn a_root_is_added_by_a_trusted_root_or_by_enough_admins_in_force_and_by_nobody_else(
        people in proptest::sample::subsequence(vec![1u8, 2, 3, 4, 5, DEPLOYER, 99], 0..=7),
        by_old_root: bool, by_new_root: bool, names in 0u64..4,
    ) {
        // 1 and 2 were Admins; 3, 4 and 5 are.
        let charters = charters(&[&[1, 2, 3], &[3, 4, 5]]);
        let (a, b) = (new_ca_root(NOW, ROOT_LIFE), new_ca_root(NOW, ROOT_LIFE));
        let first = signed(&bundle(1, &[&a], None), &[], &[&a]);
        let current = verify_bundle(&first, &[&a.der], &CLUSTER).unwrap();
        let mut roots = Vec::new();
        roots.extend(by_old_root.then_some(&a));
        roots.extend(by_new_root.then_some(&b));
        let st = signed(&named(bundle(2, &[&a, &b], Some(&first)), names), &people, &roots);
        let admins = people.iter().filter(|p| [3, 4, 5].contains(*p)).count();
        let wanted = match names {
            0 => by_old_root,
            1 | 2 => admins >= 2,
            _ => false,
        };
        let done = follow(&current, &st, Admins::in_force(&charters), &CLUSTER);
        prop_assert_eq!(done.is_ok(), wanted);
    }
}
