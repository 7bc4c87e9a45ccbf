//! `keyring`: the key that everything in the vault is encrypted under, and its renewal.

use crate::app::App;
use crate::args::{KeyringVerb, SignTo};
use crate::client::Cluster;
use crate::clock;
use crate::errors::{Code, Failure};
use crate::output::{age, time};
use crate::signing;
use holdfast_wire::v1;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;
use v1::command::Action;

/// How long everything may take to be encrypted anew.
const PATIENCE: Duration = Duration::from_secs(600);
const PAUSE: Duration = Duration::from_millis(200);
/// What to do where a renewal cannot be waited for any longer.
const GOES_ON: &str = "it goes on by itself: see `holdfast keyring status`";

/// Runs the verb.
pub async fn run(app: &App, verb: KeyringVerb) -> Result<(), Failure> {
    let c = Cluster::connect(app).await?;
    match verb {
        KeyringVerb::Status => show(app, &view(&c).await?),
        KeyringVerb::Rotate { detach, to } => rotate(app, &c, detach, &to).await,
    }
}

async fn view(c: &Cluster) -> Result<v1::KeyringView, Failure> {
    let status = c.read(async |mut r| r.get_status(v1::Ack {}).await).await?;
    status.keyring.ok_or_else(|| Failure::untrusted("the voter says nothing of its keyring"))
}

fn show(app: &App, v: &v1::KeyringView) -> Result<(), Failure> {
    app.out.show(&document(v), || human(v))
}

/// The keyring, as documents show it.
pub fn document(v: &v1::KeyringView) -> Value {
    json!({"term": v.term, "older": v.older, "left": v.left, "since": time(v.since_ms)})
}

fn human(v: &v1::KeyringView) -> String {
    let since = age(clock::now(), v.since_ms);
    let mut text = format!("term      {}, since {since}\n", v.term);
    if !v.older.is_empty() {
        let older: Vec<String> = v.older.iter().map(u32::to_string).collect();
        let why = match v.left {
            0 => "until all nodes have renewed their keys".to_owned(),
            n => format!("with {n} records left"),
        };
        text.push_str(&format!("older     {}, {why}\n", older.join(", ")));
    }
    text
}

/// Whether the term after `before` is in force and nothing is encrypted under an older one. An older one is destroyed when no
/// node's keys depend on it any more, which is when they have been renewed: within a day, and by itself.
fn is_done(v: &v1::KeyringView, before: u32) -> bool {
    v.term > before && v.left == 0
}

async fn rotate(app: &App, c: &Cluster, detach: bool, to: &SignTo) -> Result<(), Failure> {
    let before = view(c).await?.term;
    if signing::command(app, c, to, Action::RotateKeyring(v1::RotateKeyring {})).await?.is_none() {
        return Ok(());
    }
    if detach {
        let line = "a new term is ordered: see `holdfast keyring status`";
        return app.out.done(&json!({"ordered": true, "before": before}), line);
    }
    let deadline = Instant::now() + app.timeout(PATIENCE);
    let bar = app.out.bar(1, "encrypted anew");
    let mut total = 0;
    loop {
        let v = view(c).await.map_err(|f| f.unseen(GOES_ON))?;
        total = v.left.max(total);
        bar.set_length(total);
        bar.set_position(total.saturating_sub(v.left));
        if is_done(&v, before) {
            bar.finish_and_clear();
            return show(app, &v);
        }
        if Instant::now() >= deadline {
            let what = format!("{} records are still under an older term", v.left);
            return Err(Failure::new(Code::TimedOut, what, GOES_ON).with("left", v.left));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewal_is_done_when_nothing_is_under_an_older_term() {
        let seen = |term, left| v1::KeyringView { term, older: vec![1], left, ..Default::default() };
        assert!(!is_done(&seen(1, 0), 1));
        assert!(!is_done(&seen(2, 3), 1));
        assert!(is_done(&seen(2, 0), 1));
        assert!(human(&seen(2, 0)).contains("until all nodes"));
    }
}
