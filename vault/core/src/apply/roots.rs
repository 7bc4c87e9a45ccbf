//! The rotation of the root: Add, Switch, Drop, and what follows from them (protocol, root rotation).
