//! Checks that the migrations of released versions are unchanged.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::workspace::Workspace;

const FOLDER: &str = "migrations";

/// Compares the folder with the newest version, a tag `v…`, among the ancestors of the checked-out commit.
///
/// Databases have applied the migrations of that version, and a host refuses a database whose migrations differ from
/// its own. Nothing is compared if there is no such tag, or if the sources aren't a clone.
///
/// # Errors
/// Returns an error if a migration of that version was changed or removed, or if a new one would come before its last
/// one.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let root = workspace.folder("");
    if !root.join(".git").exists() {
        return Ok(());
    }
    // This setting sorts `v1.0.0-rc.1` before `v1.0.0`.
    let list = [
        "-c",
        "versionsort.suffix=-",
        "tag",
        "--list",
        "v[0-9]*",
        "--merged=HEAD",
        "--sort=-version:refname",
    ];
    let Some(tag) = git(&root, &list)?.into_iter().next() else { return Ok(()) };
    let released = git(&root, &["ls-tree", "-r", "--name-only", &tag, "--", FOLDER])?;
    // All differences except additions.
    let changed =
        git(&root, &["diff", "--no-renames", "--diff-filter=a", "--name-only", &tag, "--", FOLDER])?;
    let present = fs::read_dir(root.join(FOLDER)).with_context(|| format!("can't read {FOLDER}/"))?;
    let present = present.map(|entry| Ok(format!("{FOLDER}/{}", entry?.file_name().display())));
    let present = present.collect::<Result<Vec<_>>>()?;
    match fault(&tag, &released, &changed, &present) {
        Some(fault) => bail!("{fault}"),
        None => Ok(()),
    }
}

/// Returns what is wrong and what to do. All files are paths from the root.
fn fault(tag: &str, released: &[String], changed: &[String], present: &[String]) -> Option<String> {
    let migrations = |files: &[String]| {
        let migrations = files.iter().filter(|file| file.ends_with(".sql"));
        migrations.cloned().collect::<Vec<_>>()
    };
    let (released, changed) = (migrations(released), migrations(changed));
    if !changed.is_empty() {
        let files = changed.join(" ");
        return Some(format!(
            "{tag} has other versions of {files}, and a database that has applied them would be refused: \
             run `git checkout {tag} -- {files}`, and put the change into a new file"
        ));
    }
    let last = released.iter().max()?;
    let early = migrations(present).into_iter().find(|file| file < last && !released.contains(file))?;
    Some(format!("{early} is new and sorts before {last}, which {tag} has: give it a later date"))
}

/// Returns the lines that git prints.
fn git(root: &Path, arguments: &[&str]) -> Result<Vec<String>> {
    let output = Command::new("git").current_dir(root).args(arguments).output().context("can't run git")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "git {} failed: {}", arguments.join(" "), complaint.trim());
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(changed: &str, present: &str, expected: Option<&str>) {
        let files = |names: &str| names.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let released = files("migrations/1_a.sql migrations/3_b.sql migrations/README.md");
        let fault = fault("v1.0.0", &released, &files(changed), &files(present));
        assert_eq!(fault.as_deref(), expected, "changed: {changed}; present: {present}");
    }

    #[test]
    fn a_released_migration_must_not_change() {
        check("", "migrations/1_a.sql migrations/3_b.sql migrations/README.md", None);
        check("migrations/README.md", "migrations/1_a.sql migrations/3_b.sql", None);
        check(
            "migrations/1_a.sql",
            "migrations/1_a.sql migrations/3_b.sql",
            Some(
                "v1.0.0 has other versions of migrations/1_a.sql, and a database that has applied them would be refused: \
                 run `git checkout v1.0.0 -- migrations/1_a.sql`, and put the change into a new file",
            ),
        );
    }

    #[test]
    fn a_new_migration_must_come_after_the_released_ones() {
        check("", "migrations/1_a.sql migrations/3_b.sql migrations/4_c.sql", None);
        check(
            "",
            "migrations/1_a.sql migrations/2_c.sql migrations/3_b.sql",
            Some(
                "migrations/2_c.sql is new and sorts before migrations/3_b.sql, which v1.0.0 has: give it a later date",
            ),
        );
    }
}
