//! Voters over real TLS on loopback: who is believed, who is heard, and what passes the gate.

mod filling;
mod speaking;
mod world;
