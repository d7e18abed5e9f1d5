//! Parses settings with their durations and sizes.

use aster_core::plan::Backoff;

use super::{Lost, Parsed, Parser, is_keyword, list};
use crate::Span;
use crate::ast::{Retry, Settings, Spanned, Trigger};
use crate::codes::{self, Code};
use crate::lex::Kind;
use crate::setting::{Place, RetrySetting, Setting};

const TIME_UNITS: [(&str, u64); 5] = [
    ("milliseconds", 1),
    ("seconds", 1_000),
    ("minutes", 60_000),
    ("hours", 3_600_000),
    ("days", 86_400_000),
];
const SIZE_UNITS: [(&str, u64); 3] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// A hundred years. Longer times would leave the range of the host's clock.
const LONGEST_MS: u64 = 36_500 * 86_400_000;
/// More than any computer has, and still an integer that a float holds exactly.
const LARGEST_BYTES: u64 = 1 << 50;

impl Parser<'_, '_> {
    /// Reads the setting that begins here into `settings`. Returns false if none begins here.
    pub(super) fn setting(&mut self, place: Place, settings: &mut Settings) -> bool {
        if *self.nth(1) != Kind::Colon {
            return false;
        }
        let Some(setting) = Setting::ALL.into_iter().find(|setting| self.at_keywords(setting.word())) else {
            return false;
        };
        let word = setting.word();
        let span = self.token().span;
        if !setting.is_allowed_in(place) {
            let message = format!("`{word}` is not a setting of a {}", place.noun());
            self.report(&codes::UNKNOWN_ITEM, span, message)
                .help(format!("`{word}` belongs to {}", setting.owners()));
        } else if setting.is_set(settings) {
            self.report(&codes::SETTING_TWICE, span, format!("`{word}` is set twice"))
                .help("keep one of them");
        }
        self.bump();
        self.bump();
        if self.setting_value(setting, span, settings).is_err() {
            self.recover();
        }
        true
    }

    fn setting_value(&mut self, setting: Setting, span: Span, settings: &mut Settings) -> Parsed<()> {
        match setting {
            Setting::Timeout => settings.timeout_ms = Some(self.timeout()?),
            Setting::Retry => {
                let value = self.retry();
                settings.retry = Some(Spanned { value, span });
            }
            Setting::Trigger => settings.trigger = Some(self.trigger()?),
            Setting::Fuel => {
                settings.fuel = Some(self.fuel()?);
                self.expect_stop()?;
            }
            Setting::Memory => {
                let size = self.quantity(&codes::QUANTITY, "a size", &SIZE_UNITS, LARGEST_BYTES)?;
                self.positive(&codes::QUANTITY, setting.word(), &size);
                settings.memory_bytes = Some(size);
                self.expect_stop()?;
            }
        }
        Ok(())
    }

    /// Reads `300 seconds.`, or a block with `seconds: 300.`
    fn timeout(&mut self) -> Parsed<Spanned<u64>> {
        let number = matches!(self.kind(), Kind::Int | Kind::Float | Kind::Operator(_));
        if number || self.token().first.is_none_or(|indent| indent <= self.indent) {
            let duration = self.duration()?;
            self.positive(&codes::DURATION, "timeout", &duration);
            self.expect_stop()?;
            return Ok(duration);
        }
        let mut found: Option<Spanned<u64>> = None;
        self.block("`timeout`", |p| {
            let read = |p: &mut Self| {
                let unit = p.unit(&codes::DURATION, &TIME_UNITS, None)?;
                p.expect_colon()?;
                let (number, span) = p.number(&codes::DURATION, "a timeout")?;
                let duration = p.scaled(&codes::DURATION, number, unit, span, LONGEST_MS)?;
                p.positive(&codes::DURATION, "timeout", &duration);
                p.expect_stop()?;
                Ok(duration)
            };
            let start = p.token().span;
            match read(p) {
                Ok(_) if found.is_some() => {
                    p.report(&codes::SETTING_TWICE, start, "a timeout has one unit")
                        .help("write the whole time in one unit, `seconds: 90.` for example");
                }
                Ok(duration) => found = Some(duration),
                Err(Lost) => p.recover(),
            }
        });
        found.ok_or(Lost)
    }

