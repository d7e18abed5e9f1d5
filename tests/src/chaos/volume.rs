//! A volume of its own for Postgres, that can be full.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// A tmpfs, unmounted when this is dropped. It takes memory for what it holds only, and at most half of the machine's.
#[derive(Debug)]
pub(crate) struct Volume {
    path: PathBuf,
    /// While it isn't full.
    size: u64,
}

impl Volume {
    /// None where this user may not mount.
    pub(crate) fn mount(path: &Path) -> Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        fs::create_dir_all(path).with_context(|| format!("can't make `{}`", path.display()))?;
        // A container's root may lack the right to it.
        if mount(path, "mode=0711").is_err() {
            return Ok(None);
        }
        let (size, _) = space(path)?;
        Ok(Some(Self { path: path.to_owned(), size }))
    }

    /// Leaves no room: the volume becomes as small as what it holds. A file that fills it would do the same, but for the
    /// memory that it takes.
    pub(crate) fn fill(&self) -> Result<()> {
        // The system refuses to make it smaller than what it holds, and that grows while we ask.
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
        // Where somebody still looks into it, it goes when they are done.
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

/// Its size, and what of it is free, in bytes.
fn space(path: &Path) -> Result<(u64, u64)> {
    let stat = rustix::fs::statvfs(path).with_context(|| format!("can't look at `{}`", path.display()))?;
    Ok((stat.f_blocks * stat.f_frsize, stat.f_bfree * stat.f_frsize))
}
