//! A host as a process of its own.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Client;

/// A running host. It is killed when this is dropped.
#[derive(Debug)]
pub struct Host {
    child: Child,
    client: Client,
    log: PathBuf,
    keeps_log: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The arguments of `aster serve`, among them `--database-url` or `--data-dir`.
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// The address to listen on. `None` means a free port.
    pub listen: Option<SocketAddr>,
    /// The file for the log, which is kept. `None` means a temporary file.
    pub log: Option<PathBuf>,
}

impl Options {
    pub fn database(url: &str) -> Self {
        Self { arguments: vec!["--database-url".into(), url.into()], ..Self::default() }
    }

    pub fn data_dir(folder: &Path) -> Self {
        Self { arguments: vec!["--data-dir".into(), folder.display().to_string()], ..Self::default() }
    }

    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.into());
        self
    }

    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }
}

impl Host {
    /// Starts a host on a free port, and waits until it is ready.
    ///
    /// # Panics
    /// Panics if it isn't ready within a minute, or if it ends before.
    pub fn start(options: &Options) -> Self {
        let mut host = Self::spawn(options);
        host.wait_ready();
        host
    }

    /// Starts a host without waiting for it.
    ///
    /// # Panics
    /// Panics if there is no binary.
    pub fn spawn(options: &Options) -> Self {
        let address = options.listen.unwrap_or_else(free_address);
        let log = options.log.clone().unwrap_or_else(|| {
            std::env::temp_dir().join(format!("aster-test-{}-{}.log", std::process::id(), address.port()))
        });
        let output = File::create(&log).expect("the temporary folder takes a file");
        let mut command = Command::new(binary());
        command
            .args(["serve", "--listen", &address.to_string()])
            .args(&options.arguments)
            .env_remove("DATABASE_URL")
            // Compiled code is kept here, and not in the home folder of whoever runs the tests.
            .env("XDG_CACHE_HOME", target().join("cache"))
            .env("ASTER_LOG", "info,aster_host=debug,aster_runner=debug")
            .envs(options.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a file handle can be cloned"))
            .stderr(output);
        let child = command.spawn().expect("the host's binary can be started");
        let client = Client::new(format!("http://{address}"));
        Self { child, client, log, keeps_log: options.log.is_some() }
    }

    fn wait_ready(&mut self) {
        let began = Instant::now();
        loop {
            if let Ok(answer) = self.client.request("GET", "/readyz", &[], &[])
                && answer.status == 200
            {
                return;
            }
            if let Some(status) = self.child.try_wait().expect("the child can be asked") {
                panic!("the host ended ({status}) before it was ready:\n{}", self.log());
            }
            assert!(began.elapsed() < Duration::from_secs(60), "not ready in a minute:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Returns everything that the host has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the host as a power cut would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Returns whether the host has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// Asks the host to stop, waits until it has, and returns its exit code.
    ///
    /// # Panics
    /// Panics if it doesn't stop within half a minute.
    pub fn stop(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_raw(self.child.id().cast_signed()).expect("a child has a pid");
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        self.wait(Duration::from_secs(30))
    }

    /// Waits until the host has ended, and returns its exit code.
    ///
    /// # Panics
    /// Panics if that takes longer than `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<i32> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the child can be asked") {
                return status.code();
            }
            assert!(began.elapsed() < limit, "the host doesn't end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Uploads a component of the project under its own name.
    #[track_caller]
    pub fn push(&self, name: &str) {
        let answer = self.client.put(&format!("/api/components/{name}"), &component(name));
        assert!(matches!(answer.status, 200 | 201), "{}", String::from_utf8_lossy(&answer.body));
    }

    /// Uploads the six components and deploys the three workflows.
    #[track_caller]
    pub fn set_up(&self) {
        for name in ["orders", "inventory", "payment", "shipping", "notification", "suppliers"] {
            self.push(name);
        }
        for name in ["order-fulfillment", "payment-compensation", "inventory-replenishment"] {
            self.deploy(&workflow(name));
        }
    }

    #[track_caller]
    pub fn deploy(&self, source: &str) {
        let headers = [("Content-Type", "text/plain")];
        let answer = self.client.request("POST", "/api/definitions", &headers, source.as_bytes());
        let answer = answer.expect("the host answers");
        assert!(matches!(answer.status, 200 | 201), "{}", String::from_utf8_lossy(&answer.body));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let from = log.char_indices().rev().nth(6_000).map_or(0, |(at, _)| at);
            #[expect(clippy::print_stderr, reason = "shown with the failed test")]
            {
                eprintln!("the host's log ends:\n{}", &log[from..]);
            }
        }
        if !self.keeps_log {
            let _ = std::fs::remove_file(&self.log);
        }
    }
}

/// Returns an address that the system has just assigned and freed. Another program could take it meanwhile, which is
/// rare enough here.
pub(crate) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener.expect("there is a free port")
}

/// Returns a compiled component of `guest-steps`.
///
/// # Panics
/// Panics if it isn't built.
pub fn component(name: &str) -> Vec<u8> {
    let folder =
        std::env::var_os("ASTER_COMPONENTS").map_or_else(|| target().join("components"), PathBuf::from);
    let path = folder.join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!("{}: {error}: run `cargo xtask build` first", path.display());
    })
}

/// Returns the folder of the compiled components.
pub fn components() -> PathBuf {
    std::env::var_os("ASTER_COMPONENTS").map_or_else(|| target().join("components"), PathBuf::from)
}

/// Returns the source of one of the project's workflows.
///
/// # Panics
/// Panics if there is none with this name.
pub fn workflow(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../workflows/{name}.aster"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the path of the `aster` binary.
pub fn binary() -> PathBuf {
    std::env::var_os("ASTER_BIN").map_or_else(|| target().join("debug/aster"), PathBuf::from)
}

/// Returns the target folder in which this program was built: a test in `debug/deps`, or `release/aster-chaos`.
fn target() -> PathBuf {
    let program = std::env::current_exe().expect("a program knows its own path");
    let folder = program.parent().expect("a program lies in a folder");
    let profile = if folder.ends_with("deps") { folder.parent() } else { Some(folder) };
    profile.and_then(Path::parent).expect("a profile's folder lies in the target folder").to_owned()
}
