//! A PKCS#11 module for tests: it passes every call on to another module, but for the faults that a file orders.
//!
//! `HOLDFAST_SHIM_MODULE` names the other module. `HOLDFAST_SHIM_FAULTS` names the file, read anew at every call; each line
//! is a function and what happens to it: `C_Sign delay 300` (milliseconds), `C_Sign hang`, `C_Sign error 0x32`,
//! `C_Sign garble`, `C_GetMechanismInfo hide 0x1087`, `C_GetTokenInfo flags 0x40000` (which the token then says beside its
//! own), `C_SignInit logout` (by `C_Logout` of the module, once: all orders are over then). `HOLDFAST_SHIM_CALLS` names a file
//! to which the name of every call that passes here is appended. Beside it, what tests need to set tokens up ([`tokens`]).
#![expect(unsafe_code, reason = "a PKCS#11 module is a table of C functions")]
#![allow(non_snake_case, reason = "the functions have the standard's names")]

pub mod tokens;

use cryptoki_sys::*;
use std::env;
use std::fs;
use std::io::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

static REAL: OnceLock<Option<CK_FUNCTION_LIST>> = OnceLock::new();
static MINE: OnceLock<Option<CK_FUNCTION_LIST>> = OnceLock::new();
/// The session that logged in last.
static SESSION: AtomicU64 = AtomicU64::new(0);

/// What a line orders.
enum Fault {
    Error(CK_RV),
    Garble,
    Hide(Vec<CK_MECHANISM_TYPE>),
    Flags(CK_FLAGS),
}

/// Writes the call down, waits if that is ordered, and gives what else is ordered for it.
fn ordered(call: &str) -> Option<Fault> {
    if let Some(calls) = env::var_os("HOLDFAST_SHIM_CALLS")
        && let Ok(mut file) = fs::OpenOptions::new().append(true).create(true).open(calls)
    {
        writeln!(file, "{call}").ok();
    }
    let file = env::var_os("HOLDFAST_SHIM_FAULTS")?;
    let orders = fs::read_to_string(&file).ok()?;
    let (mut fault, mut hidden) = (None, Vec::new());
    for line in orders.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some(call) {
            continue;
        }
        let (what, number) = (words.next(), words.next().and_then(number));
        match (what, number) {
            (Some("delay"), Some(ms)) => std::thread::sleep(Duration::from_millis(ms)),
            (Some("hang"), None) => loop {
                std::thread::park();
            },
            (Some("error"), Some(rv)) => fault = Some(Fault::Error(rv)),
            (Some("garble"), None) => fault = Some(Fault::Garble),
            (Some("hide"), Some(mechanism)) => hidden.push(mechanism),
            (Some("flags"), Some(flags)) => fault = Some(Fault::Flags(flags)),
            (Some("logout"), None) => {
                fs::remove_file(&file).ok();
                log_out();
            }
            _ => fault = Some(Fault::Error(CKR_GENERAL_ERROR)),
        }
    }
    fault.or_else(|| (!hidden.is_empty()).then_some(Fault::Hide(hidden)))
}

/// Ends the login of this whole process, as another program with its module, or the token, might.
fn log_out() {
    if let Some(logout) = real().and_then(|r| r.C_Logout) {
        // SAFETY: a number; the module refuses one that is no session.
        unsafe { logout(SESSION.load(Ordering::Relaxed)) };
    }
}

fn number(text: &str) -> Option<u64> {
    text.strip_prefix("0x").map_or_else(|| text.parse().ok(), |hex| u64::from_str_radix(hex, 16).ok())
}

fn real() -> Option<&'static CK_FUNCTION_LIST> {
    let load = || {
        // SAFETY: what is loaded is a PKCS#11 module, chosen by whoever runs the test; it is never unloaded.
        let library = unsafe { libloading::Library::new(env::var_os("HOLDFAST_SHIM_MODULE")?) }.ok()?;
        let library: &'static libloading::Library = Box::leak(Box::new(library));
        // SAFETY: the symbol has this type in every PKCS#11 module.
        let get = unsafe {
            library.get::<unsafe extern "C" fn(*mut *mut CK_FUNCTION_LIST) -> CK_RV>(b"C_GetFunctionList\0").ok()?
        };
        let mut list = std::ptr::null_mut();
        // SAFETY: `list` may be written; on success it points to a table that lives as long as the module.
        if unsafe { get(&raw mut list) } != CKR_OK || list.is_null() {
            return None;
        }
        // SAFETY: just checked; the table is read whole and copied.
        Some(unsafe { *list })
    };
    REAL.get_or_init(load).as_ref()
}

macro_rules! passed_on {
    ($($name:ident($($arg:ident: $kind:ty),*);)*) => {
        $(unsafe extern "C" fn $name($($arg: $kind),*) -> CK_RV {
            if let Some(Fault::Error(rv)) = ordered(stringify!($name)) {
                return rv;
            }
            // SAFETY: the caller's arguments, passed on as they are.
            real().and_then(|r| r.$name).map_or(CKR_FUNCTION_NOT_SUPPORTED, |f| unsafe { f($($arg),*) })
        })*
        fn with_passed_on(mut list: CK_FUNCTION_LIST) -> CK_FUNCTION_LIST {
            $(list.$name = Some($name);)*
            list
        }
    };
}

