//! A connection that ends when it is told to, or when its session is over.
//!
//! HTTP/2 always has a read pending, so watching in `poll_read` is enough to end a connection whose streams are all
//! idle. Nothing is read or written after the end.

use super::connections::{ConnPeer, Registration};
use super::sources::Seat;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::Connected;

pub(super) struct Io {
    stream: TlsStream<TcpStream>,
    told: Pin<Box<WaitForCancellationFutureOwned>>,
    over: Pin<Box<Sleep>>,
    registration: Registration,
    _place: (OwnedSemaphorePermit, Seat),
}

impl Io {
    /// `session`: how long the connection may last.
    pub(super) fn new(
        stream: TlsStream<TcpStream>,
        registration: Registration,
        session: Duration,
        place: (OwnedSemaphorePermit, Seat),
    ) -> Self {
        let told = Box::pin(registration.token.clone().cancelled_owned());
        Self { stream, told, over: Box::pin(sleep(session)), registration, _place: place }
    }

    fn ended(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.told.as_mut().poll(cx).is_ready() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the peer's connection was closed"));
        }
        if self.over.as_mut().poll(cx).is_ready() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the session is over"));
        }
        Ok(())
    }
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.ended(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.ended(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ended(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Connected for Io {
    type ConnectInfo = Arc<ConnPeer>;
    fn connect_info(&self) -> Arc<ConnPeer> {
        self.registration.conn.clone()
    }
}
