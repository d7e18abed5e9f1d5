//! The rules for which run may write an entry.

/// A value of a bucket that a run has written.
pub trait Entry {
    /// Returns the run that wrote the entry last.
    fn workflow_id(&self) -> &str;

    /// Returns how often that run wrote the entry forward. A host that works correctly never makes this more than 1.
    fn times(&self) -> u32;

    /// Returns whether the effect is in force: charged and not refunded, or reserved and not released.
    fn is_live(&self) -> bool;
}

/// Returns the new `times` for an entry that the run `run` writes over `previous`.
///
/// A run takes over an entry that an earlier run has undone, and starts at 1: a customer may correct a declined order
/// and send it again.
///
/// # Errors
/// Returns the id of another run if its effect under this key is in force.
pub fn next_times<'a, E: Entry>(previous: Option<&'a E>, run: &str) -> Result<u32, &'a str> {
    match previous {
        Some(entry) if entry.workflow_id() == run => Ok(entry.times().saturating_add(1)),
        Some(entry) if entry.is_live() => Err(entry.workflow_id()),
        Some(_) | None => Ok(1),
    }
}

/// Returns the entry that a compensation of the run `run` has to undo.
///
/// There is none if the step never completed, if it is already undone, or if the key belongs to another run. A
/// compensation that then does nothing can be called any number of times, and never touches another run's entry.
pub fn own_live<E: Entry>(entry: Option<E>, run: &str) -> Option<E> {
    entry.filter(|entry| entry.workflow_id() == run && entry.is_live())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Row {
        run: &'static str,
        times: u32,
        live: bool,
    }

    impl Entry for Row {
        fn workflow_id(&self) -> &str {
            self.run
        }
        fn times(&self) -> u32 {
            self.times
        }
        fn is_live(&self) -> bool {
            self.live
        }
    }

    const LIVE: Row = Row { run: "a", times: 1, live: true };
    const UNDONE: Row = Row { run: "a", times: 1, live: false };

    #[test]
    fn the_first_write_of_a_run_counts_one() {
        assert_eq!(next_times::<Row>(None, "a"), Ok(1));
        assert_eq!(next_times(Some(&UNDONE), "b"), Ok(1));
    }

    #[test]
    fn a_second_write_of_the_same_run_counts_two() {
        assert_eq!(next_times(Some(&LIVE), "a"), Ok(2));
        assert_eq!(next_times(Some(&UNDONE), "a"), Ok(2));
    }

    #[test]
    fn a_run_does_not_take_over_an_entry_in_force() {
        assert_eq!(next_times(Some(&LIVE), "b"), Err("a"));
    }

    #[test]
    fn only_a_live_entry_of_the_same_run_is_undone() {
        assert!(own_live(Some(LIVE), "a").is_some());
        assert!(own_live(Some(LIVE), "b").is_none());
        assert!(own_live(Some(UNDONE), "a").is_none());
        assert!(own_live::<Row>(None, "a").is_none());
    }
}
