//! Entropy as an argument: 32 fresh bytes a step, split by label, so that a step can be replayed in a test.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroize;

/// The entropy of one step. Every value drawn has a label of its own within the step.
pub struct Entropy {
    seed: [u8; 32],
    drawn: u64,
}
impl Entropy {
    /// From 32 fresh random bytes.
    pub fn new(seed: [u8; 32]) -> Self {
        Self { seed, drawn: 0 }
    }
    /// 32 bytes that were not drawn before.
    pub fn draw(&mut self, label: &str) -> [u8; 32] {
        self.drawn += 1;
        expand(&self.seed, label, self.drawn)
    }
    /// 16 bytes that were not drawn before.
    pub fn draw16(&mut self, label: &str) -> [u8; 16] {
        let mut out = [0; 16];
        out.iter_mut().zip(self.draw(label)).for_each(|(d, s)| *d = s);
        out
    }
}
impl Drop for Entropy {
    fn drop(&mut self) {
        self.seed.zeroize();
    }
}

/// `HMAC-SHA256(seed, label ‖ 0 ‖ n)`.
pub(crate) fn expand(seed: &[u8; 32], label: &str, n: u64) -> [u8; 32] {
    // HMAC takes a key of any length: the error cannot occur; an all-zero answer would still be a valid, public salt.
    let Ok(mut m) = Hmac::<Sha256>::new_from_slice(seed) else { return [0; 32] };
    m.update(label.as_bytes());
    m.update(&[0]);
    m.update(&n.to_be_bytes());
    m.finalize().into_bytes().into()
}
