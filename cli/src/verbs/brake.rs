//! `lockdown` and `release`: one operator stops the cluster, and as many as the charter says start it again. And `login`, an
//! operator's own renewal.

use crate::app::App;
use crate::args::{Lockdown, Release};
use crate::client::Cluster;
use crate::errors::Failure;
use crate::output::time;
use crate::signing;
use holdfast_types::Millis;
use holdfast_wire::v1;
use serde_json::json;
use v1::command::Action;

/// `lockdown`.
pub async fn lockdown(app: &App, a: Lockdown) -> Result<(), Failure> {
    let c = Cluster::connect(app).await?;
    let order = Action::Lockdown(v1::Lockdown { reason: a.reason });
    if signing::command(app, &c, &a.to, order).await?.is_none() {
        return Ok(());
    }
    let line = "the cluster is locked down: nothing new starts until it is released, and what runs goes on";
    app.out.done(&json!({"lockdown": true}), line)
}

/// `release`.
pub async fn release(app: &App, a: Release) -> Result<(), Failure> {
    let c = Cluster::connect(app).await?;
    let order = Action::Release(v1::Release { reason: a.reason.unwrap_or_default() });
    if signing::command(app, &c, &a.to, order).await?.is_none() {
        return Ok(());
    }
    app.out.done(&json!({"lockdown": false}), "the lockdown is over")
}

/// `login`: whoever has a copy of the certificate in use has nothing any more.
pub async fn login(app: &App) -> Result<(), Failure> {
    let c = Cluster::connect(app).await?;
    c.log_in_again().await?;
    let until = c.logged_in_until().unwrap_or(Millis(0));
    let document = json!({"operator": c.operator.id, "not_after": time(until.0)});
    app.out.done(&document, &format!("logged in as {} until {until}", c.operator.id))
}