passed_on! {
    C_Initialize(a: *mut std::ffi::c_void);
    C_GetSlotList(a: CK_BBOOL, b: *mut CK_SLOT_ID, c: *mut CK_ULONG);
    C_OpenSession(a: CK_SLOT_ID, b: CK_FLAGS, c: *mut std::ffi::c_void, d: CK_NOTIFY, e: *mut CK_SESSION_HANDLE);
    C_GetSessionInfo(a: CK_SESSION_HANDLE, b: *mut CK_SESSION_INFO);
    C_FindObjectsInit(a: CK_SESSION_HANDLE, b: *mut CK_ATTRIBUTE, c: CK_ULONG);
    C_DestroyObject(a: CK_SESSION_HANDLE, b: CK_OBJECT_HANDLE);
    C_SignInit(a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE);
    C_EncryptInit(a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE);
    C_DecryptInit(a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE);
    C_GenerateKey(a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: *mut CK_ATTRIBUTE, d: CK_ULONG, e: *mut CK_OBJECT_HANDLE);
    C_GenerateKeyPair(
        a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: *mut CK_ATTRIBUTE, d: CK_ULONG, e: *mut CK_ATTRIBUTE, f: CK_ULONG,
        g: *mut CK_OBJECT_HANDLE, h: *mut CK_OBJECT_HANDLE
    );
}

unsafe extern "C" fn C_Sign(
    session: CK_SESSION_HANDLE,
    data: *mut CK_BYTE,
    data_len: CK_ULONG,
    signature: *mut CK_BYTE,
    signature_len: *mut CK_ULONG,
) -> CK_RV {
    let fault = ordered("C_Sign");
    if let Some(Fault::Error(rv)) = fault {
        return rv;
    }
    let Some(sign) = real().and_then(|r| r.C_Sign) else { return CKR_FUNCTION_NOT_SUPPORTED };
    // SAFETY: the caller's arguments, passed on as they are.
    let rv = unsafe { sign(session, data, data_len, signature, signature_len) };
    if rv == CKR_OK && !signature.is_null() && matches!(fault, Some(Fault::Garble)) {
        // SAFETY: the module has just written a signature of P-256 there.
        unsafe { *signature.add(40) ^= 1 };
    }
    rv
}

unsafe extern "C" fn C_GetMechanismInfo(
    slot: CK_SLOT_ID,
    kind: CK_MECHANISM_TYPE,
    info: *mut CK_MECHANISM_INFO,
) -> CK_RV {
    match ordered("C_GetMechanismInfo") {
        Some(Fault::Error(rv)) => return rv,
        Some(Fault::Hide(hidden)) if hidden.contains(&kind) => return CKR_MECHANISM_INVALID,
        _ => {}
    }
    // SAFETY: the caller's arguments, passed on as they are.
    real().and_then(|r| r.C_GetMechanismInfo).map_or(CKR_FUNCTION_NOT_SUPPORTED, |f| unsafe { f(slot, kind, info) })
}

unsafe extern "C" fn C_GetTokenInfo(slot: CK_SLOT_ID, info: *mut CK_TOKEN_INFO) -> CK_RV {
    let fault = ordered("C_GetTokenInfo");
    if let Some(Fault::Error(rv)) = fault {
        return rv;
    }
    let Some(get) = real().and_then(|r| r.C_GetTokenInfo) else { return CKR_FUNCTION_NOT_SUPPORTED };
    // SAFETY: the caller's arguments, passed on as they are.
    let rv = unsafe { get(slot, info) };
    if let Some(Fault::Flags(flags)) = fault
        && rv == CKR_OK
        && !info.is_null()
    {
        // SAFETY: the module has just written there.
        unsafe { (*info).flags |= flags };
    }
    rv
}

unsafe extern "C" fn C_Login(
    session: CK_SESSION_HANDLE,
    user: CK_USER_TYPE,
    pin: *mut CK_UTF8CHAR,
    pin_len: CK_ULONG,
) -> CK_RV {
    if let Some(Fault::Error(rv)) = ordered("C_Login") {
        return rv;
    }
    SESSION.store(session, Ordering::Relaxed);
    // SAFETY: the caller's arguments, passed on as they are.
    real().and_then(|r| r.C_Login).map_or(CKR_FUNCTION_NOT_SUPPORTED, |f| unsafe { f(session, user, pin, pin_len) })
}

/// Gives the table of this module.
///
/// # Safety
/// `list` is null, or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    if list.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    let make = || {
        let mut mine = with_passed_on(*real()?);
        mine.C_Sign = Some(C_Sign);
        mine.C_GetMechanismInfo = Some(C_GetMechanismInfo);
        mine.C_GetTokenInfo = Some(C_GetTokenInfo);
        mine.C_Login = Some(C_Login);
        mine.C_GetFunctionList = Some(C_GetFunctionList);
        Some(mine)
    };
    let Some(mine) = MINE.get_or_init(make) else { return CKR_GENERAL_ERROR };
    // SAFETY: not null, and the caller's to be written; nobody writes through the table's pointer.
    unsafe { *list = std::ptr::from_ref(mine).cast_mut() };
    CKR_OK
}
