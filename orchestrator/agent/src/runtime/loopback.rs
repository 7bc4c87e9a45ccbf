//! Brings up `lo` in a container's network namespace, over rtnetlink.
//!
//! Moves the calling process into that namespace for good: only the one-shot helper may call it.

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;

/// `RTM_NEWLINK` (rtnetlink(7)).
const RTM_NEWLINK: u16 = 16;
/// `NLM_F_REQUEST | NLM_F_ACK` (netlink(7)).
const REQUEST_AND_ACK: u16 = 0x1 | 0x4;
/// `NLMSG_ERROR`: the acknowledgement's type; its payload begins with 0 or a negative errno.
const NLMSG_ERROR: u16 = 2;
/// `lo` is the first interface of every network namespace.
const LO_INDEX: i32 = 1;
/// Protocol number 0, which the system interface cannot tell from "the default one".
const NETLINK_ROUTE: Option<rustix::net::Protocol> = None;
const IFF_UP: u32 = 1;

/// Enters the network namespace of process `pid` and brings its loopback up.
pub fn bring_up(pid: i32) -> io::Result<()> {
    let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, NETLINK_ROUTE)?;
    sendto(&socket, &link_up_request(), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut reply = [0u8; 1024];
    let (n, _) = recv(&socket, &mut reply, RecvFlags::empty())?;
    acknowledged(reply.get(..n).unwrap_or_default())
}

/// `struct nlmsghdr` (16 bytes), then `struct ifinfomsg` (16 bytes), in the machine's byte order.
fn link_up_request() -> Vec<u8> {
    let mut m = Vec::with_capacity(32);
    m.extend(32u32.to_ne_bytes()); // nlmsg_len
    m.extend(RTM_NEWLINK.to_ne_bytes());
    m.extend(REQUEST_AND_ACK.to_ne_bytes());
    m.extend([0; 8]); // nlmsg_seq, nlmsg_pid
    m.extend([0; 4]); // ifi_family, padding, ifi_type
    m.extend(LO_INDEX.to_ne_bytes());
    m.extend(IFF_UP.to_ne_bytes()); // ifi_flags
    m.extend(IFF_UP.to_ne_bytes()); // ifi_change: only this flag
    m
}

fn acknowledged(reply: &[u8]) -> io::Result<()> {
    let short = || io::Error::new(io::ErrorKind::InvalidData, "short reply from the kernel");
    let kind = reply.get(4..6).and_then(|b| b.try_into().ok()).map(u16::from_ne_bytes).ok_or_else(short)?;
    let code = reply.get(16..20).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes).ok_or_else(short)?;
    match (kind, code) {
        (NLMSG_ERROR, 0) => Ok(()),
        (NLMSG_ERROR, errno) => Err(io::Error::from_raw_os_error(errno.saturating_neg())),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "unexpected reply from the kernel")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_netlink_refusal_is_the_errno_that_it_carries() {
        let reply = |code: i32| {
            let mut m = vec![0u8; 36];
            m[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
            m[16..20].copy_from_slice(&code.to_ne_bytes());
            m
        };
        assert!(acknowledged(&reply(0)).is_ok());
        assert_eq!(acknowledged(&reply(-1)).unwrap_err().raw_os_error(), Some(1));
        assert!(acknowledged(&[]).is_err());
        assert_eq!(link_up_request().len(), 32);
    }
}
