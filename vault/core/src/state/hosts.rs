//! Who says that it is on a voter's machine: told by the addresses that they gave, which are looked up nowhere.
//!
//! It must never decide anything: an address is what its owner says. It is told to people, who know their machines.

use super::State;
use holdfast_types::{Millis, VoterId};

impl State {
    /// Orchestrators whose address has the host of a voter, each with that voter: there the two are kept apart by users and
    /// filters alone (protocol, what cannot be prevented). Two names of one machine are not recognised.
    pub fn co_located(&self, now: Millis) -> Vec<(String, VoterId)> {
        let voters: Vec<_> = self
            .voters()
            .flat_map(|(id, v)| [&v.service_addr, &v.join_addr].map(|a| (id, host(a))))
            .filter_map(|(id, host)| host.map(|h| (id, h)))
            .collect();
        let beside = |addr: &str| {
            let at = host(addr)?;
            voters.iter().find(|(_, h)| *h == at).map(|(id, _)| *id)
        };
        self.orchestrators(now).into_iter().filter_map(|o| beside(&o.addr).map(|v| (o.orch_id, v))).collect()
    }
}

/// The host of `host:port`, as it compares: in lower case, and each name that a machine has for itself as one.
fn host(addr: &str) -> Option<String> {
    let host = addr.rsplit_once(':')?.0.trim_matches(['[', ']']).to_ascii_lowercase();
    let loopback = host.starts_with("127.") && host.chars().all(|c| c.is_ascii_digit() || c == '.');
    match host.as_str() {
        "" => None,
        "localhost" | "::1" => Some("localhost".to_owned()),
        _ if loopback => Some("localhost".to_owned()),
        _ => Some(host),
    }
}

#[cfg(test)]
mod tests {
    use super::host;

    #[test]
    fn the_names_that_a_machine_has_for_itself_are_one_host() {
        for own in ["127.0.0.1:7401", "127.1.2.3:1", "localhost:7401", "LocalHost:2", "[::1]:7401"] {
            assert_eq!(host(own).as_deref(), Some("localhost"), "{own}");
        }
        assert_eq!(host("Vault-1.example.org:7401").as_deref(), Some("vault-1.example.org"));
        assert_eq!(host("[2001:db8::1]:7401").as_deref(), Some("2001:db8::1"));
        assert_ne!(host("127.example.org:1").as_deref(), Some("localhost"));
        for none in ["", "7401", ":7401"] {
            assert_eq!(host(none), None, "{none}");
        }
    }
}
