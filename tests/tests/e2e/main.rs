//! End to end: real processes, real cryptography, real containers, one machine.

mod canary;
mod crash;
mod evil;
mod image;
mod input;
mod locks;
mod story;
mod tokens;
mod world;
