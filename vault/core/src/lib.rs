//! vault/core
