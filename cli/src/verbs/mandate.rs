//! `mandate`: which orchestrators may schedule which namespaces in which zones; signed by operators, at most 90 days long.

use super::names;
use crate::app::App;
use crate::args::{MandateVerb, SignTo};
use crate::client::Cluster;
use crate::clock;
use crate::errors::Failure;
use crate::output::{age, time, words};
use crate::signing;
use data_encoding::HEXLOWER;
use holdfast_types::{MandateId, Millis, Namespace, OrchId};
use holdfast_wire::v1;
use serde_json::{Value, json};
use std::time::Duration;
use v1::command::Action;

/// Longest life of a mandate (protocol, delegated credentials).
const LONGEST: Duration = Duration::from_secs(90 * 86_400);

/// Runs the verb.
pub async fn run(app: &App, verb: MandateVerb) -> Result<(), Failure> {
    match verb {
        MandateVerb::Put { orchestrators, namespaces, zones, ttl, id, grants_per_minute, novelty_per_hour, to } => {
            let wish = v1::Mandate {
                mandate_id: mandate_id(id)?,
                orchestrators,
                namespaces: if namespaces.is_empty() { vec!["*".to_owned()] } else { namespaces },
                zones: names::zones(zones)?,
                not_after_ms: names::expiry(clock::now(), ttl, LONGEST, "--ttl")?,
                grants_per_minute,
                novelty_per_hour,
                ..v1::Mandate::default()
            };
            put(app, wish, &to).await
        }
        MandateVerb::Ls => ls(app).await,
        MandateVerb::Revoke { id, to } => revoke(app, &id, &to).await,
    }
}

fn mandate_id(given: Option<String>) -> Result<String, Failure> {
    match given {
        Some(id) => MandateId::parse(&id).map(|_| id).map_err(names::wrong),
        None => Ok(format!("mandate-{}", HEXLOWER.encode(&clock::random::<8>()?))),
    }
}

async fn put(app: &App, wish: v1::Mandate, to: &SignTo) -> Result<(), Failure> {
    wish.orchestrators.iter().try_for_each(|o| OrchId::parse(o).map(|_| ())).map_err(names::wrong)?;
    wish.namespaces
        .iter()
        .filter(|n| *n != "*")
        .try_for_each(|n| Namespace::parse(n).map(|_| ()))
        .map_err(names::wrong)?;
    let c = Cluster::connect(app).await?;
    let mandate = v1::Mandate { cluster_id: c.ctx.cluster.0.to_vec(), era: c.era(), ..wish };
    if signing::document(app, &c, to, &mandate).await?.is_none() {
        return Ok(());
    }
    app.out.done(&document(&mandate, false), &said(&mandate, clock::now()))
}

/// Defaults are said aloud: what holds is what was signed.
fn said(m: &v1::Mandate, now: Millis) -> String {
    let (namespaces, zones) = (words(&m.namespaces), words(&m.zones));
    format!("mandate {} holds, ends {}; namespaces {namespaces}, zones {zones}", m.mandate_id, age(now, m.not_after_ms))
}

fn document(m: &v1::Mandate, revoked: bool) -> Value {
    json!({
        "id": m.mandate_id, "orchestrators": m.orchestrators, "namespaces": m.namespaces, "zones": m.zones,
        "not_after": time(m.not_after_ms), "grants_per_minute": m.grants_per_minute,
        "novelty_per_hour": m.novelty_per_hour, "revoked": revoked,
    })
}

async fn ls(app: &App) -> Result<(), Failure> {
    let c = Cluster::connect(app).await?;
    let all = c.read(async |mut r| r.list_mandates(names::list(None, None, true)).await).await?.mandates;
    let now = clock::now();
    let known: Vec<(v1::Mandate, bool)> = all.into_iter().filter_map(|v| Some((v.mandate?, v.revoked))).collect();
    let row = |(m, revoked): &(v1::Mandate, bool)| {
        let state = if *revoked { "revoked".to_owned() } else { age(now, m.not_after_ms) };
        vec![m.mandate_id.clone(), words(&m.orchestrators), words(&m.namespaces), words(&m.zones), state]
    };
    let head = ["id", "orchestrators", "namespaces", "zones", "ends"];
    app.out.list(
        "mandates",
        known.iter().map(|(m, r)| document(m, *r)).collect(),
        &head,
        known.iter().map(row).collect(),
    )
}

async fn revoke(app: &App, id: &str, to: &SignTo) -> Result<(), Failure> {
    MandateId::parse(id).map_err(names::wrong)?;
    let c = Cluster::connect(app).await?;
    let revoke = Action::RevokeMandate(v1::RevokeMandate { mandate_id: id.to_owned() });
    if signing::command(app, &c, to, revoke).await?.is_none() {
        return Ok(());
    }
    app.out.done(&json!({"id": id, "revoked": true}), &format!("mandate {id} is revoked"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mandate_that_was_given_says_where_it_holds() {
        let m = v1::Mandate {
            mandate_id: "m-1".into(),
            namespaces: vec!["*".into()],
            zones: vec!["eu".into(), "us".into()],
            not_after_ms: 3 * 86_400_000,
            ..v1::Mandate::default()
        };
        assert_eq!(said(&m, Millis(0)), "mandate m-1 holds, ends in 3d; namespaces *, zones eu,us");
    }
}
