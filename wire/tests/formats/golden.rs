//! Bytes that lie on disks and in drawers: a change here breaks what is stored. `HOLDFAST_BLESS=1 cargo test -p
//! holdfast-wire --test formats golden` writes the files anew; the diff then says what the change means for users.

use crate::samples;
use data_encoding::HEXLOWER;
use holdfast_wire::signed;
use holdfast_wire::token::print_key;
use prost::Message as _;
use std::path::Path;

fn check(file: &str, is: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(file);
    let is = format!("{}\n", is.trim_end());
    if std::env::var_os("HOLDFAST_BLESS").is_some() {
        std::fs::write(&path, &is).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == is, "golden/{file} differs from what is made today:\n{is}");
}
fn hex(bytes: &[u8]) -> String {
    let lines: Vec<_> = bytes.chunks(32).map(|l| HEXLOWER.encode(l)).collect();
    lines.join("\n")
}

#[test]
fn a_statement_has_its_golden_bytes() {
    check("statement.hex", &hex(&samples::statement().encode_to_vec()));
}
#[test]
fn a_statement_in_a_file_has_its_golden_bytes() {
    check("signed-file.hex", &hex(&signed::encode(&samples::signed_file())));
}
#[test]
fn a_box_in_base_mode_has_its_golden_bytes() {
    check("box.hex", &hex(&samples::base_box()));
}
#[test]
fn a_box_in_psk_mode_has_its_golden_bytes() {
    check("box-psk.hex", &hex(&samples::psk_box()));
}
#[test]
fn a_record_has_its_golden_bytes() {
    check("record.hex", &hex(&samples::record()));
}
#[test]
fn a_join_token_has_its_golden_text() {
    check("join-token.txt", &samples::join_token().print());
}
#[test]
fn an_unlock_key_has_its_golden_text() {
    check("unlock-key.txt", &print_key("unlock", &samples::unlock_key()));
}
#[test]
fn a_share_of_a_key_has_its_golden_text() {
    check("key-share.txt", &samples::key_share().print());
}
#[test]
fn a_checkpoint_has_its_golden_text() {
    check("checkpoint.txt", &String::from_utf8(samples::note()).unwrap());
}
#[test]
fn a_backup_has_its_golden_bytes() {
    check(
        "backup.hex",
        &hex(&samples::backup_file(&samples::backup_parts(samples::BACKUP_STATE, &samples::backup_leaves()))),
    );
}
