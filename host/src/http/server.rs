//! Connections: the server takes them up to a limit, keeps them while they are in use, and ends them in order.
//!
//! It speaks HTTP/1 only, through hyper. This module and [`super::wire`] bound what hyper doesn't: the time that a
//! client may take for a request or an answer, the time that a connection may be idle, and the number of connections.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, Version, header};
use axum::response::IntoResponse as _;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::Service as _;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::exchange::Exchange;
use super::metrics::Connections;
use super::pace::Paced;
use super::problem::{self, Problem};
use super::wire::Wire;
use crate::config;

/// The most bytes that the request line and the headers may have together.
pub(super) const MAX_HEAD_BYTES: usize = 32 << 10;
/// This is hyper's own default. Any other number would cost an allocation for each request.
pub(super) const MAX_HEADERS: usize = 100;
/// The longest path that the host answers. A percent-encoded key of 512 bytes, with everything around it, needs half of
/// that.
pub(super) const MAX_URI_BYTES: usize = 8 << 10;

/// An answer up to this size costs about as much as its connection, and isn't counted.
const SMALL_ANSWER_BYTES: u64 = 256 << 10;
/// The memory that all larger answers may occupy together until their clients have taken them. An answer larger than
/// this takes all of it.
const ANSWERS_KIB: u32 = 256 << 10;

/// How long the rest of a refused request is read and discarded. Without this, a client that reads only after it has
/// sent everything would see a broken connection instead of the answer.
const LINGER: Duration = Duration::from_secs(10);
/// The same limit while the client sends nothing.
const LINGER_IDLE: Duration = Duration::from_secs(1);
/// How many connections beyond the limit are told so at a time. Further ones are closed without an answer.
const MAX_REFUSALS: usize = 64;
/// The files and connections that the host needs besides those of clients.
const RESERVED_FILES: u64 = 128;

#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    pub(super) max_connections: usize,
    pub(super) request_timeout: Duration,
    pub(super) idle_timeout: Duration,
}

impl From<&config::Http> for Options {
    fn from(config: &config::Http) -> Self {
        Self {
            max_connections: usize::try_from(config.max_connections).unwrap_or(usize::MAX),
            request_timeout: config.request_timeout,
            idle_timeout: config.idle_timeout,
        }
    }
}

/// Answers requests with the router until `stop` resolves. Then it takes no more connections, closes idle ones at once
/// and the others after the answer that is under way, and returns when the last one has ended. Dropping the future
/// closes them all.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    options: Options,
    connections: Arc<Connections>,
    stop: impl Future<Output = ()>,
) {
    let max_connections = options.max_connections.min(connections_that_files_allow());
    if max_connections < options.max_connections {
        tracing::warn!(
            "the host takes at most {max_connections} connections, not {}: raise the limit on open files (ulimit -n)",
            options.max_connections
        );
    }
    let server = Arc::new(Server {
        service: TowerToHyperService::new(router),
        options,
        connections,
        answers: Arc::new(Semaphore::new(ANSWERS_KIB as usize)),
    });
    let places = Arc::new(Semaphore::new(max_connections));
    let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
    let (tell, told) = watch::channel(());
    let mut tasks = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            Some(_) = tasks.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                if !is_of_one_client(&error) {
                    tracing::warn!("the host can't take a connection: {error}");
                    // Most likely no file descriptor is free, so trying again at once doesn't help.
                    sleep(Duration::from_millis(500)).await;
                }
                continue;
            }
        };
        match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => {
                let connection = Arc::clone(&server).keep(stream, told.clone());
                tasks.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(_) => {
                server.connections.count_refused();
                if let Ok(place) = Arc::clone(&refusals).try_acquire_owned() {
                    tasks.spawn(refuse(stream, max_connections, place));
                }
            }
        }
    }
    drop(listener);
    tell.send_replace(());
    while tasks.join_next().await.is_some() {}
}

/// Returns how many connections the limit on open files leaves room for, after raising it as far as this process may.
fn connections_that_files_allow() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    // `None` means that there is no limit.
    let current = current.map_or(usize::MAX, |files| {
        usize::try_from(files.saturating_sub(RESERVED_FILES)).unwrap_or(usize::MAX)
    });
    current.min(Semaphore::MAX_PERMITS)
}

/// Returns whether the client left before its connection was taken, which says nothing about the listener.
fn is_of_one_client(error: &io::Error) -> bool {
    use io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
    )
}

