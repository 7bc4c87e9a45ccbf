//! What a statement says, field by field. Every field is named in a pattern, so that one that is added and not shown does not
//! compile: nobody signs what he was not shown.

use crate::output::time;
use crate::verbs::service::spec_document;
use data_encoding::HEXLOWER;
use holdfast_wire::signed::Signed;
use holdfast_wire::v1;
use serde_json::{Value, json};
use v1::command::Action;

fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

/// The content as a document.
pub fn content(signed: &Signed) -> Value {
    match signed {
        Signed::Charter(c) => charter(c),
        Signed::Spec(s) => {
            let mut document = spec_document(s, &[], "");
            if let Value::Object(map) = &mut document {
                map.remove("signed_by");
                map.remove("spec_sha256");
                map.insert("cluster_id".to_owned(), hex(&s.cluster_id).into());
            }
            document
        }
        Signed::Voucher(v) => {
            let v1::Voucher { cluster_id, repository, digest, issued_at_ms } = &**v;
            json!({
                "cluster_id": hex(cluster_id), "repository": repository, "digest": format!("sha256:{}", hex(digest)),
                "issued_at": time(*issued_at_ms),
            })
        }
        Signed::Mandate(m) => mandate(m),
        Signed::Command(c) => {
            let v1::Command { cluster_id, era, command_id, expires_at_ms, expect_rev, action } = &**c;
            let (verb, says) = action.as_ref().map_or(("nothing", json!({})), said);
            json!({
                "cluster_id": hex(cluster_id), "era": era, "command_id": hex(command_id), "expires_at": time(*expires_at_ms),
                "expect_rev": expect_rev, "action": verb, "says": says,
            })
        }
    }
}

fn mandate(m: &v1::Mandate) -> Value {
    let v1::Mandate {
        cluster_id,
        era,
        mandate_id,
        orchestrators,
        namespaces,
        zones,
        not_after_ms,
        grants_per_minute,
        novelty_per_hour,
    } = m;
    json!({
        "cluster_id": hex(cluster_id), "era": era, "id": mandate_id, "orchestrators": orchestrators,
        "namespaces": namespaces, "zones": zones, "not_after": time(*not_after_ms),
        "grants_per_minute": grants_per_minute, "novelty_per_hour": novelty_per_hour,
    })
}

fn key(k: Option<&v1::PublicKey>) -> Value {
    k.map_or(Value::Null, |v1::PublicKey { alg, key }| json!({"alg": alg, "key": hex(key)}))
}

fn charter(c: &v1::Charter) -> Value {
    let v1::Charter {
        version,
        prev_sha256,
        founding_nonce,
        trust_domain,
        operators,
        thresholds,
        publishers,
        witnesses,
        witness_quorum,
        receipt_mode,
        recovery,
        limits,
    } = c;
    let operator = |o: &v1::Operator| json!({"id": o.id, "key": key(o.key.as_ref()), "roles": o.roles, "owns": o.owns});
    let publisher = |p: &v1::Publisher| {
        let keys: Vec<Value> = p.keys.iter().map(|k| key(Some(k))).collect();
        json!({"id": p.id, "keys": keys, "threshold": p.threshold, "repo_prefixes": p.repo_prefixes})
    };
    let witness = |w: &v1::WitnessKey| json!({"name": w.name, "key": key(w.key.as_ref())});
    let recovery = recovery.as_ref().map(|r| {
        let digests: Vec<String> = r.share_digests.iter().map(|d| hex(d)).collect();
        json!({"public": hex(&r.public_key), "threshold": r.k, "shares": r.n, "share_digests": digests})
    });
    let limits = limits
        .as_ref()
        .map(|l| json!({"max_leaf_s": l.max_leaf_s, "max_lease_s": l.max_lease_s, "max_grace_s": l.max_grace_s}));
    let threshold = |t: &v1::Threshold| json!({"action": t.action, "k": t.k});
    json!({
        "version": version, "prev_sha256": hex(prev_sha256), "founding_nonce": hex(founding_nonce),
        "trust_domain": trust_domain, "operators": operators.iter().map(operator).collect::<Vec<_>>(),
        "thresholds": thresholds.iter().map(threshold).collect::<Vec<_>>(),
        "publishers": publishers.iter().map(publisher).collect::<Vec<_>>(),
        "witnesses": witnesses.iter().map(witness).collect::<Vec<_>>(), "witness_quorum": witness_quorum,
        "receipt_mode": receipt_mode, "recovery": recovery, "limits": limits,
    })
}

