//! A client's connection below HTTP. It times what passes through, and turns hyper's own refusals into problems.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::http::StatusCode;
use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::exchange::Exchange;
use super::metrics::{Connections, Slow};
use super::pace::{Alarm, Patience};
use super::problem::{self, Problem};
use super::server::{MAX_HEAD_BYTES, MAX_HEADERS, Options};

/// The stream that hyper reads from and writes to.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    exchange: Arc<Exchange>,
    options: Options,
    connections: Arc<Connections>,
    /// The instant by which the head of the next request must be complete, or the first byte of it must arrive.
    head: Instant,
    /// Whether a part of the head has arrived.
    head_begun: bool,
    alarm: Alarm,
    writing: Patience,
    /// The rest of an answer that replaces hyper's.
    own: Option<Bytes>,
    /// Whether the client may go on sending, although nobody will read it.
    deaf: bool,
}

impl Wire {
    pub(super) fn new(
        stream: TcpStream,
        exchange: Arc<Exchange>,
        options: Options,
        connections: Arc<Connections>,
    ) -> Self {
        Self {
            stream,
            exchange,
            options,
            connections,
            head: Instant::now() + options.request_timeout,
            head_begun: false,
            alarm: Alarm::default(),
            writing: Patience::new(options.request_timeout),
            own: None,
            deaf: false,
        }
    }

    pub(super) fn is_deaf(&self) -> bool {
        self.deaf
    }

    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Decides, while a request is awaited and nothing arrives, whether to give up the connection, and how.
    fn poll_give_up(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.exchange.is_idle() || !self.alarm.rings(self.head, cx) {
            return Poll::Pending;
        }
        if !self.head_begun {
            // hyper sees this as if the client had closed the connection.
            return Poll::Ready(Ok(()));
        }
        self.connections.count_too_slow(Slow::Head);
        self.deaf = true;
        let detail =
            format!("the head of the request wasn't complete within {:?}", self.options.request_timeout);
        // Nothing is being written now, so there is room for the answer; otherwise the client hasn't read an earlier
        // one.
        let _ = self.stream.try_write(&Problem::new(&problem::REQUEST_TIMEOUT, detail).to_http());
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Writes with `write`, as long as the patience with the client lasts.
    fn poll_paced(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match write(Pin::new(&mut self.stream), cx) {
            Poll::Ready(Ok(bytes)) => {
                self.writing.moved(bytes);
                Poll::Ready(Ok(bytes))
            }
            Poll::Pending if self.writing.is_over(cx) => {
                self.connections.count_too_slow(Slow::Answer);
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            other => other,
        }
    }

    /// Returns whether hyper is refusing, by itself, a request that it can't read. No request is being answered then,
    /// so the bytes that it writes aren't a service's answer.
    fn replaces(&mut self, head: &[u8]) -> bool {
        if self.own.is_none() && self.exchange.is_idle() {
            self.own = problem_of(head).map(|problem| problem.to_http().into());
            self.deaf = self.own.is_some();
        }
        self.own.is_some()
    }

    /// Writes our answer, and reports to hyper that its own, of this many bytes, is written.
    fn poll_own(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<io::Result<usize>> {
        while let Some(mut own) = self.own.take() {
            match self.poll_paced(cx, |stream, cx| stream.poll_write(cx, &own)) {
                Poll::Ready(written) => own.advance(written?),
                Poll::Pending => {
                    self.own = Some(own);
                    return Poll::Pending;
                }
            }
            self.own = Some(own).filter(|own| !own.is_empty());
        }
        Poll::Ready(Ok(bytes))
    }
}

/// Makes the problem for one of hyper's own answers, given its head.
fn problem_of(head: &[u8]) -> Option<Problem> {
    let status = head.strip_prefix(b"HTTP/1.1 ").or_else(|| head.strip_prefix(b"HTTP/1.0 "))?;
    Some(match StatusCode::from_bytes(status.get(..3)?).ok()? {
        StatusCode::BAD_REQUEST => {
            Problem::new(&problem::MALFORMED_REQUEST, "expected a request of HTTP/1.1 or HTTP/1.0")
        }
        StatusCode::URI_TOO_LONG => problem::uri_too_long(),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Problem::new(
            &problem::HEADERS_TOO_LARGE,
            format!(
                "the head of a request has at most {MAX_HEADERS} headers and {} KiB",
                MAX_HEAD_BYTES >> 10
            ),
        ),
        _ => return None,
    })
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        let before = buffer.filled().len();
        let Poll::Ready(read) = Pin::new(&mut wire.stream).poll_read(cx, buffer) else {
            return wire.poll_give_up(cx);
        };
        if buffer.filled().len() > before && !wire.head_begun && wire.exchange.is_idle() {
            wire.head_begun = true;
            wire.head = Instant::now() + wire.options.request_timeout;
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        if wire.replaces(bytes) {
            return wire.poll_own(cx, bytes.len());
        }
        wire.poll_paced(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        if parts.first().is_some_and(|head| wire.replaces(head)) {
            return wire.poll_own(cx, parts.iter().map(|part| part.len()).sum());
        }
        wire.poll_paced(cx, |stream, cx| stream.poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        ready!(Pin::new(&mut wire.stream).poll_flush(cx))?;
        // hyper flushes when it has written everything that it holds.
        if wire.exchange.flushed() {
            wire.writing.renew();
            wire.head_begun = false;
            wire.head = Instant::now() + wire.options.idle_timeout;
            // hyper may not ask for the next request before something wakes it.
            let _ = wire.alarm.rings(wire.head, cx);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
