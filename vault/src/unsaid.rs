//! What a voter has seen and only the leader can write down: how it was opened, attempts to open it that failed, and voters
//! that spoke as another. It is told with the next report, once. And what nodes say of the vault itself.

use crate::disk::attempts;
use holdfast_types::VoterId;
use holdfast_wire::v1;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Most numbers of voters that one report names.
pub const MOST: usize = 16;
/// For so long whoever was seen is warned of.
const WARNED: Duration = Duration::from_secs(3600);

/// What is to be told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Word {
    opened_by: String,
    failed: u32,
    impostors: BTreeSet<VoterId>,
}

impl Word {
    /// Whether there is anything to tell.
    pub fn is_empty(&self) -> bool {
        // Of attempts that failed is told once another one has opened the disk: before that nobody could say it.
        self.opened_by.is_empty() && self.impostors.is_empty()
    }

    /// Puts it into a report.
    pub fn into_report(self, said: &mut v1::VoterReport) {
        if !self.opened_by.is_empty() {
            (said.opened_by, said.failed_unlocks) = (self.opened_by, self.failed);
        }
        said.impostors = self.impostors.iter().map(|v| v.0).collect();
    }
}

/// What has not been told yet: by this process, and of attempts that failed by those before it.
#[derive(Debug, Default)]
pub struct Unsaid {
    word: Mutex<Word>,
    /// Where the number of attempts is kept.
    dir: OnceLock<PathBuf>,
}

impl Unsaid {
    fn word(&self) -> MutexGuard<'_, Word> {
        self.word.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps attempts that failed in `dir` from now on, and tells of those that are there.
    pub fn keep_in(&self, dir: PathBuf) {
        let mut word = self.word();
        word.failed = word.failed.saturating_add(attempts::load(&dir));
        drop(self.dir.set(dir));
    }

    fn keep(&self, word: &Word) {
        if let Some(dir) = self.dir.get() {
            attempts::keep(dir, word.failed);
        }
    }

    /// An attempt to open the disk failed.
    pub fn failed(&self) {
        let mut word = self.word();
        word.failed = word.failed.saturating_add(1);
        self.keep(&word);
    }

    /// The disk was opened by a slot of this kind.
    pub fn opened(&self, slot: String) {
        self.word().opened_by = slot;
    }

    /// The disk was opened without anybody's doing: told if there is something to tell with it.
    pub fn opened_alone(&self, by: &str) {
        let mut word = self.word();
        if word.failed > 0 {
            by.clone_into(&mut word.opened_by);
        }
    }

    /// It was not opened after all: there will be another attempt.
    pub fn not_opened(&self) {
        self.word().opened_by.clear();
    }

    /// Voter `id` spoke as another one.
    pub fn impostor(&self, id: VoterId) {
        let mut word = self.word();
        if word.impostors.len() < MOST {
            word.impostors.insert(id);
        }
    }

    /// What is to be told now.
    pub fn now(&self) -> Word {
        self.word().clone()
    }

    /// `told` has been written down.
    pub fn told(&self, told: &Word) {
        let mut word = self.word();
        if !told.opened_by.is_empty() && word.opened_by == told.opened_by {
            word.opened_by.clear();
            if told.failed > 0 {
                word.failed = word.failed.saturating_sub(told.failed);
                self.keep(&word);
            }
        }
        word.impostors.retain(|id| !told.impostors.contains(id));
    }
}

/// Who was told of lately.
#[derive(Debug)]
pub struct Lately<K>(Mutex<BTreeMap<K, Instant>>);

/// Voters that spoke as another, as the leader was told.
pub type Impostors = Lately<VoterId>;

/// What a node says of a vault whose statuses are older than what it has seen.
pub const SET_BACK: &str = "status-set-back";

/// Nodes that said so: all voters were put back to where they were, without a new era.
pub type Remembered = Lately<String>;

impl<K> Default for Lately<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Ord> Lately<K> {
    /// It is `who`, at `now`.
    pub fn seen(&self, who: K, now: Instant) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(who, now);
    }

    /// Those to be warned of.
    pub fn all(&self, now: Instant) -> Vec<K> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lately = seen.iter().filter(|(_, at)| now.saturating_duration_since(**at) < WARNED);
        lately.map(|(who, _)| who.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(unsaid: &Unsaid) -> v1::VoterReport {
        let mut said = v1::VoterReport::default();
        unsaid.now().into_report(&mut said);
        said
    }

    #[test]
    fn failed_attempts_are_told_with_the_one_that_opened_and_only_once() {
        let unsaid = Unsaid::default();
        unsaid.failed();
        unsaid.failed();
        assert!(unsaid.now().is_empty(), "a sealed voter has nobody to tell");
        unsaid.opened("unlock(1)".to_owned());
        let word = unsaid.now();
        let said = report(&unsaid);
        assert_eq!((said.opened_by.as_str(), said.failed_unlocks), ("unlock(1)", 2));
        assert_eq!(report(&unsaid), said, "it is told until it is written down");
        unsaid.told(&word);
        assert!(unsaid.now().is_empty());
        assert_eq!(report(&unsaid), v1::VoterReport::default());
    }

    #[test]
    fn failed_attempts_of_a_process_that_ended_are_told_by_the_next_one_that_opens() {
        let dir = tempfile::tempdir().unwrap();
        let started = || {
            let unsaid = Unsaid::default();
            unsaid.keep_in(dir.path().to_owned());
            unsaid
        };
        for failed in 1..=3 {
            let unsaid = started();
            unsaid.failed();
            assert_eq!(unsaid.now().failed, failed);
        }
        let unsaid = started();
        unsaid.failed();
        unsaid.opened("unlock(1)".to_owned());
        let word = unsaid.now();
        assert_eq!(report(&unsaid).failed_unlocks, 4);
        // It died before it was written down: the next one tells of them once more, rather than never.
        assert_eq!(started().now().failed, 4);
        unsaid.told(&word);
        assert_eq!(started().now(), Word::default());
    }

    #[test]
    fn a_voter_that_opened_by_itself_tells_of_attempts_that_failed_before() {
        let unsaid = Unsaid::default();
        unsaid.opened_alone("plain");
        assert!(unsaid.now().is_empty(), "there is nothing to tell");
        unsaid.failed();
        unsaid.opened_alone("credential");
        let said = report(&unsaid);
        assert_eq!((said.opened_by.as_str(), said.failed_unlocks), ("credential", 1));
    }

    #[test]
    fn an_attempt_that_did_not_open_the_disk_is_not_told_as_one_that_did() {
        let unsaid = Unsaid::default();
        unsaid.opened("unlock(1)".to_owned());
        unsaid.not_opened();
        assert!(unsaid.now().is_empty());
    }

    #[test]
    fn what_was_seen_while_a_report_was_under_way_is_told_with_the_next() {
        let unsaid = Unsaid::default();
        unsaid.impostor(VoterId(2));
        let word = unsaid.now();
        unsaid.impostor(VoterId(3));
        unsaid.told(&word);
        assert_eq!(report(&unsaid).impostors, [3]);
    }

    #[test]
    fn an_impostor_is_warned_of_for_an_hour() {
        let (impostors, t) = (Impostors::default(), Instant::now());
        impostors.seen(VoterId(2), t);
        assert_eq!(impostors.all(t + Duration::from_secs(3599)), [VoterId(2)]);
        assert!(impostors.all(t + Duration::from_secs(3600)).is_empty());
    }
}
