//! The client's end of a connection, which remembers why the server ended it.
//!
//! HTTP/2 keeps only the text of a read error; the alert that says whether our certificate was refused would be lost.

use crate::gather::gather;
use rustls::AlertDescription;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// The alert that ended a connection, if one did.
pub(super) type LastAlert = Arc<OnceLock<AlertDescription>>;

pub(super) struct Io {
    stream: TlsStream<TcpStream>,
    alert: LastAlert,
}

impl Io {
    pub(super) fn new(stream: TlsStream<TcpStream>, alert: LastAlert) -> Self {
        Self { stream, alert }
    }
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Err(e)) = &read
            && let Some(rustls::Error::AlertReceived(alert)) = e.get_ref().and_then(|e| e.downcast_ref())
        {
            self.alert.get_or_init(|| *alert);
        }
        read
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let taken = gather(self.stream.get_mut().1.writer(), buf)?;
        if taken > 0 {
            return Poll::Ready(Ok(taken));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
