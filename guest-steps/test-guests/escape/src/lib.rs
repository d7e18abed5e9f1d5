//! The component `escape`: tries to see and reach things that a step may not, for the tests of the sandbox.

use std::{
    fs,
    io::Read as _,
    net::{TcpListener, TcpStream, ToSocketAddrs as _},
    sync::atomic::{AtomicU32, Ordering},
};

use exports::testing::escape::escape::Guest;

wit_bindgen::generate!({ path: "wit", world: "component" });

struct Escape;
export!(Escape);

static CALLS: AtomicU32 = AtomicU32::new(0);

impl Guest for Escape {
    fn read_file(path: String) -> Result<String, String> {
        fs::read_to_string(path).map_err(|error| error.to_string())
    }

    fn write_file(path: String) -> Result<(), String> {
        fs::write(path, "was here").map_err(|error| error.to_string())
    }

    fn list_folder(path: String) -> Result<Vec<String>, String> {
        fs::read_dir(path)
            .and_then(|entries| {
                entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
            })
            .map_err(|error| error.to_string())
    }

    fn environment() -> Vec<(String, String)> {
        std::env::vars().collect()
    }

    fn arguments() -> Vec<String> {
        std::env::args().collect()
    }

    fn connect(address: String) -> Result<(), String> {
        TcpStream::connect(address).map(|_| ()).map_err(|error| error.to_string())
    }

    fn resolve(host: String) -> Result<Vec<String>, String> {
        (host.as_str(), 80)
            .to_socket_addrs()
            .map(|addresses| addresses.map(|address| address.ip().to_string()).collect())
            .map_err(|error| error.to_string())
    }

    fn listen(address: String) -> Result<(), String> {
        TcpListener::bind(address).map(|_| ()).map_err(|error| error.to_string())
    }

    fn read_input() -> Result<String, String> {
        let mut input = String::new();
        std::io::stdin().read_to_string(&mut input).map_err(|error| error.to_string())?;
        Ok(input)
    }

    fn count_calls() -> u32 {
        CALLS.fetch_add(1, Ordering::Relaxed) + 1
    }
}
