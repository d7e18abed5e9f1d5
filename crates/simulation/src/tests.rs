use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

/// More are a matter of a minute: `cargo xtask simulate`.
const SEEDS: u64 = 2_000;

#[test]
fn whatever_goes_wrong_every_run_ends_and_the_books_balance() {
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, Into::into) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= SEEDS {
                        return;
                    }
                    let violations = simulate(seed, None).violations;
                    assert!(violations.is_empty(), "cargo xtask simulate --seed {seed}: {violations:#?}");
                }
            });
        }
    });
}

#[test]
fn the_same_seed_is_the_same_simulation() {
    for seed in 0..20 {
        assert_eq!(simulate(seed, None), simulate(seed, None));
    }
}

/// A simulation that can't fail shows nothing.
#[test]
fn every_planted_bug_is_found() {
    for bug in Bug::ALL {
        let found = (0..300).find(|seed| !simulate(*seed, Some(bug)).violations.is_empty());
        assert!(found.is_some(), "{bug:?} was not found");
    }
}
