//! Identities that outlive absence and theft: machines that were off for too long, copies of a disk, removals.

mod away;
mod leases;
mod off;
mod pushed;
mod removal;
pub mod thief;
mod unreached;

use crate::world::World;

/// A service that stays, without a secret, and says this besides.
pub fn deploy(w: &World, name: &str, more: &str) {
    let image = w.busybox();
    let text = format!(
        "name = {name:?}\nnamespace = \"shop\"\nimage = {image:?}\n{more}\n\
         command = [\"/bin/busybox\", \"sleep\", \"3600\"]\n"
    );
    w.ok(&["service", "deploy", "-f", &w.write_spec(name, &text)]);
}
