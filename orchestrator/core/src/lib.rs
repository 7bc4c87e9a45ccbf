//! orchestrator/core
pub mod plan;
pub mod verify;
