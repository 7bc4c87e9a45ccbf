//! One record a task that was accepted: what an agent needs to adopt it after a restart. Never a secret.
//!
//! A record lies here from before the task's container starts until the vault has acknowledged its end.

use super::file::{StateError, load, remove, save};
use holdfast_types::GrantId;
use holdfast_wire::v1::{Grant, Spec, TaskReport};
use std::fs;
use std::path::{Path, PathBuf};

/// STORED: `grants/<grant id>`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Record {
    /// What the vault granted.
    #[prost(message, optional, tag = "1")]
    pub grant: Option<Grant>,
    /// What the deployer signed.
    #[prost(message, optional, tag = "2")]
    pub spec: Option<Spec>,
    /// The lease's end as last extended.
    #[prost(int64, tag = "3")]
    pub lease_until_ms: i64,
    /// Its secrets are mounted, and at least one container was to be started.
    #[prost(bool, tag = "4")]
    pub prepared: bool,
    /// Containers started so far, less one: the number of the current one.
    #[prost(uint32, tag = "5")]
    pub attempt: u32,
    /// How it ended, once it has.
    #[prost(message, optional, tag = "6")]
    pub over: Option<TaskReport>,
}

/// What an earlier agent wrote down.
#[derive(Debug, Default)]
pub struct Found {
    /// Whole records.
    pub whole: Vec<(GrantId, Record)>,
    /// Files that are damaged: none of them keeps the others from being adopted.
    pub damaged: Vec<StateError>,
}

/// The directory.
#[derive(Debug, Clone)]
pub struct Records(PathBuf);

impl Records {
    /// In the state directory `root`.
    pub fn new(root: &Path) -> Self {
        Self(root.join("grants"))
    }
    fn path(&self, id: &GrantId) -> PathBuf {
        self.0.join(id.hex())
    }
    /// Keeps `record` of the grant `id`; returns once it would survive a power cut.
    pub fn save(&self, id: &GrantId, record: &Record) -> Result<(), StateError> {
        save(&self.path(id), record)
    }
    /// Forgets the grant `id`.
    pub fn remove(&self, id: &GrantId) -> Result<(), StateError> {
        remove(&self.path(id))
    }
    /// All records.
    pub fn load(&self) -> Result<Found, StateError> {
        let at = |source| StateError::Io { path: self.0.clone(), source };
        let mut found = Found::default();
        for entry in fs::read_dir(&self.0).map_err(at)? {
            let path = entry.map_err(at)?.path();
            let Some(id) = path.file_name().and_then(|n| GrantId::parse(n.to_str()?)) else { continue };
            match load(&path) {
                Ok(Some(record)) => found.whole.push((id, record)),
                Ok(None) => {}
                Err(e) => found.damaged.push(e),
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_stored_as_they_always_were() {
        let record = Record {
            grant: Some(Grant { task_id: "shop.web.1".into(), task_gen: 3, ..Grant::default() }),
            spec: Some(Spec { service: "web".into(), ..Spec::default() }),
            lease_until_ms: 1000,
            prepared: true,
            attempt: 2,
            over: Some(TaskReport { grant_id: vec![7; 16], state: "stopped".into(), ..TaskReport::default() }),
        };
        crate::state::golden::holds("record", &record);
    }

    #[test]
    fn a_damaged_record_does_not_hide_the_others() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("grants")).unwrap();
        let records = Records::new(dir.path());
        let record = Record { attempt: 2, prepared: true, ..Record::default() };
        for n in [1, 2] {
            records.save(&GrantId([n; 16]), &record).unwrap();
        }
        // A half-written successor beside a record is none.
        fs::write(dir.path().join("grants").join(format!("{}.new", GrantId([1; 16]))), "half").unwrap();
        fs::write(records.path(&GrantId([2; 16])), "HFS").unwrap();
        let found = records.load().unwrap();
        assert_eq!(found.whole, [(GrantId([1; 16]), record)]);
        assert_eq!(found.damaged.len(), 1);
        records.remove(&GrantId([1; 16])).unwrap();
        records.remove(&GrantId([1; 16])).unwrap();
        assert!(records.load().unwrap().whole.is_empty());
    }
}
