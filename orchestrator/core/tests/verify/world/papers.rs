//! The documents as honest people write them, before the world fills in names and hashes.

use super::{DAY, DOMAIN, ME, MINUTE, NOW, ORCH, SEQ, key, who};
use holdfast_wire::keys::StatementSigner as _;
use holdfast_wire::v1;

fn operator(id: &str, seed: u8, role: &str, owns: &str) -> v1::Operator {
    v1::Operator { id: id.into(), key: Some(key(seed).public()), roles: vec![role.into()], owns: vec![owns.into()] }
}
pub fn charter() -> v1::Charter {
    let mut operators: Vec<_> = who::ADMINS.iter().map(|s| operator(&format!("admin-{s}"), *s, "Admin", "*")).collect();
    operators.push(operator("dora", who::DEPLOYER, "Deployer", "shop"));
    operators.push(operator("dan", who::SECOND_DEPLOYER, "Deployer", "*"));
    operators.push(operator("eve", who::DEPLOYER_ELSEWHERE, "Deployer", "bank"));
    let publisher = |id: &str, seeds: &[u8], prefix: &str| v1::Publisher {
        id: id.into(),
        keys: seeds.iter().map(|s| key(*s).public()).collect(),
        threshold: u32::try_from(seeds.len()).unwrap(),
        repo_prefixes: vec![prefix.into()],
    };
    v1::Charter {
        version: 1,
        founding_nonce: vec![8; 32],
        trust_domain: DOMAIN.into(),
        operators,
        thresholds: [("putCharter", 2), ("deploy", 1)].map(|(a, k)| v1::Threshold { action: a.into(), k }).to_vec(),
        publishers: vec![
            publisher("ci", &who::PUBLISHER, "r.local:5000/shop"),
            publisher("bank-ci", &[who::OTHER_PUBLISHER], "r.local:5000/bank"),
        ],
        limits: Some(v1::Limits { max_leaf_s: 72 * 3600, max_lease_s: 24 * 3600, max_grace_s: 72 * 3600 }),
        ..v1::Charter::default()
    }
}
/// Seeds of all founding operators: who must sign version 1.
pub const FOUNDERS: [u8; 6] = [1, 2, 3, who::DEPLOYER, who::SECOND_DEPLOYER, who::DEPLOYER_ELSEWHERE];

pub fn spec() -> v1::Spec {
    v1::Spec {
        namespace: "shop".into(),
        service: "web".into(),
        version: 3,
        valid_until_ms: NOW + 30 * DAY,
        images: vec![v1::SpecImage {
            name: "main".into(),
            digest: vec![0xd1; 32],
            source: "r.local:5000/shop/web:1.4".into(),
        }],
        command: vec!["/bin/server".into()],
        secrets: vec![
            v1::SecretMount { name: "db-password".into(), target: "db-password".into(), mode: 0o400, uid: 7, gid: 8 },
            v1::SecretMount { name: "shop/api-key".into(), target: "api".into(), mode: 0o440, uid: 0, gid: 0 },
        ],
        params: vec![
            v1::ParamDecl { name: "slot".into(), kind: "int".into(), min: 1, max: 9, max_len: 0 },
            v1::ParamDecl { name: "peer".into(), kind: "string".into(), min: 0, max: 0, max_len: 20 },
        ],
        replicas_max: 9,
        isolation: "default".into(),
        zones: vec!["*".into()],
        on_expiry: "run-on".into(),
        restart: "always".into(),
        ..v1::Spec::default()
    }
}
pub fn grant() -> v1::Grant {
    let param = |name: &str, value: &str| v1::Param { name: name.into(), value: value.into() };
    v1::Grant {
        era: 1,
        grant_id: vec![0x6a; 16],
        orch_id: ORCH.into(),
        namespace: "shop".into(),
        fence: 5,
        mandate_sha256: vec![1; 32],
        node_id: ME.into(),
        node_seq: SEQ,
        task_id: "shop.web.2".into(),
        task_gen: 7,
        service: "web".into(),
        service_version: 3,
        images: vec![v1::GrantImage { name: "main".into(), digest: vec![0xd1; 32], publisher: "ci".into() }],
        params: vec![param("slot", "2"), param("peer", "10.0.0.7:80")],
        issued_at_ms: NOW - 1_000,
        start_before_ms: NOW + 5 * MINUTE,
        lease_until_ms: NOW + DAY - 1_000,
        grace_s: 72 * 3600,
        on_expiry: "run-on".into(),
        policy_version: 1,
        max_status_age_s: 600,
        ..v1::Grant::default()
    }
}
