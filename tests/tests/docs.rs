//! Runs the documentation's commands as they stand.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use aster_tests::{Database, Host, Options, binary, components};

const PROJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Returns the contents of a page's fenced `bash` blocks, in their order.
fn blocks(page: &str) -> Vec<String> {
    let text = fs::read_to_string(Path::new(PROJECT).join(page)).expect(page);
    let after_fences = text.split("```bash\n").skip(1);
    after_fences.filter_map(|rest| rest.split_once("\n```").map(|(block, _)| block.to_owned())).collect()
}

/// Runs a script, and fails with its output.
#[track_caller]
fn run(script: &str, folder: &Path, environment: &[(&str, &str)]) {
    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", script]).current_dir(folder);
    let output = bash.envs(environment.iter().copied()).output().expect("bash can be started");
    assert!(
        output.status.success(),
        "{script}\n\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs each block of a page by itself, in their order, against a fresh host.
fn check_page(page: &str, at_least: usize) {
    let database = Database::create();
    let host = Host::start(&Options::database(&database.url()));
    let components = components();
    let environment = [
        ("ASTER_HOST", host.client().base()),
        ("ASTER_COMPONENTS", components.to_str().expect("a path in UTF-8")),
    ];
    let blocks = blocks(page);
    assert!(blocks.len() > at_least, "the page has lost its examples");
    for block in blocks {
        run(&block, Path::new(PROJECT), &environment);
    }
}

#[test]
fn every_call_of_the_api_page_succeeds() {
    check_page("docs/API.md", 20);
}

#[test]
fn every_repair_of_the_operators_page_succeeds() {
    check_page("docs/OPERATING.md", 10);
}

/// Runs in a folder like the project's, on another port. The folder is below the project's, so that the same toolchain
/// is used.
#[test]
fn the_quickstart_leads_to_a_component_and_workflow_of_the_reader() {
    let parent = binary().parent().expect("a file has a folder").to_owned();
    let folder =
        tempfile::Builder::new().prefix("quickstart-").tempdir_in(parent).expect("a folder can be made");
    let data =
        tempfile::Builder::new().prefix("quickstart-").tempdir_in("/tmp").expect("a folder can be made");
    fs::create_dir_all(folder.path().join("target/release")).expect("a folder can be made");
    symlink(binary(), folder.path().join("target/release/aster")).expect("a link can be made");
    symlink(components(), folder.path().join("target/components")).expect("a link can be made");
    let workflows = fs::canonicalize(Path::new(PROJECT).join("workflows")).expect("the workflows are there");
    symlink(workflows, folder.path().join("workflows")).expect("a link can be made");

    let listener = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = listener.expect("there is a free port").to_string();
    let script = blocks("docs/QUICKSTART.md")
        .into_iter()
        .filter(|block| !block.starts_with("cargo xtask build"))
        .collect::<Vec<_>>()
        .join("\n")
        .replace("127.0.0.1:8080", &address)
        .replace(
            "serve --data-dir .aster",
            &format!("serve --listen {address} --data-dir {}", data.path().display()),
        );
    assert!(script.contains("greetVisitor"), "the page has lost its example");
    // Whatever happens, the host doesn't outlive the test.
    let script = format!("trap 'kill $(cat aster.pid) 2>/dev/null || true; wait' EXIT\n{script}");
    run(&script, folder.path(), &[("ASTER_HOST", &format!("http://{address}"))]);
}
