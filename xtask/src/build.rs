//! Builds the components and the host.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::output;
use crate::progress::Stages;
use crate::workspace::{self, WASM_TARGET, Workspace};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Build only the components
    #[arg(long)]
    components: bool,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let mut stages = Stages::new();
    components(workspace, &mut stages)?;
    if !arguments.components {
        release_host(workspace, &mut stages)?;
    }
    stages.finish("built");
    output::line(&workspace.components().display().to_string());
    if !arguments.components {
        output::line(&workspace.release_host().display().to_string());
    }
    Ok(())
}

/// Builds the host with release settings.
pub(crate) fn release_host(workspace: &Workspace, stages: &mut Stages) -> Result<()> {
    stages.run("host", workspace.cargo(["build", "--release", "--package", "aster-host", "--bin", "aster"]))
}

/// Builds every component of the guests' workspace, including those for tests, as `target/components/NAME.wasm`.
pub(crate) fn components(workspace: &Workspace, stages: &mut Stages) -> Result<()> {
    add_target(stages)?;
    let build = workspace.guest_cargo("build", ["--workspace", "--release", "--target", WASM_TARGET]);
    stages.run("components", build)?;
    let metadata = workspace::metadata(&workspace.guests())?;
    let built =
        metadata["target_directory"].as_str().map(PathBuf::from).context("cargo reports no target folder")?;
    let built = built.join(WASM_TARGET).join("release");
    collect(&component_names(&metadata), &built, &workspace.components())
}

/// Makes sure that the toolchain can compile for [`WASM_TARGET`].
pub(crate) fn add_target(stages: &mut Stages) -> Result<()> {
    let output = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", WASM_TARGET])
        .output()
        .context("can't run rustc")?;
    if output.status.success() && Path::new(String::from_utf8_lossy(&output.stdout).trim()).exists() {
        return Ok(());
    }
    let rustup_is_there = Command::new("rustup").arg("--version").output().is_ok();
    ensure!(
        rustup_is_there,
        "this Rust toolchain lacks the target `{WASM_TARGET}`, and there is no `rustup` to add it with: \
         install rustup, or get the standard library for `{WASM_TARGET}` from the source of the toolchain"
    );
    let mut rustup = Command::new("rustup");
    rustup.args(["target", "add", WASM_TARGET]);
    stages.run("target", rustup)
}

/// Returns the names of the packages that become components.
fn component_names(metadata: &Value) -> Vec<String> {
    let is_component = |target: &Value| {
        let kinds = target["kind"].as_array().map_or(&[][..], Vec::as_slice);
        kinds.iter().any(|kind| kind == "cdylib")
    };
    let packages = metadata["packages"].as_array().map_or(&[][..], Vec::as_slice);
    packages
        .iter()
        .filter(|package| {
            package["targets"].as_array().is_some_and(|targets| targets.iter().any(is_component))
        })
        .filter_map(|package| package["name"].as_str().map(str::to_owned))
        .collect()
}

/// Copies the built components, and removes those that are no longer built.
fn collect(names: &[String], built: &Path, components: &Path) -> Result<()> {
    fs::create_dir_all(components).with_context(|| format!("can't make `{}`", components.display()))?;
    let mut expected = BTreeSet::new();
    for name in names {
        let from = built.join(format!("{}.wasm", name.replace('-', "_")));
        let to = components.join(format!("{name}.wasm"));
        let bytes = fs::read(&from).with_context(|| format!("`{}` wasn't built", from.display()))?;
        // An unchanged file keeps its time, for programs that watch the folder.
        if fs::read(&to).ok().as_ref() != Some(&bytes) {
            fs::write(&to, bytes).with_context(|| format!("can't write `{}`", to.display()))?;
        }
        expected.insert(to);
    }
    for entry in fs::read_dir(components)?.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "wasm") && !expected.contains(&path) {
            fs::remove_file(&path).with_context(|| format!("can't remove `{}`", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_libraries_for_c_become_components() {
        let metadata = json!({"packages": [
            {"name": "greeter-v1", "targets": [{"kind": ["cdylib"]}]},
            {"name": "ledger", "targets": [{"kind": ["lib"]}, {"kind": ["test"]}]},
        ]});
        assert_eq!(component_names(&metadata), ["greeter-v1"]);
    }

    #[test]
    fn components_are_named_like_their_packages_and_old_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let (built, components) = (folder.path().join("built"), folder.path().join("components"));
        for path in [&built, &components] {
            fs::create_dir(path).unwrap();
        }
        fs::write(built.join("greeter_v1.wasm"), "new").unwrap();
        fs::write(components.join("renamed.wasm"), "old").unwrap();
        collect(&["greeter-v1".into()], &built, &components).unwrap();
        assert_eq!(fs::read(components.join("greeter-v1.wasm")).unwrap(), b"new");
        assert!(!components.join("renamed.wasm").exists());
    }
}
