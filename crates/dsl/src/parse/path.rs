//! Parses paths and calls, such as `order.items[0].price`, `Inventory.reserve(order.orderId)` and `List.empty()`.

use super::{Lost, Parsed, Parser};
use crate::Span;
use crate::ast::{Call, Expr, ExprKind, Name};
use crate::codes;
use crate::lex::Kind;

impl Parser<'_, '_> {
    /// Parses a primary expression with the fields, indices and arguments after it.
    pub(super) fn path(&mut self) -> Parsed<Expr> {
        let mut of = self.primary()?;
        loop {
            match self.kind() {
                Kind::Dot => {
                    self.bump();
                    if !self.at_word() {
                        return Err(self.unexpected("the name of a field"));
                    }
                    let name = self.any_word();
                    let span = of.span.to(name.span);
                    of = self.make(ExprKind::Field(Box::new(of), name), span)?;
                }
                Kind::Open('[') => {
                    let open = self.bump();
                    let index = self.expr()?;
                    let span = of.span.to(self.expect_close(']', open)?);
                    of = self.make(ExprKind::Index(Box::new(of), Box::new(index)), span)?;
                }
                Kind::Open('(') => of = self.call(of)?,
                _ => return Ok(of),
            }
        }
    }

    /// Parses the arguments of a call. The `(` after `callee` is next.
    fn call(&mut self, callee: Expr) -> Parsed<Expr> {
        let open = self.bump();
        let (args, end) = self.items(')', open)?;
        let span = callee.span.to(end);
        let mut names = Vec::new();
        if !names_of(&callee, &mut names) {
            return Err(self.malformed(callee.span, "this can't be called"));
        }
        if let [list, empty] = &names[..]
            && super::is_keyword(&list.text, "list")
            && super::is_keyword(&empty.text, "empty")
        {
            if !args.is_empty() {
                self.report(&codes::CALL_FORM, span, "`List.empty()` takes nothing")
                    .help("a list with values is written `[a, b]`");
            }
            return self.make(ExprKind::List(Vec::new()), span);
        }
        let mut names = names.into_iter();
        let (capability, second, third, more) = (names.next(), names.next(), names.next(), names.next());
        let call = match (capability, second, third, more) {
            (Some(capability), Some(function), None, _) => {
                Call { capability, interface: None, function, args, span }
            }
            (Some(capability), Some(interface), Some(function), None) => {
                Call { capability, interface: Some(interface), function, args, span }
            }
            (_, None, ..) => return Err(self.malformed(callee.span, "this call names no component")),
            _ => return Err(self.malformed(callee.span, "this call has too many names")),
        };
        self.make(ExprKind::Call(call), span)
    }

    fn malformed(&mut self, span: Span, message: &str) -> Lost {
        self.report(&codes::CALL_FORM, span, message)
            .help("a call is `Component.function(…)` or `Component.interface.function(…)`");
        Lost
    }
}

/// Collects the names of `a.b.c`. Returns false if the expression is anything else.
fn names_of(expr: &Expr, out: &mut Vec<Name>) -> bool {
    match &expr.kind {
        ExprKind::Name(text) => {
            out.push(Name { text: text.clone(), span: expr.span });
            true
        }
        ExprKind::Field(of, name) => {
            let path = names_of(of, out);
            out.push(name.clone());
            path
        }
        _ => false,
    }
}
