//! Keys in hardware: a vault with a PKCS#11 token, here SoftHSM's and NSS's, through its whole life and the token's faults.

mod again;
mod faults;
mod founding;
mod given;
mod keyless;
mod killed;
mod lead;
mod lost;
mod moving;
mod other;
mod pages;
mod pins;
mod probe;
mod shimmed;
mod slot;
pub mod token;
