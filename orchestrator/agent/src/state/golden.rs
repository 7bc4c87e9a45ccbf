//! Golden files of the agent's state: what an agent wrote yesterday is read today. `HOLDFAST_BLESS=1` writes them anew.

use super::file::{load, save};
use prost::Message;
use std::fmt::Debug;
use std::path::PathBuf;

/// `sample` is stored as `golden/<name>.hex` has it, and comes back from there.
pub fn holds<M: Message + Default + PartialEq + Debug>(name: &str, sample: &M) {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(format!("{name}.hex"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    save(&path, sample).unwrap();
    let hex: String = std::fs::read(&path).unwrap().iter().map(|b| format!("{b:02x}")).collect();
    if std::env::var_os("HOLDFAST_BLESS").is_some() {
        std::fs::write(&golden, format!("{hex}\n")).unwrap();
    }
    let stored = std::fs::read_to_string(&golden).unwrap();
    assert_eq!(hex, stored.trim(), "{name} is stored in another form than before");
    let digits: Vec<char> = stored.trim().chars().collect();
    let byte = |c: &[char]| u8::from_str_radix(&c.iter().collect::<String>(), 16).unwrap();
    std::fs::write(&path, digits.chunks(2).map(byte).collect::<Vec<u8>>()).unwrap();
    assert_eq!(load::<M>(&path).unwrap().as_ref(), Some(sample));
}
