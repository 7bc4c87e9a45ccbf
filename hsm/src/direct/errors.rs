//! What a module's error means for us: who is to blame, and whether a new session may help.

use crate::port::KeyError;
use cryptoki::context::Function;
use cryptoki::error::{Error, RvError};

/// The error of a call.
pub(crate) fn blame(e: &Error) -> KeyError {
    let Error::Pkcs11(rv, function) = e else {
        return KeyError::Refused(format!("the module is not as PKCS#11 wants it: {e}"));
    };
    let said = format!("{} in {}", name(rv), call(function));
    if is_pin(*rv) {
        KeyError::Pin(said)
    } else if is_full(*rv, *function) {
        KeyError::Full(said)
    } else if is_garbled(*rv) {
        KeyError::Corrupt(said)
    } else if is_passing(*rv) {
        KeyError::Unavailable(said)
    } else {
        KeyError::Refused(said)
    }
}

/// The same while something is decrypted: many modules say no more than that it failed if the tag does not fit.
pub(crate) fn blame_decrypting(e: &Error) -> KeyError {
    if let Error::Pkcs11(rv, Function::Decrypt) = e
        && matches!(
            rv,
            RvError::GeneralError
                | RvError::FunctionFailed
                | RvError::EncryptedDataInvalid
                | RvError::EncryptedDataLenRange
                | RvError::DataInvalid
                | RvError::DataLenRange
        )
    {
        return KeyError::Corrupt("what was wrapped was altered, or belongs elsewhere".to_owned());
    }
    blame(e)
}

pub(crate) fn is_pin(rv: RvError) -> bool {
    matches!(
        rv,
        RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange | RvError::PinExpired | RvError::PinLocked
    )
}

fn is_full(rv: RvError, function: Function) -> bool {
    let makes = matches!(function, Function::GenerateKeyPair | Function::GenerateKey | Function::CreateObject);
    matches!(rv, RvError::DeviceMemory) && makes
}

fn is_garbled(rv: RvError) -> bool {
    matches!(rv, RvError::EncryptedDataInvalid | RvError::EncryptedDataLenRange | RvError::SignatureInvalid)
}

/// What a new session may mend: a token that is away, restarted, logged out, busy or out of order.
fn is_passing(rv: RvError) -> bool {
    matches!(
        rv,
        RvError::HostMemory
            | RvError::SlotIdInvalid
            | RvError::GeneralError
            | RvError::FunctionFailed
            | RvError::FunctionCanceled
            | RvError::DeviceError
            | RvError::DeviceMemory
            | RvError::DeviceRemoved
            | RvError::KeyHandleInvalid
            | RvError::ObjectHandleInvalid
            | RvError::OperationActive
            | RvError::OperationNotInitialized
            | RvError::SessionClosed
            | RvError::SessionCount
            | RvError::SessionHandleInvalid
            | RvError::TokenNotPresent
            | RvError::TokenNotRecognized
            | RvError::UserNotLoggedIn
            | RvError::UserAnotherAlreadyLoggedIn
            | RvError::CryptokiNotInitialized
            | RvError::VendorDefined(_)
            | RvError::UnknownErrorCode(_)
    )
}

/// `DeviceRemoved` as PKCS#11 writes it: `CKR_DEVICE_REMOVED`.
fn name(rv: &RvError) -> String {
    let debug = format!("{rv:?}");
    let mut out = String::from("CKR");
    for c in debug.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_uppercase());
    }
    out
}

/// `C_SignInit`.
fn call(function: &Function) -> String {
    format!("C_{function:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_named_by_the_standard_and_blamed() {
        let of = |rv, function| blame(&Error::Pkcs11(rv, function));
        assert_eq!(
            of(RvError::DeviceRemoved, Function::SignInit),
            KeyError::Unavailable("CKR_DEVICE_REMOVED in C_SignInit".to_owned())
        );
        assert!(matches!(of(RvError::PinIncorrect, Function::Login), KeyError::Pin(_)));
        assert!(matches!(of(RvError::PinLocked, Function::Login), KeyError::Pin(_)));
        assert!(matches!(of(RvError::DeviceMemory, Function::GenerateKeyPair), KeyError::Full(_)));
        assert!(matches!(of(RvError::DeviceMemory, Function::Sign), KeyError::Unavailable(_)));
        assert!(matches!(of(RvError::MechanismInvalid, Function::SignInit), KeyError::Refused(_)));
        let altered = Error::Pkcs11(RvError::GeneralError, Function::Decrypt);
        assert!(matches!(blame_decrypting(&altered), KeyError::Corrupt(_)));
    }
}
