//! The user that the server runs as.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::Error;

/// A user other than ours.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Account {
    /// The user that the server of the private folder `private` has to run as, or `None` if it is our own.
    pub(crate) fn for_folder(private: &Path) -> Result<Option<Self>, Error> {
        let me = rustix::process::geteuid();
        let owner = fs::metadata(private).ok().map(|metadata| (metadata.uid(), metadata.gid()));
        match owner {
            Some((uid, _)) if !me.is_root() && uid != me.as_raw() => {
                Err(Error::ForeignFolder { path: private.to_owned(), owner: uid })
            }
            _ if !me.is_root() => Ok(None),
            // A cluster stays with the user that made it, whichever user starts it later.
            Some((uid, gid)) if uid != 0 => {
                let name = id(&["-un", &uid.to_string()]).unwrap_or_else(|| format!("uid {uid}"));
                Ok(Some(Self { name, uid, gid }))
            }
            _ => Self::for_new_folder(),
        }
    }

    /// The user that a server with a new folder has to run as, or `None` if it is our own.
    pub(crate) fn for_new_folder() -> Result<Option<Self>, Error> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        Self::named("postgres").or_else(|| Self::named("nobody")).map(Some).ok_or(Error::NoAccount)
    }

    fn named(name: &str) -> Option<Self> {
        // macOS has negative ids for `nobody`.
        let number = |option| id(&[option, name])?.parse::<i64>().ok().map(|id| id as u32);
        Some(Self { name: name.to_owned(), uid: number("-u")?, gid: number("-g")? })
    }

    /// Checks that all existing folders above `data_dir` let this user pass.
    pub(crate) fn check_reach(&self, data_dir: &Path) -> Result<(), Error> {
        for folder in data_dir.ancestors().skip(1) {
            match fs::metadata(folder) {
                Ok(metadata) if !self.can_enter(&metadata) => {
                    return Err(Error::Unreachable {
                        data_dir: data_dir.to_owned(),
                        closed: folder.to_owned(),
                        user: self.name.clone(),
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether the mode of a folder lets this user pass. Access lists are ignored.
    pub(crate) fn can_enter(&self, folder: &Metadata) -> bool {
        let execute = if folder.uid() == self.uid {
            0o100
        } else if folder.gid() == self.gid {
            0o010
        } else {
            0o001
        };
        folder.mode() & execute != 0
    }
}

/// A command that runs as `account`, with only its own group, or as our own user if there is no account.
pub(crate) fn command(program: &Path, account: Option<&Account>) -> Command {
    let mut command = Command::new(program);
    if let Some(account) = account {
        // The standard library clears the other groups when it drops root.
        command.uid(account.uid).gid(account.gid);
    }
    // The variables that a user sets for a client (PGDATA, PGPORT, PGOPTIONS) aren't meant for this server. Neither are the
    // host's own settings, among them a secret.
    let is_others =
        |name: &OsStr| [b"PG".as_slice(), b"ASTER_"].iter().any(|it| name.as_encoded_bytes().starts_with(it));
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_others(name)) {
        command.env_remove(name);
    }
    // Messages are English then. Without a locale, macOS starts threads in the server, which then refuses to run.
    command.env("LC_ALL", "C");
    command
}

/// Asks `id`, which knows all users of this machine, wherever they are kept.
fn id(arguments: &[&str]) -> Option<String> {
    let output = Command::new("id").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_below_a_private_one_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        let home = root.path().join("home");
        let data_dir = home.join("project").join(".aster");
        fs::create_dir_all(data_dir.parent().unwrap()).unwrap();
        let stranger = Account { name: "stranger".into(), uid: 4_000_000, gid: 4_000_000 };
        for open in [root.path(), home.as_path()] {
            fs::set_permissions(open, fs::Permissions::from_mode(0o755)).unwrap();
        }
        stranger.check_reach(&data_dir).unwrap();

        fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
        let message = stranger.check_reach(&data_dir).unwrap_err().to_string();
        assert!(
            message.contains(&format!("its user `stranger` can't enter `{}`", home.display())),
            "{message}"
        );
        assert!(message.contains("choose a data folder elsewhere"), "{message}");
    }
}
