//! Sealed and unsealed: what a voter does without its key, and with a wrong one.

use super::world::{World, eventually};
use std::fs;
use std::net::TcpStream;

#[test]
fn a_sealed_vault_opens_no_port_and_the_right_key_opens_it() {
    let mut w = World::founded();
    w.put_secret("shop/a", b"value", &[]);
    w.ok(&["seal", "--vault-socket", &w.socket()]);
    let vault = w.vault.as_mut().unwrap();
    assert_eq!(eventually("the sealed process to end", || vault.exited()), Some(75));
    w.start_vault();
    for port in [w.join, w.service] {
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "a sealed vault listens on {port}");
    }
    assert_eq!(w.json(&["status", "--vault-socket", &w.socket()])["state"], "sealed");
    let wrong = w.path("wrong.key");
    let key = World::founded_key();
    fs::write(&wrong, key).unwrap();
    let said = w.refused(&["unlock", "--vault-socket", &w.socket(), "--key-file", wrong.to_str().unwrap()], 3);
    assert!(said.contains("key"), "{said}");
    w.unlock();
    assert!(w.ok(&["secret", "ls"]).contains("shop/a"));
    assert!(w.ok(&["log", "tail", "-n", "50"]).contains("unlock.open"));
}

impl World {
    /// A well-formed unlock key of nothing.
    pub fn founded_key() -> String {
        let key = holdfast_types::Secret::<holdfast_types::kind::UnlockSecret, 32>::take(&mut [7; 32]);
        holdfast_wire::token::print_key("unlock", &key).to_string()
    }
}