    fn fuel(&mut self) -> Parsed<Spanned<u64>> {
        if *self.kind() == Kind::Operator("-") || *self.kind() == Kind::Float {
            let span = self.token().span;
            self.report(&codes::QUANTITY, span, "fuel is a positive integer")
                .help("write `fuel: 1000000.` for example");
            return Err(Lost);
        }
        let value = self.integer("an amount of fuel")?;
        self.positive(&codes::QUANTITY, "fuel", &value);
        Ok(value)
    }

    /// Reads the block after `retry:`.
    fn retry(&mut self) -> Retry {
        let words = || RetrySetting::ALL.into_iter().map(RetrySetting::words);
        let mut retry = Retry::default();
        let head = self.previous();
        let mut lost = self.token().first.is_none_or(|indent| indent <= self.indent);
        self.block("`retry`", |p| {
            let start = p.token().span;
            let setting = RetrySetting::ALL.into_iter().find(|setting| p.at_keywords(setting.words()));
            let Some(setting) = setting else {
                let (span, found) = p.found();
                let word = format!("{} {}", p.nth_word(0), p.nth_word(1));
                let near = p.sink.did_you_mean(word.trim(), words());
                p.report(&codes::UNKNOWN_ITEM, span, format!("expected a setting of `retry`, found {found}"))
                    .help(near.unwrap_or_else(|| format!("what can stand here: {}", list(words()))));
                lost = true;
                p.bump();
                return p.recover();
            };
            if setting.is_set(&retry) {
                p.report(&codes::SETTING_TWICE, start, format!("`{}` is set twice", setting.words()))
                    .help("keep one of them");
            }
            if p.retry_item(setting, &mut retry).is_err() {
                lost = true;
                p.recover();
            }
        });
        if retry.max_attempts.is_none() && !lost {
            self.report(&codes::SYNTAX, head, "`retry` does not say how often")
                .help("write `max attempts: 3.` for example; the first attempt counts");
        }
        retry
    }

    fn retry_item(&mut self, setting: RetrySetting, retry: &mut Retry) -> Parsed<()> {
        self.eat_keywords(setting.words());
        self.expect_colon()?;
        match setting {
            RetrySetting::MaxAttempts => retry.max_attempts = Some(self.max_attempts()?),
            RetrySetting::Backoff => {
                let all = [
                    ("exponential", Backoff::Exponential),
                    ("linear", Backoff::Linear),
                    ("constant", Backoff::Constant),
                ];
                let Some((word, backoff)) = all.into_iter().find(|(word, _)| self.at_keywords(word)) else {
                    return Err(self.unexpected("`exponential`, `linear` or `constant`"));
                };
                self.eat_keywords(word);
                retry.backoff = Some(backoff);
            }
            RetrySetting::InitialDelay => retry.initial_delay_ms = Some(self.duration()?.value),
            RetrySetting::MaxDelay => retry.max_delay_ms = Some(self.duration()?.value),
        }
        self.expect_stop()
    }

    fn max_attempts(&mut self) -> Parsed<u32> {
        let start = self.token().span;
        let negative = self.eat(&Kind::Operator("-"));
        let attempts = self.integer("a number of attempts")?;
        let span = start.to(attempts.span);
        match u32::try_from(attempts.value) {
            Ok(attempts) if attempts >= 1 && !negative => Ok(attempts),
            Err(_) if !negative => {
                self.report(&codes::INTEGER_RANGE, span, "so many attempts can't be counted")
                    .help(format!("write at most {}", u32::MAX));
                Ok(u32::MAX)
            }
            _ => {
                self.report(&codes::ATTEMPTS, span, "`max attempts` is below 1")
                    .help("write `max attempts: 1.` for one attempt and no retry");
                Ok(1)
            }
        }
    }

    /// Reads the sentence after `trigger:`.
    fn trigger(&mut self) -> Parsed<Trigger> {
        let method = self.nth_word(0);
        if !method.eq_ignore_ascii_case("post") {
            let (span, found) = self.found();
            self.report(&codes::TRIGGER, span, format!("expected `POST`, found {found}"))
                .help("write `trigger: POST \"/api/orders\" keyed by order.orderId.`");
            return Err(Lost);
        }
        self.bump();
        let path = self.plain_text()?;
        self.expect_keywords("keyed by")?;
        let key = self.expr()?;
        self.expect_stop()?;
        Ok(Trigger { path, key })
    }

