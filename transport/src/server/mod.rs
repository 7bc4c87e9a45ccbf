//! Serving gRPC to verified peers.
//!
//! * `connections`: who is connected, by identity, and how to end that;
//! * `io`: a connection that ends when it is told to, or when its session is over;
//! * `accept`: the loop that takes connections in, within bounds;
//! * `sources`: no single source address takes all places;
//! * `rights`: who may call what, by the listener's own table.

mod accept;
mod connections;
mod io;
mod rights;
mod sources;

pub use accept::{Limits, ServeError, serve};
pub(crate) use connections::Registration;
pub use connections::{ConnPeer, Connections, is_replaced, peer_of};
pub use rights::{admit, rpcs_of};
pub use sources::PerSource;
