//! A rotation among several voters, whose leader dies in the midst of it.

use super::{signer, stable, trusted};
use crate::voters::world::Voters;
use crate::world::eventually;

#[test]
fn a_rotation_goes_on_under_the_next_leader_when_one_is_killed_in_the_midst() {
    let mut v = Voters::founded(3);
    let before = signer(&v.w);
    v.w.ok(&["root", "rotate", "--detach"]);
    let (leader, _) = v.leader();
    v.kill(leader);
    eventually("another root to sign", || {
        let o = v.w.cli(&["root", "status", "--json"]);
        let said: serde_json::Value = serde_json::from_slice(&o.stdout).ok()?;
        (o.status.success() && said["signer"] != before.as_str()).then_some(())
    });
    // The one that was killed has a certificate under the old root: it is waited for.
    v.come_back(leader);
    v.settle();
    let done = stable(&v.w);
    assert_ne!(done["signer"], before.as_str());
    assert_eq!((trusted(&done), done["trusted"][0]["identities"].as_u64()), (1, Some(3)), "{done}");
    v.verifies();
    // A voter that starts has nothing but its disk to believe the others by.
    let n = v.follower();
    v.kill(n);
    v.come_back(n);
    v.settle();
}
