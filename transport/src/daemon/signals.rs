//! Signals as values: SIGTERM and SIGINT end the daemon in order, SIGHUP asks it to reload.

use super::systemd;
use std::io;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What the signals ask for.
#[derive(Debug, Clone)]
pub struct Signals {
    /// Cancelled by SIGTERM or SIGINT: finish what runs, take nothing new, exit 0.
    pub stop: CancellationToken,
    /// Notified by SIGHUP.
    pub reload: Arc<Notify>,
}

impl Signals {
    /// Listens from now on; needs a running tokio runtime.
    pub fn listen() -> io::Result<Self> {
        let signals = Self { stop: CancellationToken::new(), reload: Arc::default() };
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut hup = signal(SignalKind::hangup())?;
        let given = signals.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = term.recv() => break,
                    _ = int.recv() => break,
                    _ = hup.recv() => given.reload.notify_one(),
                }
            }
            systemd::stopping();
            given.stop.cancel();
        });
        Ok(signals)
    }
}
