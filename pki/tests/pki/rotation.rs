//! A rotation of the root, seen by every verifier at each of its steps: ours, webpki alone, OpenSSL and GnuTLS.
//!
//! The chain is as the vault gives it to everybody: leaf, issuer, the signing root certified by each other root (the oldest of
//! those first), then the roots themselves.

use crate::interop::{path, run, wall_clock, write};
use crate::world::{CLUSTER, Ca, DAY, Key, given_root, id, new_ca_issuer, new_ca_root, private, serial, trust_domain};
use holdfast_pki::chain::{Anchors, ChainError, MAX_CHAIN, Usage, verify_by_anchor, verify_peer};
use holdfast_pki::export;
use holdfast_pki::issue::{IssuerCa, ROOT_LIFE, RootCa};
use holdfast_types::{Millis, sha256};
use rcgen::{BasicConstraints, IsCa, KeyUsagePurpose};
use rustls_pki_types::{CertificateDer, UnixTime};
use std::fs;
use std::time::Duration;

/// `of`, certified by `by`.
fn cross(of: &Ca, by: &Ca, now: Millis) -> Vec<u8> {
    RootCa::open(&by.der, &by.key).unwrap().cross(&of.der, serial(4), now).unwrap().der
}

/// The leaf of `who` below `root`, and its issuer.
fn leaf_and_issuer(who: &str, root: &Ca, now: Millis) -> [Vec<u8>; 2] {
    let issuer = new_ca_issuer(root, now);
    let ca = IssuerCa::open(&issuer.der, &issuer.key).unwrap();
    let leaf = ca.leaf(&Key::new().subject(), &id(who), serial(5), now, DAY).unwrap().der;
    [leaf, issuer.der]
}

/// What `who` shows below `signer`: `by` certified it, and `roots` follow.
fn shown(who: &str, signer: &Ca, by: &[&Ca], roots: &[&Ca], now: Millis) -> Vec<Vec<u8>> {
    let mut chain = leaf_and_issuer(who, signer, now).to_vec();
    chain.extend(by.iter().map(|r| cross(signer, r, now)));
    chain.extend(roots.iter().map(|r| r.der.clone()));
    chain
}

/// The same of a vault.
fn served(signer: &Ca, by: &[&Ca], roots: &[&Ca], now: Millis) -> Vec<Vec<u8>> {
    shown("vault/1", signer, by, roots, now)
}

type Roots = Vec<Vec<u8>>;

/// One step: what is shown, who has to believe it, who must not.
struct Step {
    name: &'static str,
    chain: Vec<Vec<u8>>,
    believers: Vec<Roots>,
    strangers: Vec<Roots>,
}

fn trusting(roots: &[&Ca]) -> Roots {
    roots.iter().map(|r| r.der.clone()).collect()
}

fn step(name: &'static str, chain: Vec<Vec<u8>>, believers: &[&[&Ca]], strangers: &[&[&Ca]]) -> Step {
    let each = |sets: &[&[&Ca]]| sets.iter().map(|roots| trusting(roots)).collect();
    Step { name, chain, believers: each(believers), strangers: each(strangers) }
}

/// From root `a` to `b`, and to `c` before the first was finished, with what `who` shows; `d` is never one of them.
fn steps(who: &str, [a, b, c, d]: [&Ca; 4], now: Millis) -> Vec<Step> {
    let shown = |signer: &Ca, by: &[&Ca], roots: &[&Ca]| shown(who, signer, by, roots, now);
    vec![
        step("stable", shown(a, &[], &[a]), &[&[a]], &[&[b], &[d]]),
        step("distributing", shown(a, &[b], &[a, b]), &[&[a], &[a, b], &[b]], &[&[d]]),
        step("reissuing", shown(b, &[a], &[b, a]), &[&[a], &[a, b], &[b]], &[&[d]]),
        step("not yet reissued", shown(a, &[], &[a, b]), &[&[a], &[a, b]], &[&[d]]),
        step(
            "second rotation midway",
            shown(c, &[a, b], &[c, a, b]),
            &[&[a], &[a, b], &[a, b, c], &[b, c], &[c]],
            &[&[d]],
        ),
        step("finished", shown(c, &[a, b], &[c, a, b]), &[&[c], &[a]], &[&[d]]),
        step("left behind", shown(a, &[], &[a]), &[&[a]], &[&[b], &[c], &[b, c]]),
    ]
}

/// Who is asked, and what he says of the chain under these roots in this use, in words if he refuses it.
type Verifier = fn(&[Vec<u8>], &[Vec<u8>], Millis, Usage) -> Result<(), String>;

const VERIFIERS: [(&str, Verifier); 4] =
    [("ours", ours), ("webpki", webpki_alone), ("openssl", openssl), ("gnutls", gnutls)];

fn certs(ders: &[Vec<u8>]) -> Vec<CertificateDer<'_>> {
    ders.iter().map(|d| CertificateDer::from(d.as_slice())).collect()
}

