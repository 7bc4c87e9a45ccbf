//! A root whose key is nowhere near the cluster: what it is to sign is carried to it in a file, and what it signed is carried
//! back in another. Both are documents that can be read before they are signed.

use super::{Existing, give, hex, is_stable, show, view, wait};
use crate::app::App;
use crate::args::{SignIssuer, SignTo};
use crate::client::Cluster;
use crate::clock;
use crate::errors::{Code, Failure};
use crate::files;
use crate::pems;
use crate::signing;
use data_encoding::BASE64;
use holdfast_pki::bundle::verify_bundle;
use holdfast_pki::csr::Request as Csr;
use holdfast_pki::issue::{RootCa, cluster_of_root};
use holdfast_pki::keys::{CertSigner, RootStatementSigner, SubjectKey};
use holdfast_transport::keys::PrivateKey;
use holdfast_types::{ClusterId, Millis, sha256};
use holdfast_wire::keys::SignError;
use holdfast_wire::{statement, strict, v1};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::Path;
use std::time::Duration;
use v1::command::Action;

/// Longest document.
const MAX: u64 = 1 << 20;
const DAY: Duration = Duration::from_secs(86_400);

/// What `root csr` writes: base64 of a PKCS#10 request and of the next bundle.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ToSign {
    holdfast: String,
    cluster_id: String,
    issuer_request: String,
    next_bundle: String,
}

/// What `root sign` writes: base64 of the issuer's certificate and of the bundle's statement.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    holdfast: String,
    cluster_id: String,
    issuer: String,
    bundle: String,
}

const TO_SIGN: &str = "root-request/1";
const SIGNED: &str = "root-answer/1";

/// `root csr`.
pub async fn csr(app: &App, out: Option<&Path>) -> Result<(), Failure> {
    let c = Cluster::connect(app).await?;
    let v = view(&c).await?;
    let Some(bundle) = v.next_bundle.filter(|_| !v.issuer_csr.is_empty()) else {
        let help = "order such a root with `holdfast root rotate --ca-cert FILE --offline`";
        return Err(Failure::new(Code::Changed, "no offline root is to sign anything now", help));
    };
    let document = ToSign {
        holdfast: TO_SIGN.to_owned(),
        cluster_id: c.ctx.cluster.hex(),
        issuer_request: BASE64.encode(&v.issuer_csr),
        next_bundle: BASE64.encode(&bundle.encode_to_vec()),
    };
    give(app, out, &text(&document)?, Existing::Kept)
}

/// `root sign`: needs nothing but its files.
pub fn sign(app: &App, a: &SignIssuer) -> Result<(), Failure> {
    let asked: ToSign = read(&a.request, TO_SIGN, |d: &ToSign| &d.holdfast)?;
    let root = pems::certificate(&a.ca_cert)?;
    let key = pems::private_key(&a.ca_key)?;
    let key = PrivateKey::from_pkcs8(&key).map_err(|e| invalid(e, "give the root's P-256 key"))?;
    let life = DAY * a.days;
    let signed = signed(&asked, &root, &RootKey(key), life, clock::random()?)?;
    let bundle: v1::Bundle = strict::decode(&decoded(&asked.next_bundle)?, usize::MAX).map_err(damaged)?;
    told(&bundle, &root).iter().for_each(|line| app.out.note(line));
    give(app, a.out.as_deref(), &text(&signed)?, Existing::Kept)
}

/// What was signed, in words: whoever asked for it may be a thief, and a root that is listed is trusted by everybody.
fn told(bundle: &v1::Bundle, root: &[u8]) -> Vec<String> {
    let roots = bundle.roots.iter().map(|r| {
        let which = if r == root { "this one" } else { "another one: know it before the answer is carried back" };
        format!("  root {}, {which}", hex(&sha256(&[r]).0))
    });
    let key = |s: &v1::Stk| s.key.as_ref().map(|k| hex(&k.key)).unwrap_or_default();
    let stks = bundle.stks.iter().map(|s| format!("  statement key {}, until {}", key(s), Millis(s.until_ms)));
    let head = format!("signed: the bundle of era {}, epoch {}, by which are trusted", bundle.era, bundle.epoch);
    std::iter::once(head).chain(roots).chain(stks).collect()
}

/// The private key of an offline root.
struct RootKey(PrivateKey);

