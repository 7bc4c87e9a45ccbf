//! What an orchestrator makes of documents that it is shown, on disk.

use super::*;
use holdfast_types::Millis;
use holdfast_wire::v1::Bundle;

#[path = "../core/tests/verify/world/mod.rs"]
#[allow(dead_code, reason = "the world of another crate's tests, of which these need a part")]
mod world;
use world::next::Next;
use world::{NOW, RootKey, Scene, hash, signed, who};

fn opened(dir: &std::path::Path) -> Believed {
    let state = StateDir::open(dir).unwrap();
    let file = state.load().unwrap().unwrap();
    Believed::open(state, file).unwrap()
}

/// An orchestrator that joined the honest world.
fn joined(dir: &std::path::Path, scene: &Scene) -> Believed {
    let saved = scene.trust.saved();
    let (charters, bundles) = (saved.charters, saved.bundles);
    let file = ClusterFile { anchor: saved.anchor.to_vec(), charters, bundles, ..ClusterFile::default() };
    StateDir::open(dir).unwrap().save(&file).unwrap();
    opened(dir)
}

/// The bundles after the one in force, in which `new` takes the place of the scene's root.
fn rotated(scene: &Scene, new: &RootKey) -> Vec<Statement> {
    let der = new.certificate(&scene.cluster);
    let old = scene.trust.bundle().roots.clone();
    let mut chain = scene.trust.saved().bundles;
    for (epoch, roots) in [(11, [old, vec![der.clone()]].concat()), (12, vec![der.clone()])] {
        let prev_sha256 = hash(chain.last().unwrap()).to_vec();
        chain.push(scene.root.sign_bundle(&Bundle { epoch, roots, prev_sha256, ..scene.trust.bundle().clone() }));
    }
    chain
}

#[test]
fn a_rotation_that_is_shown_is_followed_kept_and_told() {
    let (dir, scene) = (tempfile::tempdir().unwrap(), Scene::honest());
    let chain = rotated(&scene, &RootKey::new());
    let mut believed = joined(dir.path(), &scene);
    let mut epoch = believed.epoch();
    assert_eq!(*epoch.borrow_and_update(), 10);
    assert!(believed.adopt(&[], &chain).unwrap());
    assert!(epoch.has_changed().unwrap());
    assert_eq!(*epoch.borrow_and_update(), 12);
    assert!(!believed.adopt(&[], &chain).unwrap() && !epoch.has_changed().unwrap());
    drop(believed);
    assert_eq!(*opened(dir.path()).epoch().borrow(), 12);
}

#[test]
fn only_a_status_that_names_a_bundle_never_seen_is_a_hint() {
    let (dir, scene) = (tempfile::tempdir().unwrap(), Scene::honest());
    let chain = rotated(&scene, &RootKey::new());
    let naming = |bundle: &Statement| Some(scene.status(|s| s.bundle_sha256 = hash(bundle).to_vec()));
    let mut believed = joined(dir.path(), &scene);
    assert!(!believed.is_behind(&None) && !believed.is_behind(&naming(&chain[0])));
    assert!(believed.is_behind(&naming(&chain[1])));
    believed.adopt(&[], &chain).unwrap();
    // Regression: one from before the bundle in force made us fetch the documents again and again.
    assert!(chain.iter().all(|bundle| !believed.is_behind(&naming(bundle))));
}

