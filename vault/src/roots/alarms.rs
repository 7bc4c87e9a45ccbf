//! What `status` warns of about roots. The list is explained in docs/operations/running.md.

use holdfast_types::{Millis, rough};
use holdfast_vault_core::State;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);
/// A root that ends within this time should have been replaced by now: it is, at half of its life.
const YEAR: Duration = Duration::from_secs(365 * 86_400);
/// A rotation that has not gone on for so long.
const LATE: Duration = Duration::from_secs(3600);

/// Every alarm of this moment, by its code.
pub fn alarms(s: &State, now: Millis) -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    if let Some(root) = s.signing_root() {
        all.extend(ends(root.not_after, now).map(|text| ("root-ends", text)));
    }
    if s.root_to_bring(now) {
        let text = "half of the life of the root that operators brought is over, and it is theirs to replace: \
                    see `holdfast root rotate`";
        all.push(("root-ends", text.to_owned()));
    }
    if let Some(late) = s.root_overdue(now).filter(|late| *late >= LATE) {
        let text = format!(
            "the root that signs should have been replaced by itself {} ago, and no other one could be made: see \
             `holdfast root status`",
            rough(late)
        );
        all.push(("root-rotation-late", text));
    }
    if s.rotation().asked.is_some() {
        let text = "a root whose key is offline is to sign: fetch what with `holdfast root csr`";
        all.push(("root-to-sign", text.to_owned()));
    }
    if s.rotation().proposed.is_some() {
        let text = "a new root waits for Admins to sign for it: see `holdfast root status`";
        all.push(("root-to-sign", text.to_owned()));
    }
    let phase = s.root_phase();
    if (phase != "stable" || s.rotation().target.is_some()) && now.since(s.rotation().since) >= LATE {
        let text = format!("the rotation of the root ({phase}) has not gone on for more than an hour");
        all.push(("root-rotation-late", text));
    }
    all
}

/// A year before the end, 90 days and 30 days before it: the nearer, the louder.
fn ends(end: Millis, now: Millis) -> Option<String> {
    if end <= now {
        return Some("the root that signs has expired: nothing is believed that comes from it".to_owned());
    }
    let left = end.since(now);
    let what = match left {
        l if l <= DAY * 30 => "everything that has a certificate stops with it: rotate it today",
        l if l <= DAY * 90 => "rotate it now",
        l if l <= YEAR => "it should have been replaced: see why not in `holdfast root status`",
        _ => return None,
    };
    Some(format!("the root that signs ends in {}; {what}", rough(left)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_root_is_said_a_year_before_and_louder_as_it_comes_nearer() {
        let now = Millis(1_700_000_000_000);
        let said = |days: u32| ends(now.plus(DAY * days), now).unwrap_or_default();
        assert_eq!(said(366), "");
        assert!(said(364).contains("should have been replaced"));
        assert!(said(89).contains("rotate it now") && said(29).contains("today"));
        assert!(said(0).contains("has expired"));
    }
}
