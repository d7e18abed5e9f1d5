//! Finds the server's programs on this machine.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Error;

/// The oldest major version that is used.
pub(crate) const OLDEST: u32 = 15;

const VARIABLE: &str = "ASTER_POSTGRES_BIN";

/// The folders where packages put the programs; a `*` stands for a version.
const USUAL: &[&str] = &[
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/lib/postgresql*/bin",
    "/usr/libexec/postgresql*",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
];

/// The programs of one installed version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Binaries {
    dir: PathBuf,
    major: u32,
}

impl Binaries {
    /// The newest programs that are installed.
    pub(crate) fn find() -> Result<Self, Error> {
        installed()?.into_iter().next().ok_or(Error::NotInstalled)
    }

    /// The programs that can open `cluster`, which major version `major` made.
    pub(crate) fn find_for(major: u32, cluster: &Path) -> Result<Self, Error> {
        pick(installed()?, major, cluster)
    }

    pub(crate) fn server(&self) -> PathBuf {
        self.program("postgres")
    }

    pub(crate) fn initdb(&self) -> PathBuf {
        self.program("initdb")
    }

    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// All installed versions, newest first; only the one in [`VARIABLE`] if that is set.
fn installed() -> Result<Vec<Binaries>, Error> {
    if let Some(dir) = env::var_os(VARIABLE) {
        let dir = PathBuf::from(dir);
        return match inspect(&dir) {
            Some(binaries) => Ok(vec![binaries]),
            None => Err(Error::NoSuchBinaries(dir)),
        };
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let places =
        pg_config().into_iter().chain(env::split_paths(&path)).chain(USUAL.iter().flat_map(|p| expand(p)));
    Ok(newest_first(places))
}

fn newest_first(places: impl Iterator<Item = PathBuf>) -> Vec<Binaries> {
    let mut found: Vec<Binaries> = Vec::new();
    for place in places {
        // A link in PATH leads to the folder of the other programs, which another place may name as well.
        let Ok(server) = fs::canonicalize(place.join("postgres")) else { continue };
        let Some(dir) = server.parent() else { continue };
        if found.iter().all(|known| known.dir != dir) {
            found.extend(inspect(dir));
        }
    }
    found.retain(|binaries| binaries.major >= OLDEST);
    found.sort_by_key(|binaries| std::cmp::Reverse(binaries.major));
    found
}

fn pick(installed: Vec<Binaries>, major: u32, cluster: &Path) -> Result<Binaries, Error> {
    if installed.is_empty() {
        return Err(Error::NotInstalled);
    }
    let versions = installed.iter().map(|binaries| binaries.major).collect();
    installed.into_iter().find(|binaries| binaries.major == major).ok_or_else(|| Error::Version {
        path: cluster.to_owned(),
        cluster: major,
        installed: versions,
    })
}

fn inspect(dir: &Path) -> Option<Binaries> {
    if !dir.join("initdb").is_file() {
        return None;
    }
    let output = Command::new(dir.join("postgres")).arg("--version").output().ok()?;
    let major = major_version(&String::from_utf8(output.stdout).ok()?)?;
    Some(Binaries { dir: dir.to_owned(), major })
}

/// The major version in `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` or `postgres (PostgreSQL) 19beta1`.
fn major_version(text: &str) -> Option<u32> {
    let version = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let end = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..end].parse().ok()
}

fn pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let dir = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(dir.trim_end()))
}

/// The folders that match `pattern`, which has at most one `*`.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else { return vec![pattern.into()] };
    let (parent, prefix) = before.rsplit_once('/').expect("the patterns are absolute");
    let (suffix, rest) = after.split_once('/').unwrap_or((after, ""));
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            name.to_str().is_some_and(|name| name.starts_with(prefix) && name.ends_with(suffix))
        })
        .map(|entry| if rest.is_empty() { entry.path() } else { entry.path().join(rest) })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A folder with programs that claim to be of these versions.
    fn machine(versions: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for version in versions {
            let dir = root.path().join(version).join("bin");
            fs::create_dir_all(&dir).unwrap();
            for program in ["postgres", "initdb"] {
                let path = dir.join(program);
                fs::write(&path, format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            }
        }
        root
    }

    fn found(root: &Path) -> Vec<Binaries> {
        newest_first(expand(&format!("{}/*/bin", root.display())).into_iter())
    }

    #[test]
    fn the_newest_version_comes_first_and_versions_below_15_are_left_out() {
        let machine = machine(&["15.2", "9.6.24", "17.0", "16.1"]);
        let majors: Vec<u32> = found(machine.path()).iter().map(|binaries| binaries.major).collect();
        assert_eq!(majors, [17, 16, 15]);
    }

    #[test]
    fn an_existing_cluster_gets_the_version_that_made_it() {
        let machine = machine(&["15.2", "17.0"]);
        let installed = found(machine.path());
        assert_eq!(pick(installed.clone(), 15, Path::new("/data")).unwrap().major, 15);
        assert_eq!(
            pick(installed, 16, Path::new("/data")).unwrap_err().to_string(),
            "`/data` was made by Postgres 16, and only 17, 15 is installed: install Postgres 16, or bring the data to \
             the newer one with `pg_upgrade`"
        );
    }

    #[test]
    fn a_machine_without_postgres_is_told_what_to_install() {
        let empty = machine(&[]);
        let message = pick(found(empty.path()), 15, Path::new("/data")).unwrap_err().to_string();
        assert!(message.contains("apt-get install postgresql"), "{message}");
        assert!(message.contains("brew install postgresql"), "{message}");
    }

    #[test]
    fn the_major_version_is_read_from_the_answer_of_the_server() {
        assert_eq!(major_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(major_version("postgres (PostgreSQL) 19beta1\n"), Some(19));
        assert_eq!(major_version("command not found\n"), None);
    }
}
