//! A volume of its own for Postgres, which can be filled.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// A tmpfs, which is unmounted when this is dropped. It takes memory only for its contents, and at most half of the
/// machine's.
#[derive(Debug)]
pub(crate) struct Volume {
    path: PathBuf,
    /// The size while the volume isn't full.
    size: u64,
}

impl Volume {
    /// Returns `None` if this user may not mount.
    pub(crate) fn mount(path: &Path) -> Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        fs::create_dir_all(path).with_context(|| format!("can't make `{}`", path.display()))?;
        // The root user of a container may lack the permission.
        if mount(path, "mode=0711").is_err() {
            return Ok(None);
        }
        let (size, _) = space(path)?;
        Ok(Some(Self { path: path.to_owned(), size }))
    }

    /// Leaves no space, by shrinking the volume to the size of its contents. A file that fills it would do the same,
    /// but take memory.
    pub(crate) fn fill(&self) -> Result<()> {
        // The system refuses a size below that of the contents, which grow meanwhile.
        for _ in 0..100 {
            let (size, free) = space(&self.path)?;
            if mount(&self.path, &format!("remount,size={}", size - free)).is_ok() {
                return Ok(());
            }
        }
        bail!("`{}` can't be made smaller", self.path.display());
    }

    pub(crate) fn empty(&self) -> Result<()> {
        mount(&self.path, &format!("remount,size={}", self.size))
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let unmount = |option: &[&str]| {
            let output = Command::new("umount").args(option).arg(&self.path).output();
            output.is_ok_and(|output| output.status.success())
        };
        // If somebody still uses the volume, it is unmounted when they are done.
        if !unmount(&[]) {
            unmount(&["--lazy"]);
        }
    }
}

fn mount(path: &Path, options: &str) -> Result<()> {
    let output = Command::new("mount")
        .args(["-t", "tmpfs", "-o", options, "aster-chaos"])
        .arg(path)
        .output()
        .context("can't run `mount`")?;
    ensure!(output.status.success(), "mount failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// Returns the size of the volume and its free space, in bytes.
fn space(path: &Path) -> Result<(u64, u64)> {
    let stat = rustix::fs::statvfs(path).with_context(|| format!("can't look at `{}`", path.display()))?;
    Ok((stat.f_blocks * stat.f_frsize, stat.f_bfree * stat.f_frsize))
}