impl CertSigner for RootKey {
    fn sec1(&self) -> Vec<u8> {
        let public = SubjectKey::from_spki(self.0.spki_der()).ok();
        public.and_then(|k| k.sec1().map(<[u8]>::to_vec)).unwrap_or_default()
    }
    fn sign(&self, msg: &[u8]) -> Result<Vec<u8>, SignError> {
        self.0.sign(msg).map_err(|e| SignError(e.to_string()))
    }
}

/// Signs an issuer and a bundle, after looking whether both are of the root's own cluster and the bundle keeps the root.
fn signed(
    asked: &ToSign,
    root: &[u8],
    key: &dyn CertSigner,
    life: Duration,
    serial: [u8; 16],
) -> Result<Signed, Failure> {
    let cluster = cluster_of_root(root).ok_or_else(|| {
        invalid("the certificate is no root of a cluster", "see docs/operations/rotate-root.md for the form of a root")
    })?;
    let other = || {
        invalid(
            "the request is not of the root's cluster, or does not keep the root",
            "give what `root csr` wrote and the root that it waits for",
        )
    };
    if ClusterId::parse(&asked.cluster_id) != Some(cluster) {
        return Err(other());
    }
    let ca = RootCa::open(root, key).map_err(|e| invalid(e, "give the root's own certificate and key"))?;
    let request = Csr::parse(&decoded(&asked.issuer_request)?).map_err(damaged)?;
    let bundle: v1::Bundle = strict::decode(&decoded(&asked.next_bundle)?, usize::MAX).map_err(damaged)?;
    let issuer = ca.issuer(request.key(), serial, clock::now(), life).map_err(damaged)?;
    let st = statement::sign(&bundle, &[&RootStatementSigner(key)]).map_err(damaged)?;
    verify_bundle(&st, &[root], &cluster).map_err(damaged)?;
    if bundle.cluster_id != cluster.0 || !bundle.roots.iter().any(|r| r == root) {
        return Err(other());
    }
    Ok(Signed {
        holdfast: SIGNED.to_owned(),
        cluster_id: cluster.hex(),
        issuer: BASE64.encode(&issuer.der),
        bundle: BASE64.encode(&st.encode_to_vec()),
    })
}

/// `root install`.
pub async fn install(app: &App, path: &Path, detach: bool, to: &SignTo) -> Result<(), Failure> {
    let answer: Signed = read(path, SIGNED, |d: &Signed| &d.holdfast)?;
    let mut c = Cluster::connect(app).await?;
    if answer.cluster_id != c.ctx.cluster.hex() {
        return Err(invalid("this was signed for another cluster", "name its context with --context"));
    }
    let bundle: v1::Statement = strict::decode(&decoded(&answer.bundle)?, usize::MAX).map_err(damaged)?;
    let issuer = decoded(&answer.issuer)?;
    let install = Action::InstallIssuer(v1::InstallIssuer { issuer, bundle: Some(bundle) });
    if signing::command(app, &c, to, install).await?.is_none() {
        return Ok(());
    }
    if detach {
        let line = "the issuer is installed: see `holdfast root status`";
        return app.out.done(&json!({"installed": true}), line);
    }
    let v = view(&c).await?;
    if is_stable(&v) { show(app, &v) } else { wait(app, &mut c, is_stable).await }
}

fn text<T: Serialize>(document: &T) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(document).map_err(damaged)?;
    Ok(text + "\n")
}

fn read<T: serde::de::DeserializeOwned>(path: &Path, kind: &str, of: impl Fn(&T) -> &String) -> Result<T, Failure> {
    let bytes = files::read(path, MAX)?;
    let no_such = |why: String| {
        let what = format!("{} is no document of the form {kind}{why}", path.display());
        invalid(what, "`root sign` takes what `root csr` wrote, `root install` what `root sign` wrote")
    };
    let document: T = serde_json::from_slice(&bytes).map_err(|e| no_such(format!(": {e}")))?;
    if of(&document) == kind { Ok(document) } else { Err(no_such(String::new())) }
}

fn decoded(text: &str) -> Result<Vec<u8>, Failure> {
    BASE64.decode(text.as_bytes()).map_err(damaged)
}

fn damaged(e: impl std::fmt::Display) -> Failure {
    invalid(
        format!("the document cannot be used: {e}"),
        "write it anew: what is to be signed with `holdfast root csr`, what was signed with `holdfast root sign`",
    )
}

