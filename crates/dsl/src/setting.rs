//! The settings that the language has: their words, and the places where they may stand.
//!
//! Every list of settings in a message comes from here. The parser's matches name each variant, so a new setting doesn't
//! compile until the parser can read it.

use crate::ast::{Retry, Settings};

/// The block that a setting stands in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Place {
    Workflow,
    Step,
    Compensation,
}

impl Place {
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Place::Workflow => "workflow",
            Place::Step => "step",
            Place::Compensation => "compensation",
        }
    }

    /// The noun with the article that it has in `belongs to …`.
    fn with_article(self) -> &'static str {
        match self {
            Place::Workflow => "the workflow",
            Place::Step => "a step",
            Place::Compensation => "a compensation",
        }
    }
}

/// A setting of a workflow, a step or a compensation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Setting {
    Timeout,
    Retry,
    Trigger,
    Fuel,
    Memory,
}

impl Setting {
    pub(crate) const ALL: [Setting; 5] =
        [Setting::Timeout, Setting::Retry, Setting::Trigger, Setting::Fuel, Setting::Memory];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Setting::Timeout => "timeout",
            Setting::Retry => "retry",
            Setting::Trigger => "trigger",
            Setting::Fuel => "fuel",
            Setting::Memory => "memory",
        }
    }

    fn places(self) -> &'static [Place] {
        match self {
            Setting::Timeout | Setting::Retry | Setting::Fuel => {
                &[Place::Workflow, Place::Step, Place::Compensation]
            }
            Setting::Trigger => &[Place::Workflow],
            Setting::Memory => &[Place::Step, Place::Compensation],
        }
    }

    pub(crate) fn is_allowed_in(self, place: Place) -> bool {
        self.places().contains(&place)
    }

    /// The places where it is allowed, in words: `a step or a compensation`.
    pub(crate) fn owners(self) -> String {
        let places: Vec<&str> = self.places().iter().map(|place| place.with_article()).collect();
        places.join(" or ")
    }

    pub(crate) fn is_set(self, settings: &Settings) -> bool {
        match self {
            Setting::Timeout => settings.timeout_ms.is_some(),
            Setting::Retry => settings.retry.is_some(),
            Setting::Trigger => settings.trigger.is_some(),
            Setting::Fuel => settings.fuel.is_some(),
            Setting::Memory => settings.memory_bytes.is_some(),
        }
    }

    /// The words of all settings that are allowed in `place`.
    pub(crate) fn words(place: Place) -> impl Iterator<Item = &'static str> {
        Self::ALL.into_iter().filter(move |setting| setting.is_allowed_in(place)).map(Self::word)
    }
}

/// A setting in the block of `retry`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum RetrySetting {
    MaxAttempts,
    Backoff,
    InitialDelay,
    MaxDelay,
}

impl RetrySetting {
    pub(crate) const ALL: [RetrySetting; 4] = [
        RetrySetting::MaxAttempts,
        RetrySetting::Backoff,
        RetrySetting::InitialDelay,
        RetrySetting::MaxDelay,
    ];

    pub(crate) fn words(self) -> &'static str {
        match self {
            RetrySetting::MaxAttempts => "max attempts",
            RetrySetting::Backoff => "backoff",
            RetrySetting::InitialDelay => "initial delay",
            RetrySetting::MaxDelay => "max delay",
        }
    }

    pub(crate) fn is_set(self, retry: &Retry) -> bool {
        match self {
            RetrySetting::MaxAttempts => retry.max_attempts.is_some(),
            RetrySetting::Backoff => retry.backoff.is_some(),
            RetrySetting::InitialDelay => retry.initial_delay_ms.is_some(),
            RetrySetting::MaxDelay => retry.max_delay_ms.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_in_the_case_of_the_whole_grammar_and_among_the_words_of_the_fuzzer() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let words =
            Setting::ALL.map(Setting::word).into_iter().chain(RetrySetting::ALL.map(RetrySetting::words));
        let words: Vec<&str> = words.collect();
        for file in ["crates/dsl/tests/cases/ok_everything.aster", "fuzz/language.dict"] {
            let text = std::fs::read_to_string(root.join(file)).expect(file).to_lowercase();
            let missing: Vec<&&str> =
                words.iter().filter(|word| !text.contains(&format!("{word}:"))).collect();
            assert!(missing.is_empty(), "{file} has no {missing:?}");
        }
    }

    #[test]
    fn a_setting_that_stands_elsewhere_is_told_where_it_belongs() {
        assert_eq!(Setting::Trigger.owners(), "the workflow");
        assert_eq!(Setting::Memory.owners(), "a step or a compensation");
        assert!(
            Setting::ALL
                .iter()
                .all(|setting| setting.places().iter().all(|place| setting.is_allowed_in(*place)))
        );
    }
}
