//! A random generator that yields exactly the bytes it was given: entropy is an argument, also for HPKE.

use rand_core::{TryCryptoRng, TryRng};
use sha2::{Digest as _, Sha256};
use std::convert::Infallible;
use zeroize::Zeroize;

/// Expands 32 bytes of entropy by SHA-256 in counter mode. Used once, for one encapsulation or one split of a key.
pub struct Seeded {
    seed: [u8; 32],
    counter: u64,
}
impl Seeded {
    /// From 32 fresh random bytes, used for nothing else.
    pub fn new(seed: [u8; 32]) -> Self {
        Self { seed, counter: 0 }
    }
}
impl Drop for Seeded {
    fn drop(&mut self) {
        self.seed.zeroize();
    }
}
impl TryRng for Seeded {
    type Error = Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut b = [0; 4];
        self.try_fill_bytes(&mut b)?;
        Ok(u32::from_le_bytes(b))
    }
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut b = [0; 8];
        self.try_fill_bytes(&mut b)?;
        Ok(u64::from_le_bytes(b))
    }
    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        for chunk in dst.chunks_mut(32) {
            let block = Sha256::new()
                .chain_update(b"holdfast/v1/seeded")
                .chain_update(self.seed)
                .chain_update(self.counter.to_be_bytes())
                .finalize();
            chunk.iter_mut().zip(block).for_each(|(d, s)| *d = s);
            self.counter = self.counter.wrapping_add(1);
        }
        Ok(())
    }
}
impl TryCryptoRng for Seeded {}
