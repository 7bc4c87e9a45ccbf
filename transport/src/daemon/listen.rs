//! A port of our own, or the one line that says why not.

use crate::failure::Failure;
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// Listens on `addr` (port 0 takes a free one); with the address that was bound.
pub async fn listen(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), Failure> {
    let failed = |e: std::io::Error| {
        Failure::failed("address", format!("cannot listen on {addr}: {e}"))
            .help("stop the process that has this port, or configure another address")
    };
    let listener = TcpListener::bind(addr).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}