/// What a command orders: its word and its fields. First what concerns services, secrets and machines.
fn said(action: &Action) -> (&'static str, Value) {
    match action {
        Action::PutSecret(v1::PutSecret { namespace, name, version, box_sha256, readers, zones, attested_only }) => (
            "put-secret",
            json!({
                "secret": format!("{namespace}/{name}"), "version": version, "readers": readers, "zones": zones,
                "attested_only": attested_only, "box_sha256": hex(box_sha256),
            }),
        ),
        Action::DeleteSecret(v1::DeleteSecret { namespace, name }) => {
            ("delete-secret", json!({"secret": format!("{namespace}/{name}")}))
        }
        Action::MintToken(v1::MintToken {
            token_id,
            role,
            expires_at_ms,
            uses,
            zone,
            labels,
            box_sha256,
            approval,
        }) => (
            "mint-token",
            json!({
                "id": hex(token_id), "role": role, "expires_at": time(*expires_at_ms), "uses": uses, "zone": zone,
                "labels": labels, "approval": approval, "box_sha256": hex(box_sha256),
            }),
        ),
        Action::RevokeToken(v1::RevokeToken { token_id }) => ("revoke-token", json!({"id": hex(token_id)})),
        Action::ApproveIdentity(v1::ApproveIdentity { id, spki_sha256 }) => {
            ("approve", json!({"id": id, "key": hex(spki_sha256)}))
        }
        Action::ReleaseIdentity(v1::ReleaseIdentity { id, spki_sha256 }) => {
            ("release-from-quarantine", json!({"id": id, "key": hex(spki_sha256)}))
        }
        Action::RemoveNode(v1::RemoveNode { id }) => ("remove", json!({"id": id})),
        Action::SetDrain(v1::SetDrain { id, drain }) => ("drain", json!({"id": id, "drain": drain})),
        Action::SetPlace(v1::SetPlace { id, zone, labels }) => {
            ("set-place", json!({"id": id, "zone": zone, "labels": labels}))
        }
        Action::QuarantineNode(v1::QuarantineNode { id, reason }) => {
            ("quarantine", json!({"id": id, "reason": reason}))
        }
        Action::RemoveService(v1::RemoveService { namespace, service }) => {
            ("remove-service", json!({"service": format!("{namespace}/{service}")}))
        }
        Action::RevokeMandate(v1::RevokeMandate { mandate_id }) => ("revoke-mandate", json!({"id": mandate_id})),
        Action::RevokeGrant(v1::RevokeGrant { grant_id }) => ("revoke-grant", json!({"id": hex(grant_id)})),
        Action::Lockdown(v1::Lockdown { reason }) => ("lockdown", json!({"reason": reason})),
        Action::Release(v1::Release { reason }) => ("release", json!({"reason": reason})),
        Action::DenyDigest(v1::DenyDigest { digest, reason }) => {
            ("deny-image", json!({"digest": format!("sha256:{}", hex(digest)), "reason": reason}))
        }
        Action::AllowDigest(v1::AllowDigest { digest }) => {
            ("allow-image", json!({"digest": format!("sha256:{}", hex(digest))}))
        }
        Action::ApprovePlacement(v1::ApprovePlacement { namespace, service, node_id }) => {
            ("approve-placement", json!({"service": format!("{namespace}/{service}"), "node": node_id}))
        }
        Action::AdmitVoter(_)
        | Action::EvictVoter(_)
        | Action::UnlockPrepare(_)
        | Action::UnlockFinalize(_)
        | Action::AutolockOff(_)
        | Action::RotateKeyring(_)
        | Action::RotateDiskKeys(_)
        | Action::RotateRoot(_)
        | Action::AbortRoot(_)
        | Action::InstallIssuer(_) => of_the_vault(action),
    }
}

/// What concerns the vault itself: its voters, keys and roots.
fn of_the_vault(action: &Action) -> (&'static str, Value) {
    match action {
        Action::AdmitVoter(v1::AdmitVoter { id, spki_sha256 }) => {
            ("admit-voter", json!({"id": id, "key": hex(spki_sha256)}))
        }
        Action::EvictVoter(v1::EvictVoter { voter_id, compromised }) => {
            ("evict-voter", json!({"voter": voter_id, "compromised": compromised}))
        }
        Action::UnlockPrepare(v1::UnlockPrepare { epoch, pk, chain, threshold, share_digests, compromised }) => {
            let digests: Vec<String> = share_digests.iter().map(|d| hex(d)).collect();
            let says = json!({
                "epoch": epoch, "public": hex(pk), "chain": hex(chain), "threshold": threshold,
                "share_digests": digests, "compromised": compromised,
            });
            ("prepare-unlock-key", says)
        }
        Action::UnlockFinalize(v1::UnlockFinalize { epoch }) => ("finalize-unlock-key", json!({"epoch": epoch})),
        Action::AutolockOff(v1::AutolockOff {}) => ("autolock-off", json!({})),
        Action::RotateKeyring(v1::RotateKeyring {}) => ("rotate-keyring", json!({})),
        Action::RotateDiskKeys(v1::RotateDiskKeys {}) => ("rotate-disk-keys", json!({})),
        Action::RotateRoot(v1::RotateRoot { kind, cert, box_sha256, key, without_old }) => {
            let says = json!({
                "kind": kind, "cert": hex(cert), "box_sha256": hex(box_sha256), "key": key, "without_old_root": without_old,
            });
            ("rotate-root", says)
        }
        Action::AbortRoot(v1::AbortRoot { key_is_gone }) => ("abort-root", json!({"key_is_gone": key_is_gone})),
        Action::InstallIssuer(v1::InstallIssuer { issuer, bundle }) => {
            let bundle = bundle.as_ref().map(|b| hex(&b.payload));
            ("install-issuer", json!({"issuer": hex(issuer), "bundle": bundle}))
        }
        Action::PutSecret(_)
        | Action::DeleteSecret(_)
        | Action::MintToken(_)
        | Action::RevokeToken(_)
        | Action::ApproveIdentity(_)
        | Action::ReleaseIdentity(_)
        | Action::RemoveNode(_)
        | Action::SetDrain(_)
        | Action::SetPlace(_)
        | Action::QuarantineNode(_)
        | Action::RemoveService(_)
        | Action::RevokeMandate(_)
        | Action::RevokeGrant(_)
        | Action::Lockdown(_)
        | Action::Release(_)
        | Action::DenyDigest(_)
        | Action::AllowDigest(_)
        | Action::ApprovePlacement(_) => ("nothing", json!({})),
    }
}
