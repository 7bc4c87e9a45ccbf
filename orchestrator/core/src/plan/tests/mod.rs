//! The planner against a small world that does what it is told and checks every action against the laws.

mod laws;
mod rollouts;
mod rules;
mod world;