fn ours(chain: &[Vec<u8>], roots: &[Vec<u8>], now: Millis, usage: Usage) -> Result<(), String> {
    let anchors = Anchors::new(roots, trust_domain()).unwrap();
    verify_peer(&certs(chain), &anchors, now, usage).map(drop).map_err(|e| e.to_string())
}

fn webpki_alone(chain: &[Vec<u8>], roots: &[Vec<u8>], now: Millis, usage: Usage) -> Result<(), String> {
    let (chain, roots) = (certs(chain), certs(roots));
    let anchors: Vec<_> = roots.iter().map(|r| webpki::anchor_from_trusted_cert(r).unwrap()).collect();
    let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.secs()).unwrap()));
    let algorithms = [webpki::aws_lc_rs::ECDSA_P256_SHA256];
    let leaf = webpki::EndEntityCert::try_from(&chain[0]).unwrap();
    let usage = match usage {
        Usage::Client => webpki::KeyUsage::client_auth(),
        Usage::Server => webpki::KeyUsage::server_auth(),
    };
    let found = leaf.verify_for_usage(&algorithms, &anchors, &chain[1..], time, usage, None, None);
    found.map(drop).map_err(|e| e.to_string())
}

fn openssl(chain: &[Vec<u8>], roots: &[Vec<u8>], _: Millis, usage: Usage) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    // The trusted roots as they are exported.
    let trusted = dir.path().join("trusted.pem");
    fs::write(&trusted, export::pem(roots)).unwrap();
    let above: Vec<&[u8]> = chain[1..].iter().map(Vec::as_slice).collect();
    let above = write(dir.path(), "above.pem", &above);
    let leaf = write(dir.path(), "leaf.pem", &[&chain[0]]);
    let purpose = match usage {
        Usage::Client => "sslclient",
        Usage::Server => "sslserver",
    };
    let args = ["verify", "-x509_strict", "-check_ss_sig", "-purpose", purpose];
    let files = ["-CAfile", path(&trusted), "-untrusted", path(&above), path(&leaf)];
    let (good, text) = run("openssl", &[&args[..], &files].concat(), "apt-get install openssl");
    if good { Ok(()) } else { Err(text) }
}

fn gnutls(chain: &[Vec<u8>], roots: &[Vec<u8>], _: Millis, usage: Usage) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let trusted = dir.path().join("trusted.pem");
    fs::write(&trusted, export::pem(roots)).unwrap();
    let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
    let chain = write(dir.path(), "chain.pem", &chain);
    // RFC 5280, section 4.2.1.12.
    let purpose = match usage {
        Usage::Client => "--verify-purpose=1.3.6.1.5.5.7.3.2",
        Usage::Server => "--verify-purpose=1.3.6.1.5.5.7.3.1",
    };
    let args = ["--verify", purpose, "--load-ca-certificate", path(&trusted), "--infile", path(&chain)];
    let (good, text) = run("certtool", &args, "apt-get install gnutls-bin");
    if good && text.contains("Verified") { Ok(()) } else { Err(text) }
}

/// Has each verifier judge what `who` shows at each step, in this use.
fn judged(who: &str, usage: Usage, roots: [&Ca; 4], now: Millis) {
    for Step { name, chain, believers, strangers } in steps(who, roots, now) {
        assert!(chain.len() <= MAX_CHAIN, "{name}");
        for (by, judge) in VERIFIERS {
            for (i, roots) in believers.iter().enumerate() {
                assert_eq!(judge(&chain, roots, now, usage), Ok(()), "{who}, {name}: {by}, believer {i}");
            }
            for (i, roots) in strangers.iter().enumerate() {
                assert!(judge(&chain, roots, now, usage).is_err(), "{who}, {name}: {by}, stranger {i}");
            }
        }
    }
}

#[test]
fn every_step_of_a_rotation_is_believed_by_those_who_trust_a_root_of_it_and_by_nobody_else() {
    // The tools go by the machine's clock.
    let now = wall_clock();
    let roots = [0; 4].map(|_| new_ca_root(now, ROOT_LIFE));
    for who in ["vault/1", "orch/o1"] {
        judged(who, Usage::Server, roots.each_ref(), now);
    }
}

#[test]
fn every_step_of_a_rotation_is_believed_of_those_who_dial() {
    let now = wall_clock();
    let roots = [0; 4].map(|_| new_ca_root(now, ROOT_LIFE));
    for who in ["node/n1", "orch/o1", "op/ann"] {
        judged(who, Usage::Client, roots.each_ref(), now);
    }
    // Who has no open port is nobody's server, by whichever root.
    let [a, b, ..] = &roots;
    for who in ["node/n1", "op/ann"] {
        let chain = shown(who, b, &[a], &[b, a], now);
        for ((by, judge), root) in VERIFIERS.into_iter().flat_map(|v| [a, b].map(|root| (v, root))) {
            assert!(judge(&chain, std::slice::from_ref(&root.der), now, Usage::Server).is_err(), "{who}: {by}");
        }
    }
}

