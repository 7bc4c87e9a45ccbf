//! What a machine held of the era before, as much of it as a vault reads.

use crate::v1::{HeldBefore, Statement};
use prost::Message as _;

/// Most Bundles of the era before that a vault reads: years of them.
pub const MOST_BUNDLES: usize = 512;
/// Longest that is shown of the era before: a message of 4 MiB is read, and a report may come with it.
const MOST_BYTES: usize = 2 << 20;

/// The Revocations, and the newest of the Bundles that lead to the key that signed them, oldest first; `None`: that is longer
/// than a vault reads.
pub fn held_before(revocations: Statement, bundles: &[Statement]) -> Option<HeldBefore> {
    let older = bundles.len().saturating_sub(MOST_BUNDLES);
    let bundle_chain = bundles.iter().skip(older).cloned().collect();
    let held = HeldBefore { revocations: Some(revocations), bundle_chain };
    (held.encoded_len() <= MOST_BYTES).then_some(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_of_the_era_before_is_shown_as_a_vault_reads() {
        let st = |n: usize, size: usize| Statement { payload: vec![1; size], r#type: n.to_string(), sigs: Vec::new() };
        let many: Vec<_> = (0..MOST_BUNDLES + 3).map(|n| st(n, 8)).collect();
        let held = held_before(st(0, 8), &many).unwrap();
        assert_eq!(held.bundle_chain, many[3..], "the newest");
        assert_eq!(held_before(st(0, 8), &many[..2]).unwrap().bundle_chain, many[..2]);
        assert_eq!(held_before(st(0, MOST_BYTES), &[]), None);
    }
}
