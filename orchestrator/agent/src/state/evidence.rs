//! Refused assignments, kept for whoever has to explain them: the last [`KEPT`], without their boxes.

use super::file::{StateError, remove, save};
use holdfast_types::Millis;
use holdfast_wire::v1::Evidence;
use std::fs;
use std::path::{Path, PathBuf};

/// How many are kept; the oldest gives way.
pub const KEPT: usize = 64;

/// The directory.
#[derive(Debug)]
pub struct EvidenceDir(PathBuf);

impl EvidenceDir {
    /// In the state directory `root`.
    pub fn new(root: &Path) -> Self {
        Self(root.join("evidence"))
    }
    /// Keeps `evidence` of `at`. Names sort by time, so the first ones are the oldest.
    pub fn keep(&self, at: Millis, evidence: &Evidence) -> Result<(), StateError> {
        let digest = holdfast_types::sha256(&[evidence.detail.as_bytes(), &evidence.object_sha256]).hex();
        let short = digest.get(..16).unwrap_or(&digest);
        save(&self.0.join(format!("{:020}-{short}", at.0.max(0))), evidence)?;
        let mut all = self.names()?;
        let surplus = all.len().saturating_sub(KEPT);
        all.drain(surplus..);
        all.iter().try_for_each(|path| remove(path))
    }
    /// All kept, the oldest first.
    pub fn names(&self) -> Result<Vec<PathBuf>, StateError> {
        let at = |source| StateError::Io { path: self.0.clone(), source };
        let entries = fs::read_dir(&self.0).map_err(at)?;
        let mut all = entries.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>().map_err(at)?;
        all.sort();
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::file::load;

    #[test]
    fn only_the_newest_evidence_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("evidence")).unwrap();
        let kept = EvidenceDir::new(dir.path());
        let last = i64::try_from(KEPT).unwrap() + 9;
        for at in 0..=last {
            let evidence = Evidence { check: "node".into(), detail: format!("no {at}"), ..Evidence::default() };
            kept.keep(Millis(at), &evidence).unwrap();
        }
        let names = kept.names().unwrap();
        assert_eq!(names.len(), KEPT);
        let detail = |path: &Path| load::<Evidence>(path).unwrap().unwrap().detail;
        assert_eq!((detail(&names[0]), detail(&names[KEPT - 1])), ("no 10".to_owned(), format!("no {last}")));
    }
}
