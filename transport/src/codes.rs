//! Every failure by its word: the one list that the programs, the tests and `docs/reference/errors.md` share.
//!
//! A word is stable: scripts compare it. Its kind gives the exit status.

use crate::failure::FailureKind;

macro_rules! codes {
    ($($variant:ident = $word:literal, $kind:ident, $text:literal;)*) => {
        /// Why something did not happen, as a stable word.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code { $(#[doc = $text] $variant,)* }
        impl Code {
            /// Every code, in the order of the reference page.
            pub const ALL: &[Code] = &[$(Code::$variant),*];
            /// The kebab-case word.
            pub fn word(self) -> &'static str { match self { $(Code::$variant => $word),* } }
            /// Whose turn it is, and with it the exit status.
            pub fn kind(self) -> FailureKind { match self { $(Code::$variant => FailureKind::$kind),* } }
            /// One sentence for the reference page.
            pub fn meaning(self) -> &'static str { match self { $(Code::$variant => $text),* } }
        }
    };
}

codes! {
    Failed = "failed", Failed, "The cluster or this machine could not do it; the message says why.";
    Disk = "disk", Failed, "A file or folder could not be read, written or made.";
    Io = "io", Failed, "A terminal, stream, socket or process could not be used.";
    State = "state", Failed, "A daemon's state directory cannot be used, or holds what it should not.";
    RuntimeDir = "runtime-dir", Failed, "An agent's runtime directory cannot be used.";
    Address = "address", Failed, "A listener's address cannot be had.";
    Clock = "clock", Failed, "This machine's clock and the vault's are too far apart, or a vault's is days behind its own log.";
    Harden = "harden", Failed, "The vault could not give up rights, or would keep keys where they may be swapped out, so it did not start.";
    Corrupt = "corrupt", Failed, "What is stored is not what was written.";
    WrongCluster = "wrong-cluster", Failed, "A voter's disk belongs to another cluster.";
    WrongVoter = "wrong-voter", Failed, "A voter's disk belongs to another voter.";
    NotInitialized = "not-initialized", Failed, "A voter's disk lacks a part.";
    Raft = "raft", Failed, "A voter's log could not be started.";
    LogStopped = "log-stopped", Failed, "A voter's log has stopped, as when its disk is full.";
    KeyPort = "key-port", Failed, "The CA's keys could not be used.";
    KeyNotFound = "key-not-found", Failed, "The voter's PKCS#11 token does not have the key that it should.";
    TokenRefused = "token-refused", Failed, "The voter's PKCS#11 token does not do what was asked of it, however often.";
    TokenCorrupt = "token-corrupt", Failed, "What the voter's PKCS#11 token gave is not a usable key, signature or wrapped key.";
    TokenFull = "token-full", Failed, "The voter's PKCS#11 token has no room for another key.";
    NoEntropy = "no-entropy", Failed, "The system gave no random bytes.";
    Policy = "policy", Failed, "The built-in policies could not be read.";
    Identity = "identity", Failed, "A voter's own certificate cannot be used.";
    JoinKey = "join-key", Failed, "The key of a join could not be used.";
    JoinLost = "join-lost", Failed, "The join under way has lost its key.";
    JoinProtocol = "join-protocol", Failed, "An answer does not follow the join protocol.";
    LogProof = "log-proof", Failed, "A proof from the log cannot be read.";
    WrongListener = "wrong-listener", Failed, "The address belongs to another listener.";
    Internal = "internal", Failed, "A server failed in a way that it does not explain.";
    Unimplemented = "unimplemented", Failed, "The server is of another version and does not know the call.";
    Untrusted = "untrusted", Failed, "An answer does not verify up to the cluster's charter: it is not believed.";
    RolloutFailed = "rollout-failed", Failed, "A service was accepted, but its tasks do not run.";
    RolloutTimeout = "rollout-timeout", Failed, "A service was accepted, but its tasks did not all run within the time given.";
    LogWrong = "log-wrong", Failed, "The transparency log does not match its checkpoint, or was rewritten.";
    SecretsFound = "secrets-found", Failed, "`scan` found join tokens, unlock keys or recovery keys.";
    Usage = "usage", Invalid, "The command line is wrong.";
    Configuration = "configuration", Invalid, "A daemon's configuration is missing or wrong; every fault is named.";
    SpecInvalid = "spec-invalid", Invalid, "A service file is wrong; every fault is named with its line or key.";
    NotAvailableYet = "not-available-yet", Invalid, "This version does not do that yet.";
    NoContext = "no-context", Invalid, "The context does not exist or is incomplete.";
    ContextExists = "context-exists", Invalid, "The context exists already; its keys are never overwritten.";
    InvalidInput = "invalid-input", Invalid, "A value or request makes no sense, or a file that is to be new is there already.";
    TooLong = "too-long", Invalid, "A command is larger than the log takes.";
    NoAddress = "no-address", Invalid, "No address of a vault is known.";
    NotJoined = "not-joined", Invalid, "This node or orchestrator has not joined a cluster, and was given no token.";
    TokenUnreadable = "token-unreadable", Invalid, "The file of a join token cannot be read.";
    PolicyDenied = "policy-denied", Refused, "A policy forbids it; the message and `details` name it.";
    NotAllowed = "not-allowed", Refused, "This role may not make that call.";
    Threshold = "threshold", Refused, "More operators have to sign, or the signer does not count.";
    Pending = "pending", Refused, "An operator has to approve this first.";
    BadCredential = "bad-credential", Refused, "A signature, token, proof or certificate was not accepted.";
    BadKey = "bad-key", Refused, "The unlock or recovery key does not open this voter.";
    BadShare = "bad-share", Refused, "A share is damaged, or not one of the key that the others are shares of.";
    TooFewShares = "too-few-shares", Refused, "Fewer shares were given than the key needs.";
    NoSlot = "no-slot", Refused, "The voter has no slot for a key of this kind.";
    PinIncorrect = "pin-incorrect", Refused, "The PKCS#11 token refused its PIN, or has none left to try; it is not tried again before the voter is started again.";
    KeyExposed = "key-exposed", Refused, "The file of a key or join token may be opened by others than its owner; it is not used.";
    JoinToken = "join-token", Refused, "The join token is damaged, or for another role.";
    ServerNotTrusted = "server-not-trusted", Refused, "The server is not of this cluster, or not what it should be.";
    ClusterNotBelieved = "cluster-not-believed", Refused, "The vault's documents do not verify from what is trusted.";
    CertificateRefused = "certificate-refused", Refused, "The server does not believe our certificate.";
    CertificateNotOurs = "certificate-not-ours", Refused, "The vault gave a certificate that is not for us.";
    UnknownCertificate = "unknown-certificate", Refused, "The certificate is not the one in the registry.";
    IdentityRefused = "identity-refused", Refused, "The server knows the name but does not accept it any more.";
    IdentityFork = "identity-fork", Refused, "Two keys claimed this node or orchestrator; it is quarantined.";
    PeerRevoked = "peer-revoked", Refused, "The other side was revoked.";
    BudgetExhausted = "budget-exhausted", Exhausted, "A budget or rate limit is used up.";
    TooManyAttempts = "too-many-attempts", Exhausted, "Too many attempts to unlock within a minute.";
    TooManyRequests = "too-many-requests", Exhausted, "Too many such requests at a time.";
    NotFound = "not-found", NotFound, "There is no such thing.";
    Changed = "changed", Changed, "It changed meanwhile; look again and repeat.";
    RolledBack = "rolled-back", Changed, "A voter's disk is older than what the others know of it, or a copy of it runs elsewhere.";
    AlreadyInitialized = "already-initialized", Changed, "This vault has been founded already.";
    QuorumIsThere = "quorum-is-there", Changed, "More than half of the voters are up: nothing is to be brought back.";
    NotSealed = "not-sealed", Changed, "The vault is not sealed.";
    NotOpen = "not-open", Changed, "The vault is not open.";
    AutolockOff = "autolock-off", Changed, "Sealing would do nothing: autolock is off.";
    Sealed = "sealed", Unavailable, "The voter is sealed or not initialised.";
    NoQuorum = "no-quorum", Unavailable, "Too few voters are up to decide anything.";
    NoLeader = "no-leader", Unavailable, "No voter leads at the moment.";
    NotLeader = "not-leader", NotLeader, "This voter does not lead; another one does.";
    Unreachable = "unreachable", Unavailable, "No voter, orchestrator or socket could be reached.";
    Unavailable = "unavailable", Unavailable, "The server cannot do it at the moment.";
    TokenUnavailable = "token-unavailable", Unavailable, "The voter's PKCS#11 token cannot be reached; it is tried again by itself.";
    TokenTimeout = "token-timeout", Unavailable, "The voter's PKCS#11 token did not answer in the time that it is given; it is tried again by itself.";
    TimedOut = "timed-out", Unavailable, "No answer came in time.";
    OutcomeUnknown = "outcome-unknown", Unavailable, "The voter lost its lead meanwhile; the command may have been carried out. Repeat it.";
    Stopped = "stopped", Unavailable, "The program stopped, as it was told to.";
    Stopping = "stopping", Unavailable, "The server is stopping.";
    HandshakeFailed = "handshake-failed", Unavailable, "A TLS handshake broke off.";
    ConnectionLost = "connection-lost", Unavailable, "A connection broke.";
    Disconnected = "disconnected", Unavailable, "The caller left.";
    Cancelled = "cancelled", Unavailable, "The call was given up.";
    RenewFirst = "renew-first", Unavailable, "The certificate renews, and is good for nothing else: it is of an era before, or its machine was released from quarantine.";
    Closed = "closed", Unavailable, "The vault closed the stream.";
    Lagged = "lagged", Unavailable, "Too many changes were missed; the watch starts over.";
    VaultStalled = "vault-stalled", Unavailable, "The vault does not read what it is told.";
    PeerStalled = "peer-stalled", Unavailable, "The orchestrator does not read what it is told.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_a_kebab_case_word_of_its_own() {
        let mut words: Vec<_> = Code::ALL.iter().map(|c| c.word()).collect();
        assert!(words.iter().all(|w| w.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')));
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Code::ALL.len());
    }
}
