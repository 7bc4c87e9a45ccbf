//! Random damage: whatever an orchestrator does to the bytes of an assignment, nothing else than what was signed runs.

use crate::world::{NOW, Scene, VALUE, World};
use holdfast_types::Millis;
use holdfast_wire::v1;
use proptest::prelude::*;
use prost::Message as _;
use std::sync::LazyLock;

/// `Scene` holds secrets in guarded memory; built once, read by every case.
static HONEST: LazyLock<Scene> = LazyLock::new(Scene::honest);

/// Accepted or not: what would run must be exactly what honest people signed.
fn judged(bytes: &[u8]) {
    let Ok(assign) = v1::Assign::decode(bytes) else { return };
    let s = &*HONEST;
    let Ok(a) =
        holdfast_orchestrator_core::verify::verify_assign(&s.trust, &s.me, &s.memory, &s.peer, Millis(NOW), &assign)
    else {
        return;
    };
    let honest = s.verify().unwrap();
    assert_eq!((a.grant, a.spec, a.images, a.gap), (honest.grant, honest.spec, honest.images, honest.gap));
    assert!(a.secrets.len() == 2 && a.secrets.iter().all(|s| s.bytes.expose() == VALUE));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]
    #[test]
    fn flipped_bytes_never_change_what_is_accepted(flips in prop::collection::vec((any::<prop::sample::Index>(), 1..=255_u8), 1..4)) {
        let mut bytes = HONEST.assign.encode_to_vec();
        for (at, x) in flips {
            let i = at.index(bytes.len());
            bytes[i] ^= x;
        }
        judged(&bytes);
    }
    #[test]
    fn cut_joined_and_repeated_bytes_never_change_what_is_accepted(a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
        let bytes = HONEST.assign.encode_to_vec();
        let (a, b) = (a.index(bytes.len()), b.index(bytes.len()));
        judged(&bytes[..a]);
        judged(&[&bytes[..a], &bytes[b..]].concat());
    }
}

#[test]
fn every_single_bit_of_every_signed_payload_counts() {
    let s = &*HONEST;
    for part in 0..3_usize {
        let pick = |a: &mut v1::Assign| match part {
            0 => std::mem::take(&mut a.grant.as_mut().unwrap().payload),
            1 => std::mem::take(&mut a.spec.as_mut().unwrap().payload),
            _ => std::mem::take(&mut a.vouchers[0].payload),
        };
        let len = pick(&mut s.assign.clone()).len();
        for i in 0..len {
            let mut assign = s.assign.clone();
            let mut payload = pick(&mut assign);
            payload[i] ^= 1 << (i % 8);
            match part {
                0 => assign.grant.as_mut().unwrap().payload = payload,
                1 => assign.spec.as_mut().unwrap().payload = payload,
                _ => assign.vouchers[0].payload = payload,
            }
            let r = holdfast_orchestrator_core::verify::verify_assign(
                &s.trust,
                &s.me,
                &s.memory,
                &s.peer,
                Millis(NOW),
                &assign,
            );
            // A grant altered in its orchestrator's name already fails check 1.
            let allowed: &[u8] = match part {
                0 => &[1, 2],
                1 => &[7],
                _ => &[8],
            };
            assert!(allowed.contains(&r.unwrap_err().check), "part {part}, byte {i}");
        }
    }
}

#[test]
fn an_assignment_of_another_world_is_refused() {
    let other = World { edit_charter: |c| c.founding_nonce[0] ^= 1, ..World::default() }.build();
    let s = &*HONEST;
    let r = holdfast_orchestrator_core::verify::verify_assign(
        &s.trust,
        &s.me,
        &s.memory,
        &s.peer,
        Millis(NOW),
        &other.assign,
    );
    assert_eq!(r.unwrap_err().code, "cluster");
}
