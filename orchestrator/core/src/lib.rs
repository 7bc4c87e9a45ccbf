//! orchestrator/core
