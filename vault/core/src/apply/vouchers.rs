//! Vouchers: publishers' word for images, of which each digest and each publisher has a bounded number.

use super::Step;
use super::submit::By;
use crate::command::Command;
use crate::refusal::Refusal;
use holdfast_types::Digest;
use holdfast_wire::statement::{MAX_SIGS, peek};
use holdfast_wire::v1;
use prost::Message as _;

/// Vouchers kept for one digest in one repository.
const MAX_VOUCHERS: usize = 8;
/// Vouchers of one publisher kept for one digest, in all repositories.
const MAX_VOUCHERS_OF_SIGNER: usize = 256;

impl Step<'_> {
    pub(super) fn put_voucher(&mut self, by: &By<'_>, v: &v1::Voucher, raw: &[u8]) -> Result<(), Refusal> {
        let digest =
            Digest::from_slice(&v.digest).ok_or_else(|| Refusal::invalid("a voucher names a SHA-256 digest"))?;
        let list = self.state.vouchers.entry(digest).or_default();
        // Each counts for its own repository alone, and takes room from nobody else's.
        let read = |k: &Vec<u8>| Command::statement(k);
        let for_this = |k: &Vec<u8>| {
            read(k).and_then(|st| peek::<v1::Voucher>(&st).ok()).is_some_and(|k| k.repository == v.repository)
        };
        let by_these = |k: &Vec<u8>| {
            read(k).is_some_and(|st| st.sigs.iter().any(|s| by.st.sigs.iter().any(|t| t.key_id == s.key_id)))
        };
        let here = list.iter().filter(|k| for_this(k)).count();
        let full = here < MAX_VOUCHERS && list.iter().filter(|k| by_these(k)).count() >= MAX_VOUCHERS_OF_SIGNER;
        let same =
            list.iter_mut().find_map(|k| Command::statement(k).filter(|s| s.payload == by.st.payload).map(|s| (k, s)));
        match same {
            Some((stored, mut st)) => {
                let held: Vec<Vec<u8>> = st.sigs.iter().map(|s| s.key_id.clone()).collect();
                st.sigs.extend(by.st.sigs.iter().filter(|s| !held.contains(&s.key_id)).cloned());
                if st.sigs.len() == held.len() || st.sigs.len() > MAX_SIGS {
                    return Ok(());
                }
                *stored = st.encode_to_vec();
            }
            None if full => {
                let why = format!("this publisher vouches for {} in too many repositories", digest.oci());
                return Err(Refusal::invalid(why));
            }
            None => list.push(raw.to_vec()),
        }
        if list.iter().filter(|k| for_this(k)).count() > MAX_VOUCHERS
            && let Some(oldest) = list.iter().position(for_this)
        {
            list.remove(oldest);
        }
        self.leaf(by.draft("image.vouch", digest.oci()).with("repository", &v.repository));
        Ok(())
    }
}
