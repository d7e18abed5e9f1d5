//! The programs of Postgres, for those who run a server by themselves.

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
    /// None: our own user.
    account: Option<Account>,
}

impl Programs {
    /// # Errors
    /// There is no Postgres on this machine, or we are root and there is no user for it.
    pub fn find() -> Result<Self, Error> {
        Ok(Self { binaries: Binaries::find()?, account: Account::for_new_folder()? })
    }

    /// A program by its name, `initdb` or `pg_ctl`, as the server's user, and without what the environment says to clients.
    pub fn command(&self, program: &str) -> Command {
        user::command(&self.binaries.program(program), self.account.as_ref())
    }

    /// Gives a folder of ours to the server's user.
    ///
    /// # Errors
    /// It isn't there, or isn't ours to give.
    pub fn hand_over(&self, folder: &Path) -> Result<(), Error> {
        let Some(account) = &self.account else { return Ok(()) };
        chown(folder, Some(account.uid), Some(account.gid)).map_err(|e| Error::io(folder, e))
    }
}
