//! From the open gate to the open keyring: waits for a leader, and until this voter's state has come far enough.
//!
//! Must never: give up on others that are not there yet, keep the lead without being able to use it, or call a fault waiting.

use crate::clock;
use crate::failure::{stopped, unproposed};
use crate::keystore::{self, Opened};
use crate::raft::Status;
use crate::reports;
use crate::standing::{ROLLED_BACK, Standing, given_up};
use holdfast_transport::client::Backoff;
use holdfast_transport::failure::Failure;
use std::sync::Arc;
use std::time::Duration;

/// A voter alone leads within this time, or something is wrong.
const LEAD_WITHIN: Duration = Duration::from_secs(10);
/// Without a leader, a voter says so often to all others where it is.
const SAY_AGAIN: Duration = Duration::from_secs(2);
/// Between two looks at what others do.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Between two times that a voter which was just opened asks for votes, first and longest; and how often it asks.
const STAND_AGAIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(150));
const STANDS: usize = 10;

/// Stands for election as soon as the gate is open, and again as others open theirs: voters that are opened together wait for no
/// election timeout. Where one leads, its followers say no, and it goes on.
pub async fn stand(standing: Arc<Standing>) {
    if standing.is_alone() || standing.is_evicted() {
        return;
    }
    let before = standing.voter.status().term;
    let mut pauses = Backoff::new(STAND_AGAIN.0, STAND_AGAIN.1);
    for _ in 0..STANDS {
        if standing.at_work.is_cancelled() || standing.voter.stand_now().await.is_err() {
            return;
        }
        match standing.voter.until(pauses.next_delay(), |s| is_elected(before, s)).await {
            Ok(None) => {}
            Ok(Some(_)) | Err(_) => return,
        }
    }
}

/// Whether somebody was elected since term `before`. Whom the disk names as the leader of that term may be gone.
fn is_elected(before: u64, s: &Status) -> bool {
    s.term > before && s.leader.is_some()
}

/// Waits until somebody leads, and until this voter's own state has come far enough to open its keyring.
pub async fn until_opened(standing: &Standing, peer_addr: &str) -> Result<Opened, Failure> {
    let alone = standing.is_alone();
    let wait = if alone { LEAD_WITHIN } else { SAY_AGAIN };
    loop {
        if standing.at_work.is_cancelled() {
            return Err(given_up());
        }
        let led = standing.voter.until(wait, |s| s.leader.is_some()).await.map_err(stopped)?;
        let Some(leader) = led.and_then(|s| s.leader) else {
            if alone {
                return Err(Failure::unavailable("no-quorum", "no voter leads: too few voters are up"));
            }
            if standing.is_evicted() && standing.is_out().await? {
                return Err(standing.why_over());
            }
            let refused = reports::announce(standing, peer_addr).await?;
            standing.waits_for_those_who_do_not_refuse(&refused)?;
            continue;
        };
        if standing.is_evicted() {
            // Raft may need it to let it go, so it goes on without keys until the others are done with it.
            if leader == standing.id {
                standing.lead_no_more().await;
            } else if standing.is_out().await? {
                return Err(standing.why_over());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
            continue;
        }
        if leader == standing.id
            && let Err(e) = standing.voter.confirm_leading().await
        {
            if alone {
                return Err(unproposed(e));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
            continue;
        }
        match opened(standing) {
            Ok(opened) => return Ok(opened),
            Err(e) if alone || matches!(&*e.code, "clock" | ROLLED_BACK) => return Err(e),
            Err(e) => come_further(standing, &e).await?,
        }
    }
}

fn opened(standing: &Standing) -> Result<Opened, Failure> {
    let wall = holdfast_transport::now();
    let ident = reports::ident(standing)?;
    standing
        .voter
        .machine()
        .read(|r| {
            let s = r.state();
            clock::is_not_behind(wall, s.time(wall))?;
            keystore::open(s, &ident, standing.id, s.time(wall), standing.token.as_ref())
        })
        .map_err(stopped)?
}

/// The state does not open: waits until it has come further, or a while. If it does not come further, that is why.
async fn come_further(standing: &Standing, why: &Failure) -> Result<(), Failure> {
    let before = standing.voter.status();
    let goal = Some(next_try(&before));
    if standing.voter.until(SAY_AGAIN, |s| s.applied >= goal).await.map_err(stopped)?.is_some() {
        return Ok(());
    }
    if is_stuck(&before, &standing.voter.status()) {
        if standing.waits.because(why.line()) {
            tracing::warn!(code = %why.code, "this voter has its disk and a leader, and does not open: {}", why.line());
        }
        // Whoever cannot open does not lead those who can.
        if standing.voter.status().leader == Some(standing.id) {
            standing.lead_no_more().await;
        }
    } else {
        standing.waits.for_others();
    }
    Ok(())
}

/// The entry with which opening is tried again: the last one here, so that a long log is not tried at each entry of it.
fn next_try(s: &Status) -> u64 {
    s.last_log.unwrap_or(0).max(s.applied.map_or(0, |a| a + 1))
}

/// Whether a voter that had applied all of its log has not come further since.
fn is_stuck(before: &Status, after: &Status) -> bool {
    before.applied.is_some() && before.applied >= before.last_log && before.applied == after.applied
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::VoterId;
    use openraft::ServerState;

    fn at(last_log: Option<u64>, applied: Option<u64>) -> Status {
        let state = ServerState::Follower;
        Status { state, term: 1, last_log, applied, snapshot: None, purged: None, leader: None, fatal: None }
    }

    #[test]
    fn a_voter_that_has_all_of_its_log_and_does_not_open_is_stuck_and_one_that_catches_up_is_not() {
        let all = at(Some(9), Some(9));
        assert!(is_stuck(&all, &all));
        assert!(!is_stuck(&all, &at(Some(12), Some(10))), "it comes further");
        let behind = at(Some(900), Some(9));
        assert!(!is_stuck(&behind, &behind), "it has to apply what it has");
        let new = at(None, None);
        assert!(!is_stuck(&new, &new), "it has nothing yet");
    }

    #[test]
    fn a_leader_that_the_disk_names_is_no_reason_not_to_stand() {
        let led = |term, leader| Status { term, leader, ..at(Some(9), Some(9)) };
        assert!(!is_elected(4, &led(4, Some(VoterId(2)))));
        assert!(!is_elected(4, &led(5, None)), "an election is under way");
        assert!(is_elected(4, &led(5, Some(VoterId(2)))));
    }

    #[test]
    fn opening_is_tried_again_at_the_end_of_the_log_and_not_at_each_entry_of_it() {
        assert_eq!(next_try(&at(Some(900), Some(9))), 900);
        assert_eq!(next_try(&at(Some(9), Some(9))), 10);
        assert_eq!(next_try(&at(None, None)), 0);
    }
}
