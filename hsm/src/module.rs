//! Loading a token's module: the one place that calls what has no proof, the parameter of `C_Initialize`.
//!
//! A module is never unloaded: many leave threads and exit handlers behind that would run in freed code.
#![expect(unsafe_code, reason = "the reserved parameter of C_Initialize is a bare pointer")]

use crate::direct::blame;
use crate::port::KeyError;
use crate::uri::Uri;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use std::ffi::{CString, c_void};
use std::path::PathBuf;
use std::ptr::NonNull;

/// The module of this URI, loaded and started, and its file.
pub(crate) fn load(uri: &Uri) -> Result<(Pkcs11, PathBuf), KeyError> {
    let files = uri.module_files();
    let Some(file) = files.iter().find(|f| f.is_file()) else {
        return Err(KeyError::Refused(format!("there is no module {}", uri.module)));
    };
    let module = Pkcs11::new(file)
        .map_err(|e| KeyError::Refused(format!("{} is no PKCS#11 module that can be loaded: {e}", file.display())))?;
    // One count more than is ever given back.
    std::mem::forget(module.clone());
    match module.initialize(arguments(uri)?) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok((module, file.clone())),
        Err(e) => Err(blame(&e)),
    }
}

fn arguments(uri: &Uri) -> Result<CInitializeArgs, KeyError> {
    let flags = CInitializeFlags::OS_LOCKING_OK;
    let Some(reserved) = &uri.init_reserved else { return Ok(CInitializeArgs::new(flags)) };
    let text = CString::new(reserved.as_str())
        .map_err(|_| KeyError::Refused("x-init-reserved has a zero byte in it".to_owned()))?;
    let Some(text) = NonNull::new(text.into_raw().cast::<c_void>()) else { return Ok(CInitializeArgs::new(flags)) };
    // SAFETY: the pointer is that of a C string which is never freed: modules may keep it. That this module wants a C string
    // there is what the URI says; by default none is given.
    Ok(unsafe { CInitializeArgs::new_with_reserved(flags, text) })
}