async fn refuse(mut stream: TcpStream, max_connections: usize, place: OwnedSemaphorePermit) {
    let detail = format!("{max_connections} connections are open, which is the maximum");
    let answer = problem::busy(detail).to_http();
    let _ = timeout(LINGER_IDLE, stream.write_all(&answer)).await;
    // The time is limited because a connection that holds its place here keeps others from being told.
    let _ = timeout(LINGER_IDLE, linger(stream)).await;
    drop(place);
}

/// The state that all connections share.
#[derive(Debug)]
struct Server {
    service: TowerToHyperService<Router>,
    options: Options,
    connections: Arc<Connections>,
    /// Permits for memory, in KiB.
    answers: Arc<Semaphore>,
}

impl Server {
    async fn keep(self: Arc<Self>, stream: TcpStream, mut told: watch::Receiver<()>) {
        let _open = self.connections.open();
        // An answer is written at once and whole, so there is nothing to gather, and waiting would only make it slower.
        let _ = stream.set_nodelay(true);
        // With this, a client that vanished without closing is noticed after about two hours, however long it wanted to
        // wait.
        let _ = rustix::net::sockopt::set_socket_keepalive(&stream, true);
        let exchange = Arc::new(Exchange::default());
        let wire = Wire::new(stream, Arc::clone(&exchange), self.options, Arc::clone(&self.connections));
        let service = hyper::service::service_fn(|request| {
            exchange.begin();
            Box::pin(Arc::clone(&self).answer(request, Arc::clone(&exchange)))
        });
        let mut connection = http1::Builder::new()
            .max_header_size(MAX_HEAD_BYTES)
            .max_buf_size(2 * MAX_HEAD_BYTES)
            // The wire has its own timeout for heads.
            .header_read_timeout(None)
            .serve_connection(TokioIo::new(wire), service);
        // An error on the connection concerns only the client.
        tokio::select! {
            biased;
            _ = poll_fn(|cx| connection.poll_without_shutdown(cx)) => {}
            _ = told.changed() => {
                if exchange.is_idle() {
                    return;
                }
                Pin::new(&mut connection).graceful_shutdown();
                let _ = poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
            }
        }
        let wire = connection.into_parts().io.into_inner();
        let lingers = wire.is_deaf() || exchange.is_unread();
        let mut stream = wire.into_stream();
        if lingers {
            let _ = timeout(LINGER, linger(stream)).await;
        } else {
            let _ = stream.shutdown().await;
        }
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        exchange: Arc<Exchange>,
    ) -> Result<Response<Answer>, Infallible> {
        let limit = self.options.request_timeout;
        let request =
            request.map(|body| Paced::new(body, limit, Arc::clone(&exchange), Arc::clone(&self.connections)));
        let uri_bytes = request.uri().path_and_query().map_or(0, |uri| uri.as_str().len());
        let mut answer = if uri_bytes > MAX_URI_BYTES {
            problem::uri_too_long().into_response()
        } else if request.version() == Version::HTTP_11
            && request.headers().get_all(header::HOST).iter().count() != 1
        {
            // RFC 9112 section 3.2 requires this.
            let detail = "a request of HTTP/1.1 must have exactly one header `Host`";
            Problem::new(&problem::MALFORMED_REQUEST, detail).into_response()
        } else {
            let Ok(answer) = self.service.call(request.map(Body::new)).await;
            answer
        };
        let size = answer.body().size_hint().lower();
        if size > SMALL_ANSWER_BYTES {
            let wanted = u32::try_from(size >> 10).unwrap_or(u32::MAX).min(ANSWERS_KIB);
            match Arc::clone(&self.answers).try_acquire_many_owned(wanted) {
                Ok(room) => exchange.set_room(Some(room)),
                Err(_) => {
                    answer = problem::busy("too many large answers wait for their clients").into_response();
                }
            }
        }
        if exchange.is_unread() {
            // The unread rest of the body stands where the next request would begin.
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(answer.map(|body| Answer { body, exchange }))
    }
}

/// Discards what the client still sends, until it notices that nobody reads.
async fn linger(mut stream: TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut rest = vec![0; 16 << 10];
    while let Ok(Ok(1..)) = timeout(LINGER_IDLE, stream.read(&mut rest)).await {}
}

/// The body of an answer. It notes when the answer is over.
struct Answer {
    body: Body,
    exchange: Arc<Exchange>,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.exchange.end();
    }
}
