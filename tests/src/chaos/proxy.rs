//! The network between one host and Postgres: a TCP port that leads to the server's socket while the network works.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Pass,
    /// Closes all connections, including new ones.
    Cut,
    /// Takes all bytes and delivers none. A connection that has lost some is closed when this ends.
    Silence,
    /// Holds all bytes back until this ends.
    Hold,
}

/// A proxy. Its connections end with the runtime.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
}

impl Proxy {
    pub(crate) fn start(runtime: &Handle, socket: PathBuf) -> Result<Self> {
        let listener =
            runtime.block_on(TcpListener::bind("127.0.0.1:0")).context("no port for a proxy is free")?;
        let address = listener.local_addr()?;
        let mode = watch::Sender::new(Mode::Pass);
        let modes = mode.subscribe();
        let socket = Arc::new(socket);
        runtime.spawn(async move {
            // On a busy machine, accepting a connection may fail. The listener stays.
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                tokio::spawn(carry(client, Arc::clone(&socket), modes.clone()));
            }
        });
        Ok(Self { address, mode })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

/// Carries one connection to its end. An error on either side ends it.
async fn carry(mut client: TcpStream, socket: Arc<PathBuf>, mut modes: watch::Receiver<Mode>) {
    let mut now = *modes.borrow_and_update();
    while now == Mode::Hold {
        let Ok(()) = modes.changed().await else { return };
        now = *modes.borrow_and_update();
    }
    if now == Mode::Cut {
        return;
    }
    let Ok(mut server) = UnixStream::connect(&*socket).await else { return };
    let _ = client.set_nodelay(true);
    let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let mode = *modes.borrow_and_update();
        match mode {
            Mode::Cut => return,
            Mode::Hold => {
                let Ok(()) = modes.changed().await else { return };
            }
            Mode::Silence => {
                if swallow(&mut client, &mut server, &mut modes).await {
                    return;
                }
            }
            Mode::Pass => {
                tokio::select! {
                    biased;
                    changed = modes.changed() => {
                        let Ok(()) = changed else { return };
                    }
                    read = client.read(&mut up) => {
                        let Ok(n @ 1..) = read else { return };
                        let Ok(()) = server.write_all(&up[..n]).await else { return };
                    }
                    read = server.read(&mut down) => {
                        let Ok(n @ 1..) = read else { return };
                        let Ok(()) = client.write_all(&down[..n]).await else { return };
                    }
                }
            }
        }
    }
}

/// Swallows all bytes until the mode changes. Returns whether anything was lost, in which case the connection is
/// useless. The end of one side counts as a loss, too, of which the other side learns only then.
async fn swallow(client: &mut TcpStream, server: &mut UnixStream, modes: &mut watch::Receiver<Mode>) -> bool {
    let (mut up, mut down) = (vec![0; 1 << 12], vec![0; 1 << 12]);
    let (mut client_open, mut server_open) = (true, true);
    let mut lost = false;
    loop {
        tokio::select! {
            biased;
            changed = modes.changed() => return lost || changed.is_err(),
            read = client.read(&mut up), if client_open => {
                client_open = matches!(read, Ok(1..));
                lost = true;
            }
            read = server.read(&mut down), if server_open => {
                server_open = matches!(read, Ok(1..));
                lost = true;
            }
        }
    }
}
