//! Keys in hardware: a vault with a PKCS#11 token, here SoftHSM's, through its whole life and the token's faults.

mod faults;
mod founding;
mod lead;
mod lost;
mod moving;
mod pages;
mod probe;
mod shimmed;
mod slot;
pub mod token;
