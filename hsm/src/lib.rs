//! The key port: where CA keys live and who may use them. Back ends keep keys in memory or, by PKCS#11, in a token.
//!
//! Never gives a private key to a caller of the port; only the software back end can export, for sealing at rest.
//! A token's module is code of others: it runs in a process of its own ([`process`]), which [`Pkcs11Port`] speaks to.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod direct;
pub mod message;
mod module;
pub mod pkcs11;
pub mod port;
pub mod probe;
pub mod process;
pub mod software;
pub mod uri;

pub use pkcs11::Pkcs11Port;
pub use port::{KeyError, KeyId, KeyPort, Purpose};
pub use probe::{Finding, Probe};
pub use process::{Keeper, KeeperOptions};
pub use software::SoftwareKeys;
pub use uri::{Uri, UriError};
