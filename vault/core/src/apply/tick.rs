//! Time passed: grants that were never started lapse, what is over is forgotten, used ids expire.

use super::{Event, Step};
use crate::log::Draft;
use crate::refusal::Refusal;
use crate::state::{GrantState, TokenRow};
use holdfast_types::{GrantId, TokenId};

/// Most grants looked at in one tick, so that a tick never blocks other commands for long.
const BATCH: usize = 1000;
/// A token is kept this long after its end, so that its late use is named rightly.
const TOKEN_KEPT_MS: i64 = 24 * 3600 * 1000;

impl Step<'_> {
    pub(super) fn tick(&mut self) -> Result<(), Refusal> {
        let at = self.at;
        let due: Vec<GrantId> =
            self.state.index.due.iter().take_while(|(t, _)| *t <= at).take(BATCH).map(|(_, id)| *id).collect();
        for id in due {
            let Some((state, exclusive)) = self.state.grants.get(&id).map(|g| (g.state, g.exclusive)) else { continue };
            match state {
                GrantState::Issued => self.end(id, GrantState::Lapsed, "not started in time"),
                GrantState::Running => self.end(id, GrantState::Ended, "its lease and grace ran out"),
                GrantState::Revoked if exclusive => self.end(id, GrantState::Ended, "its lease ran out"),
                GrantState::Revoked | GrantState::Ended | GrantState::Lapsed => {
                    self.state.forget_grant(&id);
                    self.event(Event::GrantGone(id));
                }
            }
        }
        self.prune_denials();
        let s = &mut *self.state;
        s.last_prune = at;
        s.commands.retain(|_, t| *t > at);
        s.accepted.retain(|_, a| a.until > at);
        s.requests.retain(|_, r| r.until > at);
        let over = |t: &TokenRow| t.expires.0.saturating_add(TOKEN_KEPT_MS) <= at.0;
        let spent: Vec<TokenId> = s.tokens.iter().filter(|(_, t)| over(t)).map(|(id, _)| *id).collect();
        for id in spent {
            s.tokens.remove(&id);
            s.token_moved(id);
        }
        s.prune_budgets(at);
        s.prune_stops(at);
        s.rotation.retired.retain(|r| !r.destroyed || r.not_after > at);
        if s.before.is_some() && s.is_before_over(at) {
            s.before = None;
        }
        let listed = s.revoked.len();
        s.prune_revoked(at);
        if s.revoked.len() < listed {
            // The list's hash is in every Status: a shorter list is a new epoch, and is sent.
            self.next_epoch();
        }
        Ok(())
    }

    fn end(&mut self, id: GrantId, to: GrantState, why: &str) {
        let at = self.at;
        self.state.change_grant(&id, |g| {
            g.state = to;
            g.over = Some(at);
        });
        self.leaf(Draft::new("grant.ended", "vault", id.hex()).with("state", to.as_str()).with("reason", why));
        self.event(Event::Grant(id));
    }
}
