//! What HTTP/2 writes between two flushes leaves in one piece.
//!
//! It writes the head of a message, then its body, and then flushes: by themselves they are two packets, two system calls, and
//! twice the other end is woken. Must never: hold back what is followed by neither a flush nor a shutdown; HTTP/2 always
//! flushes.

use rustls::Writer;
use std::io::{self, Write as _};

/// Longest write that waits for the next, or for the flush. What is longer goes out at once, behind what waits.
const LONGEST: usize = 4 << 10;

/// Takes `buf` into the session, sealed and not sent; how much of it. 0: it is to be written as ever.
pub(crate) fn gather(mut session: Writer<'_>, buf: &[u8]) -> io::Result<usize> {
    if buf.len() > LONGEST { Ok(0) } else { session.write(buf) }
}
