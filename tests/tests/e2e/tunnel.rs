//! What `ssh -L` does with a unix socket: whoever connects here is connected there, by a process of root's.

use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::{fs, io, thread};

/// Listens at `here`, in the place of whatever lay there, and joins each connection with one to `there`, for as long as
/// this process lives.
pub fn forward(here: &Path, there: PathBuf) {
    if here.exists() {
        fs::remove_file(here).unwrap();
    }
    let listener = UnixListener::bind(here).unwrap();
    thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            // Where nobody listens, whoever connected here learns it by the end of the connection, as with `ssh`.
            let Ok(far) = UnixStream::connect(&there) else { continue };
            let back = (far.try_clone().unwrap(), near.try_clone().unwrap());
            thread::spawn(move || pump(near, far));
            thread::spawn(move || pump(back.0, back.1));
        }
    });
}

/// Copies until `from` ends or `to` is gone, and passes the end on.
fn pump(mut from: UnixStream, mut to: UnixStream) {
    drop(io::copy(&mut from, &mut to));
    drop(to.shutdown(Shutdown::Write));
}