#[test]
fn every_step_to_and_from_a_given_root_is_believed_like_those_between_our_own() {
    let now = wall_clock();
    let wide = given_root(now, |p| {
        p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        p.key_usages.push(KeyUsagePurpose::DigitalSignature);
        p.use_authority_key_identifier_extension = true;
        p.custom_extensions.push(private());
    });
    let long = given_root(now, |p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(3)));
    let [first, second] = [0; 2].map(|_| new_ca_root(now, ROOT_LIFE));
    for roots in [[&wide, &first, &long, &second], [&first, &wide, &second, &long]] {
        judged("vault/1", Usage::Server, roots, now);
        judged("node/n1", Usage::Client, roots, now);
    }
}

#[test]
fn a_join_token_of_any_root_in_the_chain_leads_to_the_vault() {
    let now = wall_clock();
    let [a, b, c] = [0; 3].map(|_| new_ca_root(now, ROOT_LIFE));
    let chain = served(&c, &[&a, &b], &[&c, &a, &b], now);
    for root in [&a, &b, &c] {
        let (cluster, peer) = verify_by_anchor(&certs(&chain), &CLUSTER.anchor(&root.der), now).unwrap();
        assert_eq!((cluster, peer.id, peer.root_sha256), (CLUSTER, id("vault/1"), sha256(&[&root.der])));
    }
    // A root in the chain that certified nothing of it is an anchor of nothing.
    let unrelated = new_ca_root(now, ROOT_LIFE);
    let beside = [chain, vec![unrelated.der.clone()]].concat();
    let refused = verify_by_anchor(&certs(&beside), &CLUSTER.anchor(&unrelated.der), now);
    assert_eq!(refused, Err(ChainError::BadSignature));
}

#[test]
fn what_is_over_in_a_chain_does_not_hurt_who_needs_it_not() {
    let now = wall_clock();
    let (old, new) = (new_ca_root(now.minus(10 * DAY), 5 * DAY), new_ca_root(now.minus(10 * DAY), ROOT_LIFE));
    let over = cross(&new, &old, now.minus(8 * DAY));
    let [leaf, issuer] = leaf_and_issuer("vault/1", &new, now);
    let chain = [leaf, issuer, over, new.der.clone(), old.der.clone()];
    assert_eq!(ours(&chain, std::slice::from_ref(&new.der), now, Usage::Server), Ok(()));
    assert_eq!(ours(&chain, &[old.der.clone(), new.der.clone()], now, Usage::Server), Ok(()));
    let anchors = Anchors::new(&[&old.der], trust_domain()).unwrap();
    let refused = verify_peer(&certs(&chain), &anchors, now, Usage::Server).unwrap_err();
    assert!(matches!(refused, ChainError::NoLiveRoot { .. }), "{refused}");
    // An expired root that is only served is not what is wrong with a chain of strangers.
    let stranger = Anchors::new(&[&new_ca_root(now, ROOT_LIFE).der], trust_domain()).unwrap();
    let beside: Vec<_> = [&chain[..2], &chain[3..]].concat();
    assert_eq!(verify_peer(&certs(&beside), &stranger, now, Usage::Server), Err(ChainError::BadSignature));
}

/// One cross-certificate is a step from one root to the next. Who slept through two rotations follows the Bundles.
#[test]
fn no_path_leads_over_two_cross_certificates() {
    let now = wall_clock();
    let [a, b, c] = [0; 3].map(|_| new_ca_root(now, ROOT_LIFE));
    let mut chain = served(&c, &[&b], &[], now);
    chain.push(cross(&b, &a, now));
    assert_eq!(ours(&chain, std::slice::from_ref(&b.der), now, Usage::Server), Ok(()));
    assert!(ours(&chain, std::slice::from_ref(&a.der), now, Usage::Server).is_err());
    assert!(webpki_alone(&chain, std::slice::from_ref(&a.der), now, Usage::Server).is_err());
}

#[test]
fn the_longest_chain_of_strangers_is_refused_for_its_signature_and_not_for_the_work_it_makes() {
    let now = wall_clock();
    let [a, b, c, d] = [0; 4].map(|_| new_ca_root(now, ROOT_LIFE));
    let chain = served(&d, &[&a, &b, &c], &[&d, &a, &b, &c], now);
    assert_eq!(chain.len(), MAX_CHAIN - 1);
    let strangers = [0; 3].map(|_| new_ca_root(now, ROOT_LIFE).der);
    let anchors = Anchors::new(&strangers, trust_domain()).unwrap();
    assert_eq!(verify_peer(&certs(&chain), &anchors, now, Usage::Server), Err(ChainError::BadSignature));
}
