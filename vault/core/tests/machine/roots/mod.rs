//! The rotation of the root, on the machine itself: its steps one by one, and histories in which everything may happen.

mod histories;
mod late;
mod lost;
mod lying;
mod offline;
mod steps;
mod world;
