//! One lie, and who must notice it.

use crate::world::{Scene, World};
use holdfast_wire::v1;

/// Asserts that the world is refused by `check` with `code`.
#[track_caller]
pub fn refused(w: World, check: u8, code: &str) {
    let r = w.build().verify().unwrap_err();
    assert_eq!((r.check, r.code), (check, code), "{r}");
}
/// Refused when the lie is told after everything was signed.
#[track_caller]
pub fn tampered(edit: fn(&mut Scene), check: u8, code: &str) {
    refused(World { edit_scene: edit, ..World::default() }, check, code);
}
#[track_caller]
pub fn granted(edit: fn(&mut v1::Grant), check: u8, code: &str) {
    refused(World { edit_grant: edit, ..World::default() }, check, code);
}
#[track_caller]
pub fn specified(edit: fn(&mut v1::Spec), check: u8, code: &str) {
    refused(World { edit_spec: edit, ..World::default() }, check, code);
}
