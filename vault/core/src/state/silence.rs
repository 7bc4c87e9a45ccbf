//! Time in which no vault ran: it does not count against a machine that waits to come back.
//!
//! A leader writes something at least every 15 minutes, so a much longer rest between two entries is time in which
//! nobody could have come back: the cluster was off, or its voters were too few. A clock that was ahead when a vault started
//! looks the same.
//!
//! LAW: such time is left out and nothing begins anew by it, so whatever clocks say and however often a vault stops, a
//! certificate is over for good once a vault has run for the whole window since its end
//! (`neither_stops_nor_clocks_reopen_the_window`).

use super::{REJOIN_MOST, State};
use holdfast_types::Millis;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A leader that has nothing else to write writes after this long.
const WRITES_EVERY: Duration = Duration::from_secs(15 * 60);
/// A rest between two entries that is longer than this is a silence.
const LEAST: Duration = Duration::from_secs(3600);
/// Most silences remembered: of more, the shortest count as time like any other.
const MOST: usize = 64;

/// A time without entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Silence {
    /// The time of the entry before it.
    pub from: Millis,
    /// The time of the entry after it.
    pub until: Millis,
}

impl State {
    /// When it began that a vault has run for `running` in all, seen from `now`.
    pub fn ran_since(&self, now: Millis, running: Duration) -> Millis {
        let open = self.silence_until(now);
        let (mut end, mut left) = (now, running);
        for silence in open.iter().chain(self.silences.iter().rev()) {
            let ran = end.since(silence.until);
            if ran > left {
                break;
            }
            left = left.saturating_sub(ran);
            end = silence.from;
        }
        end.minus(left)
    }

    /// An entry of the time `at` is applied.
    pub(crate) fn heard_at(&mut self, at: Millis) {
        let silence = self.silence_until(at);
        self.last_at = at;
        let Some(silence) = silence else { return };
        self.silences.push(silence);
        let oldest = self.ran_since(at, REJOIN_MOST);
        self.silences.retain(|s| s.until > oldest);
        if self.silences.len() > MOST {
            let lengths = self.silences.iter().map(|s| s.until.since(s.from)).enumerate();
            if let Some((shortest, _)) = lengths.min_by_key(|(_, length)| *length) {
                self.silences.remove(shortest);
            }
        }
    }

    /// Whether the leader is to write something at `now`, so that this is no silence.
    pub(crate) fn is_quiet(&self, now: Millis) -> bool {
        self.is_founded() && now.since(self.last_at) >= WRITES_EVERY
    }

    /// The silence that an entry at `at` ends, if there was one.
    fn silence_until(&self, at: Millis) -> Option<Silence> {
        let silent = self.is_founded() && at.since(self.last_at) > LEAST;
        silent.then_some(Silence { from: self.last_at, until: at })
    }
}
