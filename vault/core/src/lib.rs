//! The vault as a machine: registry, keyring, leases, grants and the log, without a socket, a disk or a clock.
//!
//! Two halves that must not mix:
//! * [`prepare`] runs on the leader: it takes time, entropy and permits, and yields a [`Command`] in which every
//!   choice has been made, together with what will be said to the caller once it is committed ([`Held`]);
//! * [`apply`](State::apply) runs on every voter: it takes only the command and gives the same state everywhere.
//!
//! What leaves the house is inside a [`Held`] and comes out only against a [`Committed`], which only `apply` mints:
//! *commit before release* is a type. Secrets are in the state only as Records, in messages only as Boxes.

mod apply;
mod bytes;
mod command;
mod entropy;
mod held;
mod keys;
mod log;
mod observation;
mod refusal;
mod reset;
mod state;

pub mod prepare;
pub mod views;

pub use apply::{Applied, Committed, Event};
pub use command::{
    Asked, CaKey, CertFacts, Command, CrossRow, EraKeys, Founding, GrantFact, GrantOrder, HpkeFacts, NewRoot, NewTerm,
    NodeTaskReport, RecordAt, Rewrapped, SealedKey, Stamped, StkFacts, Submission, VoterFacts, VoterMark, VoterSaid,
    command_voter,
};
pub use entropy::Entropy;
pub use held::{Held, Prepared};
pub use keys::Keyring;
pub use log::{Leaf, grant_fields};
pub use observation::{NoteFacts, NoteKind};
pub use refusal::{Code, Refusal};
pub use reset::ResetFacts;
pub use state::{
    Accepted, Budget, CertRow, GivenRoot, GrantRow, GrantState, Identity, IdentityState, Issuer, Lease, MandateRow,
    NextUnlock, Notice, Noticed, PastKey, Presented, REJOIN_MOST, RetiredRoot, RootKind, RootRow, RootStep, RootTarget,
    Rotation, SecretRow, SecretVersion, ServiceRow, SpecVersion, State, StateError, StkRow, TokenRow, Unlock,
    UnlockKey, VoterRow, VoterState, WantedSlots, third_over,
};
