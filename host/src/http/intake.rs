//! Bounds how much of clients' bodies may be under way at once, and keeps each body until it is complete.
//!
//! A stalled client occupies the space of what it has sent so far. So a component is spooled to an unnamed file, with
//! only a chunk in memory at a time. Other bodies are small and share a bounded amount of memory.

use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::pace::TooSlow;
use super::problem::{self, Problem, Result};
use crate::config::Limits;

/// The memory that an upload occupies while it arrives, whatever its size.
const CHUNK_BYTES: usize = 1 << 20;

/// A body up to this size costs about as much as its connection, and isn't counted.
const SMALL_BYTES: usize = 64 << 10;

/// The memory that all larger bodies may occupy together while they are arriving, in KiB.
const MEMORY_KIB: usize = 256 << 10;

/// The bounds that all requests share.
#[derive(Debug)]
pub(crate) struct Intake {
    value_bytes: u64,
    component_bytes: u64,
    max_uploads: usize,
    uploads: Arc<Semaphore>,
    /// Permits for memory, in KiB.
    memory: Arc<Semaphore>,
    /// The folder for uploads. `None` means the system's folder for temporary files.
    folder: Option<PathBuf>,
}

/// A component that has arrived completely.
#[derive(Debug)]
pub(crate) struct Uploaded {
    pub(crate) bytes: Bytes,
    /// Held while the bytes are in use, so that the limit on uploads also bounds the components in memory.
    _place: OwnedSemaphorePermit,
}

impl Intake {
    pub(crate) fn new(limits: &Limits, max_uploads: usize, folder: Option<PathBuf>) -> Self {
        Self {
            value_bytes: limits.value_bytes,
            component_bytes: limits.component_bytes,
            max_uploads,
            uploads: Arc::new(Semaphore::new(max_uploads)),
            memory: Arc::new(Semaphore::new(MEMORY_KIB)),
            folder,
        }
    }

    /// Reads a body that is at most as large as a value may be.
    pub(super) async fn read_value(&self, request: Request, what: &str) -> Result<Bytes> {
        self.read(request, self.value_bytes, what).await
    }

    /// Reads a body into memory. Refuses one that is declared too large at once, and any other as soon as it exceeds
    /// the limit.
    pub(super) async fn read(&self, request: Request, limit: u64, what: &str) -> Result<Bytes> {
        let (parts, body) = request.into_parts();
        let declared = declared_bytes(&parts.headers);
        refuse_too_large(declared.unwrap_or(0), limit, what)?;
        let mut chunks = body.into_data_stream();
        let mut memory = Memory { all: &self.memory, held: None };
        let mut whole = Bytes::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| broken_off(&error))?;
            let size = whole.len() + chunk.len();
            refuse_too_large(size as u64, limit, what)?;
            if whole.is_empty() {
                whole = chunk;
            } else {
                memory.hold(size)?;
                // Most bodies have one chunk, which is then never copied.
                let mut joined = whole.try_into_mut().unwrap_or_else(|whole| whole.as_ref().into());
                joined.extend_from_slice(&chunk);
                whole = joined.freeze();
            }
            if declared == Some(whole.len() as u64) {
                break;
            }
        }
        Ok(whole)
    }

    /// Receives a component: into a file while it arrives, then into memory.
    pub(super) async fn upload(&self, request: Request) -> Result<Uploaded> {
        const WHAT: &str = "a component";
        let (parts, body) = request.into_parts();
        refuse_too_large(declared_bytes(&parts.headers).unwrap_or(0), self.component_bytes, WHAT)?;
        let Ok(place) = Arc::clone(&self.uploads).try_acquire_owned() else {
            let detail = format!("{} uploads are under way, which is the maximum", self.max_uploads);
            return Err(problem::busy(detail));
        };
        let mut chunks = body.into_data_stream();
        let mut spool = Spool { folder: self.folder.as_deref(), file: None, recent: Vec::new(), size: 0 };
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| broken_off(&error))?;
            refuse_too_large((spool.size + chunk.len()) as u64, self.component_bytes, WHAT)?;
            spool.add(&chunk).await.map_err(not_kept)?;
        }
        let bytes = spool.whole().await.map_err(not_kept)?;
        Ok(Uploaded { bytes, _place: place })
    }
}

/// The share of the common memory that one body holds.
struct Memory<'a> {
    all: &'a Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
}

impl Memory<'_> {
    fn hold(&mut self, bytes: usize) -> Result<()> {
        let held = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let wanted = (bytes / SMALL_BYTES) * (SMALL_BYTES >> 10);
        if wanted <= held {
            return Ok(());
        }
        let more = u32::try_from(wanted - held).unwrap_or(u32::MAX);
        let Ok(more) = Arc::clone(self.all).try_acquire_many_owned(more) else {
            return Err(problem::busy("too many large bodies are under way"));
        };
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
        Ok(())
    }
}

/// An upload that is arriving.
struct Spool<'a> {
    folder: Option<&'a Path>,
    /// An unnamed file, which disappears with this process, however that ends. `None` means that everything is in
    /// `recent`.
    file: Option<tokio::fs::File>,
    /// The bytes that aren't in the file yet.
    recent: Vec<u8>,
    size: usize,
}

