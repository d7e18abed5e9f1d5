//! The server as clients see it on the wire: raw bytes over TCP, in front of a router with a few paths.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::routing::{get, post};
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::body::{ComponentBytes, Input};
use super::intake::Intake;
use super::metrics::Metrics;
use super::problem::Problem;
use super::server::{Options, serve};
use crate::config::Limits;

/// Long enough for what must come. A test that passes never waits this long.
const PATIENCE: Duration = Duration::from_secs(20);

const QUICK: Options = Options {
    max_connections: 100,
    request_timeout: Duration::from_millis(500),
    idle_timeout: Duration::from_millis(500),
};

const LASTING: Options = Options {
    max_connections: 100,
    request_timeout: Duration::from_secs(60),
    idle_timeout: Duration::from_secs(60),
};

struct Server {
    address: SocketAddr,
    metrics: Arc<Metrics>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
    /// Makes `/held` answer.
    release: Arc<Notify>,
}

impl Server {
    async fn start(options: Options) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let limits = Limits { value_bytes: 1 << 20, component_bytes: 1 << 20, ..Limits::default() };
        let release = Arc::new(Notify::new());
        let held = Arc::clone(&release);
        let large = Bytes::from(vec![b'x'; 32 << 20]);
        let routes = Router::new()
            .route("/hello", get(async || "hello"))
            .route("/echo", post(async |Input(input): Input| input.to_string()))
            .route(
                "/component",
                post(async |ComponentBytes(whole): ComponentBytes| whole.bytes.len().to_string()),
            )
            .route("/unread", post(async |_: Request| "unread"))
            .route("/large", get(async move || large.clone()))
            .route("/small", get(async || Bytes::from(vec![b'x'; 200 << 10])))
            .route(
                "/held",
                get(async move || {
                    held.notified().await;
                    "held"
                }),
            )
            .fallback(async |request: Request| Problem::not_found("path", request.uri()));
        let router = super::with_conventions(routes).with_state(Arc::new(Intake::new(&limits, 2, None)));
        let metrics = Arc::<Metrics>::default();
        let (stop, stopped) = oneshot::channel();
        let connections = Arc::clone(&metrics.connections);
        let stopped = async {
            let _ = stopped.await;
        };
        let task = tokio::spawn(serve(listener, router, options, connections, stopped));
        Self { address, metrics, stop: Some(stop), task, release }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("it listens")
    }

    /// Sends the bytes, and returns everything that comes back until the host closes the connection.
    async fn tell(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut client = self.connect().await;
        client.write_all(bytes.as_ref()).await.expect("the connection is open");
        rest(&mut client).await
    }

    #[track_caller]
    fn metric(&self, name: &str) -> u64 {
        let text = self.metrics.connections.render();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
    }

    async fn until_open(&self, expected: u64) {
        let began = Instant::now();
        while self.metric("aster_http_connections") != expected {
            assert!(began.elapsed() < PATIENCE, "{} are open", self.metric("aster_http_connections"));
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Asks the server to stop, and waits until it has.
    async fn stop(&mut self) {
        drop(self.stop.take());
        timeout(PATIENCE, &mut self.task).await.expect("it stops").expect("it doesn't panic");
    }
}

async fn rest(client: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let end = timeout(PATIENCE, client.read_to_end(&mut answer)).await.expect("the host closes");
    end.unwrap_or_else(|error| panic!("{error} after {}", String::from_utf8_lossy(&answer)));
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads one answer, which ends with `end`, on a connection that stays open.
async fn one_answer(client: &mut TcpStream, end: &str) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(end.as_bytes()) {
        let mut byte = [0];
        let n = timeout(PATIENCE, client.read(&mut byte))
            .await
            .expect("it answers")
            .expect("the connection is open");
        assert!(n > 0, "closed after {}", String::from_utf8_lossy(&answer));
        answer.push(byte[0]);
    }
    String::from_utf8(answer).expect("it is text")
}

#[track_caller]
fn check_problem(answer: &str, status: u16, slug: &str) {
    let answer = answer.get(..2_000).unwrap_or(answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert!(head.to_ascii_lowercase().contains("content-type: application/problem+json"), "{answer}");
    assert!(head.to_ascii_lowercase().contains("connection: close"), "{answer}");
    let problem: serde_json::Value = serde_json::from_str(body).expect("a problem is JSON");
    assert_eq!((&problem["type"], &problem["status"]), (&format!("/problems/{slug}").into(), &status.into()));
}

#[tokio::test]
async fn a_head_that_stays_incomplete_is_refused() {
    let server = Server::start(QUICK).await;
    check_problem(&server.tell("GET /hello HTTP/1.1\r\nHost: x\r\n").await, 408, "request-timeout");
    check_problem(&server.tell("G").await, 408, "request-timeout");
    assert_eq!(server.metric("aster_http_too_slow_total{in=\"head\"}"), 2);
    // Sending a byte now and then doesn't help the client.
    let (mut answer, mut request) = server.connect().await.into_split();
    let trickle = tokio::spawn(async move {
        while request.write_all(b"G").await.is_ok() {
            sleep(Duration::from_millis(50)).await;
        }
    });
    let mut status = [0; 12];
    timeout(PATIENCE, answer.read_exact(&mut status))
        .await
        .expect("it answers")
        .expect("the connection is open");
    assert_eq!(&status, b"HTTP/1.1 408");
    trickle.abort();
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_an_answer() {
    let server = Server::start(QUICK).await;
    assert_eq!(server.tell("").await, "");
    let answer = server.tell("GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nhello"), "{answer}");
    // The second request on a connection has its own time.
    let mut client = server.connect().await;
    client.write_all(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("the connection is open");
    one_answer(&mut client, "hello").await;
    client.write_all(b"GET /hello HT").await.expect("the connection is open");
    check_problem(&rest(&mut client).await, 408, "request-timeout");
    server.until_open(0).await;
}

#[tokio::test]
async fn a_body_that_stalls_is_refused() {
    let server = Server::start(QUICK).await;
    for head in
        ["Content-Length: 100", "Transfer-Encoding: chunked", "Content-Length: 100\r\nExpect: 100-continue"]
    {
        for path in ["/echo", "/component"] {
            let mut client = server.connect().await;
            let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n");
            client.write_all(head.as_bytes()).await.expect("the connection is open");
            client.write_all(b"5\r\n{\"a\":\r\n").await.expect("the connection is open");
            let answer = rest(&mut client).await;
            let answer = answer.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&answer);
            check_problem(answer, 408, "request-timeout");
        }
    }
    assert_eq!(server.metric("aster_http_too_slow_total{in=\"body\"}"), 6);
    server.until_open(0).await;
}

#[tokio::test]
async fn a_client_that_reads_no_answer_is_disconnected() {
    let server = Server::start(QUICK).await;
    let mut client = server.connect().await;
    client.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("the connection is open");
    server.until_open(1).await;
    server.until_open(0).await;
    assert_eq!(server.metric("aster_http_too_slow_total{in=\"answer\"}"), 1);
    // A client that takes the answer gets all of it, and can use the connection again.
    let mut client = server.connect().await;
    let requests = "GET /large HTTP/1.1\r\nHost: x\r\n\r\nGET /hello HTTP/1.1\r\nHost: x\r\n\r\n";
    client.write_all(requests.as_bytes()).await.expect("the connection is open");
    let answer = rest(&mut client).await;
    assert!(answer.len() > 32 << 20 && answer.ends_with("hello"), "{}", answer.len());
}

#[tokio::test]
async fn large_answers_that_wait_for_their_clients_are_bounded_together() {
    let server = Server::start(LASTING).await;
    let mut waiting = Vec::new();
    for _ in 0..8 {
        let mut client = server.connect().await;
        client.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("the connection is open");
        one_answer(&mut client, "\r\n\r\n").await;
        waiting.push(client);
    }
    let close = "Host: x\r\nConnection: close\r\n\r\n";
    let refused = server.tell(format!("GET /large HTTP/1.1\r\n{close}")).await;
    check_problem(&refused, 503, "busy");
    assert!(server.tell(format!("GET /small HTTP/1.1\r\n{close}")).await.len() > 200 << 10);
    waiting.pop();
    server.until_open(7).await;
    assert!(server.tell(format!("GET /large HTTP/1.1\r\n{close}")).await.len() > 32 << 20);
}

#[tokio::test]
async fn connections_beyond_the_limit_are_refused_and_counted() {
    let server = Server::start(Options { max_connections: 2, ..LASTING }).await;
    let first = server.connect().await;
    let _second = server.connect().await;
    server.until_open(2).await;
    let refused = server.tell("GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").await;
    check_problem(&refused, 503, "busy");
    assert!(refused.contains("retry-after: "), "{refused}");
    assert_eq!(server.metric("aster_http_connections_refused_total"), 1);
    drop(first);
    server.until_open(1).await;
    let answer = server.tell("GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn a_refusal_by_hyper_itself_is_a_problem() {
    let server = Server::start(LASTING).await;
    let headers = |n: usize| "x: y\r\n".repeat(n);
    for (request, status, slug) in [
        ("nonsense\r\n\r\n".to_owned(), 400, "malformed-request"),
        ("GET /a b HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 400, "malformed-request"),
        ("GET /a\0b HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 400, "malformed-request"),
        ("GET / HTTP/1.1\r\nHost: x\r\na b: c\r\n\r\n".to_owned(), 400, "malformed-request"),
        ("GET / HTTP/1.1\r\nHost: x\r\na: b\0c\r\n\r\n".to_owned(), 400, "malformed-request"),
        ("GET / HTTP/9.9\r\nHost: x\r\n\r\n".to_owned(), 400, "malformed-request"),
        ("GET /hello HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(), 400, "malformed-request"),
        (
            "GET /hello HTTP/1.1\r\nHost: x\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(),
            400,
            "malformed-request",
        ),
        (
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_owned(),
            400,
            "malformed-request",
        ),
        ("POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n".to_owned(), 400, "malformed-request"),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n".to_owned(), 400, "malformed-request"),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n".to_owned(), 400, "malformed-request"),
        (format!("GET /{} HTTP/1.1\r\nConnection: close\r\n\r\n", "a".repeat(9_000)), 414, "uri-too-long"),
        (format!("GET / HTTP/1.1\r\n{}\r\n", headers(101)), 431, "headers-too-large"),
        (format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(33_000)), 431, "headers-too-large"),
        (format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(200_000)), 431, "headers-too-large"),
    ] {
        check_problem(&server.tell(request).await, status, slug);
    }
    // The same holds after a valid request.
    let answer = server.tell("GET /hello HTTP/1.1\r\nHost: x\r\n\r\nnonsense\r\n\r\n").await;
    let (good, refused) = answer.split_once("hello").expect("the first is answered");
    assert!(good.starts_with("HTTP/1.1 200 OK"), "{answer}");
    check_problem(refused, 400, "malformed-request");
}

/// If the wire looked at the router's answers, it would take this text for a refusal by hyper.
#[tokio::test]
async fn an_answer_that_looks_like_a_refusal_is_left_as_it_is() {
    let server = Server::start(LASTING).await;
    let body = "\"HTTP/1.1 400 Bad Request\"";
    let request = format!(
        "POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = server.tell(request).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(body), "{answer}");
}

#[tokio::test]
async fn a_body_declared_too_large_is_refused_before_it_comes_and_the_client_sees_it() {
    let server = Server::start(LASTING).await;
    for path in ["/echo", "/component"] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 50000000\r\n\r\n");
        // The refusal comes at once, although nothing of the body was sent.
        let mut client = server.connect().await;
        client.write_all(head.as_bytes()).await.expect("the connection is open");
        check_problem(&rest(&mut client).await, 413, "too-large");
        // This client sends all of it before it reads.
        let mut client = server.connect().await;
        client.write_all(head.as_bytes()).await.expect("the connection is open");
        for _ in 0..50 {
            client.write_all(&[b' '; 1_000_000]).await.expect("the host takes it and throws it away");
        }
        check_problem(&rest(&mut client).await, 413, "too-large");
    }
}

#[tokio::test]
async fn uploads_beyond_the_limit_are_refused() {
    let server = Server::start(LASTING).await;
    let head = "POST /component HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\n";
    let mut stalled = Vec::new();
    for _ in 0..2 {
        let mut client = server.connect().await;
        client.write_all(format!("{head}a").as_bytes()).await.expect("the connection is open");
        stalled.push(client);
    }
    // Uploads count from when their heads are read.
    let began = Instant::now();
    let refused = loop {
        let answer = server.tell(format!("{head}abc")).await;
        if answer.starts_with("HTTP/1.1 503") {
            break answer;
        }
        assert!(began.elapsed() < PATIENCE, "{answer}");
    };
    check_problem(&refused, 503, "busy");
    assert!(refused.contains("retry-after: "), "{refused}");
    for client in &mut stalled {
        client.write_all(b"bc").await.expect("the connection is open");
        assert!(rest(client).await.ends_with("\r\n\r\n3"));
    }
    assert!(server.tell(format!("{head}abc")).await.ends_with("\r\n\r\n3"));
}

#[tokio::test]
async fn a_body_that_nobody_reads_ends_its_connection() {
    let server = Server::start(LASTING).await;
    let answer = server
        .tell("POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\nGET /hello HTTP/1.1\r\n\r\n")
        .await;
    assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    assert!(answer.ends_with("unread"), "{answer}");
}

#[tokio::test]
async fn every_form_of_request_is_answered() {
    let server = Server::start(LASTING).await;
    let echo = |more: &str, body: &str| {
        format!("POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}\r\n\r\n{body}")
    };
    for (request, status, end) in [
        ("GET /hello HTTP/1.0\r\n\r\n".to_owned(), 200, "hello"),
        (
            "GET http://example.org/hello?x=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(),
            200,
            "hello",
        ),
        ("HEAD /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(), 200, "\r\n\r\n"),
        ("OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(), 404, "}"),
        ("CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(), 404, "}"),
        ("GET /%00%ff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(), 404, "}"),
        (
            format!("GET /hello?{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "a&".repeat(4_000)),
            200,
            "hello",
        ),
        (echo("Content-Length: 2", "{}"), 200, "{}"),
        (echo("Transfer-Encoding: chunked", "1\r\n[\r\n1;x=y\r\n]\r\n0\r\nTrailer: x\r\n\r\n"), 200, "[]"),
        (echo("Transfer-Encoding: chunked", "x\r\n"), 400, "}"),
        (echo("Transfer-Encoding: chunked", "fffffffffffffffff\r\n"), 400, "}"),
    ] {
        let answer = server.tell(&request).await;
        let head = format!("HTTP/1.{} {status} ", if request.contains("HTTP/1.0") { 0 } else { 1 });
        assert!(answer.starts_with(&head) && answer.ends_with(end), "{request}\n{answer}");
    }
    // Two requests in one write are answered in their order.
    let two = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = server.tell(two).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
    assert!(answer.ends_with("hello"), "{answer}");
    // The host asks for the body if the client waits to be asked.
    let mut client = server.connect().await;
    let head = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n";
    client.write_all(head.as_bytes()).await.expect("the connection is open");
    assert_eq!(one_answer(&mut client, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"{}").await.expect("the connection is open");
    assert!(rest(&mut client).await.ends_with("{}"));
    server.until_open(0).await;
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_is_noticed() {
    let server = Server::start(LASTING).await;
    let mut client = server.connect().await;
    client.write_all(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("the connection is open");
    server.until_open(1).await;
    drop(client);
    server.until_open(0).await;
}

#[tokio::test]
async fn a_client_that_waits_for_an_answer_is_not_too_slow() {
    let server = Server::start(QUICK).await;
    let mut client = server.connect().await;
    client
        .write_all(b"GET /held HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .expect("the connection is open");
    sleep(2 * QUICK.request_timeout).await;
    server.release.notify_one();
    assert!(rest(&mut client).await.ends_with("held"));
}

#[tokio::test]
async fn a_stopping_server_closes_idle_connections_and_completes_answers() {
    let mut server = Server::start(LASTING).await;
    let mut fresh = server.connect().await;
    let mut half = server.connect().await;
    half.write_all(b"GET /hel").await.expect("the connection is open");
    let mut kept = server.connect().await;
    kept.write_all(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("the connection is open");
    one_answer(&mut kept, "hello").await;
    let mut waits = server.connect().await;
    waits.write_all(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("the connection is open");
    server.until_open(4).await;

    drop(server.stop.take());
    for idle in [&mut fresh, &mut half, &mut kept] {
        let mut byte = [0];
        let end = timeout(PATIENCE, idle.read(&mut byte)).await.expect("it is closed");
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }
    server.release.notify_one();
    let answer = rest(&mut waits).await;
    assert!(answer.contains("connection: close") && answer.ends_with("held"), "{answer}");
    server.stop().await;
    assert!(TcpStream::connect(server.address).await.is_err());
}
