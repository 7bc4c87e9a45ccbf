//! A connection that ends when it is told to, or when its session is over.
//!
//! HTTP/2 always has a read pending, so being woken for `poll_read` is enough to end a connection whose streams are all
//! idle. Nothing is read or written after the end.

use super::connections::{ConnPeer, Registration};
use super::sources::Seat;
use crate::gather::gather;
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
    /// The end was waited for once: it is known from then on when it comes.
    watched: bool,
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
        Self { stream, told, over: Box::pin(sleep(session)), watched: false, registration, _place: place }
    }

    /// Looked at before every byte.
    fn ended(&self) -> io::Result<()> {
        if self.registration.token.is_cancelled() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the peer's connection was closed"));
        }
        if self.over.is_elapsed() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the session is over"));
        }
        Ok(())
    }

    /// Whoever waits for something to read is woken at the end.
    fn watch(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let (told, over) = (self.told.as_mut().poll(cx).is_ready(), self.over.as_mut().poll(cx).is_ready());
        self.watched = true;
        if told || over { self.ended() } else { Ok(()) }
    }
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.ended()?;
        if !self.watched {
            self.watch(cx)?;
        }
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_pending() {
            self.watch(cx)?;
        }
        read
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.ended()?;
        let taken = gather(self.stream.get_mut().1.writer(), buf)?;
        if taken > 0 {
            return Poll::Ready(Ok(taken));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ended()?;
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
