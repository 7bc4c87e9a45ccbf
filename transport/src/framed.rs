//! The frame of a small state file, so that a cut or altered one is refused instead of read as less.
//!
//! STORED: `'HFS' 01 ‖ SHA-256(message) ‖ message`; golden file `transport/golden/framed.hex`. The digest guards against
//! torn and rotten files, not against people: whoever can write them is root already.

use holdfast_types::sha256;

const MAGIC: &[u8; 4] = b"HFS\x01";

/// `message` in its frame.
pub fn frame(message: &[u8]) -> Vec<u8> {
    [MAGIC.as_slice(), sha256(&[message]).as_bytes(), message].concat()
}

/// The message in a frame; `None` if a byte of either is missing, altered or too many.
pub fn unframe(bytes: &[u8]) -> Option<&[u8]> {
    let (digest, message) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<32>()?;
    (sha256(&[message]).0 == *digest).then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_frame_is_what_it_always_was() {
        let golden = include_str!("../golden/framed.hex").trim();
        let hex: String = frame(b"message").iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, golden);
    }

    proptest! {
        #[test]
        fn a_framed_message_comes_back_whole_or_not_at_all(
            message in proptest::collection::vec(any::<u8>(), 0..200), at in any::<usize>(), bit in 0..8_u8,
        ) {
            let framed = frame(&message);
            prop_assert_eq!(unframe(&framed), Some(message.as_slice()));
            let at = at % framed.len();
            prop_assert_eq!(unframe(&framed[..at]), None);
            let longer = [&framed[..], &[0]].concat();
            prop_assert_eq!(unframe(&longer), None);
            let mut flipped = framed;
            flipped[at] ^= 1 << bit;
            prop_assert_eq!(unframe(&flipped), None);
        }
    }
}
