//! Dialling one of several servers, and following the leader.

mod backoff;
mod dialer;
mod io;
mod link;
mod search;

pub use backoff::Backoff;
pub use dialer::Dialer;
pub use link::{Link, Timing};
