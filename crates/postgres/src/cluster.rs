//! Makes a cluster, all or nothing: in a folder beside its final place, and moved there when it is complete.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::{Output, Stdio};

use crate::binaries::Binaries;
use crate::folder::Folder;
use crate::user::{self, Account};
use crate::{Error, NAME};

/// The major version that made the cluster, or `None` if there is no cluster yet.
pub(crate) fn version(folder: &Folder) -> Result<Option<u32>, Error> {
    let cluster = folder.cluster();
    if !cluster.exists() {
        return Ok(None);
    }
    let not_a_cluster = |what: String| Error::NotACluster { path: cluster.clone(), what };
    let text = fs::read_to_string(cluster.join("PG_VERSION"))
        .map_err(|error| not_a_cluster(format!("can't read its `PG_VERSION` ({error})")))?;
    match text.trim().parse() {
        Ok(version) => Ok(Some(version)),
        Err(_) => Err(not_a_cluster(format!("its `PG_VERSION` says `{}`", text.trim()))),
    }
}

/// Makes the cluster with the database in it.
pub(crate) fn create(
    folder: &Folder,
    binaries: &Binaries,
    account: Option<&Account>,
    durable: bool,
) -> Result<(), Error> {
    let unfinished = folder.new_cluster();
    // An interrupted attempt may have left it.
    match fs::remove_dir_all(&unfinished) {
        Ok(()) => tracing::info!("removed a half-made database cluster"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::io(&unfinished, error)),
    }
    tracing::info!(path = %folder.cluster().display(), "making a database cluster");
    initialise(folder, binaries, account, durable)?;
    create_database(folder, binaries, account, durable)?;
    fs::rename(&unfinished, folder.cluster()).map_err(|e| Error::io(&unfinished, e))?;
    if durable {
        sync_folder(folder.private()).map_err(|e| Error::io(folder.private(), e))?;
    }
    Ok(())
}

fn initialise(
    folder: &Folder,
    binaries: &Binaries,
    account: Option<&Account>,
    durable: bool,
) -> Result<(), Error> {
    let mut initdb = user::command(&binaries.initdb(), account);
    initdb
        .current_dir(folder.private())
        .arg("--pgdata")
        .arg(folder.new_cluster())
        .args(["--username", NAME, "--encoding", "UTF8"])
        // Texts are ordered by their bytes: that is the same on every machine, the cheapest for indexes, and no update of
        // the system's locales can spoil an index.
        .args(["--locale", "C"])
        // The socket lies in a folder that only the server's user and root can enter.
        .args(["--auth-local", "trust", "--auth-host", "reject", "--no-instructions"]);
    if !durable {
        initdb.arg("--no-sync");
    }
    let output = initdb
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Spawn { program: binaries.initdb(), source })?;
    check("initdb", output)
}

/// Makes the database in single-user mode, so that a cluster is never in its final place without its database.
fn create_database(
    folder: &Folder,
    binaries: &Binaries,
    account: Option<&Account>,
    durable: bool,
) -> Result<(), Error> {
    let spawn_error = |source| Error::Spawn { program: binaries.server(), source };
    let mut server = user::command(&binaries.server(), account)
        .current_dir(folder.private())
        .arg("--single")
        .arg("-D")
        .arg(folder.new_cluster())
        // Without it, the server prints an error of a statement and still succeeds.
        .args(["-c", "exit_on_error=on"])
        .args(["-c", if durable { "fsync=on" } else { "fsync=off" }])
        .arg("postgres")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(spawn_error)?;
    let mut statements = server.stdin.take().expect("it is piped");
    // If the server has ended already, its status and output say more than the broken pipe.
    let _ = writeln!(statements, "create database {NAME};");
    drop(statements);
    check("postgres --single", server.wait_with_output().map_err(spawn_error)?)
}

fn check(program: &'static str, output: Output) -> Result<(), Error> {
    if output.status.success() {
        return Ok(());
    }
    // Standard error has the complaint, and standard output what went well before it.
    let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    let output_text = String::from_utf8_lossy(said).trim().to_owned();
    Err(Error::Failed { program, status: output.status, output: output_text })
}

/// Writes `folder` to the disk, so that a rename in it survives a crash.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
