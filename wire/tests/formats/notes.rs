//! Checkpoint notes: what is read is what was signed. Lines of other signers (witnesses) may follow; they change nothing.

use crate::samples::{checkpoint, note, signer};
use holdfast_wire::keys::StatementSigner as _;
use holdfast_wire::note::{Checkpoint, MAX_NOTE, NoteError};
use proptest::prelude::*;

fn read(note: &[u8]) -> Result<Checkpoint, NoteError> {
    Checkpoint::verify(note, &checkpoint().origin, &[signer(2).public(), signer(1).public()])
}

#[test]
fn a_note_comes_back_as_it_was_signed() {
    assert_eq!(read(&note()), Ok(checkpoint()));
    let text = String::from_utf8(note()).unwrap();
    let cosigned = format!("{text}\u{2014} witness.example AAAAAAAA\n");
    assert_eq!(read(cosigned.as_bytes()), Ok(checkpoint()));
}

#[test]
fn every_single_bit_of_a_note_counts() {
    let good = note();
    for bit in 0..good.len() * 8 {
        let mut n = good.clone();
        n[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&n).is_err(), "bit {bit}");
    }
    for end in 0..good.len() {
        assert!(read(&good[..end]).is_err(), "cut at {end}");
    }
    assert_eq!(read(&vec![b'a'; MAX_NOTE + 1]), Err(NoteError::Malformed));
}

/// Lines that are no signatures were once passed over.
#[test]
fn a_line_below_a_note_that_is_no_signature_refuses_it() {
    let text = String::from_utf8(note()).unwrap();
    for line in [
        "",
        "junk",
        "\u{2014} witness.example",
        "\u{2014} witness.example !!!!",
        "\u{2014} witness.example AAAA",
        "\u{2014} a+b AAAAAAAA",
        "\u{2014}  AAAAAAAA",
        "- witness.example AAAAAAAA",
        "\u{2014} witness.example AAAAAAAA\r",
    ] {
        for n in [format!("{text}{line}\n"), text.replace("\n\n", &format!("\n\n{line}\n"))] {
            assert_eq!(read(n.as_bytes()), Err(NoteError::Malformed), "{line:?}");
        }
    }
    assert_eq!(read(format!("{text}\u{2014} witness.example AAAAAAAA").as_bytes()), Err(NoteError::Malformed));
}

/// A note that one of our own keys did not sign as it says is no note, whoever else signed it.
#[test]
fn a_bad_signature_under_a_key_that_counts_refuses_the_note() {
    let text = String::from_utf8(note()).unwrap();
    let (body, ours) = text.split_once("\n\n").unwrap();
    let other = Checkpoint { size: checkpoint().size + 1, ..checkpoint() };
    let forged = String::from_utf8(other.sign(&signer(2)).unwrap()).unwrap();
    let (_, forged) = forged.split_once("\n\n").unwrap();
    for n in [format!("{body}\n\n{ours}{forged}"), format!("{body}\n\n{forged}{ours}")] {
        assert_eq!(read(n.as_bytes()), Err(NoteError::Signature));
    }
}

proptest! {
    #[test]
    fn whatever_follows_or_precedes_a_note_never_changes_what_it_says(head in ".{0,20}", tail in ".{0,80}") {
        let text = String::from_utf8(note()).unwrap();
        for n in [format!("{text}{tail}"), format!("{head}{text}"), format!("{head}\n\n{text}{tail}"), text.replacen('\n', &format!("{head}\n"), 1)] {
            prop_assert!(read(n.as_bytes()).map_or(true, |c| c == checkpoint()));
        }
    }
    #[test]
    fn any_checkpoint_round_trips(size in any::<u64>(), root in any::<[u8; 32]>(), era in any::<u64>()) {
        let c = Checkpoint { origin: holdfast_wire::note::origin("a.example", era), size, root: holdfast_types::Digest(root) };
        prop_assert_eq!(Checkpoint::verify(&c.sign(&signer(1)).unwrap(), &c.origin, &[signer(1).public()]), Ok(c));
    }
}
