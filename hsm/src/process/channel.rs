//! A channel between two of the processes: packets over a pair of unix sockets, one of which may carry the end of another.

use crate::message::LONGEST;
use rustix::buffer::spare_capacity;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recv, recvmsg, send, sendmsg, socketpair, sockopt,
};
use std::cell::Cell;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Stdio;
use std::time::{Duration, Instant};
use zeroize::{Zeroize as _, Zeroizing};

/// One end.
#[derive(Debug)]
pub(crate) struct Channel {
    fd: OwnedFd,
    /// How long the socket waits for a packet, once it was told.
    waits: Cell<Option<Option<Duration>>>,
}

/// A message, and the end of a channel that came with it.
pub(crate) type WithEnd = (Zeroizing<Vec<u8>>, Option<Channel>);

impl Channel {
    fn of(fd: OwnedFd) -> Self {
        Self { fd, waits: Cell::new(None) }
    }
    /// Both ends; a program that is started inherits neither.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self::of(a), Self::of(b)))
    }
    /// The end that this process was started with.
    pub(crate) fn stdin() -> io::Result<Self> {
        Ok(Self::of(io::stdin().as_fd().try_clone_to_owned()?))
    }
    /// As the standard input of a program.
    pub(crate) fn into_stdio(self) -> Stdio {
        Stdio::from(self.fd)
    }
    /// Sends one packet.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let sent = rustix::io::retry_on_intr(|| send(&self.fd, bytes, SendFlags::NOSIGNAL))?;
        whole(sent, bytes.len())
    }
    /// Sends one packet, and an end of another channel with it.
    pub(crate) fn send_with(&self, bytes: &[u8], other: &Self) -> io::Result<()> {
        let fds = [other.fd.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(io::Error::other("no room for a descriptor"));
        }
        let sent = sendmsg(&self.fd, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
        whole(sent, bytes.len())
    }
    /// The next packet; `None` if the other end is closed, `WouldBlock` if none came in time.
    pub(crate) fn receive(&self, within: Option<Duration>) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        // Taken with one call: a signature is worth few of them. Only what was received is wiped.
        let mut room = Vec::with_capacity(LONGEST + 1);
        let length = self.waiting(within, |fd| {
            let (_, length) = recv(fd, spare_capacity(&mut room), RecvFlags::TRUNC)?;
            Ok(length)
        })?;
        let bytes = Zeroizing::new(room.clone());
        room.as_mut_slice().zeroize();
        Ok((length > 0).then_some(bytes))
    }
    /// The same, and the end of a channel that came with it.
    pub(crate) fn receive_with(&self, within: Option<Duration>) -> io::Result<Option<WithEnd>> {
        let Some(length) = self.next_length(within)? else { return Ok(None) };
        let mut bytes = Zeroizing::new(vec![0; length]);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let got = recvmsg(&self.fd, &mut [IoSliceMut::new(bytes.as_mut_slice())], &mut control, flags)?;
        whole(got.bytes, length)?;
        let mut other = None;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                for fd in fds {
                    other = Some(Self::of(fd));
                }
            }
        }
        Ok(Some((bytes, other)))
    }
    /// Waits for a packet and says how long it is, without taking it. Closed is `None`; nothing ever sends an empty packet.
    fn next_length(&self, within: Option<Duration>) -> io::Result<Option<usize>> {
        let peek = RecvFlags::PEEK | RecvFlags::TRUNC;
        let length = self.waiting(within, |fd| Ok(recv(fd, &mut [0_u8; 1], peek)?.1))?;
        Ok((length > 0).then_some(length))
    }
    /// What `get` says that the next packet's length is: 0 if the other end is closed.
    fn waiting(
        &self,
        within: Option<Duration>,
        mut get: impl FnMut(&OwnedFd) -> rustix::io::Result<usize>,
    ) -> io::Result<usize> {
        let until = within.map(|within| Instant::now() + within);
        self.wait_so_long(within)?;
        loop {
            match get(&self.fd) {
                Ok(length) if length > LONGEST => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "sent too long a packet"));
                }
                Ok(length) => return Ok(length),
                Err(rustix::io::Errno::INTR) => {
                    self.wait_so_long(until.map(|u| u.saturating_duration_since(Instant::now())))?;
                }
                Err(rustix::io::Errno::CONNRESET) => return Ok(0),
                Err(e) => return Err(e.into()),
            }
        }
    }
    fn wait_so_long(&self, within: Option<Duration>) -> io::Result<()> {
        // Zero would mean to wait for ever.
        let within = within.map(|w| w.max(Duration::from_micros(1)));
        if self.waits.get() != Some(within) {
            sockopt::set_socket_timeout(&self.fd, sockopt::Timeout::Recv, within)?;
            self.waits.set(Some(within));
        }
        Ok(())
    }
}

fn whole(done: usize, length: usize) -> io::Result<()> {
    if done == length { Ok(()) } else { Err(io::Error::new(io::ErrorKind::InvalidData, "a packet was cut")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_arrive_whole_and_in_time_or_not_at_all() {
        let (a, b) = Channel::pair().unwrap();
        a.send(b"one").unwrap();
        a.send(&[7; LONGEST]).unwrap();
        assert_eq!(b.receive(None).unwrap().unwrap().as_slice(), b"one");
        assert_eq!(b.receive(None).unwrap().unwrap().len(), LONGEST);
        assert_eq!(b.receive(Some(Duration::from_millis(5))).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        a.send(&[7; LONGEST + 1]).unwrap();
        assert_eq!(b.receive(None).unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(a);
        let (a, b) = Channel::pair().unwrap();
        drop(a);
        assert!(b.receive(None).unwrap().is_none());
    }

    #[test]
    fn an_end_travels_with_a_packet() {
        let (a, b) = Channel::pair().unwrap();
        let (c, d) = Channel::pair().unwrap();
        a.send_with(b"here", &c).unwrap();
        drop(c);
        let (bytes, c) = b.receive_with(None).unwrap().unwrap();
        assert_eq!(bytes.as_slice(), b"here");
        c.unwrap().send(b"through").unwrap();
        assert_eq!(d.receive(None).unwrap().unwrap().as_slice(), b"through");
    }
}
