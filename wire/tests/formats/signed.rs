//! A statement in a file: everything in it is read, or nothing.

use crate::samples::{CLUSTER, signed_file, signer, statement, voucher};
use holdfast_wire::charter::{self, MINT_ORCH};
use holdfast_wire::signed::{Signed, SignedFileError, decode, encode};
use holdfast_wire::statement::{MAX_SIGS, StatementError, add_signature, sign};
use holdfast_wire::strict::StrictError;
use holdfast_wire::v1;
use prost::Message as _;
use v1::command::Action;

fn refused(file: &v1::SignedFile) -> SignedFileError {
    decode(&encode(file)).unwrap_err()
}

#[test]
fn a_statement_in_a_file_comes_back_as_it_was_written() {
    let (file, signed) = decode(&encode(&signed_file())).unwrap();
    assert_eq!(file, signed_file());
    assert_eq!(signed, Signed::Voucher(Box::new(voucher())));
    assert_eq!((signed.kind(), signed.era(), signed.until_ms()), ("voucher", None, None));
}

#[test]
fn what_is_no_such_file_or_of_another_format_is_refused_by_name() {
    let good = encode(&signed_file());
    assert_eq!(decode(b"hello").unwrap_err(), SignedFileError::Foreign);
    assert_eq!(decode(b"HFST").unwrap_err(), SignedFileError::Foreign);
    let mut newer = good.clone();
    newer[4] = 2;
    assert_eq!(decode(&newer).unwrap_err(), SignedFileError::Format(2));
    let longer = [good.as_slice(), &[0x22, 0x00]].concat();
    assert_eq!(decode(&longer).unwrap_err(), SignedFileError::Malformed(StrictError::NotCanonical));
    // Cut where the box begins it is a file without a box, and nowhere else a file.
    let unboxed = encode(&v1::SignedFile { r#box: Vec::new(), ..signed_file() }).len();
    for end in (5..good.len()).filter(|end| *end != unboxed) {
        assert!(decode(&good[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn a_file_names_the_cluster_of_what_is_signed_in_it() {
    assert_eq!(refused(&v1::SignedFile { cluster_id: vec![8; 32], ..signed_file() }), SignedFileError::Cluster);
    assert_eq!(refused(&v1::SignedFile { statement: None, ..signed_file() }), SignedFileError::Empty);
}

#[test]
fn only_what_is_submitted_travels_in_a_file() {
    let grant = sign(&v1::Grant { cluster_id: CLUSTER.0.to_vec(), ..v1::Grant::default() }, &[&signer(1)]).unwrap();
    let kind = grant.r#type.clone();
    assert_eq!(refused(&v1::SignedFile { statement: Some(grant), ..signed_file() }), SignedFileError::Kind(kind));
    let mut altered = statement();
    altered.payload.extend([0x7a, 0x00]);
    assert_eq!(
        refused(&v1::SignedFile { statement: Some(altered), ..signed_file() }),
        SignedFileError::Payload(StatementError::Payload(StrictError::NotCanonical))
    );
    let mut many = statement();
    for _ in 0..MAX_SIGS {
        add_signature(&mut many, &signer(3)).unwrap();
    }
    assert_eq!(refused(&v1::SignedFile { statement: Some(many), ..signed_file() }), SignedFileError::TooManySignatures);
}

#[test]
fn a_command_says_how_long_it_may_be_submitted_and_for_which_era() {
    let c = v1::Command { cluster_id: CLUSTER.0.to_vec(), era: 3, expires_at_ms: 9, ..v1::Command::default() };
    let st = sign(&c, &[&signer(1)]).unwrap();
    assert!(st.payload == c.encode_to_vec());
    let (_, signed) = decode(&encode(&v1::SignedFile { statement: Some(st), ..signed_file() })).unwrap();
    assert_eq!((signed.kind(), signed.era(), signed.until_ms()), ("command", Some(3), Some(9)));
}

#[test]
fn a_token_for_anything_but_a_node_has_an_entry_of_its_own() {
    let mint =
        |role: &str| charter::entry(&Action::MintToken(v1::MintToken { role: role.into(), ..Default::default() }));
    assert_eq!(mint("node"), "mintToken");
    assert_eq!([mint("orchestrator"), mint("voter"), mint("else")], [MINT_ORCH; 3]);
}
