//! Reading a store to its last entry, whether or not it is known to be committed: for whoever has nothing but this one store.
//!
//! Must never: write.

use super::machine::MachineError;
use super::store::{Mark, Store, StoreError};
use super::{LogId, Payload, codec};

/// What a store holds of the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept<'a> {
    /// The state that the log goes on from.
    State(&'a [u8]),
    /// The next command, and whether it is known to be committed.
    Command(&'a [u8], bool),
}

impl Store {
    /// Gives everything to `take`, in order. A log that changes meanwhile is an error or is seen by [`Store::last_entry`].
    pub fn replay(&self, mut take: impl FnMut(Kept<'_>) -> Result<(), MachineError>) -> Result<(), MachineError> {
        let committed = self.mark::<Option<LogId>>(Mark::Committed)?.flatten().map(|l| l.index);
        let mut next = 0_u64;
        if let Some((meta, state)) = self.load_snapshot()? {
            next = meta.last_log_id.map_or(0, |l| l.index.saturating_add(1));
            take(Kept::State(&state))?;
        }
        for item in self.log.range(next.to_be_bytes()..) {
            let (key, value) = item.into_inner().map_err(StoreError::from)?;
            let index = super::log::index_of(&key)?;
            let corrupt = || StoreError::Corrupt { keyspace: "log", index: next };
            if index != next {
                return Err(corrupt().into());
            }
            if let Payload::Normal(batch) = &codec::open_entry(&self.keys, index, &value)?.payload {
                for command in batch.commands().ok_or_else(corrupt)? {
                    take(Kept::Command(command, Some(index) <= committed))?;
                }
            }
            next = index.saturating_add(1);
        }
        if committed.is_some_and(|c| c >= next) {
            return Err(StoreError::CutOff { last: next.checked_sub(1), committed }.into());
        }
        Ok(())
    }

    /// Term and index of the last entry that lies in the log; `None` where none does.
    pub fn last_entry(&self) -> Result<Option<(u64, u64)>, StoreError> {
        let Some(last) = self.log.last_key_value() else { return Ok(None) };
        let (key, value) = last.into_inner()?;
        let index = super::log::index_of(&key)?;
        Ok(Some((codec::term_of(index, &value)?.0, index)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::codec::{log_id, seal_entry};
    use crate::raft::store::Flush;
    use crate::raft::testing::{one_voter_counts_to, settled, start, store};
    use crate::raft::{Batch, Entry};

    /// What a store holds: the numbers of its snapshot, the committed ones after it, and the rest.
    fn read(store: &Store) -> Result<[Vec<u64>; 3], MachineError> {
        let mut all: [Vec<u64>; 3] = Default::default();
        let number = |b: &[u8]| u64::from_be_bytes(b.try_into().unwrap());
        store.replay(|kept| {
            match kept {
                Kept::State(state) => all[0].extend(state.chunks(8).map(number)),
                Kept::Command(command, known) => all[if known { 1 } else { 2 }].push(number(command)),
            }
            Ok(())
        })?;
        Ok(all)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_store_is_read_to_its_end_and_what_is_not_known_to_be_committed_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        one_voter_counts_to(dir.path(), 10).await;
        let voter = start(dir.path(), 1000).await;
        voter.confirm_leading().await.unwrap();
        voter.snapshot().await.unwrap();
        settled(&voter, |s| s.snapshot.is_some()).await;
        let at = voter.proposer().propose(10u64.to_be_bytes().to_vec()).await.unwrap();
        assert_eq!(at, 10);
        voter.shutdown().await;
        let store = store(dir.path());
        let (term, last) = store.last_entry().unwrap().unwrap();
        // From a leader that did not live to commit it.
        let command = 11u64.to_be_bytes();
        let payload = Payload::Normal(Batch::pack([command.as_slice()]).unwrap());
        let entry = Entry { log_id: log_id(term, last + 1), payload };
        let put = |index: u64| {
            let value = seal_entry(&store.keys, &entry).unwrap();
            store
                .write(Flush::Sync, |b| {
                    b.insert(&store.log, index.to_be_bytes(), value);
                    Ok(())
                })
                .unwrap();
        };
        put(last + 1);
        let [state, committed, rest] = read(&store).unwrap();
        assert_eq!(state, (0..10).collect::<Vec<_>>());
        // How far the last commit was known when the process ended is not promised; that nothing is lost, is.
        assert_eq!([committed, rest.clone()].concat(), [10, 11]);
        assert_eq!(rest.last(), Some(&11));
        assert_eq!(store.last_entry().unwrap(), Some((term, last + 1)));
        put(last + 3);
        assert!(read(&store).is_err(), "a hole is never read over");
    }
}
