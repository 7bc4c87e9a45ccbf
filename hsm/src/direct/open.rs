//! Opening a token: its module, its slot, its PIN. The PIN is tried once, and not at all if the token could lock.

use super::errors::is_pin;
use super::{Open, Said, Token, blame};
use crate::message::{PinEvent, PinTrust};
use crate::module;
use crate::port::KeyError;
use crate::uri::Uri;
use cryptoki::context::Pkcs11;
use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::RawAuthPin;
use holdfast_types::SecretBytes;
use std::collections::BTreeMap;
use std::sync::Mutex;

impl Token {
    /// Opens the token of this URI and logs in, if there is a PIN.
    pub fn open(uri: &Uri, pin: Option<&SecretBytes>) -> Result<Self, KeyError> {
        Self::open_told(uri, pin, PinTrust::Untried, &|_| {})
    }
    /// The same for a process that may be killed at any time: `told` hears of the PIN before and after it is tried.
    pub(crate) fn open_told(
        uri: &Uri,
        pin: Option<&SecretBytes>,
        trust: PinTrust,
        told: &dyn Fn(PinEvent),
    ) -> Result<Self, KeyError> {
        let (pkcs11, file) = module::load(uri)?;
        let (slot, info) = the_slot(&pkcs11, uri)?;
        let library = pkcs11.get_library_info().map_err(|e| blame(&e))?;
        let said = Said {
            module: file,
            library: format!(
                "{} {} {}",
                library.manufacturer_id(),
                library.library_description(),
                library.library_version()
            ),
            token: format!(
                "{}, {} {}, serial {}",
                info.label(),
                info.manufacturer_id(),
                info.model(),
                info.serial_number()
            ),
            slot: slot.id(),
        };
        // Some never set the flag; those have a label all the same.
        if !info.token_initialized() && info.label().trim_end_matches([' ', '\0']).is_empty() {
            return Err(KeyError::Refused(format!("the token in slot {} is not initialised", slot.id())));
        }
        let session = pkcs11.open_rw_session(slot).map_err(|e| blame(&e))?;
        if let Some(pin) = pin {
            may_be_tried(&info, trust)?;
            log_in(&session, pin, told)?;
        }
        let open = Open { pkcs11, session, slot, private: BTreeMap::new(), others: None, wrapping: BTreeMap::new() };
        Ok(Self { open: Mutex::new(open), said })
    }
}

/// The only slot whose token fits the URI.
fn the_slot(pkcs11: &Pkcs11, uri: &Uri) -> Result<(Slot, TokenInfo), KeyError> {
    let slots = pkcs11.get_slots_with_token().map_err(|e| blame(&e))?;
    let mut fitting = Vec::new();
    for slot in slots.into_iter().filter(|s| uri.slot_id.is_none_or(|id| s.id() == id)) {
        // A slot whose token cannot be read is not the one, unless it is the only one.
        if let Ok(info) = pkcs11.get_token_info(slot)
            && fits(&uri.token, info.label())
            && fits(&uri.manufacturer, info.manufacturer_id())
            && fits(&uri.model, info.model())
            && fits(&uri.serial, info.serial_number())
        {
            fitting.push((slot, info));
        }
    }
    if fitting.len() > 1 {
        return Err(KeyError::Refused(format!("{} tokens fit {uri}: add serial or slot-id", fitting.len())));
    }
    fitting.pop().ok_or_else(|| KeyError::Unavailable(format!("there is no token that fits {uri}")))
}

/// Tokens pad with spaces; some modules leave them, or end the text by a zero.
fn fits(wanted: &Option<String>, said: &str) -> bool {
    wanted.as_ref().is_none_or(|w| w == said.trim_end_matches([' ', '\0']))
}

/// Whether trying the PIN can do no harm. One that is known to be good is tried as long as it cannot be the last time.
fn may_be_tried(info: &TokenInfo, trust: PinTrust) -> Result<(), KeyError> {
    let no = |why: &str| Err(KeyError::Pin(why.to_owned()));
    if info.user_pin_locked() {
        no("the token is locked: its security officer must set a new PIN")
    } else if info.user_pin_final_try() {
        no("one more wrong PIN would lock the token: log in by another tool first")
    } else if trust == PinTrust::Refused {
        no("the token refused it; it is not tried again before the vault is restarted")
    } else if trust == PinTrust::Doubted {
        no(
            "two attempts were cut off before the token answered, and it may count them: it is not tried again before a restart",
        )
    } else if trust == PinTrust::Unsettled && info.user_pin_count_low() {
        no("the token counts a wrong PIN after an attempt that was cut off: it is not tried again before a restart")
    } else if info.login_required() && !info.user_pin_initialized() {
        Err(KeyError::Refused("the token has no user PIN yet: initialise it first".to_owned()))
    } else {
        Ok(())
    }
}

fn log_in(session: &Session, pin: &SecretBytes, told: &dyn Fn(PinEvent)) -> Result<(), KeyError> {
    told(PinEvent::Trying);
    let pin = RawAuthPin::new(Box::new(pin.expose().to_vec()));
    match session.login_with_raw(UserType::User, &pin) {
        Ok(()) => {
            told(PinEvent::Accepted);
            Ok(())
        }
        Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
            told(PinEvent::NotJudged);
            Ok(())
        }
        Err(e) => {
            let refused = matches!(&e, Error::Pkcs11(rv, _) if is_pin(*rv));
            told(if refused { PinEvent::Refused } else { PinEvent::NotJudged });
            Err(blame(&e))
        }
    }
}
