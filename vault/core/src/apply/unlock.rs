//! The unlock key: Prepare, Finalize, autolock off, and the order to replace disk keys.

use super::submit::By;
use super::{Event, Step};
use crate::refusal::Refusal;
use crate::state::{NextUnlock, UnlockKey};
use holdfast_types::VoterId;
use holdfast_wire::v1;

fn listed(ids: &[VoterId]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl Step<'_> {
    /// Every voter seals its disk key to the next key too, beside the present one. One that never took over is replaced.
    pub(super) fn unlock_prepare(&mut self, by: &By<'_>, p: v1::UnlockPrepare) -> Result<(), Refusal> {
        let key = UnlockKey::read(&p)?;
        let u = &self.state.unlock;
        let epoch = u.next_epoch();
        if p.epoch != epoch {
            return Err(Refusal::changed(format!("the next unlock key is of epoch {epoch}, this one of {}", p.epoch)));
        }
        if u.key.is_none() && (p.compromised || !p.chain.is_empty()) {
            return Err(Refusal::changed("autolock is off: there is no unlock key that a chain could start from"));
        }
        let mut known = u.key.iter().chain(u.next.iter().map(|n| &n.key));
        if known.any(|k| k.pk == key.pk) {
            return Err(Refusal::invalid("the next unlock key is one that is in use"));
        }
        // The sidecar has room for one chain, and only the older one opens these; or only a key that nobody would keep.
        let asleep = self.state.left_behind();
        if (u.key.is_none() || !p.chain.is_empty()) && !asleep.is_empty() {
            return Err(Refusal::changed(format!(
                "voters that still have an older unlock key: {}; open or evict them first",
                listed(&asleep)
            )));
        }
        let next = NextUnlock { epoch, key, chain: p.chain, compromised: p.compromised, since: self.at };
        let draft = by.draft("unlock.prepare", epoch).with("compromised", next.compromised);
        self.leaf(draft.with("chain", !next.chain.is_empty()).with("shares", next.key.share_digests.len()));
        self.state.unlock.next = Some(next);
        self.event(Event::Slots);
        Ok(())
    }

    /// LAW: the present key is done with only once a quorum opens with the next one
    /// (`every_voter_can_be_opened_at_every_step_of_a_rotation`).
    pub(super) fn unlock_finalize(&mut self, by: &By<'_>, f: &v1::UnlockFinalize) -> Result<(), Refusal> {
        let (ready, missing) = self.state.slots_ready();
        let u = &mut self.state.unlock;
        let next = match u.next.take() {
            Some(n) if n.epoch != f.epoch => {
                let why = format!("the unlock key that waits is of epoch {}, not {}", n.epoch, f.epoch);
                u.next = Some(n);
                return Err(Refusal::changed(why));
            }
            Some(n) if ready.len() <= missing.len() => {
                u.next = Some(n);
                return Err(Refusal::changed(format!(
                    "voters that are not ready for the next unlock key: {}; more than half must be",
                    listed(&missing)
                )));
            }
            Some(n) => n,
            None => return Err(Refusal::changed("no unlock key waits to take over")),
        };
        // What opened a disk until now lay beside it, or is in wrong hands: the disk key itself counts as known.
        let known = next.compromised || u.key.is_none();
        let before = u.epoch;
        u.chain = (!next.chain.is_empty()).then_some((before, next.chain));
        u.epoch = next.epoch;
        u.key = Some(next.key);
        self.leaf(by.draft("unlock.finalize", f.epoch).with("late", listed(&missing)));
        if known {
            self.replace_disk_keys();
        }
        self.event(Event::Slots);
        Ok(())
    }

    /// Each voter lays its disk key down beside its disk. The key's epoch stays, so that none is ever used twice.
    pub(super) fn autolock_off(&mut self, by: &By<'_>) -> Result<(), Refusal> {
        let u = &mut self.state.unlock;
        if u.next.is_some() {
            return Err(Refusal::changed("an unlock key waits to take over; finish that first"));
        }
        if u.key.take().is_none() {
            return Err(Refusal::changed("autolock is off already"));
        }
        self.leaf(by.draft("autolock.off", "cluster"));
        self.event(Event::Slots);
        Ok(())
    }

    /// Each voter replaces its disk key.
    pub(super) fn order_disk_keys(&mut self, by: &By<'_>) -> Result<(), Refusal> {
        self.leaf(by.draft("diskkey.rotate", self.state.unlock.disk_key_order + 1));
        self.replace_disk_keys();
        Ok(())
    }

    pub(super) fn replace_disk_keys(&mut self) {
        self.state.unlock.disk_key_order += 1;
        self.event(Event::Slots);
    }
}
