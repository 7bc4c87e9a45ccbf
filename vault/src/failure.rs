//! The core's and the disk's refusals in the transport's words.

use crate::raft::{ProposeError, Stopped};
use holdfast_transport::failure::{Failure, FailureKind};
use holdfast_vault_core::{Code, Refusal};

/// What to do about a disk that is not what was written. A copy is put back only where no other voter lives.
pub const WHOLE: &str = "where other voters live, evict this voter and admit it anew; a voter that is alone is restored \
                         whole, from its newest copy or a backup";

fn kind(code: Code) -> FailureKind {
    match code {
        Code::PolicyDenied | Code::BadCredential | Code::Threshold | Code::Pending => FailureKind::Refused,
        Code::BudgetExhausted => FailureKind::Exhausted,
        Code::InvalidInput => FailureKind::Invalid,
        Code::NotFound => FailureKind::NotFound,
        Code::Changed | Code::RolledBack => FailureKind::Changed,
        Code::Unavailable => FailureKind::Unavailable,
        Code::Corrupt | Code::Clock => FailureKind::Failed,
    }
}

fn help(code: Code) -> Option<&'static str> {
    match code {
        Code::PolicyDenied => Some("ask an operator with the right role, or look at the policy named"),
        Code::Threshold => Some("collect the missing signatures"),
        Code::BudgetExhausted => Some("wait, or give the orchestrator a mandate with a larger budget"),
        Code::Changed => Some("look at the current state and try again"),
        Code::Unavailable => Some("see holdfast status"),
        Code::Clock => Some("set both clocks right, for instance with `timedatectl set-ntp true`"),
        Code::RolledBack => Some("evict this voter and admit it anew; its disk cannot be used any more"),
        Code::BadCredential | Code::Pending | Code::InvalidInput | Code::NotFound | Code::Corrupt => None,
    }
}

/// The answer to a certificate that is not in the registry.
pub fn unknown() -> Failure {
    Failure::refused("unknown-certificate", "this certificate is not the one in the registry")
        .help("join again with a new token")
}

/// The answer to a machine whose identity was quarantined by its own request.
pub fn fork() -> Failure {
    Failure::refused("identity-fork", "two keys claim this identity; it is quarantined")
        .help("see holdfast node release, or remove it and join again with a new token")
}

/// A refusal of the core, as it is sent.
pub fn refused(r: Refusal) -> Failure {
    let mut f = Failure::new(kind(r.code), r.code.as_str(), r.to_string());
    if let Some(h) = help(r.code) {
        f = f.help(h);
    }
    r.policies.into_iter().fold(f, |f, p| f.detail("policy", p))
}

/// The answer to a certificate that is good for its renewal alone.
pub fn renew_first(why: &str) -> Failure {
    Failure::unavailable("renew-first", why)
}

/// A command that was not committed.
pub fn unproposed(e: ProposeError) -> Failure {
    match e {
        ProposeError::NotLeader { address, .. } => Failure::not_leader([address]),
        ProposeError::Unavailable => Failure::unavailable("no-leader", e.to_string()).help("see holdfast status"),
        ProposeError::Unknown => Failure::unavailable("outcome-unknown", e.to_string()),
        ProposeError::TooLong => Failure::invalid("too-long", e.to_string()),
        ProposeError::Stopped => Failure::unavailable("stopped", e.to_string()),
    }
}

/// This voter has stopped.
pub fn stopped(e: Stopped) -> Failure {
    Failure::unavailable("stopped", e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::StoreError;

    #[test]
    fn damage_advises_what_can_be_done_today() {
        let damage = [
            StoreError::Corrupt { keyspace: "log", index: 1 },
            StoreError::Gap { purged: Some(3), applied: None },
            StoreError::CutOff { last: None, committed: Some(3) },
        ];
        for e in damage {
            assert!(e.to_string().ends_with(WHOLE), "{e}");
        }
        let damaged = crate::disk::DiskError::Corrupt { what: "the slots", why: "cut short" };
        assert_eq!(crate::found::disk(damaged).help.as_deref(), Some(WHOLE));
    }

    #[test]
    fn every_code_of_the_core_is_in_the_list_with_the_kind_that_it_is_sent_as() {
        for code in Code::ALL {
            let listed = holdfast_transport::codes::Code::ALL.iter().find(|c| c.word() == code.as_str());
            assert_eq!(listed.map(|c| c.kind()), Some(kind(code)), "{}", code.as_str());
        }
    }
}
