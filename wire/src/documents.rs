//! The type string and the size bound of every document that may be signed.

use crate::statement::Document;
use crate::v1;
use std::time::Duration;

/// Longest life of a command: as long as signatures may be collected, and as long as the vault remembers what it carried out.
pub const COMMAND_LIFE: Duration = Duration::from_secs(24 * 3600);

macro_rules! documents {
    ($($msg:ident = $kind:literal, $max:expr;)*) => {
        $(impl Document for v1::$msg {
            const TYPE: &'static str = concat!("application/vnd.holdfast.", $kind, ".v1");
            const MAX: usize = $max;
        })*
        /// Every document type string with its bound, for tests that must not forget one.
        pub const ALL: &[(&str, usize)] = &[$((concat!("application/vnd.holdfast.", $kind, ".v1"), $max)),*];
    };
}

documents! {
    Charter = "charter", 256 << 10;
    Spec = "spec", 256 << 10;
    Voucher = "voucher", 4 << 10;
    Mandate = "mandate", 64 << 10;
    Command = "command", 256 << 10;
    Bundle = "bundle", 64 << 10;
    Status = "status", 256 << 10;
    Revocations = "revocations", 4 << 20;
    Grant = "grant", 64 << 10;
    LeaseExt = "lease-ext", 1 << 20;
    Revoke = "revoke", 1 << 20;
    LogsRequest = "logs-request", 4 << 10;
    Login = "login", 4 << 10;
    Backup = "backup", 64 << 10;
    Reset = "reset", 256 << 10;
}
