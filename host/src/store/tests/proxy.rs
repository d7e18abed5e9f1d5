//! A wire to Postgres that can be cut at the moment that hurts most.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// What happens to the next commit or acceptance; everything after it passes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Fault {
    Pass = 0,
    /// The server answers, the connection breaks, and the client never hears it.
    SwallowAnswer = 1,
    /// The connection breaks for the client, and the request reaches the server only on [`Proxy::deliver`].
    HoldRequest = 2,
}

#[derive(Clone)]
pub(super) struct Proxy {
    pub(super) options: PgConnectOptions,
    next: Arc<AtomicU8>,
    is_shut: Arc<AtomicBool>,
    silence: watch::Sender<()>,
    deliver: Arc<Notify>,
    delivered: Arc<Notify>,
}

impl Proxy {
    pub(super) async fn start(server: PgConnectOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy = Self {
            options: over_tcp(&server).host("127.0.0.1").port(port).ssl_mode(PgSslMode::Disable),
            next: Arc::default(),
            is_shut: Arc::default(),
            silence: watch::Sender::new(()),
            deliver: Arc::default(),
            delivered: Arc::default(),
        };
        let accepting = proxy.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if accepting.is_shut.load(Ordering::SeqCst) {
                    continue;
                }
                let (proxy, server) = (accepting.clone(), server.clone());
                tokio::spawn(async move { proxy.carry(client, connect(&server).await).await });
            }
        });
        proxy
    }

    pub(super) fn next(&self, fault: Fault) {
        self.next.store(fault as u8, Ordering::SeqCst);
    }

    /// Closes new connections at once, or takes them again.
    pub(super) fn shut(&self, is_shut: bool) {
        self.is_shut.store(is_shut, Ordering::SeqCst);
    }

    /// From now on nothing passes over the connections that there are, and neither end is told. New ones are as good as ever.
    pub(super) fn silence(&self) {
        self.silence.send_replace(());
    }

    /// Lets the request that was held reach the server, and waits until the server has dealt with it.
    pub(super) async fn deliver(&self) {
        self.deliver.notify_one();
        self.delivered.notified().await;
    }

    async fn carry(&self, mut client: TcpStream, mut server: Box<dyn Wire>) {
        let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        let mut silence = self.silence.subscribe();
        loop {
            tokio::select! {
                biased;
                _ = silence.changed() => std::future::pending().await,
                read = client.read(&mut up) => {
                    let Ok(n @ 1..) = read else { return };
                    let fault = match is_large_bind(&up[..n]) {
                        true => self.next.swap(Fault::Pass as u8, Ordering::SeqCst),
                        false => Fault::Pass as u8,
                    };
                    if fault == Fault::HoldRequest as u8 {
                        let mut request = up[..n].to_vec();
                        while let Ok(Ok(n @ 1..)) = timeout(Duration::from_millis(50), client.read(&mut up)).await {
                            request.extend_from_slice(&up[..n]);
                        }
                        drop(client);
                        self.deliver.notified().await;
                        server.write_all(&request).await.unwrap();
                        self.await_answer(&mut *server, &mut down).await;
                        self.delivered.notify_one();
                        return;
                    }
                    server.write_all(&up[..n]).await.unwrap();
                    if fault == Fault::SwallowAnswer as u8 {
                        self.await_answer(&mut *server, &mut down).await;
                        return;
                    }
                }
                read = server.read(&mut down) => {
                    let Ok(n @ 1..) = read else { return };
                    if client.write_all(&down[..n]).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Until the server has nothing more to say: an answer ends with ReadyForQuery, `Z` and the transaction's state.
    async fn await_answer(&self, server: &mut dyn Wire, buffer: &mut [u8]) {
        let mut answer = Vec::new();
        while !answer.ends_with(b"Z\0\0\0\x05I") {
            let n = server.read(buffer).await.unwrap();
            assert!(n > 0, "the server closed the connection");
            answer.extend_from_slice(&buffer[..n]);
        }
    }
}

/// The parameters of a prepared statement, and many of them: neither a ping nor a lookup.
fn is_large_bind(request: &[u8]) -> bool {
    request.first() == Some(&b'B') && request.len() > 300
}

/// The same without a socket, which would win over an address.
fn over_tcp(options: &PgConnectOptions) -> PgConnectOptions {
    if options.get_socket().is_none() {
        return options.clone();
    }
    let tcp = PgConnectOptions::new_without_pgpass().username(options.get_username());
    tcp.database(options.get_database().expect("a test has a database of its own"))
}

async fn connect(options: &PgConnectOptions) -> Box<dyn Wire> {
    let (host, port) = (options.get_host(), options.get_port());
    let folder = options.get_socket().map(|path| path.as_path()).filter(|path| path.is_absolute());
    match folder {
        Some(folder) => Box::new(UnixStream::connect(folder.join(format!(".s.PGSQL.{port}"))).await.unwrap()),
        None if host.starts_with('/') => {
            Box::new(UnixStream::connect(format!("{host}/.s.PGSQL.{port}")).await.unwrap())
        }
        None => Box::new(TcpStream::connect((host, port)).await.unwrap()),
    }
}
