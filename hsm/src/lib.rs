//! The key port: where CA keys live and who may use them. Back ends keep keys in memory or, by PKCS#11, in a token.
//!
//! Never gives a private key to a caller of the port; only the software back end can export, for sealing at rest.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod port;
pub mod software;

pub use port::{KeyError, KeyId, KeyPort, Purpose};
pub use software::SoftwareKeys;
