//! The source of entropy of this program, and its clock: the one place that asks the machine for either.

use crate::errors::{Code, Failure};
use holdfast_types::Secret;

pub use holdfast_transport::now;

fn no_entropy(e: getrandom::Error) -> Failure {
    Failure::new(
        Code::Failed,
        format!("the system gave no randomness: {e}"),
        "try again when the machine has started up",
    )
}

/// `N` random bytes that are not secret (nonces, ids, encryption entropy that the callee wipes).
pub fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut b = [0; N];
    getrandom::fill(&mut b).map_err(no_entropy)?;
    Ok(b)
}

/// A fresh secret, filled in place.
pub fn random_secret<K, const N: usize>() -> Result<Secret<K, N>, Failure> {
    Secret::filled(|b| getrandom::fill(b)).map_err(no_entropy)
}