    fn duration(&mut self) -> Parsed<Spanned<u64>> {
        self.quantity(&codes::DURATION, "a duration", &TIME_UNITS, LONGEST_MS)
    }

    /// Reads a number and its unit, and returns the value in the smallest unit.
    fn quantity(
        &mut self,
        code: &'static Code,
        what: &str,
        units: &[(&str, u64)],
        most: u64,
    ) -> Parsed<Spanned<u64>> {
        let (number, span) = self.number(code, what)?;
        let unit = self.unit(code, units, Some(span))?;
        let span = span.to(self.previous());
        self.scaled(code, number, unit, span, most)
    }

    fn number(&mut self, code: &'static Code, what: &str) -> Parsed<(f64, Span)> {
        let start = self.token().span;
        let negative = self.eat(&Kind::Operator("-"));
        if !matches!(self.kind(), Kind::Int | Kind::Float) {
            return Err(self.unexpected("a number"));
        }
        let span = start.to(self.bump());
        if negative {
            self.report(code, span, format!("{what} can't be negative")).help("write a positive number");
            return Err(Lost);
        }
        // The lexer accepts only digits and a point, which Rust can parse.
        Ok((self.source[span.range()].parse().unwrap_or(f64::INFINITY), span))
    }

    /// Reads a unit in the plural or singular. `after` is its number, if that comes first.
    fn unit(&mut self, code: &'static Code, units: &[(&str, u64)], after: Option<Span>) -> Parsed<u64> {
        let word = self.nth_word(0);
        let singular = |unit: &str| unit.strip_suffix('s').is_some_and(|unit| is_keyword(word, unit));
        if let Some((_, size)) = units.iter().find(|(unit, _)| is_keyword(word, unit) || singular(unit)) {
            self.bump();
            return Ok(*size);
        }
        let list = list(units.iter().map(|(unit, _)| *unit));
        let (span, message) = match (word, after) {
            ("", Some(number)) => (number, "this number has no unit".to_owned()),
            ("", None) => (self.found().0, "a unit is missing here".to_owned()),
            _ => (self.token().span, format!("`{word}` is not a unit here")),
        };
        let near = if word.is_empty() {
            None
        } else {
            self.sink.did_you_mean(word, units.iter().map(|(unit, _)| *unit))
        };
        let units = match after {
            Some(number) => format!(
                "write `{} {}` for example; the units are {list}",
                &self.source[number.range()],
                units[1].0
            ),
            None => format!("the units are {list}"),
        };
        self.report(code, span, message).help(near.unwrap_or(units));
        Err(Lost)
    }

    fn scaled(
        &mut self,
        code: &'static Code,
        number: f64,
        unit: u64,
        span: Span,
        most: u64,
    ) -> Parsed<Spanned<u64>> {
        let value = (number * unit as f64).round();
        if value > most as f64 {
            let message =
                if most == LONGEST_MS { "this is longer than 100 years" } else { "this is more than 1 PiB" };
            self.report(code, span, message).help("write a smaller number");
            return Err(Lost);
        }
        Ok(Spanned { value: value as u64, span })
    }

    fn positive(&mut self, code: &'static Code, setting: &str, value: &Spanned<u64>) {
        if value.value == 0 {
            self.report(code, value.span, format!("`{setting}` must be more than zero"))
                .help("write a positive number");
        }
    }

    fn integer(&mut self, what: &str) -> Parsed<Spanned<u64>> {
        if *self.kind() != Kind::Int {
            return Err(self.unexpected(&format!("{what}, a whole number")));
        }
        let span = self.bump();
        match self.source[span.range()].parse::<i64>() {
            Ok(value) => Ok(Spanned { value: value.unsigned_abs(), span }),
            Err(_) => {
                self.report(&codes::INTEGER_RANGE, span, "this integer is out of range")
                    .help(format!("an integer is at most {}", i64::MAX));
                Err(Lost)
            }
        }
    }
}
