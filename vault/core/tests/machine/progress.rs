//! How far each voter is known to have been: it only grows.

use crate::world::World;
use holdfast_types::VoterId;
use holdfast_vault_core::{Command, VoterMark, prepare};

#[test]
fn how_far_a_voter_was_is_never_taken_back() {
    let mut w = World::new();
    let (second, _) = w.voter();
    let mark = |index, vote_term| VoterMark { id: VoterId(second), index, vote_term };
    let water = |w: &World| (w.state.high_water(VoterId(second)).0, w.state.high_water(VoterId(second)).1);
    for (given, known) in [((300, 2), (300, 2)), ((200, 1), (300, 2)), ((200, 5), (300, 5)), ((301, 0), (301, 5))] {
        w.propose(Command::Progress(vec![mark(given.0, given.1)])).result.unwrap();
        assert_eq!(water(&w), known);
    }
    let stranger = VoterMark { id: VoterId(9), index: 1, vote_term: 1 };
    w.propose(Command::Progress(vec![stranger])).result.unwrap();
    assert_eq!(w.state.high_water(VoterId(9)), (0, 0, (0, [0; 16]), false));

    let worth = |marks: &[VoterMark]| prepare::progress(&w.state, marks, 256);
    assert_eq!(worth(&[mark(301, 5), mark(556, 5), stranger]), None);
    let (far, voted) = (mark(557, 0), mark(0, 6));
    assert_eq!(worth(&[far, stranger, mark(0, 0), voted]), Some(Command::Progress(vec![far, voted])));
    assert_eq!(prepare::progress(&w.state, &[mark(301, 5)], 0), None, "what is known is no news");
}
