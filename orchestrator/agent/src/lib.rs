//! orchestrator/agent
