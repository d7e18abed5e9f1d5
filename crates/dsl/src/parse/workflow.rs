//! Parses the block of a workflow: steps, compensations, settings and `await` between steps.

use super::{Lost, Parsed, Parser, list};
use crate::Span;
use crate::ast::{Compensation, LateCompensation, Name, Settings, Step, Workflow};
use crate::codes;
use crate::lex::{Kind, Segment};
use crate::setting::{Place, Setting};

impl Parser<'_, '_> {
    pub(super) fn workflow(&mut self) -> Workflow {
        let mut workflow = Workflow { span: self.bump(), ..Workflow::default() };
        self.parts = 0;
        if self.expect_colon().is_err() {
            self.recover_head();
        }
        // The names of an `await` between steps, for the next step.
        let mut awaited: Vec<Name> = Vec::new();
        let mut await_span = None;
        self.block("`workflow`", |p| {
            if p.at_keywords("step") {
                match p.step(std::mem::take(&mut awaited)) {
                    Ok(step) => workflow.steps.push(step),
                    Err(Lost) => p.incomplete = true,
                }
                await_span = None;
            } else if p.at_keywords("compensate") {
                let compensation = p.compensation();
                let after = workflow.steps.len();
                workflow.compensations.push(LateCompensation { compensation, after });
            } else if p.at_keywords("await") {
                let span = p.bump();
                match p.awaited_names() {
                    Ok(names) => {
                        await_span = Some(span);
                        awaited.extend(names);
                    }
                    Err(Lost) => p.recover(),
                }
            } else if !p.setting(Place::Workflow, &mut workflow.settings) {
                let items = ["step", "compensate", "await"];
                let known: Vec<&str> = items.into_iter().chain(Setting::words(Place::Workflow)).collect();
                p.unknown_item("a step or a setting of the workflow", &known);
            }
        });
        workflow.stray_await = await_span;
        workflow.incomplete = self.incomplete;
        workflow
    }

    fn step(&mut self, awaits: Vec<Name>) -> Parsed<Step> {
        self.bump();
        let name = match self.name("the step's name") {
            Ok(name) => name,
            Err(Lost) => {
                self.recover();
                return Err(Lost);
            }
        };
        let after = format!("step `{}`", name.text);
        let mut step = Step {
            name,
            depends_on: None,
            awaits,
            when: None,
            body: Vec::new(),
            settings: Settings::default(),
            compensations: Vec::new(),
        };
        if self.step_head(&mut step).is_err() {
            self.incomplete = true;
            self.recover_head();
        }
        self.block(&after, |p| {
            if p.at_keywords("compensate") {
                let compensation = p.compensation();
                step.compensations.push(compensation);
            } else {
                p.body_item(Place::Step, &mut step.body, &mut step.settings);
            }
        });
        Ok(step)
    }

    fn step_head(&mut self, step: &mut Step) -> Parsed<()> {
        loop {
            if step.depends_on.is_none() && self.eat_keywords("depends on") {
                step.depends_on = Some(self.names()?);
            } else if step.when.is_none() && self.eat_keywords("when") {
                step.when = Some(self.expr()?);
            } else if *self.kind() == Kind::Colon || self.at_line() {
                return self.expect_colon();
            } else {
                let expected = match (&step.depends_on, &step.when) {
                    (None, None) => "`depends on`, `when` or `:`",
                    (Some(_), None) => "`when` or `:`",
                    (None, Some(_)) => "`depends on` or `:`",
                    (Some(_), Some(_)) => "`:`",
                };
                return Err(self.unexpected(expected));
            }
        }
    }

    fn compensation(&mut self) -> Compensation {
        let span = self.bump();
        let mut name = None;
        if self.at_word() {
            name = self.name("a step's name").ok();
        }
        if self.expect_colon().is_err() {
            self.recover_head();
        }
        let mut compensation = Compensation { span, name, body: Vec::new(), settings: Settings::default() };
        self.block("`compensate`", |p| {
            p.body_item(Place::Compensation, &mut compensation.body, &mut compensation.settings);
        });
        compensation
    }

    /// Parses one statement or setting of a step or compensation.
    fn body_item(&mut self, place: Place, body: &mut Vec<crate::ast::Statement>, settings: &mut Settings) {
        if self.setting(place, settings) {
            return;
        }
        if self.at_word() && *self.nth(1) == Kind::Colon && !self.at_keywords("otherwise") {
            let block = (place == Place::Step).then_some("compensate");
            let known: Vec<&str> = Setting::words(place).chain(block).collect();
            self.unknown_item(&format!("a setting of a {}", place.noun()), &known);
            return;
        }
        body.extend(self.statement());
    }

    /// Parses the names after `await`, to the end of the sentence.
    pub(super) fn awaited_names(&mut self) -> Parsed<Vec<Name>> {
        let names = self.names()?;
        self.expect_stop()?;
        Ok(names)
    }

    /// Parses `[a, b]` or `a, b and c`. Each is a name or a text.
    fn names(&mut self) -> Parsed<Vec<Name>> {
        let mut names = Vec::new();
        if *self.kind() == Kind::Open('[') {
            let open = self.bump();
            while *self.kind() != Kind::Close(']') {
                names.push(self.name_or_text()?);
                if !self.eat(&Kind::Comma) {
                    break;
                }
            }
            self.expect_close(']', open)?;
            return Ok(names);
        }
        names.push(self.name_or_text()?);
        while self.eat(&Kind::Comma) || self.eat_keywords("and") {
            // `, and` is one separator.
            self.eat_keywords("and");
            names.push(self.name_or_text()?);
        }
        Ok(names)
    }

    fn name_or_text(&mut self) -> Parsed<Name> {
        if matches!(self.kind(), Kind::Text(_)) { self.plain_text() } else { self.name("a step's name") }
    }

    /// Parses a text that can't have values in it.
    pub(super) fn plain_text(&mut self) -> Parsed<Name> {
        let Kind::Text(segments) = self.kind().clone() else {
            return Err(self.unexpected("a text"));
        };
        let span = self.bump();
        let mut text = String::new();
        for segment in segments {
            match segment {
                Segment::Plain(plain) => text.push_str(&plain),
                Segment::Path(path) => {
                    let braces = Span::new(path.start.saturating_sub(1), path.end + 1);
                    self.report(&codes::INTERPOLATION, braces, "this text can't have values in it")
                        .help("write the text out; a brace itself is written `{{` or `\\{`");
                    return Err(Lost);
                }
            }
        }
        Ok(Name { text, span })
    }

    /// Reports a word that begins no sentence of this place, and skips it together with everything that is indented below
    /// it.
    pub(super) fn unknown_item(&mut self, expected: &str, known: &[&str]) {
        let (span, found) = self.found();
        let word = self.nth_word(0).to_owned();
        let near = if known.iter().any(|keyword| super::is_keyword(&word, keyword)) {
            Some(format!("a `:` belongs after `{word}`"))
        } else if word.is_empty() {
            None
        } else {
            self.sink.did_you_mean(&word, known.iter().copied())
        };
        self.report(&codes::UNKNOWN_ITEM, span, format!("expected {expected}, found {found}"))
            .help(near.unwrap_or_else(|| format!("what can stand here: {}", list(known.iter().copied()))));
        // Without a `:` it may have been a step.
        self.incomplete |= *self.nth(1) != Kind::Colon;
        self.bump();
        self.recover();
    }
}
