//! Connections: taken up to a bound, kept while they are of use, and ended in order.
//!
//! HTTP/1 only, by hyper. What hyper doesn't bound is bounded here and in [`super::wire`]: how long a client may take for a
//! request or for an answer, how long a connection may be idle, and how many there are.

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

/// The request line and the headers of a request, together.
pub(super) const MAX_HEAD_BYTES: usize = 32 << 10;
/// As hyper has it; another number would cost an allocation for each request.
pub(super) const MAX_HEADERS: usize = 100;
/// The longest path that the host answers: a key of 512 bytes, percent-encoded, with all around it, is half of that.
pub(super) const MAX_URI_BYTES: usize = 8 << 10;

/// An answer that is no larger costs as much as its connection, and isn't counted.
const SMALL_ANSWER_BYTES: u64 = 256 << 10;
/// What all larger answers may keep in memory together until their clients have taken them; one that is larger has it alone.
const ANSWERS_KIB: u32 = 256 << 10;

/// How long the rest of a request that was refused is read and thrown away. A client that reads only after it has sent everything
/// would see a broken connection instead of the answer.
const LINGER: Duration = Duration::from_secs(10);
/// And while nothing comes.
const LINGER_IDLE: Duration = Duration::from_secs(1);
/// Connections beyond the bound that are told so at a time. More than that are closed without a word.
const MAX_REFUSALS: usize = 64;
/// Files and connections that the host needs beside those of clients.
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

/// Answers by the router until `stop` comes. Then no connection is taken any more, idle ones end at once, and others with the
/// answer that is under way; returns when the last one has ended. Dropping the future ends them all.
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
            "takes {max_connections} connections at most, not {}: raise the limit of open files (ulimit -n)",
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
                    tracing::warn!("can't take a connection: {error}");
                    // No file is free, most likely: it doesn't help to ask again at once.
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

/// How many connections the limit of open files has room for, after it is raised as far as this process may.
fn connections_that_files_allow() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    // None: there is no limit.
    let current = current.map_or(usize::MAX, |files| {
        usize::try_from(files.saturating_sub(RESERVED_FILES)).unwrap_or(usize::MAX)
    });
    current.min(Semaphore::MAX_PERMITS)
}

/// Whether the client has gone before it was taken, which says nothing about the listener.
fn is_of_one_client(error: &io::Error) -> bool {
    use io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
    )
}

async fn refuse(mut stream: TcpStream, max_connections: usize, place: OwnedSemaphorePermit) {
    let detail = format!("{max_connections} connections are open, as many as may be at once");
    let answer = problem::busy(detail).to_http();
    let _ = timeout(LINGER_IDLE, stream.write_all(&answer)).await;
    // One that holds its place here for longer keeps others from being told.
    let _ = timeout(LINGER_IDLE, linger(stream)).await;
    drop(place);
}

/// What all connections share.
#[derive(Debug)]
struct Server {
    service: TowerToHyperService<Router>,
    options: Options,
    connections: Arc<Connections>,
    /// In KiB.
    answers: Arc<Semaphore>,
}

impl Server {
    async fn keep(self: Arc<Self>, stream: TcpStream, mut told: watch::Receiver<()>) {
        let _open = self.connections.open();
        // An answer is written at once and whole; there is nothing to gather. Without it, it's slower.
        let _ = stream.set_nodelay(true);
        // A client that has vanished without a word is noticed after about two hours, however long it wanted to wait.
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
            // The wire's own.
            .header_read_timeout(None)
            .serve_connection(TokioIo::new(wire), service);
        // How it ends is the client's affair.
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
            // RFC 9112 section 3.2.
            let detail = "a request of HTTP/1.1 has exactly one header `Host`";
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
            // The rest of the request stands where the next one would begin.
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(answer.map(|body| Answer { body, exchange }))
    }
}

/// Throws away what the client still sends, until it has seen that nobody reads.
async fn linger(mut stream: TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut rest = vec![0; 16 << 10];
    while let Ok(Ok(1..)) = timeout(LINGER_IDLE, stream.read(&mut rest)).await {}
}

/// The body of an answer, which says when it is over.
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
