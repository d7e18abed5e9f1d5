//! `aster check`

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use aster_core::name::kebab;
use aster_core::wit::Exports;
use aster_dsl::{Diagnostic, Severity};
use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use super::{Format, FormatArgs, Outcome, print};
use crate::sandbox::{Allocation, Behalf, Compiler, Options, Sandbox};

#[derive(Args, Debug)]
pub(super) struct Check {
    /// Workflow files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Check calls against the components in this folder. Each is a `.wasm` file named after the component.
    #[arg(long, value_name = "DIR")]
    components: Option<PathBuf>,

    #[command(flatten)]
    format: FormatArgs,
}

impl Check {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let components = self.components.as_deref().map(read_components).transpose()?;
        let mut found = Vec::new();
        for path in &self.files {
            let (file, source) = read_source(path)?;
            let checked = match &components {
                Some(components) => aster_dsl::check_with(&file, &source, components),
                None => aster_dsl::check(&file, &source),
            };
            if self.format.format == Format::Text && !checked.diagnostics.is_empty() {
                print::data(
                    aster_dsl::render(&file, &source, &checked.diagnostics, print::color()).trim_end(),
                )?;
            }
            found.extend(checked.diagnostics);
        }
        if self.format.format == Format::Json {
            print::json(&found)?;
        }
        print::note(summary(&found, self.files.len()));
        let faulty = found.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
        Ok(if faulty { Outcome::Faulty } else { Outcome::Fine })
    }
}

/// Returns the name and the text of a source file.
pub(super) fn read_source(path: &Path) -> anyhow::Result<(String, String)> {
    let bytes = fs::read(path).with_context(|| format!("can't read `{}`", path.display()))?;
    let text = String::from_utf8(bytes).with_context(|| format!("`{}` is not UTF-8", path.display()))?;
    Ok((path.display().to_string(), text))
}

/// Restores the diagnostics that a host sent about a source. A diagnostic whose code this client doesn't know comes
/// from a newer host and is omitted.
pub(super) fn diagnostics_of(found: &[Value]) -> Vec<Diagnostic> {
    found
        .iter()
        .filter_map(|found| serde_json::from_value::<Found>(found.clone()).ok()?.diagnostic())
        .collect()
}

/// `2 errors, 1 warning in 3 files`
pub(super) fn summary(found: &[Diagnostic], files: usize) -> String {
    let errors = found.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count();
    let plural = |n: usize, what: &str| if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") };
    let (errors, warnings) = (plural(errors, "error"), plural(found.len() - errors, "warning"));
    format!("{errors}, {warnings} in {}", plural(files, "file"))
}

/// A diagnostic in the host's JSON.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    file: String,
    code: String,
    message: String,
    help: Option<String>,
    span: FoundSpan,
    label: Option<String>,
    line: usize,
    column: usize,
    end_line: usize,
    end_column: usize,
}

#[derive(Deserialize)]
struct FoundSpan {
    start: usize,
    end: usize,
}

impl Found {
    fn diagnostic(self) -> Option<Diagnostic> {
        let code = aster_dsl::codes::lookup(&self.code)?;
        Some(Diagnostic {
            file: self.file,
            code: code.id,
            severity: code.severity,
            message: self.message,
            help: self.help,
            span: aster_dsl::Span { start: self.span.start, end: self.span.end },
            label: self.label,
            line: self.line,
            column: self.column,
            end_line: self.end_line,
            end_column: self.end_column,
        })
    }
}

/// Reads the exports of every component in a folder, by the component's name.
fn read_components(dir: &Path) -> anyhow::Result<BTreeMap<String, Exports>> {
    let entries = fs::read_dir(dir).with_context(|| format!("can't read the folder `{}`", dir.display()))?;
    let compiler = Compiler::of_this_program();
    let sandbox = Sandbox::new(Options { allocation: Allocation::OnDemand, compiler, ..Options::default() })
        .context("can't start WebAssembly to inspect components")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut components = BTreeMap::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "wasm") {
            continue;
        }
        let name = path.file_stem().map(|stem| kebab(&stem.to_string_lossy())).unwrap_or_default();
        let bytes = fs::read(&path).with_context(|| format!("can't read `{}`", path.display()))?;
        match runtime.block_on(sandbox.compile(Behalf::Host, bytes.into())) {
            Ok(loaded) => drop(components.insert(name, loaded.exports().clone())),
            // A host would refuse this file, so for the workflows there is no such component.
            Err(error) => print::note(format_args!("left out `{}`: {error}", path.display())),
        }
    }
    Ok(components)
}
