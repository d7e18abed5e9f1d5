//! Parses statements: `Let`, `Return`, `await`, `If` and calls.

use super::{Lost, Parsed, Parser};
use crate::Span;
use crate::ast::{Expr, ExprKind, Statement, StatementKind};
use crate::codes;
use crate::lex::Kind;
use crate::limits::IFS;

impl Parser<'_, '_> {
    /// Parses the statement that begins here. Returns `None` if it is lost.
    pub(super) fn statement(&mut self) -> Option<Statement> {
        self.statement_within(0)
    }

    fn statement_within(&mut self, ifs: u32) -> Option<Statement> {
        let start = self.token().span;
        if self.part(start).is_err() {
            self.recover();
            return None;
        }
        // A component may have the name of a keyword, but then a `.` follows.
        let keyword = !self.dot_follows();
        let kind = if keyword && self.at_keywords("if") {
            return self.condition(start, ifs);
        } else if keyword && self.at_keywords("otherwise") {
            self.report(&codes::SYNTAX, start, "this `Otherwise` follows no `If`")
                .help("`Otherwise:` stands at the indentation of its `If`, right after the block of it");
            self.bump();
            self.recover();
            return None;
        } else if keyword && self.at_keywords("step") {
            self.report(&codes::INDENTATION, start, "a step can't stand inside another block")
                .help("indent it like the other steps of the workflow");
            self.incomplete = true;
            self.bump();
            self.recover();
            return None;
        } else if keyword && self.at_keywords("let") {
            self.let_statement()
        } else if keyword && self.at_keywords("return") {
            self.return_statement()
        } else if keyword && self.at_keywords("await") {
            self.bump();
            self.awaited_names().map(StatementKind::Await)
        } else if self.at_word() && *self.nth(1) == Kind::Colon {
            self.unknown_item("a statement", &["Let", "Return", "If", "Otherwise"]);
            return None;
        } else {
            self.call_statement()
        };
        match kind {
            Ok(kind) => Some(Statement { kind, span: start.to(self.previous()) }),
            Err(Lost) => {
                self.recover();
                Some(Statement { kind: StatementKind::Lost, span: start })
            }
        }
    }

    fn let_statement(&mut self) -> Parsed<StatementKind> {
        self.bump();
        let name = match self.name("a name for the value") {
            Ok(name) => name,
            Err(Lost) => {
                self.incomplete = true;
                return Err(Lost);
            }
        };
        let value = self.expect_keywords("be").and_then(|()| self.expr());
        let value = match value {
            Ok(value) => {
                if self.expect_stop().is_err() {
                    self.recover();
                }
                value
            }
            Err(Lost) => {
                // The name is still declared.
                self.recover();
                Expr { kind: ExprKind::Error, span: name.span, depth: 0 }
            }
        };
        Ok(StatementKind::Let { name, value })
    }

    fn return_statement(&mut self) -> Parsed<StatementKind> {
        self.bump();
        let err = self.eat_keywords("err of");
        if !err {
            self.eat_keywords("ok of");
        }
        let value = self.expr()?;
        self.expect_stop()?;
        Ok(StatementKind::Return { err, value })
    }

    fn call_statement(&mut self) -> Parsed<StatementKind> {
        if !self.at_word() {
            let (span, found) = self.found();
            self.report(&codes::SYNTAX, span, format!("expected a statement, found {found}"))
                .help("a statement is `Let … be …`, `Return …`, `If …:`, or a call, `Component.function(…)`");
            self.bump();
            return Err(Lost);
        }
        let expr = self.expr()?;
        let ExprKind::Call(call) = expr.kind else {
            if !matches!(expr.kind, ExprKind::Error) {
                self.report(&codes::SYNTAX, expr.span, "this is not a statement").help(
                    "a statement is `Let … be …`, `Return …`, `If …:`, or a call, `Component.function(…)`",
                );
            }
            return Err(Lost);
        };
        self.expect_stop()?;
        Ok(StatementKind::Do(call))
    }

    fn condition(&mut self, start: Span, ifs: u32) -> Option<Statement> {
        self.bump();
        let condition = self.expr().and_then(|condition| {
            self.expect_colon()?;
            Ok(condition)
        });
        let condition = condition.unwrap_or_else(|Lost| {
            self.recover_head();
            Expr { kind: ExprKind::Error, span: start, depth: 0 }
        });
        if ifs == IFS {
            self.too_deep(start);
        }
        let then = self.statements("`If`", ifs);
        let mut otherwise = Vec::new();
        if self.at_keywords("otherwise") && self.token().first.is_none_or(|indent| indent <= self.indent) {
            self.bump();
            if self.expect_colon().is_err() {
                self.recover_head();
            }
            otherwise = self.statements("`Otherwise`", ifs);
        }
        let kind = StatementKind::If { condition, then, otherwise };
        Some(Statement { kind, span: start })
    }

    fn statements(&mut self, after: &str, ifs: u32) -> Vec<Statement> {
        let mut statements = Vec::new();
        self.block(after, |p| {
            if ifs >= IFS {
                // This was reported. The block is skipped, so that the stack suffices.
                while !p.at_end() {
                    p.bump();
                }
                return;
            }
            statements.extend(p.statement_within(ifs + 1));
        });
        statements
    }
}
