//! `autolock`: whether voters start sealed. Turning it on is a rotation from no key to a first one.

use super::unlock_key::{Plan, must_be_idle, rotate, view};
use crate::app::App;
use crate::args::AutolockVerb;
use crate::client::Cluster;
use crate::errors::{Code, Failure};
use crate::keyout::must_be_handed_over;
use crate::signing;
use holdfast_wire::v1;
use serde_json::json;
use v1::command::Action;

/// Runs the verb.
pub async fn run(app: &App, verb: AutolockVerb) -> Result<(), Failure> {
    match verb {
        AutolockVerb::On { anew, new, voters } => {
            let scheme = must_be_handed_over(app, &new)?;
            let c = Cluster::connect(app).await?;
            let view = view(&c).await?;
            if view.autolock {
                let help = "`holdfast unlock-key rotate` makes a new key";
                return Err(Failure::new(Code::Changed, "autolock is on already", help));
            }
            if !anew {
                must_be_idle(&view)?;
            }
            let plan = Plan { old: None, compromised: false, scheme, key_out: new.key_out, sockets: voters.sockets };
            rotate(app, &c, &view, plan).await
        }
        AutolockVerb::Off { to } => {
            let c = Cluster::connect(app).await?;
            if signing::command(app, &c, &to, Action::AutolockOff(v1::AutolockOff {})).await?.is_none() {
                return Ok(());
            }
            let line = "autolock is off: voters open by themselves, by keys that lie beside their disks";
            app.out.done(&json!({"autolock": false}), line)
        }
    }
}
