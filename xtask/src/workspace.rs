//! The project's folders, and calls of cargo.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The target for which components are compiled.
pub(crate) const WASM_TARGET: &str = "wasm32-wasip2";

/// The six components of the example workflows.
pub(crate) const COMPONENTS: [&str; 6] =
    ["orders", "inventory", "payment", "shipping", "notification", "suppliers"];

pub(crate) struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

impl Workspace {
    pub(crate) fn find() -> Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let metadata = metadata(&manifest)?;
        Ok(Self { root: path(&metadata, "workspace_root")?, target: path(&metadata, "target_directory")? })
    }

    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Returns the folder with the built components, each as `NAME.wasm`.
    pub(crate) fn components(&self) -> PathBuf {
        self.target.join("components")
    }

    pub(crate) fn release_host(&self) -> PathBuf {
        self.release("aster")
    }

    /// Returns the path of a program that is built with release settings.
    pub(crate) fn release(&self, program: &str) -> PathBuf {
        self.target.join("release").join(program)
    }

    pub(crate) fn debug_host(&self) -> PathBuf {
        self.target.join("debug").join("aster")
    }

    /// Returns the workspace of the components.
    pub(crate) fn guests(&self) -> PathBuf {
        self.root.join("guest-steps").join("Cargo.toml")
    }

    /// Returns a folder of the repository, by its path from the root.
    pub(crate) fn folder(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    pub(crate) fn document(&self, file: &str) -> PathBuf {
        self.root.join("docs").join(file)
    }

    pub(crate) fn workflow(&self, file: &str) -> PathBuf {
        self.root.join("workflows").join(file)
    }

    /// Makes a command that runs cargo at the root.
    pub(crate) fn cargo<const N: usize>(&self, arguments: [&str; N]) -> Command {
        let mut cargo = cargo();
        cargo.current_dir(&self.root).args(arguments);
        cargo
    }

    /// Makes a command that runs cargo in the workspace of the components. `subcommand` comes first, because
    /// `--manifest-path` belongs to it.
    pub(crate) fn guest_cargo<const N: usize>(&self, subcommand: &str, arguments: [&str; N]) -> Command {
        let mut cargo = self.cargo([subcommand, "--manifest-path"]);
        cargo.arg(self.guests()).args(arguments);
        cargo
    }
}

/// Returns cargo's metadata of a workspace without its dependencies.
pub(crate) fn metadata(manifest: &Path) -> Result<Value> {
    let output = cargo()
        .args(["metadata", "--format-version", "1", "--no-deps", "--manifest-path"])
        .arg(manifest)
        .output()
        .context("can't run cargo")?;
    ensure!(output.status.success(), "cargo metadata failed:\n{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("cargo metadata didn't print JSON")
}

fn path(metadata: &Value, key: &str) -> Result<PathBuf> {
    metadata[key].as_str().map(PathBuf::from).with_context(|| format!("cargo metadata has no `{key}`"))
}

fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    // Cargo's variables about this program's package aren't true of others, and would make cargo rebuild some.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// Returns whether `cargo NAME` is installed.
pub(crate) fn has_cargo_command(name: &str) -> bool {
    cargo().args([name, "--version"]).output().is_ok_and(|output| output.status.success())
}
