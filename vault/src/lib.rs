//! The vault daemon: the shell round the pure machine of `holdfast-vault-core`.
//!
//! Sockets, disk, time and entropy live here; decisions do not. Must never hold scheduling, image or HTTP-API code.

pub mod config;
pub mod disk;
pub mod harden;
pub mod raft;
pub mod rights;
pub mod run;

mod awaits;
mod backup;
mod clock;
mod cluster;
mod drive;
mod failure;
mod found;
mod gate;
mod grpc;
mod hub;
mod keystore;
mod pace;
mod recover;
mod registry;
mod socket;
mod throttle;
