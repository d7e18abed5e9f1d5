//! Reads numbers. An integer consists of digits, and a float has digits on both sides of its point.

use super::{Kind, Lexer};
use crate::Span;
use crate::codes;
use crate::diagnostic::{Sink, brief};

impl Lexer<'_> {
    pub(super) fn number(&mut self, sink: &mut Sink) {
        let start = self.at;
        self.digits();
        let mut kind = Kind::Int;
        let mut after_point = self.rest().chars();
        if after_point.next() == Some('.') && after_point.next().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
            self.digits();
            kind = Kind::Float;
        }
        let end = self.at;
        while let Some(c) = self.rest().chars().next().filter(|c| c.is_alphanumeric() || *c == '_') {
            self.at += c.len_utf8();
        }
        if self.at > end {
            let seen = &self.source[start..self.at];
            let number = &self.source[start..end];
            let rest = &self.source[end..self.at];
            let help = match rest.chars().next() {
                Some('_') => "write the digits without `_`".to_owned(),
                Some('e' | 'E') if rest[1..].chars().all(|c| c.is_ascii_digit()) => {
                    "write the number without an exponent".to_owned()
                }
                _ => format!("write `{} {}`, with a blank between", brief(number), brief(rest)),
            };
            sink.report(
                &codes::NUMBER,
                Span::new(start, self.at),
                format!("`{}` is neither a number nor a name", brief(seen)),
            )
            .help(help);
        }
        self.push(kind, start);
        if let Some(token) = self.tokens.last_mut() {
            // The characters after the number were reported and are ignored.
            token.span.end = end;
        }
    }

    fn digits(&mut self) {
        while self.rest().starts_with(|c: char| c.is_ascii_digit()) {
            self.at += 1;
        }
    }
}
