//! A voter's KEM keys: the one that the keyring's terms are boxed to, and the next one on its way there.

use crate::disk::ident::Ident;
use holdfast_transport::failure::Failure;
use holdfast_types::{Secret, kind};
use holdfast_wire::boxes::derive_keypair;

/// The KEM key to tell of: the next one if there is one, else the one in use.
pub fn kem_of(ident: &Ident, known: (u32, [u8; 32])) -> (u32, [u8; 32]) {
    let public = |ikm: &Secret<kind::HpkeKey, 32>| derive_keypair(ikm.expose()).1;
    match ident.next_kem_ikm.as_ref().map(public) {
        Some(next) if next == known.1 => known,
        Some(next) => (known.0 + 1, next),
        None => (known.0, public(&ident.kem_ikm)),
    }
}

/// What became of a voter's KEM keys.
#[derive(Debug, PartialEq, Eq)]
pub enum KemStep {
    /// Nothing is due, or it is on its way.
    Nothing,
    /// The next one is the one in use.
    Taken,
    /// There is a next one.
    Made,
}

/// The next key is the one in use once the cluster knows it; where another one is `due`, it is made then, and not before: a term
/// that comes while a key is on its way gets a key of its own.
pub fn kem_step(
    own: &mut Ident,
    known: Option<[u8; 32]>,
    due: bool,
    fresh: impl FnOnce() -> Result<[u8; 32], Failure>,
) -> Result<KemStep, Failure> {
    let next = own.next_kem_ikm.as_ref().map(|ikm| derive_keypair(ikm.expose()).1);
    if next.is_some() && next == known {
        if let Some(taken) = own.next_kem_ikm.take() {
            own.kem_ikm = taken;
        }
        return Ok(KemStep::Taken);
    }
    if due && next.is_none() {
        own.next_kem_ikm = Some(Secret::take(&mut fresh()?));
        return Ok(KemStep::Made);
    }
    Ok(KemStep::Nothing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::SecretBytes;

    fn ident_of(kem: u8, next: Option<u8>) -> Ident {
        let key = |n: u8| Secret::take(&mut [n; 32]);
        Ident {
            kem_ikm: key(kem),
            next_kem_ikm: next.map(key),
            tls_key: SecretBytes::new(Vec::new()),
            chain: Vec::new(),
        }
    }

    #[test]
    fn a_voter_tells_of_its_next_kem_key_until_the_cluster_knows_it() {
        let pk = |n: u8| derive_keypair(&[n; 32]).1;
        assert_eq!(kem_of(&ident_of(1, None), (4, pk(1))), (4, pk(1)));
        assert_eq!(kem_of(&ident_of(1, Some(2)), (4, pk(1))), (5, pk(2)), "asks for boxes to it");
        assert_eq!(kem_of(&ident_of(1, Some(2)), (5, pk(2))), (5, pk(2)), "and has them");
    }

    #[test]
    fn each_term_gets_a_kem_key_of_its_own_also_two_that_come_close_together() {
        let pk = |n: u8| Some(derive_keypair(&[n; 32]).1);
        let mut own = ident_of(1, None);
        let mut step =
            |known: u8, due: bool, fresh: u8| kem_step(&mut own, pk(known), due, || Ok([fresh; 32])).unwrap();
        assert_eq!(step(1, false, 2), KemStep::Nothing);
        assert_eq!(step(1, true, 2), KemStep::Made);
        assert_eq!(step(1, true, 3), KemStep::Nothing, "one is on its way");
        // Another term has come meanwhile: it is still due.
        assert_eq!(step(2, true, 3), KemStep::Taken);
        assert_eq!(step(2, true, 3), KemStep::Made);
        assert_eq!(step(3, false, 4), KemStep::Taken);
        assert_eq!(step(3, false, 4), KemStep::Nothing);
    }
}
