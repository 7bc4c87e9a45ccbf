//! What applied entries left is written behind their answers: it can be made again from the log, which is on the disk.
//!
//! Must never: have two writes under way, let a snapshot count before what its entries left is written, or go on after a
//! failed write.

use super::machine::{MachineError, Unwritten};
use std::io;
use tokio::task::JoinHandle;

/// The write under way, if there is one. On a thread of its own: it waits for the journal, which is the log's for as long as
/// that is being flushed, and no caller's work waits with it.
#[derive(Default)]
pub(super) struct Behind {
    under_way: Option<JoinHandle<Result<(), MachineError>>>,
    /// Why one failed: nothing is written, and no snapshot counts, after that.
    failed: Option<String>,
}

impl Behind {
    /// Begins a write, once the one before is done.
    pub(super) async fn write(&mut self, unwritten: Unwritten) -> io::Result<()> {
        self.done().await?;
        self.under_way = Some(tokio::task::spawn_blocking(unwritten));
        Ok(())
    }

    /// Returns once everything is written; an error if it was not.
    pub(super) async fn done(&mut self) -> io::Result<()> {
        if let Some(under_way) = &mut self.under_way {
            let written = under_way.await;
            self.under_way = None;
            self.failed = match written {
                Ok(written) => written.err().map(|e| e.to_string()),
                Err(panicked) => Some(panicked.to_string()),
            };
        }
        self.failed.as_ref().map_or(Ok(()), |why| Err(io::Error::other(why.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::testing::DEADLINE;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, mpsc};

    #[tokio::test]
    async fn whoever_hands_a_write_over_does_not_wait_for_it_and_the_next_one_does() {
        let (go, wait) = mpsc::channel::<()>();
        let written = Arc::new(AtomicUsize::new(0));
        let (first, second) = (Arc::clone(&written), Arc::clone(&written));
        let mut behind = Behind::default();
        let slow: Unwritten = Box::new(move || {
            wait.recv_timeout(DEADLINE).map_err(|e| MachineError(e.to_string()))?;
            first.fetch_add(1, Ordering::SeqCst);
            Ok(())
        });
        behind.write(slow).await.unwrap();
        assert_eq!(written.load(Ordering::SeqCst), 0, "it was waited for");
        go.send(()).unwrap();
        let next: Unwritten = Box::new(move || {
            let before = second.fetch_add(1, Ordering::SeqCst);
            if before == 1 { Ok(()) } else { Err(MachineError("out of turn".into())) }
        });
        behind.write(next).await.unwrap();
        behind.done().await.unwrap();
        assert_eq!(written.load(Ordering::SeqCst), 2);
        behind.done().await.unwrap();
    }

    #[tokio::test]
    async fn a_write_that_failed_or_panicked_is_heard_of_by_all_that_come_after_it() {
        for broken in [
            Box::new(|| -> Result<(), MachineError> { Err(MachineError("the disk is full".into())) }) as Unwritten,
            Box::new(|| -> Result<(), MachineError> { std::panic::resume_unwind(Box::new(())) }),
        ] {
            let mut behind = Behind::default();
            behind.write(broken).await.unwrap();
            let first = behind.done().await.unwrap_err().to_string();
            let next = behind.write(Box::new(|| Ok(()))).await.unwrap_err().to_string();
            assert_eq!((behind.done().await.unwrap_err().to_string(), &next), (first.clone(), &first));
        }
    }
}
