//! What the three daemons share beside their network: logging, health, ports file, signals, systemd, configuration,
//! and a look at the machine's swap.
//!
//! Knows no domain and no secret.

mod config;
mod end;
mod health;
mod heartbeat;
mod listen;
mod logging;
mod ports;
mod signals;
mod swap;
pub mod systemd;

pub use config::{ConfigError, is_dialable, load_toml};
pub use end::exit_code;
pub use health::{Health, Readiness};
pub use heartbeat::{Heartbeat, PULSE};
pub use listen::listen;
pub use logging::{LogFormat, init_logging};
pub use ports::PortsFile;
pub use signals::Signals;
pub use swap::unencrypted_swap;
