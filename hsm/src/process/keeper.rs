//! The keeper: holds the PIN, starts and kills workers, and sees to it that a PIN which was refused is never tried again.
//!
//! Loads no module and has one thread. It ends when the vault does: then its channel is closed.

use super::{Channel, WORKER};
use crate::message::{Hello, Order, PinEvent, PinTrust, Setup, Started, decode, encode};
use crate::port::KeyError;
use crate::uri::Uri;
use holdfast_types::Secret;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;
use zeroize::Zeroize as _;

/// How long a killed worker may take to be gone. One that hangs inside the kernel is left behind.
const TO_DIE: Duration = Duration::from_secs(1);

/// Serves as the keeper of the vault that started this process, until that ends.
pub fn keeper_main() -> ExitCode {
    super::confine();
    match Channel::stdin().and_then(Keeping::begin) {
        Ok(Some(mut keeping)) => {
            while keeping.serve_one() {}
            keeping.end_worker();
            ExitCode::SUCCESS
        }
        Ok(None) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

enum Pin {}

struct Keeping {
    vault: Channel,
    uri: Uri,
    pin: Secret<Pin, { super::LONGEST_PIN }>,
    pin_length: usize,
    trust: PinTrust,
    worker: Option<(Child, Channel)>,
    /// Killed, and not gone in time.
    left_behind: Vec<Child>,
}

impl Keeping {
    /// Takes what the vault says first; `None` if it ended before that.
    fn begin(vault: Channel) -> io::Result<Option<Self>> {
        let Some(bytes) = vault.receive(None)? else { return Ok(None) };
        let mut setup: Setup = decode(&bytes).map_err(io::Error::other)?;
        let pin = Secret::filled(|place: &mut [u8; super::LONGEST_PIN]| {
            let place = place.get_mut(..setup.pin.len()).ok_or_else(|| io::Error::other("the PIN is too long"))?;
            place.copy_from_slice(&setup.pin);
            Ok::<(), io::Error>(())
        })?;
        let pin_length = setup.pin.len();
        setup.pin.zeroize();
        let (uri, trust) = (setup.uri, PinTrust::Untried);
        Ok(Some(Self { vault, uri, pin, pin_length, trust, worker: None, left_behind: Vec::new() }))
    }
    /// Does what the vault orders; false once the vault is gone.
    fn serve_one(&mut self) -> bool {
        let Ok(Some(bytes)) = self.vault.receive(None) else { return false };
        let Ok(order) = decode::<Order>(&bytes) else { return false };
        self.end_worker();
        let Order::Start(number) = order else { return true };
        let (done, end) = match self.start_worker() {
            Ok(end) => (Ok(()), Some(end)),
            Err(e) => (Err(e), None),
        };
        let Ok(bytes) = encode(&Started { number, done }, 256) else { return false };
        match end {
            Some(end) => self.vault.send_with(&bytes, &end).is_ok(),
            None => self.vault.send(&bytes).is_ok(),
        }
    }
    /// Starts a worker and gives it the PIN; the vault's end of the channel between them.
    fn start_worker(&mut self) -> Result<Channel, KeyError> {
        if self.trust == PinTrust::Refused {
            let why = "the token refused it; it is not tried again before the vault is restarted";
            return Err(KeyError::Pin(why.to_owned()));
        }
        let failed = |e: io::Error| KeyError::Unavailable(format!("a process for the token: {e}"));
        let (mine, its) = Channel::pair().map_err(failed)?;
        let (for_vault, for_worker) = Channel::pair().map_err(failed)?;
        // This program, also if its file was replaced by an update.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("holdfast-vault").arg(WORKER).stdin(its.into_stdio()).stdout(Stdio::null());
        let child = command.spawn().map_err(failed)?;
        self.worker = Some((child, mine));
        let pin = self.pin.expose().get(..self.pin_length).unwrap_or_default().to_vec();
        let mut hello = Hello { uri: self.uri.clone(), trust: self.trust, pin };
        let bytes = encode(&hello, 16 << 10);
        hello.pin.zeroize();
        if let Some((_, channel)) = &self.worker {
            channel.send_with(&bytes?, &for_worker).map_err(failed)?;
        }
        Ok(for_vault)
    }
    /// Kills the worker, waits until it is gone, and hears what it said about the PIN.
    fn end_worker(&mut self) {
        self.left_behind.retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
        let Some((mut child, channel)) = self.worker.take() else { return };
        drop(child.kill());
        // Its end of the channel is closed when it is gone; what it had sent before that is read first.
        while let Ok(Some(bytes)) = channel.receive(Some(TO_DIE)) {
            if let Ok(event) = decode::<PinEvent>(&bytes) {
                self.trust = after(self.trust, event);
            }
        }
        if !matches!(child.try_wait(), Ok(Some(_))) {
            self.left_behind.push(child);
        }
    }
}

/// What is known of the PIN after this event.
fn after(trust: PinTrust, event: PinEvent) -> PinTrust {
    match event {
        PinEvent::Refused => PinTrust::Refused,
        PinEvent::Accepted => PinTrust::Accepted,
        // A PIN that was good remains so until the token refuses it.
        PinEvent::Trying if trust == PinTrust::Accepted => PinTrust::Accepted,
        PinEvent::Trying if matches!(trust, PinTrust::Unsettled | PinTrust::Doubted) => PinTrust::Doubted,
        PinEvent::Trying => PinTrust::Unsettled,
        PinEvent::NotJudged if matches!(trust, PinTrust::Unsettled | PinTrust::Doubted) => PinTrust::Untried,
        PinEvent::NotJudged => trust,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_that_was_refused_is_never_trusted_again() {
        let told = |events: &[PinEvent]| events.iter().fold(PinTrust::Untried, |trust, e| after(trust, *e));
        assert_eq!(told(&[PinEvent::Trying, PinEvent::Refused]), PinTrust::Refused);
        assert_eq!(told(&[PinEvent::Trying]), PinTrust::Unsettled);
        assert_eq!(told(&[PinEvent::Trying, PinEvent::NotJudged]), PinTrust::Untried);
        assert_eq!(told(&[PinEvent::Trying, PinEvent::Accepted, PinEvent::Trying]), PinTrust::Accepted);
        // Cut off twice: a third attempt could be the last.
        let cut_off = [PinEvent::Trying, PinEvent::Trying];
        assert_eq!(told(&cut_off), PinTrust::Doubted);
        assert_eq!(told(&[&cut_off[..], &[PinEvent::Accepted]].concat()), PinTrust::Accepted);
        assert_eq!(told(&[&cut_off[..], &[PinEvent::NotJudged]].concat()), PinTrust::Untried);
        let later = [PinEvent::Trying, PinEvent::Accepted, PinEvent::Trying, PinEvent::Refused];
        assert_eq!(told(&later), PinTrust::Refused);
    }
}
