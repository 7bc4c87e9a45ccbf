//! An image whose content changed under its name.

use super::super::world::{World, eventually};
use super::orchestrator::Evil;
use super::{VALUE, assert_honest_work_goes_on, assert_untouched, node_ids};
use holdfast_wire::statement;
use holdfast_wire::v1::Grant;
use std::fs;
use std::path::PathBuf;

/// The blobs of the story's image in the order in which a node fetches them: manifest, configuration, layer. What it
/// has once seen to be genuine it does not fetch again.
fn blobs(w: &World) -> Vec<PathBuf> {
    let folder = w.path("busybox-image");
    let index: serde_json::Value = serde_json::from_slice(&fs::read(folder.join("index.json")).unwrap()).unwrap();
    let manifest = index["manifests"][0]["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    let blobs = fs::read_dir(folder.join("blobs/sha256")).unwrap();
    let mut all: Vec<PathBuf> = blobs.map(|e| e.unwrap().path()).collect();
    all.sort_by_key(|p| (!p.ends_with(&manifest), fs::metadata(p).unwrap().len()));
    all
}

#[test]
fn an_image_that_was_changed_at_its_source_is_never_run() {
    let mut w = World::everything();
    let evil = Evil::in_place_of_the_honest_one(&mut w);
    w.put_secret("shop/db-password", VALUE, &[]);
    w.ok(&["service", "deploy", "-f", &w.web_spec(1), "--detach"]);
    let node = node_ids(&w).remove(0);
    let blobs = blobs(&w);
    assert_eq!(blobs.len(), 3, "manifest, configuration and layer");
    for blob in &blobs {
        let genuine = fs::read(blob).unwrap();
        let mut changed = genuine.clone();
        // In a layer: inside the program; in the documents: a letter of a value.
        let at = genuine.len() / 2;
        changed[at] ^= 1;
        fs::write(blob, &changed).unwrap();
        let assign = evil.genuine(&node, "shop.web.1");
        let grant: Grant = statement::peek(assign.grant.as_ref().unwrap()).unwrap();
        // The assignment is in order; what is fetched for it is not.
        assert!(evil.assign(&node, &assign).accepted);
        // The vault hears of the end, and an orchestrator by the vault: what the node itself says is in its log.
        let id: String = grant.grant_id.iter().map(|b| format!("{b:02x}")).collect();
        let end = eventually("the end of the task", || {
            let log = w.agents[0].log_text();
            log.lines().find(|l| l.contains("task is over") && l.contains(&id)).map(str::to_owned)
        });
        let name = blob.file_name().unwrap().to_str().unwrap();
        assert!(end.contains(&format!("sha256:{name} is not what was asked for")), "{end}");
        assert_untouched(&w, 0);
        fs::write(blob, &genuine).unwrap();
    }
    drop(evil);
    assert_honest_work_goes_on(&mut w, 1);
}
