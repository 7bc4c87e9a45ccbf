//! What an operator's document must say for itself, and how long it may hold.
//!
//! Nothing that guards has a default here: an empty list or a zero is refused with the word that stands for "all". The
//! command line writes its defaults into the document before it is signed, so that what holds is what was signed.

use crate::refusal::Refusal;
use holdfast_types::Millis;
use holdfast_wire::documents::COMMAND_LIFE;
use holdfast_wire::token::TokenRole;
use holdfast_wire::v1;

const HOUR_MS: i64 = 3_600_000;
/// Longest life of a token: 24 h; of a mandate: 90 days. A spec's bounds are `holdfast_wire::specs`'s.
const MAX_TOKEN_MS: i64 = 24 * HOUR_MS;
const MAX_MANDATE_MS: i64 = 90 * 24 * HOUR_MS;
/// Most joins by one token.
const MAX_USES: u32 = 10_000;

/// `ok`, or the rule that was broken.
fn rule(ok: bool, what: &str) -> Result<(), Refusal> {
    if ok { Ok(()) } else { Err(Refusal::invalid(what)) }
}

/// True if `end` is after `now`, by no more than `most`.
fn within(end: i64, now: Millis, most: i64) -> bool {
    end > now.0 && end.saturating_sub(now.0) <= most
}

/// A command's life.
pub(super) fn command(c: &v1::Command, now: Millis) -> Result<(), Refusal> {
    let timely = c.expires_at_ms > now.0 && c.expires_at_ms <= now.plus(COMMAND_LIFE).0;
    let why = "this command has expired or lives longer than 24 h; sign it again";
    if timely { Ok(()) } else { Err(Refusal::changed(why)) }
}

/// A mandate's life, and what it covers.
pub(super) fn mandate(m: &v1::Mandate, now: Millis) -> Result<(), Refusal> {
    rule(within(m.not_after_ms, now, MAX_MANDATE_MS), "a mandate is valid for at most 90 days")?;
    rule(
        !(m.orchestrators.is_empty() || m.namespaces.is_empty() || m.zones.is_empty()),
        "a mandate names orchestrators, namespaces and zones; * stands for all",
    )?;
    rule(
        m.grants_per_minute > 0 && m.novelty_per_hour > 0,
        "a mandate says how many grants a minute and how many new pairs of secret and node an hour it allows",
    )
}

/// Who may read a secret, and where.
pub(super) fn secret(p: &v1::PutSecret) -> Result<(), Refusal> {
    rule(!p.readers.is_empty(), "a secret names the services that may read it; NAMESPACE/* stands for all of one")?;
    rule(!p.zones.is_empty(), "a secret names the zones it may enter; * stands for all")
}

/// What joins by a token, how often, how long and into which zone.
pub(super) fn token(t: &v1::MintToken, now: Millis) -> Result<(), Refusal> {
    rule(TokenRole::parse(&t.role).is_some(), "a token is for a node, an orchestrator or a voter")?;
    rule((1..=MAX_USES).contains(&t.uses), "a token says how often it may be used: 1 to 10000 times")?;
    rule(within(t.expires_at_ms, now, MAX_TOKEN_MS), "a token lives at most 24 h")?;
    rule(!t.zone.is_empty(), "a token names the zone of what joins by it; * is a zone that lies in no other")
}
