//! The ports file: which listener got which address, for those who asked for port 0.

use crate::failure::Failure;
use crate::files::{PUBLIC, replace};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

/// Names of listeners and their addresses; written as one JSON object `{"name": "ip:port"}`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortsFile(BTreeMap<String, SocketAddr>);
impl PortsFile {
    /// Without any listener.
    pub fn new() -> Self {
        Self::default()
    }
    /// With the listener `name` at `addr`.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, addr: SocketAddr) -> Self {
        self.0.insert(name.into(), addr);
        self
    }
    /// Writes the file: whoever sees it sees all of it.
    pub fn write(&self, path: &Path) -> Result<(), Failure> {
        let failed = |e| Failure::disk("write the ports file", path, &e);
        let mut json = serde_json::to_vec(&self.0).map_err(|e| failed(io::Error::other(e)))?;
        json.push(b'\n');
        replace(path, &json, PUBLIC).map_err(failed)
    }
    /// Reads a file that [`PortsFile::write`] wrote.
    pub fn read(path: &Path) -> io::Result<BTreeMap<String, SocketAddr>> {
        serde_json::from_slice(&std::fs::read(path)?).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ports_file_names_each_listener_with_its_address() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ports.json");
        let join: SocketAddr = "127.0.0.1:4001".parse().unwrap();
        let health: SocketAddr = "[::1]:4002".parse().unwrap();
        PortsFile::new().with("join", join).with("health", health).write(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"health\":\"[::1]:4002\",\"join\":\"127.0.0.1:4001\"}\n");
        assert_eq!(PortsFile::read(&path).unwrap().get("join"), Some(&join));
    }
}
