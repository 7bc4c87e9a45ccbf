//! Signals as values: SIGTERM and SIGINT end the daemon in order. SIGHUP, whose default would end it, changes nothing:
//! no daemon reads anything again while it runs (decision 0020).

use super::systemd;
use std::io;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What the signals ask for.
#[derive(Debug, Clone)]
pub struct Signals {
    /// Cancelled by SIGTERM or SIGINT: finish what runs, take nothing new, exit 0.
    pub stop: CancellationToken,
}

impl Signals {
    /// Listens from now on; needs a running tokio runtime.
    pub fn listen() -> io::Result<Self> {
        let signals = Self { stop: CancellationToken::new() };
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut hup = signal(SignalKind::hangup())?;
        let stop = signals.stop.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = term.recv() => break,
                    _ = int.recv() => break,
                    _ = hup.recv() => {
                        tracing::warn!("SIGHUP changes nothing: restart this daemon to have its configuration read again");
                    }
                }
            }
            systemd::stopping();
            stop.cancel();
        });
        Ok(signals)
    }
}