impl Spool<'_> {
    async fn add(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.size += chunk.len();
        self.recent.extend_from_slice(chunk);
        if self.recent.len() < CHUNK_BYTES {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let folder = self.folder.map(Path::to_owned);
                let file = tokio::task::spawn_blocking(move || unnamed_file(folder.as_deref())).await??;
                self.file.insert(tokio::fs::File::from_std(file))
            }
        };
        file.write_all(&self.recent).await?;
        self.recent.clear();
        Ok(())
    }

    async fn whole(self) -> io::Result<Bytes> {
        let Some(mut file) = self.file else { return Ok(self.recent.into()) };
        file.flush().await?;
        file.seek(SeekFrom::Start(0)).await?;
        let mut all = Vec::with_capacity(self.size);
        file.read_to_end(&mut all).await?;
        all.extend_from_slice(&self.recent);
        Ok(all.into())
    }
}

/// Creates an unnamed file in the folder, or in the system's folder for temporary files if that fails.
fn unnamed_file(folder: Option<&Path>) -> io::Result<std::fs::File> {
    let in_folder = folder.map(tempfile::tempfile_in);
    match in_folder {
        Some(Ok(file)) => Ok(file),
        Some(Err(_)) | None => tempfile::tempfile(),
    }
}

/// The size in `Content-Length`. Clients need not send it.
fn declared_bytes(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn refuse_too_large(size: u64, limit: u64, what: &str) -> Result<()> {
    if size <= limit {
        return Ok(());
    }
    let detail = format!("the body is too large: {what} has at most {limit} bytes");
    Err(Problem::new(&problem::TOO_LARGE, detail).with("limitBytes", limit))
}

fn broken_off(error: &axum::Error) -> Problem {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(too_slow) = error.downcast_ref::<TooSlow>() {
            return Problem::new(
                &problem::REQUEST_TIMEOUT,
                format!("the body arrived too slowly: {too_slow}"),
            );
        }
        cause = error.source();
    }
    Problem::new(&problem::INVALID_BODY, "the body ended before it was complete")
}

fn not_kept(error: io::Error) -> Problem {
    Problem::internal(anyhow::Error::from(error).context("can't write an upload to a temporary file"))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::Pin;
    use std::task::Poll;

    use axum::body::Body;

    use super::*;

    fn intake(max_uploads: usize) -> Intake {
        Intake::new(&Limits::default(), max_uploads, None)
    }

    fn request(body: impl Into<Body>) -> Request {
        Request::new(body.into())
    }

    fn in_chunks(bytes: &[u8], size: usize) -> Request {
        let chunks: Vec<_> = bytes.chunks(size).map(|chunk| Ok::<_, io::Error>(chunk.to_vec())).collect();
        request(Body::from_stream(futures_util::stream::iter(chunks)))
    }

    #[tokio::test]
    async fn bodies_are_read_as_they_were_sent_whatever_the_size_of_their_chunks() {
        let bytes: Vec<u8> = (0..5_000_003_u32).map(|n| (n % 251) as u8).collect();
        for size in [bytes.len(), 1 << 20, 70_001] {
            let uploaded = intake(1).upload(in_chunks(&bytes, size)).await.expect("it fits");
            assert!(uploaded.bytes == bytes, "chunks of {size}");
        }
        let small = &bytes[..300_000];
        for size in [small.len(), 64 << 10, 1_001] {
            let read = intake(1).read(in_chunks(small, size), 300_000, "a body").await.expect("it fits");
            assert!(read == small, "chunks of {size}");
        }
        assert!(intake(1).read(in_chunks(small, 1_001), 299_999, "a body").await.is_err());
    }

    #[tokio::test]
    async fn an_upload_beyond_the_limit_is_refused_until_another_has_ended() {
        let intake = intake(1);
        let first = intake.upload(request("a")).await.expect("there is a place");
        let refused = intake.upload(request("b")).await.expect_err("there is no place");
        assert_eq!(refused.kind().slug, problem::BUSY.slug);
        drop(first);
        assert!(intake.upload(request("b")).await.is_ok());
    }

    /// Returns whether a future can only wait.
    async fn stalls<F: Future + Unpin>(future: &mut F) -> bool {
        poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx).is_pending())).await
    }

    #[tokio::test]
    async fn bodies_in_memory_are_bounded_together() {
        let intake = intake(1);
        let most = MEMORY_KIB / 1024 - 1;
        let stalled = || {
            let megabyte = futures_util::stream::iter([vec![0; 1 << 19], vec![0; 1 << 19]]);
            let body = megabyte.map(Ok::<_, io::Error>).chain(futures_util::stream::pending());
            Box::pin(intake.read(request(Body::from_stream(body)), 2 << 20, "a body"))
        };
        let mut others: Vec<_> = (0..=most).map(|_| stalled()).collect();
        for other in &mut others {
            assert!(stalls(other).await);
        }
        let refused = stalled().await.expect_err("the memory is taken");
        assert_eq!(refused.kind().slug, problem::BUSY.slug);
        assert!(intake.read(request("small"), 10, "a body").await.is_ok());
        others.pop();
        assert!(stalls(&mut stalled()).await);
    }
}
