//! What a guest prints: kept up to a bound, and made harmless.

use std::fmt::Write as _;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

/// As much as a guest may write at once: it bounds what the host allocates for it.
const CHUNK_BYTES: usize = 64 << 10;

/// One captured stream. Clones write to the same buffer.
#[derive(Clone, Debug)]
pub(super) struct Capture {
    buffer: Arc<Mutex<Buffer>>,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct Buffer {
    kept: Vec<u8>,
    /// How much more was written than is kept.
    dropped_bytes: u64,
}

impl Capture {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { buffer: Arc::default(), max_bytes }
    }

    /// What was written so far.
    pub(super) fn text(&self) -> String {
        let buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        if buffer.kept.is_empty() {
            return String::new();
        }
        let mut text: String = String::from_utf8_lossy(&buffer.kept)
            .chars()
            .map(
                |c| if c.is_control() && !matches!(c, '\n' | '\t') { char::REPLACEMENT_CHARACTER } else { c },
            )
            .collect();
        if buffer.dropped_bytes > 0 {
            write!(text, "\n[cut: {} more bytes]", buffer.dropped_bytes).expect("a string takes all");
        }
        text
    }

    fn push(&self, bytes: &[u8]) {
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        let room = self.max_bytes.saturating_sub(buffer.kept.len()).min(bytes.len());
        buffer.kept.extend_from_slice(&bytes[..room]);
        buffer.dropped_bytes += (bytes.len() - room) as u64;
    }
}

impl StdoutStream for Capture {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

impl IsTerminal for Capture {
    fn is_terminal(&self) -> bool {
        false
    }
}

/// A guest never waits for its output to be taken: what is too much is counted and dropped.
impl OutputStream for Capture {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.push(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(CHUNK_BYTES)
    }
}

#[async_trait::async_trait]
impl Pollable for Capture {
    async fn ready(&mut self) {}
}

impl AsyncWrite for Capture {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.push(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_cut_and_made_harmless() {
        let capture = Capture::new(8);
        capture.push(b"a\x00\x1b[31");
        capture.push(b"\xff\xff\xff");
        assert_eq!(capture.text(), "a\u{fffd}\u{fffd}[31\u{fffd}\u{fffd}\n[cut: 1 more bytes]");
    }
}
