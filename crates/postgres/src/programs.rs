//! The programs of Postgres, for callers that run a server by themselves.

use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use crate::Error;
use crate::binaries::Binaries;
use crate::user::{self, Account};

/// The newest Postgres on this machine, and the user that its server runs as.
#[derive(Clone, Debug)]
pub struct Programs {
    binaries: Binaries,
    /// `None` means our own user.
    account: Option<Account>,
}

impl Programs {
    /// Finds them.
    ///
    /// # Errors
    /// There is no Postgres on this machine, or this process is root and the machine has no user for the server.
    pub fn find() -> Result<Self, Error> {
        Ok(Self { binaries: Binaries::find()?, account: Account::for_new_folder()? })
    }

    /// A command for the program `program`, such as `initdb` or `pg_ctl`. It runs as the server's user, and without the
    /// environment variables that are meant for clients.
    pub fn command(&self, program: &str) -> Command {
        user::command(&self.binaries.program(program), self.account.as_ref())
    }

    /// Gives a folder of ours to the server's user.
    ///
    /// # Errors
    /// The folder doesn't exist, or this process may not give it away.
    pub fn hand_over(&self, folder: &Path) -> Result<(), Error> {
        let Some(account) = &self.account else { return Ok(()) };
        chown(folder, Some(account.uid), Some(account.gid)).map_err(|e| Error::io(folder, e))
    }
}
