//! The orchestrator: the shell round the planner. It decides where and when, and nothing else: the vault decides what may
//! run, nodes judge every order, and what this process loses it builds again from both.
//!
//! * [`scheduler`]: pure; from what is seen to what is to be done;
//! * [`control`]: the one task that owns the scheduler; * [`vault`]: the connection to the vault;
//! * [`session`] and [`logs`]: the listener for nodes and operators; [`pins`] and [`rights`]: who may do what there;
//! * [`join`], [`renewal`], [`trust`], [`before`], [`state`]: who we are, whom we believe, what was so in the era before, and the
//!   little that is on disk.

pub mod absent;
pub mod before;
pub mod config;
pub mod control;
pub mod join;
pub mod logs;
pub mod pins;
pub mod renewal;
pub mod rights;
pub mod run;
pub mod scheduler;
pub mod session;
pub mod state;
pub mod trust;
pub mod vault;
