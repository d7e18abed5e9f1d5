//! The server's log file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A longer log is set aside at the next start, and a new one begins.
const LARGE: u64 = 16 << 20;
const TAIL_LINES: usize = 15;
const TAIL_BYTES: u64 = 8 << 10;

#[derive(Clone, Debug)]
pub(crate) struct Log {
    path: PathBuf,
}

impl Log {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self { path: data_dir.join("postgres.log") }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the log for a server that is about to start. The server needs no permission for the file itself.
    pub(crate) fn open(&self) -> io::Result<File> {
        if fs::metadata(&self.path).is_ok_and(|metadata| metadata.len() > LARGE) {
            fs::rename(&self.path, self.path.with_added_extension("old"))?;
        }
        OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)
    }

    /// The last lines, for a message.
    pub(crate) fn tail(&self) -> String {
        let read = || -> io::Result<String> {
            let mut file = File::open(&self.path)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let text = read().unwrap_or_else(|error| format!("(can't be read: {error})"));
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}
