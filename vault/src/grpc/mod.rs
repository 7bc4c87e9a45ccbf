//! The vault's services: each handler admits its caller, asks the core, and answers. No decisions here.

pub mod alarms;
pub mod identity;
pub mod join;
pub mod local;
pub mod log;
pub mod nodes;
pub mod operators;
pub mod sched;

use holdfast_transport::failure::Failure;
use std::pin::Pin;
use tokio_stream::Stream;

/// A stream of answers.
pub type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, tonic::Status>> + Send>>;

/// A message that must be there.
pub fn present<T>(o: Option<T>, what: &str) -> Result<T, Failure> {
    o.ok_or_else(|| Failure::invalid("invalid-input", format!("{what} is missing")))
}
