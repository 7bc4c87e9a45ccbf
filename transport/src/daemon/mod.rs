//! What the three daemons share beside their network: logging, health, ports file, signals, systemd, configuration.
//!
//! Knows no domain and no secret.

mod config;
mod health;
mod logging;
mod ports;
mod signals;
pub mod systemd;

pub use config::{ConfigError, load_toml};
pub use health::{Health, HealthError, Readiness};
pub use logging::{LogFormat, init_logging};
pub use ports::PortsFile;
pub use signals::Signals;
