//! The shipped rules: who may do what when nobody has replaced them.

use super::*;

#[test]
fn a_mandate_covers_its_own_namespaces_alone() {
    let p = Policies::builtin().unwrap();
    for (mandate, permitted) in
        [(&["shop"][..], true), (&["*"], true), (&["bank"], false), (&[], false), (&["sho"], false)]
    {
        let mut f = grant();
        f.orchestrator.mandate_namespaces = strings(mandate);
        assert_eq!(p.decide_grant(&f).is_ok(), permitted, "{mandate:?}");
    }
}

#[test]
fn zones_cover_what_is_nested_in_them() {
    let p = Policies::builtin().unwrap();
    for (zone, permitted) in [("*", true), ("eu", true), ("eu/pci", true), ("eu/pci/rack1", false), ("us", false)] {
        let mut f = grant();
        f.service.zones = zones(&[zone]);
        assert_eq!(p.decide_grant(&f).is_ok(), permitted, "{zone}");
    }
}

#[test]
fn a_relaxed_service_may_ask_for_relaxed_isolation() {
    let p = Policies::builtin().unwrap();
    let mut f = grant();
    f.wants_relaxed = true;
    f.service.isolation = "relaxed".to_owned();
    assert!(p.decide_grant(&f).is_ok());
}

#[test]
fn a_secret_goes_to_its_readers_and_to_every_service_of_a_starred_namespace() {
    let p = Policies::builtin().unwrap();
    for (reader, permitted) in [
        ("shop/web", true),
        ("shop/*", true),
        ("shop/api", false),
        ("bank/*", false),
        ("*", false),
        ("*/*", false),
        ("", false),
    ] {
        let mut f = mount();
        f.secret.readers = strings(&[reader]);
        assert_eq!(p.decide_mount(&f).is_ok(), permitted, "{reader:?}");
    }
}

#[test]
fn an_attested_node_is_given_an_attested_only_secret() {
    let mut f = mount();
    f.secret.attested_only = true;
    f.node.attested = true;
    assert!(Policies::builtin().unwrap().decide_mount(&f).is_ok());
}

#[test]
fn each_role_has_its_acts_and_no_others() {
    use OperatorAct as A;
    const BRAKE: [A; 3] = [A::Lockdown, A::Seal, A::QuarantineNode];
    let given = |role: &str, act: A| act.role().is_none_or(|r| r == role);
    let table: [(&str, &[A]); 6] = [
        ("Deployer", &[A::Deploy, A::Retire]),
        ("SecretOwner", &[A::PutSecret, A::RotateSecret, A::DeleteSecret]),
        (
            "Admin",
            &[
                A::ApproveNode,
                A::SetZone,
                A::RemoveNode,
                A::PutMandate,
                A::PutPolicy,
                A::RotateRoot,
                A::RotateUnlock,
                A::RotateKeyring,
                A::AdmitVoter,
                A::EvictVoter,
                A::MintToken,
                A::Release,
                A::PutCharter,
            ],
        ),
        ("Auditor", &[A::ReadAudit]),
        ("Approver", &[A::ApprovePlacement]),
        ("no such role", &[]),
    ];
    let p = Policies::builtin().unwrap();
    for (role, acts) in table {
        for act in OperatorAct::ALL {
            let verdict = p.decide_operator(&operator(&[role], &["shop"], *act, target_of(*act)));
            assert_eq!(verdict.is_ok(), acts.contains(act) || BRAKE.contains(act), "{role} {act:?}: {verdict:?}");
            assert_eq!(verdict.is_ok(), given(role, *act), "{role} {act:?}");
        }
    }
}

#[test]
fn a_deployer_or_secret_owner_acts_in_the_namespaces_it_owns() {
    let p = Policies::builtin().unwrap();
    for (owns, permitted) in
        [(&["shop"][..], true), (&["*"], true), (&["bank", "shop"], true), (&["bank"], false), (&[], false)]
    {
        for act in [OperatorAct::Deploy, OperatorAct::RotateSecret] {
            let verdict = p.decide_operator(&operator(&["Deployer", "SecretOwner"], owns, act, target_of(act)));
            assert_eq!(verdict.is_ok(), permitted, "{owns:?} {act:?}");
        }
    }
}

#[test]
fn a_permit_names_the_rules_and_their_version() {
    let p = Policies::builtin().unwrap().decide_grant(&grant()).unwrap();
    assert_eq!((p.policy_version(), p.policies()), (0, &strings(&["L1-grant"])[..]));
    let text = format!("@id(\"b\") {PERMIT_ALL} @id(\"a\") {PERMIT_ALL}");
    let p = Policies::with_l1(&text, 9).unwrap().decide_grant(&grant()).unwrap();
    assert_eq!((p.policy_version(), p.policies()), (9, &strings(&["a", "b"])[..]));
}
