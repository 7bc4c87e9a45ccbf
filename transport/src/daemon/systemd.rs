//! What systemd is told (sd_notify(3)). Without systemd, nothing happens.

use sd_notify::{NotifyState, notify, watchdog_enabled};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}

/// The daemon serves now.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// One line for `systemctl status`; never a secret.
pub fn status(line: &str) {
    tell(&[NotifyState::Status(line)]);
}

/// The daemon is ending.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tells the watchdog that the daemon lives, twice per interval, while `alive` says so of the time since an interval
/// ago; returns at once if no watchdog is set, else with `stop`.
pub async fn watchdog(alive: impl Fn(Duration) -> bool, stop: CancellationToken) {
    let Some(interval) = watchdog_enabled().filter(|i| !i.is_zero()) else { return };
    let mut tick = tokio::time::interval(interval / 2);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        if alive(interval) {
            tell(&[NotifyState::Watchdog]);
        }
    }
}
