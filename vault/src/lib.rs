//! The vault daemon: the shell round the pure machine of `holdfast-vault-core`.
//!
//! Sockets, disk, time and entropy live here; decisions do not. Must never hold scheduling, image or HTTP-API code.

pub mod config;
pub mod disk;
pub mod harden;
pub mod hsm_probe;
pub mod peers;
pub mod raft;
pub mod rights;
pub mod run;

mod answered;
mod awaits;
mod backup;
mod beside;
mod certify;
mod clock;
mod clocks;
mod cluster;
mod drive;
mod failure;
mod found;
mod gate;
mod grpc;
mod heap;
mod host;
mod hsm;
mod hub;
mod joining;
mod kem;
mod keyring;
mod keystore;
mod leases;
mod members;
mod merged;
mod open;
mod pace;
mod pin;
mod recover;
mod registry;
mod removal;
mod reports;
mod resting;
mod rising;
mod roots;
mod seen;
mod setback;
mod socket;
mod standing;
mod throttle;
mod unsaid;
