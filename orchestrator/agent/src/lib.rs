//! The node agent: carries grants out on one machine.
//!
//! The container side: [`image`] (content to root file systems), [`spec`] (the hardened runtime specification),
//! [`secretfs`] and [`swap`] (secrets in memory only) and [`runtime`] (containers that outlive the agent).
//!
//! The side of the network: [`join`] and [`renewal`] (who the node is), [`believed`] (what it believes, and the one lock
//! under which orders are judged), [`sync`] (the vault), [`session`] (orchestrators), [`tasks`] (what runs), [`logs`] and
//! [`evidence`] (what is told about it). [`run`] puts both together.

pub mod args;
pub mod assign;
pub mod believed;
pub mod config;
pub mod era;
pub mod evidence;
pub mod host;
pub mod image;
pub mod join;
pub mod keys;
pub mod logs;
pub mod node;
pub mod removal;
pub mod renewal;
pub mod reports;
pub mod run;
pub mod runtime;
pub mod seccomp;
pub mod secretfs;
pub mod session;
pub mod spec;
pub mod state;
pub mod swap;
pub mod sync;
pub mod tasks;
