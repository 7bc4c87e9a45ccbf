//! The context follows its cluster through what this machine slept through: root rotations, by bundles that continue the one it
//! believes, and a new era, which other operators began with `recover` (protocol, root rotation and disaster).
//!
//! Whoever answers is believed no word but what roots that are believed signed, or the charter's Admins: see [`Trust::advance`]
//! and [`Trust::next_era`].

use crate::app::App;
use crate::errors::{Code, Failure};
use crate::login;
use crate::trust::Trust;
use holdfast_transport::join::{ask_trust, learn_addrs};

/// Most addresses of each kind that are kept: they are not signed.
const MOST_ADDRS: usize = 16;

/// Whether something that was missed could be why no vault was reached: the one that there is now is not believed, and the others
/// are gone. Roots that have ended look like a clock that is off.
pub fn may_explain(failure: &Failure) -> bool {
    [Code::ServerNotTrusted, Code::Unreachable, Code::TimedOut, Code::Clock].iter().any(|c| failure.code == c.word())
}

/// Asks at the join listeners that the context knows; `true` if there was something to follow.
pub async fn follow(app: &App) -> Result<bool, Failure> {
    let mut ctx = app.context()?;
    let held = Trust::stored(&ctx)?;
    for shown in ask_trust(ctx.settings.join_addrs.clone()).await {
        // One that shows something false does not keep us from asking the others.
        let Ok(era) = held.next_era(&shown) else { continue };
        let Some((trust, anchor)) = era else {
            let mut next = held.clone();
            if next.advance(&shown).unwrap_or(false) {
                ctx.store_trust(next.chains())?;
                return Ok(true);
            }
            continue;
        };
        login::forget(&ctx);
        ctx.begin_era(anchor)?;
        for (kept, told) in
            [(&mut ctx.settings.service_addrs, &shown.service_addrs), (&mut ctx.settings.join_addrs, &shown.join_addrs)]
        {
            learn_addrs(kept, told, MOST_ADDRS);
        }
        // In this order: see `Trust::stored`.
        ctx.dir.write_settings(&ctx.settings)?;
        ctx.store_trust(trust.chains())?;
        return Ok(true);
    }
    Ok(false)
}
