//! How Holdfast's programs reach each other: mutual TLS 1.3 with pinned identities, and gRPC over it.
//!
//! * [`tls`]: one protocol version, one key exchange, no resumption; certificates and trust swapped while running;
//! * [`server`]: accepting connections, each of them bound to a verified peer and closable by its identity;
//! * [`client`]: dialling one of several voters and following the leader;
//! * [`failure`], [`codes`] and [`status`]: what went wrong, in our words and in gRPC's;
//! * [`join`]: from a join token to an identity; [`rejoin`]: from an identity that is over to the next one;
//! * [`keys`] and [`renew`]: the key of an identity and the identity that renews itself;
//! * [`daemon`]: what the three daemons share: logging, health, ports file, signals, configuration, swap.
//!
//! Decides nothing about the domain: who may connect is asked of [`tls::Admission`], who may do what is asked elsewhere.

pub mod client;
pub mod codes;
pub mod daemon;
pub mod failure;
pub mod files;
pub mod framed;
pub mod join;
pub mod keys;
pub mod rejoin;
pub mod renew;
pub mod server;
pub mod status;
pub mod tls;

mod clock;
mod gather;
#[cfg(test)]
mod tests;

pub use clock::{check_clock, now};

/// gRPC clients and servers generated from `wire/proto`; their messages are `holdfast_wire::v1`.
#[allow(missing_docs, clippy::all, clippy::restriction, clippy::pedantic)]
pub mod rpc {
    tonic::include_proto!("holdfast.v1");
}