#[test]
fn where_the_vault_says_that_it_is_with_a_renewal_is_kept_and_dialled_first() {
    let (dir, scene) = (tempfile::tempdir().unwrap(), Scene::honest());
    let mut believed = joined(dir.path(), &scene);
    let tls = ClientTls::rejoin(believed.tls());
    let dialer = Dialer::new(["old:7401".to_owned()], tls, Timing::default());
    let named = |addrs: &[&str]| addrs.iter().map(|a| (*a).to_owned()).collect::<Vec<String>>();
    let told = |service: &[&str], join: &[&str]| Told { service_addrs: named(service), join_addrs: named(join) };
    believed.learn(&told(&["a:7401", "b:7401"], &["a:7400"]), &dialer).unwrap();
    assert_eq!(dialer.addrs(), ["a:7401", "b:7401", "old:7401"]);
    let kept = |dir: &std::path::Path| StateDir::open(dir).unwrap().load().unwrap().unwrap();
    // A vault that knows of none says none, and that is no news.
    believed.learn(&told(&["b:7401"], &[]), &dialer).unwrap();
    drop(believed);
    let file = kept(dir.path());
    assert_eq!((file.service_addrs, file.join_addrs), (named(&["b:7401", "a:7401"]), named(&["a:7400"])));
    // A voter in other hands names none that is of the vault: those that are known stay, to be dialled after them.
    let mut believed = opened(dir.path());
    let lies: Vec<String> = (0..100).map(|n| format!("thief-{n}:7401")).collect();
    believed.learn(&Told { service_addrs: lies.clone(), join_addrs: lies }, &dialer).unwrap();
    drop(believed);
    let file = kept(dir.path());
    assert!(file.service_addrs.ends_with(&named(&["b:7401", "a:7401"])), "{:?}", file.service_addrs);
    assert!(file.join_addrs.ends_with(&named(&["a:7400"])), "{:?}", file.join_addrs);
    assert!(dialer.addrs().ends_with(&named(&["b:7401", "a:7401", "old:7401"])), "{:?}", dialer.addrs());
}

#[test]
fn who_was_revoked_in_the_era_before_is_shown_to_the_vault_of_the_next_one_once() {
    let (dir, scene) = (tempfile::tempdir().unwrap(), Scene::honest());
    let mut believed = joined(dir.path(), &scene);
    let list = Revocations { cluster_id: scene.cluster.0.to_vec(), era: 1, epoch: 11, ..Revocations::default() };
    let list = signed(&list, &[who::STK]);
    assert!(believed.trust.remember_revocations(Millis(NOW), &list).unwrap());
    let (before, bundles) = (believed.before(), scene.trust.saved().bundles);
    assert_eq!(before.to_show(), None);
    assert!(believed.begin_era(&Next::after(&scene).shown(&scene, &[1, 2])).unwrap());
    let held = before.to_show().unwrap();
    assert_eq!((held.revocations.as_ref(), &held.bundle_chain), (Some(&list), &bundles));
    // An answer to what was shown before that is none to this.
    before.was_shown(None);
    assert_eq!(before.to_show().as_ref(), Some(&held));
    before.was_shown(Some(&held));
    assert_eq!(before.to_show(), None);
}

#[test]
fn revocations_that_are_not_believed_yet_are_looked_at_again_with_the_next_bundle() {
    let (dir, scene) = (tempfile::tempdir().unwrap(), Scene::honest());
    let mut believed = joined(dir.path(), &scene);
    let list = Revocations { cluster_id: scene.cluster.0.to_vec(), era: 1, epoch: 13, ..Revocations::default() };
    let list = signed(&list, &[who::STRANGER]);
    believed.remember(Some(list.clone()));
    assert_eq!(believed.unproven, Some(list.clone()));
    // The bundle that lists its key, for the time that it is now.
    let old = scene.trust.bundle().clone();
    let stks = vec![world::stk(who::STRANGER, 0, i64::MAX)];
    let prev_sha256 = hash(scene.trust.saved().bundles.last().unwrap()).to_vec();
    let next = scene.root.sign_bundle(&Bundle { epoch: 11, stks, prev_sha256, ..old });
    assert!(believed.adopt(&[], &[next]).unwrap());
    assert_eq!(believed.unproven, None);
    assert!(believed.begin_era(&Next::after(&scene).shown(&scene, &[1, 2])).unwrap());
    assert_eq!(believed.before().to_show().unwrap().revocations, Some(list));
}
