//! A voter that opens its own disk by its token: at the start, or as soon as the token answers.

use crate::disk::hsm;
use crate::disk::keys::DiskKey;
use crate::disk::slots::Slots;
use crate::gate::Phase;
use crate::run::Daemon;
use holdfast_transport::failure::Failure;
use std::sync::Arc;
use std::time::Duration;

/// Between two tries to open the disk by a token that does not answer.
const TOKEN_AGAIN: Duration = Duration::from_secs(2);

impl Daemon {
    /// The disk keys as the token unwraps them; `None`: no slot is the token's, or it cannot be opened now.
    pub(crate) async fn by_token(self: &Arc<Self>) -> Option<Vec<DiskKey>> {
        let token = self.token.as_ref()?.for_disk()?;
        let dir = self.voter_dir();
        let tried = tokio::task::spawn_blocking(move || hsm::try_open(&Slots::load(&dir)?, &*token)).await.ok()?;
        match tried {
            Ok(keys) => keys,
            Err(e) => {
                self.gate.why_not(&e.to_string());
                None
            }
        }
    }

    /// Opens this voter once its token answers, unless somebody was faster.
    pub(crate) async fn unlock_by_token(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(TOKEN_AGAIN) => {}
            }
            let sealed = || matches!(*self.gate.phase(), Phase::Sealed(_));
            if !sealed() {
                return;
            }
            let Some(keys) = self.by_token().await else { continue };
            let _door = self.gate.door.lock().await;
            if !sealed() {
                return;
            }
            match self.unlock_with_token(keys).await {
                Ok(()) => tracing::info!("the token is back and has opened this voter"),
                // It is sealed as before, and says why; an operator looks.
                Err(e) => tracing::error!("the token opened the disk, and this voter did not rise: {}", e.line()),
            }
            return;
        }
    }

    /// Whoever leads writes down that it was the token: this voter tells it with its first report.
    pub(crate) async fn unlock_with_token(self: &Arc<Self>, keys: Vec<DiskKey>) -> Result<(), Failure> {
        self.gate.unsaid.opened("hsm".to_owned());
        self.unlock_with(keys).await.inspect_err(|_| self.gate.unsaid.not_opened())
    }
}
