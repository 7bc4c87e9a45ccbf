//! Tests over real TCP on the loopback interface, with certificates made by `pki`. They wait on events, each with a
//! deadline.

mod connections;
mod dialling;
mod gullible;
mod handshake;
mod health;
mod hostile;
mod rejoin;
mod renewal;
mod world;
