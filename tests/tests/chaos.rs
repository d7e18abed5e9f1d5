//! The short form of `cargo xtask chaos`: every kind of fault, and nothing is lost.

use std::time::Duration;

use aster_tests::chaos::{self, Bell, Kind, Options};

#[test]
fn hosts_and_postgres_that_fail_in_every_way_lose_nothing() {
    // The faults are the same each time, since a test should ask the same question. `cargo xtask chaos --seed` runs
    // others.
    let options = Options { length: Duration::from_secs(22), seed: 2, hosts: 3, rate: 60 };
    let folder = tempfile::Builder::new().prefix("aster-chaos-").tempdir_in("/tmp");
    let folder = folder.expect("a temporary folder can be made");
    #[expect(clippy::print_stderr, reason = "shown with the failed test")]
    let say = |line: String| eprintln!("{line}");
    // The signal handler also unmounts and stops everything if the test is ended from outside.
    let interrupt = Bell::default();
    let rings = interrupt.clone();
    ctrlc::set_handler(move || rings.ring()).expect("this is the only test here");
    let report = chaos::run(&options, folder.path(), &interrupt, &say);
    let report = report.unwrap_or_else(|error| panic!("{error:#}"));
    say(report.lines().join("\n"));
    if !report.violations().is_empty() {
        panic!("a check failed; the logs are in `{}`", folder.keep().display());
    }
    assert!(report.runs() > 100, "only {} runs: it was hardly tried", report.runs());
    // A fault may find no process in its place, or Postgres busy with another fault. Such a fault doesn't count as
    // tried.
    let kinds = Kind::ALL.iter().filter(|kind| report.faults(**kind) > 0).count();
    let possible = Kind::ALL.len() - usize::from(!report.has_volume());
    assert!(kinds + 1 >= possible, "only {kinds} kinds of faults of {possible}");
}
