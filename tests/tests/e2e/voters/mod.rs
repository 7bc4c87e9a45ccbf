//! Three voters and more, each a real process with its own disk: what they do together, and what each does alone.

mod admit;
mod asleep;
mod clocks;
mod evict;
mod lead;
mod pages;
mod restart;
mod rollback;
pub mod rotate;
mod survivor;
mod sweep;
mod unlock;
pub mod world;
