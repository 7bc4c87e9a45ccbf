//! Identities that outlive absence and theft: machines that were off for too long, copies of a disk, removals.

mod away;
mod leases;
mod pushed;
mod removal;
pub mod thief;
