//! The one name of a leaf: exactly one URI SAN, and it is a SPIFFE id (X.509-SVID, section 2).
//!
//! Never takes a name from a subject, a DNS name or a request.

use crate::facts::Facts;
use holdfast_types::{SpiffeError, SpiffeId};

/// Why a certificate has no usable name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not exactly one URI.
    #[error("the certificate names {0} URIs, it must name exactly one")]
    Uris(usize),
    /// A DNS, e-mail, address or other name beside the URI.
    #[error("the certificate carries a name that is not a URI")]
    OtherName,
    /// The URI is not one of our SPIFFE ids.
    #[error(transparent)]
    Spiffe(#[from] SpiffeError),
}

/// The identity that the certificate's facts state.
pub(crate) fn identity(facts: &Facts) -> Result<SpiffeId, NameError> {
    if facts.other_names > 0 {
        return Err(NameError::OtherName);
    }
    match facts.uris.as_slice() {
        [one] => Ok(SpiffeId::parse(one)?),
        many => Err(NameError::Uris(many.len())),
    }
}

/// The identity in a leaf certificate, *without* asking who signed it: for display and for one's own certificate.
pub fn identity_of_cert(der: &[u8]) -> Result<SpiffeId, CertNameError> {
    Ok(identity(&Facts::read(der)?)?)
}

/// Why [`identity_of_cert`] found no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertNameError {
    /// Not a certificate.
    #[error(transparent)]
    Cert(#[from] crate::CertError),
    /// A certificate without our name.
    #[error(transparent)]
    Name(#[from] NameError),
}
