//! Images denied and allowed again. The list is in every node's Revocations: it starts none of them either.

use super::Step;
use super::submit::By;
use crate::log::Draft;
use crate::refusal::Refusal;
use holdfast_types::Digest;
use holdfast_wire::v1;

/// Most images that are denied at a time: every node holds the list.
const MOST: usize = 4096;

fn digest_of(bytes: &[u8]) -> Result<Digest, Refusal> {
    Digest::from_slice(bytes).ok_or_else(|| Refusal::invalid("images are named by SHA-256 digest"))
}

impl Step<'_> {
    pub(super) fn deny_digest(&mut self, by: &By<'_>, d: &v1::DenyDigest) -> Result<(), Refusal> {
        let digest = digest_of(&d.digest)?;
        let denied = &mut self.state.denied_digests;
        let Err(place) = denied.binary_search(&digest) else {
            return Err(Refusal::changed(format!("image {} is denied already", digest.oci())));
        };
        if denied.len() >= MOST {
            return Err(Refusal::invalid(format!("at most {MOST} images are denied at a time")));
        }
        denied.insert(place, digest);
        self.leaf(by.draft("image.deny", digest.oci()).with("reason", &d.reason));
        let running: Vec<_> = self.state.running_of(&digest).into_iter().map(|(s, n)| (s.to_string(), n)).collect();
        for (service, tasks) in running {
            let flag = Draft::new("alarm/denied-digest", &by.actor, service);
            self.leaf(flag.with("image", digest.oci()).with("tasks", tasks));
        }
        self.next_epoch();
        Ok(())
    }

    pub(super) fn allow_digest(&mut self, by: &By<'_>, a: &v1::AllowDigest) -> Result<(), Refusal> {
        let digest = digest_of(&a.digest)?;
        let denied = &mut self.state.denied_digests;
        let place = denied.binary_search(&digest).map_err(|_| Refusal::not_found("denied image", digest.oci()))?;
        denied.remove(place);
        self.leaf(by.draft("image.allow", digest.oci()));
        self.next_epoch();
        Ok(())
    }
}
