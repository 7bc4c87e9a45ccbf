//! The page about tokens, followed word for word on a voter that has one.

use super::token::{fresh, module, root_key, with_token};
use crate::pages::{commands, shell};
use crate::world::{World, write_key};
use std::path::Path;

/// Types every command of `page`; what each printed.
fn follow(w: &World, conf: &Path, page: &str) -> Vec<String> {
    let typed = |line: String| {
        let line = line.replace("/usr/lib/softhsm/libsofthsm2.so", module());
        let o = shell(w, &line).env("SOFTHSM2_CONF", conf).output().unwrap();
        assert!(o.status.success(), "{page}: {line}: {}", String::from_utf8_lossy(&o.stderr));
        String::from_utf8(o.stdout).unwrap()
    };
    commands(page).into_iter().map(typed).collect()
}

#[test]
fn the_page_about_tokens_moves_a_root_in_and_out() {
    let (w, token) = with_token("", fresh, "");
    w.found();
    write_key(&w.path("hsm.pin"), super::token::PIN);
    let follow = |page| follow(&w, &token.conf(), page);
    let said = follow("hsm.md");
    assert!(said[0].contains("wrap"), "{said:?}");
    assert!(said.iter().any(|s| s.contains("hsm")), "{said:?}");
    assert_eq!(root_key(&w), "software");
}
