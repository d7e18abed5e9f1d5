//! Settings: `timeout`, `retry`, `trigger`, `fuel` and `memory`, and their durations and sizes.

use aster_core::plan::Backoff;

use super::{Lost, Parsed, Parser, is_keyword};
use crate::Span;
use crate::ast::{Retry, Settings, Spanned, Trigger};
use crate::codes::{self, Code};
use crate::lex::Kind;

/// Where a setting stands.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Place {
    Workflow,
    Step,
    Compensation,
}

impl Place {
    pub(super) fn noun(self) -> &'static str {
        match self {
            Place::Workflow => "workflow",
            Place::Step => "step",
            Place::Compensation => "compensation",
        }
    }
}

const TIME_UNITS: [(&str, u64); 5] = [
    ("milliseconds", 1),
    ("seconds", 1_000),
    ("minutes", 60_000),
    ("hours", 3_600_000),
    ("days", 86_400_000),
];
const SIZE_UNITS: [(&str, u64); 3] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// A hundred years: beyond, instants leave the range of the host's clock.
const LONGEST_MS: u64 = 36_500 * 86_400_000;
/// More than a computer has, and within a float's exact integers.
const LARGEST_BYTES: u64 = 1 << 50;

impl Parser<'_, '_> {
    /// Reads the setting that begins here into `settings`; false if none does.
    pub(super) fn setting(&mut self, place: Place, settings: &mut Settings) -> bool {
        const ALL: [&str; 5] = ["timeout", "retry", "trigger", "fuel", "memory"];
        if *self.nth(1) != Kind::Colon {
            return false;
        }
        let Some(keyword) = ALL.into_iter().find(|keyword| self.at_keywords(keyword)) else {
            return false;
        };
        let allowed = match keyword {
            "trigger" => place == Place::Workflow,
            "memory" => place != Place::Workflow,
            _ => true,
        };
        let twice = match keyword {
            "timeout" => settings.timeout_ms.is_some(),
            "retry" => settings.retry.is_some(),
            "trigger" => settings.trigger.is_some(),
            "fuel" => settings.fuel.is_some(),
            _ => settings.memory_bytes.is_some(),
        };
        let span = self.token().span;
        if !allowed {
            let owner = if keyword == "trigger" { "the workflow" } else { "a step or a compensation" };
            self.report(
                &codes::UNKNOWN_ITEM,
                span,
                format!("`{keyword}` is not a setting of a {}", place.noun()),
            )
            .help(format!("`{keyword}` belongs to {owner}"));
        } else if twice {
            self.report(&codes::SETTING_TWICE, span, format!("`{keyword}` is set twice"))
                .help("keep one of them");
        }
        self.bump();
        self.bump();
        if self.setting_value(keyword, span, settings).is_err() {
            self.recover();
        }
        true
    }

    fn setting_value(&mut self, keyword: &str, span: Span, settings: &mut Settings) -> Parsed<()> {
        match keyword {
            "timeout" => settings.timeout_ms = Some(self.timeout()?),
            "fuel" => {
                settings.fuel = Some(self.fuel()?);
                self.expect_stop()?;
            }
            "memory" => {
                let size = self.quantity(&codes::QUANTITY, "a size", &SIZE_UNITS, LARGEST_BYTES)?;
                self.positive(&codes::QUANTITY, "memory", &size);
                settings.memory_bytes = Some(size);
                self.expect_stop()?;
            }
            "retry" => {
                let value = self.retry();
                settings.retry = Some(Spanned { value, span });
            }
            _ => settings.trigger = Some(self.trigger()?),
        }
        Ok(())
    }

    /// `300 seconds.`, or a block with `seconds: 300.`
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

    /// After `retry:`.
    fn retry(&mut self) -> Retry {
        const ALL: [&str; 4] = ["max attempts", "backoff", "initial delay", "max delay"];
        let mut retry = Retry::default();
        let head = self.previous();
        let mut lost = self.token().first.is_none_or(|indent| indent <= self.indent);
        self.block("`retry`", |p| {
            let start = p.token().span;
            let Some(keyword) = ALL.into_iter().find(|keyword| p.at_keywords(keyword)) else {
                let (span, found) = p.found();
                let word = format!("{} {}", p.nth_word(0), p.nth_word(1));
                let near = p.sink.did_you_mean(word.trim(), ALL);
                p.report(&codes::UNKNOWN_ITEM, span, format!("expected a setting of `retry`, found {found}"))
                    .help(near.unwrap_or(
                        "what can stand here: `max attempts`, `backoff`, `initial delay`, `max delay`".into(),
                    ));
                lost = true;
                p.bump();
                return p.recover();
            };
            let twice = match keyword {
                "max attempts" => retry.max_attempts.is_some(),
                "backoff" => retry.backoff.is_some(),
                "initial delay" => retry.initial_delay_ms.is_some(),
                _ => retry.max_delay_ms.is_some(),
            };
            if twice {
                p.report(&codes::SETTING_TWICE, start, format!("`{keyword}` is set twice"))
                    .help("keep one of them");
            }
            if p.retry_item(keyword, &mut retry).is_err() {
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

    fn retry_item(&mut self, keyword: &str, retry: &mut Retry) -> Parsed<()> {
        self.eat_keywords(keyword);
        self.expect_colon()?;
        match keyword {
            "max attempts" => retry.max_attempts = Some(self.max_attempts()?),
            "backoff" => {
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
            "initial delay" => retry.initial_delay_ms = Some(self.duration()?.value),
            _ => retry.max_delay_ms = Some(self.duration()?.value),
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

    /// After `trigger:`.
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

    /// A number and its unit, counted in the smallest one.
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
        // Only digits and a point, which is a number to Rust as well.
        Ok((self.source[span.range()].parse().unwrap_or(f64::INFINITY), span))
    }

    /// A unit, in the plural or singular. `after` is the number that it belongs to, if that came first.
    fn unit(&mut self, code: &'static Code, units: &[(&str, u64)], after: Option<Span>) -> Parsed<u64> {
        let word = self.nth_word(0);
        let singular = |unit: &str| unit.strip_suffix('s').is_some_and(|unit| is_keyword(word, unit));
        if let Some((_, size)) = units.iter().find(|(unit, _)| is_keyword(word, unit) || singular(unit)) {
            self.bump();
            return Ok(*size);
        }
        let list = units.iter().map(|(unit, _)| format!("`{unit}`")).collect::<Vec<_>>().join(", ");
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