fn invalid(what: impl std::fmt::Display, help: &str) -> Failure {
    Failure::new(Code::InvalidInput, what, help)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::Operator;
    use holdfast_pki::issue::{IssuerCa, ROOT_LIFE, new_root};
    use holdfast_wire::keys::StatementSigner as _;

    fn key() -> RootKey {
        RootKey(PrivateKey::generate().unwrap())
    }

    fn asked(cluster: &ClusterId, roots: Vec<Vec<u8>>, issuer: &RootKey) -> ToSign {
        let stk = Operator::generate("stk").unwrap().key.public();
        let bundle = v1::Bundle {
            cluster_id: cluster.0.to_vec(),
            era: 1,
            epoch: 2,
            roots,
            stks: vec![v1::Stk { key: Some(stk), from_ms: 1, until_ms: 2 }],
            intake_pk: vec![6; 32],
            prev_sha256: vec![7; 32],
            ..v1::Bundle::default()
        };
        ToSign {
            holdfast: TO_SIGN.to_owned(),
            cluster_id: cluster.hex(),
            issuer_request: BASE64.encode(&issuer.0.csr().unwrap()),
            next_bundle: BASE64.encode(&bundle.encode_to_vec()),
        }
    }

    #[test]
    fn what_is_no_document_of_ours_is_refused_by_its_name_and_what_was_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        for other in ["no JSON", "{}", r#"{"holdfast":"x","cluster_id":"","issuer":"","bundle":""}"#] {
            std::fs::write(&path, other).unwrap();
            let f = read(&path, SIGNED, |d: &Signed| &d.holdfast).unwrap_err();
            assert!(f.message.contains("a.json is no document of the form root-answer/1"), "{}", f.message);
            assert!(f.exit_code() == 2 && f.help.contains("`root install` what `root sign` wrote"), "{}", f.help);
        }
    }

    #[test]
    fn whoever_signs_is_told_which_roots_and_statement_keys_everybody_will_trust() {
        let cluster = ClusterId::of_charter(b"one");
        let made = || new_root(&key(), &cluster, [5; 16], clock::now(), ROOT_LIFE).unwrap().der;
        let (root, other) = (made(), made());
        let asked = asked(&cluster, vec![root.clone(), other.clone()], &key());
        let bytes = BASE64.decode(asked.next_bundle.as_bytes()).unwrap();
        let bundle: v1::Bundle = strict::decode(&bytes, usize::MAX).unwrap();
        let lines = told(&bundle, &root);
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(lines[0].contains("era 1, epoch 2"), "{lines:?}");
        assert!(lines[1].contains(&hex(&sha256(&[&root]).0)) && lines[1].contains("this one"), "{lines:?}");
        assert!(lines[2].contains(&hex(&sha256(&[&other]).0)) && lines[2].contains("another one"), "{lines:?}");
        assert!(lines[3].contains("statement key"), "{lines:?}");
    }

    #[test]
    fn an_offline_root_signs_an_issuer_and_a_bundle_of_its_own_cluster_and_nothing_else() {
        let cluster = ClusterId::of_charter(b"one");
        let (root, issuer) = (key(), key());
        let der = new_root(&root, &cluster, [5; 16], clock::now(), ROOT_LIFE).unwrap().der;
        let good = asked(&cluster, vec![der.clone()], &issuer);
        let answer = signed(&good, &der, &root, DAY, [6; 16]).unwrap();
        IssuerCa::open(&BASE64.decode(answer.issuer.as_bytes()).unwrap(), issuer).unwrap();
        let st: v1::Statement = strict::decode(&BASE64.decode(answer.bundle.as_bytes()).unwrap(), usize::MAX).unwrap();
        assert_eq!(verify_bundle(&st, &[&der], &cluster).unwrap().doc.epoch, 2);

        let other = ClusterId::of_charter(b"two");
        let foreign = asked(&other, vec![der.clone()], &key());
        let refusal = |asked: &ToSign, key: &RootKey| signed(asked, &der, key, DAY, [6; 16]).unwrap_err().message;
        assert!(refusal(&foreign, &root).contains("not of the root's cluster"));
        let second = key();
        let without = new_root(&second, &cluster, [5; 16], clock::now(), ROOT_LIFE).unwrap().der;
        let gone = asked(&cluster, vec![without], &key());
        assert!(refusal(&gone, &root).contains("does not keep the root"));
        assert!(refusal(&good, &second).contains("does not belong to the CA certificate"));
    }
}
