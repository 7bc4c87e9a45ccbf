//! A channel between two of the processes: packets over a pair of unix sockets, one of which may carry the end of another.

use crate::message::LONGEST;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recv, recvmsg, send, sendmsg, socketpair, sockopt,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Stdio;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// One end.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

/// A message, and the end of a channel that came with it.
pub(crate) type WithEnd = (Zeroizing<Vec<u8>>, Option<Channel>);

impl Channel {
    /// Both ends; a program that is started inherits neither.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(a), Self(b)))
    }
    /// The end that this process was started with.
    pub(crate) fn stdin() -> io::Result<Self> {
        Ok(Self(io::stdin().as_fd().try_clone_to_owned()?))
    }
    /// As the standard input of a program.
    pub(crate) fn into_stdio(self) -> Stdio {
        Stdio::from(self.0)
    }
    /// Sends one packet.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let sent = rustix::io::retry_on_intr(|| send(&self.0, bytes, SendFlags::NOSIGNAL))?;
        whole(sent, bytes.len())
    }
    /// Sends one packet, and an end of another channel with it.
    pub(crate) fn send_with(&self, bytes: &[u8], other: &Self) -> io::Result<()> {
        let fds = [other.0.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(io::Error::other("no room for a descriptor"));
        }
        let sent = sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
        whole(sent, bytes.len())
    }
    /// The next packet; `None` if the other end is closed, `WouldBlock` if none came in time.
    pub(crate) fn receive(&self, within: Option<Duration>) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        let Some(length) = self.next_length(within)? else { return Ok(None) };
        let mut bytes = Zeroizing::new(vec![0; length]);
        let (_, got) = recv(&self.0, bytes.as_mut_slice(), RecvFlags::empty())?;
        whole(got, length)?;
        Ok(Some(bytes))
    }
    /// The same, and the end of a channel that came with it.
    pub(crate) fn receive_with(&self, within: Option<Duration>) -> io::Result<Option<WithEnd>> {
        let Some(length) = self.next_length(within)? else { return Ok(None) };
        let mut bytes = Zeroizing::new(vec![0; length]);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let got = recvmsg(&self.0, &mut [IoSliceMut::new(bytes.as_mut_slice())], &mut control, flags)?;
        whole(got.bytes, length)?;
        let mut other = None;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                for fd in fds {
                    other = Some(Self(fd));
                }
            }
        }
        Ok(Some((bytes, other)))
    }
    /// Waits for a packet and says how long it is, without taking it. Closed is `None`; nothing ever sends an empty packet.
    fn next_length(&self, within: Option<Duration>) -> io::Result<Option<usize>> {
        let until = within.map(|within| Instant::now() + within);
        loop {
            // Zero would mean to wait for ever.
            let left = until.map(|u| u.saturating_duration_since(Instant::now()).max(Duration::from_micros(1)));
            sockopt::set_socket_timeout(&self.0, sockopt::Timeout::Recv, left)?;
            match recv(&self.0, &mut [0_u8; 1], RecvFlags::PEEK | RecvFlags::TRUNC) {
                Ok((_, 0)) => return Ok(None),
                Ok((_, length)) if length > LONGEST => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "sent too long a packet"));
                }
                Ok((_, length)) => return Ok(Some(length)),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::CONNRESET) => return Ok(None),
                Err(e) => return Err(e.into()),
            }
        }
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
