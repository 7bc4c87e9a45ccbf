//! Coming back after a certificate was over, two sessions at a time, and the end of a quarantine.

use super::Step;
use super::submit::By;
use crate::command::{CertFacts, HpkeFacts};
use crate::log::Draft;
use crate::refusal::Refusal;
use crate::state::{Identity, IdentityState, Notice, Noticed, Presented};
use holdfast_types::{Digest, Millis};
use holdfast_wire::v1;

impl Step<'_> {
    /// The next certificate of an identity that proved its old key: pending until it is used, as after a renewal.
    pub(super) fn rejoin(
        &mut self,
        id: &str,
        cert: CertFacts,
        hpke: Option<HpkeFacts>,
        acked: u64,
        from: &str,
    ) -> Result<(), Refusal> {
        self.live_hpke(hpke.as_ref())?;
        let (at, acked, known) = (self.at, self.state.newly_acked(id, acked), self.state.keys_since(self.at));
        let (mut subject, mut ended, mut used, mut before_release) = (String::new(), Millis(0), None, None);
        let next = cert.clone();
        self.with_identity(id, |row| {
            let before = before_rejoin(row, &cert)?;
            subject = format!("{}/{id}", row.role);
            ended = row.current.iter().map(|c| c.not_after).max().unwrap_or(at);
            if before == Before::Unused {
                // It proved the key of the certificate that it had and never used (R4).
                used = row.pending.as_ref().map(|p| p.seq);
                before_release = row.activate(at, known);
            }
            row.acked = row.acked.max(acked);
            row.noticed = Some(Noticed::new(Notice::Rejoin, at, ""));
            row.offer(cert, hpke);
            Ok(())
        })?;
        if let Some(seq) = used {
            self.leaf(Draft::new("node.activate", id, id).with("seq", seq));
        }
        if let Some(keys) = before_release {
            self.list_keys_of(id, keys);
        }
        let came = Draft::new("identity.rejoin", subject.clone(), id).with("seq", next.seq);
        self.leaf(came.with("from", from).with("ended", ended));
        self.cert_leaf(&subject, &next);
        Ok(())
    }

    /// Two sessions of one identity at a time: written down, and spoken of. Both are told to renew, and if they are two
    /// holders, that shows which.
    pub(super) fn concurrent(&mut self, id: &str, detail: &str) -> Result<(), Refusal> {
        self.notice(id, Notice::Concurrent, detail)?;
        self.leaf(Draft::new("identity.concurrent", "vault", id).with("detail", detail));
        Ok(())
    }

    pub(super) fn notice(&mut self, id: &str, what: Notice, detail: &str) -> Result<(), Refusal> {
        let at = self.at;
        self.with_identity(id, |row| {
            // A fork is spoken of until somebody sees to it, whatever else is noticed of it meanwhile.
            let open =
                row.state == IdentityState::Quarantined && row.noticed.as_ref().is_some_and(|n| n.what == Notice::Fork);
            if !open || what == Notice::Fork {
                row.noticed = Some(Noticed::new(what, at, detail));
            }
            Ok(())
        })
    }

    /// A quarantined identity goes on once it renews with this very key, which it has never had.
    pub(super) fn release_identity(&mut self, by: &By<'_>, r: &v1::ReleaseIdentity) -> Result<(), Refusal> {
        let key =
            Digest::from_slice(&r.spki_sha256).ok_or_else(|| Refusal::invalid("a key fingerprint has 32 bytes"))?;
        self.with_identity(&r.id, |row| {
            if row.state != IdentityState::Quarantined {
                return Err(Refusal::changed(format!("it is {}, not quarantined", row.state.as_str())));
            }
            if row.proven(&key) != Presented::Unknown {
                return Err(Refusal::invalid("this key was in use before: a release names a new one"));
            }
            row.released = Some(key);
            Ok(())
        })?;
        // No list of the era before undoes this, however often and by whomever it is shown.
        if let Some(before) = &mut self.state.before {
            before.released.insert(r.id.clone());
        }
        self.leaf(by.draft("node.release", &r.id).with("spki", key));
        Ok(())
    }
}

/// How a row stands that is given its next certificate.
#[derive(PartialEq, Eq)]
enum Before {
    /// Its current certificate is the one before it.
    Current,
    /// Its pending one is, which was never used.
    Unused,
}

fn before_rejoin(row: &Identity, cert: &CertFacts) -> Result<Before, Refusal> {
    let released = row.is_released(&cert.spki);
    if !released && !matches!(row.state, IdentityState::Ready | IdentityState::Draining) {
        return Err(Refusal::credential("this identity may not come back"));
    }
    if row.certificate().is_some_and(|c| cert.seq <= c.seq) {
        return Err(Refusal::changed("a newer certificate exists"));
    }
    match &row.pending {
        Some(p) if p.spki == cert.spki || released => Ok(Before::Current),
        Some(p) if cert.seq > p.seq => Ok(Before::Unused),
        Some(_) => Err(Refusal::changed("another renewal of this identity is pending")),
        None => Ok(Before::Current),
    }
}
