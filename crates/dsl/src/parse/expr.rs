//! Parses expressions, with the usual precedence: `or`, `and`, `not`, comparison, `+ -`, `* /`, sign, call and path.

use std::collections::HashSet;

use aster_core::plan::BinaryOp;

use super::{Lost, Parsed, Parser};
use crate::Span;
use crate::ast::{Expr, ExprKind, Name, TextPart};
use crate::codes;
use crate::diagnostic::brief;
use crate::lex::{Kind, Segment};
use crate::limits::EXPRESSION_DEPTH;

const COMPARISONS: [(&str, BinaryOp); 6] = [
    ("==", BinaryOp::Eq),
    ("!=", BinaryOp::Ne),
    ("<", BinaryOp::Lt),
    ("<=", BinaryOp::Le),
    (">", BinaryOp::Gt),
    (">=", BinaryOp::Ge),
];
const SUMS: [(&str, BinaryOp); 2] = [("+", BinaryOp::Add), ("-", BinaryOp::Sub)];
const PRODUCTS: [(&str, BinaryOp); 2] = [("*", BinaryOp::Mul), ("/", BinaryOp::Div)];

impl<'s> Parser<'_, 's> {
    pub(super) fn expr(&mut self) -> Parsed<Expr> {
        self.nested(|p| {
            let mut left = p.conjunction()?;
            while p.at_keywords("or") {
                p.bump();
                let right = p.conjunction()?;
                left = p.binary(BinaryOp::Or, left, right)?;
            }
            Ok(left)
        })
    }

    fn conjunction(&mut self) -> Parsed<Expr> {
        let mut left = self.negation()?;
        while self.at_keywords("and") {
            self.bump();
            let right = self.negation()?;
            left = self.binary(BinaryOp::And, left, right)?;
        }
        Ok(left)
    }

    fn negation(&mut self) -> Parsed<Expr> {
        if !self.at_keywords("not") {
            return self.comparison();
        }
        let start = self.bump();
        let of = self.nested(Self::negation)?;
        let span = start.to(of.span);
        self.make(ExprKind::Not(Box::new(of)), span)
    }

    fn comparison(&mut self) -> Parsed<Expr> {
        let left = self.sum()?;
        let Some(op) = self.eat_operator(&COMPARISONS) else { return Ok(left) };
        let right = self.sum()?;
        let found = self.binary(op, left, right)?;
        let again = self.token().span;
        if self.eat_operator(&COMPARISONS).is_some() {
            self.report(&codes::COMPARISON_CHAIN, again, "comparisons can't be chained")
                .help("compare twice and join it with `and`: `a < b and b < c`");
            return Err(Lost);
        }
        Ok(found)
    }

    fn sum(&mut self) -> Parsed<Expr> {
        let mut left = self.product()?;
        while let Some(op) = self.eat_operator(&SUMS) {
            let right = self.product()?;
            left = self.binary(op, left, right)?;
        }
        Ok(left)
    }

    fn product(&mut self) -> Parsed<Expr> {
        let mut left = self.sign()?;
        while let Some(op) = self.eat_operator(&PRODUCTS) {
            let right = self.sign()?;
            left = self.binary(op, left, right)?;
        }
        Ok(left)
    }

    fn sign(&mut self) -> Parsed<Expr> {
        if *self.kind() != Kind::Operator("-") {
            return self.path();
        }
        let start = self.bump();
        // The smallest integer has no positive counterpart, so a sign before a number is part of it.
        if *self.kind() == Kind::Int && !matches!(self.nth(1), Kind::Dot | Kind::Open('[')) {
            let span = start.to(self.bump());
            let digits = &self.source[self.previous().range()];
            return self.int(&format!("-{digits}"), span);
        }
        let of = self.nested(Self::sign)?;
        let span = start.to(of.span);
        match of.kind {
            ExprKind::Float(value) => self.make(ExprKind::Float(-value), span),
            _ => self.make(ExprKind::Negate(Box::new(of)), span),
        }
    }

    /// Parses an expression without operators. Paths and calls begin with one as well.
    pub(super) fn primary(&mut self) -> Parsed<Expr> {
        let span = self.token().span;
        match self.kind().clone() {
            Kind::Int => {
                self.bump();
                let source = self.source;
                self.int(&source[span.range()], span)
            }
            Kind::Float => {
                self.bump();
                let value: f64 = self.source[span.range()].parse().unwrap_or(f64::INFINITY);
                if !value.is_finite() {
                    self.report(&codes::INTEGER_RANGE, span, "this number is out of range")
                        .help("a float is a 64-bit number");
                    return Err(Lost);
                }
                self.make(ExprKind::Float(value), span)
            }
            Kind::Text(segments) => {
                self.bump();
                self.text(segments, span)
            }
            Kind::Word => self.word(span),
            Kind::Open('(') => {
                self.bump();
                let mut inner = self.expr()?;
                inner.span = span.to(self.expect_close(')', span)?);
                Ok(inner)
            }
            Kind::Open('[') => {
                self.bump();
                let (items, end) = self.items(']', span)?;
                self.make(ExprKind::List(items), span.to(end))
            }
            Kind::Open('{') => self.record(span),
            Kind::Dot if *self.nth(1) == Kind::Int => {
                self.bump();
                let span = span.to(self.bump());
                let help = format!("write `0{}`", brief(&self.source[span.range()]));
                self.report(&codes::NUMBER, span, "a number has digits on both sides of its point")
                    .help(help);
                Err(Lost)
            }
            _ => Err(self.unexpected("a value")),
        }
    }

    /// Parses expressions with `,` between them, and the closing bracket.
    pub(super) fn items(&mut self, close: char, open: Span) -> Parsed<(Vec<Expr>, Span)> {
        let mut items = Vec::new();
        while *self.kind() != Kind::Close(close) {
            if self.at_end() || matches!(self.kind(), Kind::Stop | Kind::LoneStop) {
                break;
            }
            items.push(self.expr()?);
            if !self.eat(&Kind::Comma) {
                break;
            }
        }
        let end = self.expect_close(close, open)?;
        Ok((items, end))
    }

    /// Makes a node of the tree, unless it would nest too deeply.
    pub(super) fn make(&mut self, kind: ExprKind, span: Span) -> Parsed<Expr> {
        let own = match &kind {
            ExprKind::Not(_) | ExprKind::Negate(_) => 1,
            ExprKind::Record(_) | ExprKind::Call(_) => 3,
            _ => 2,
        };
        let mut expr = Expr { kind, span, depth: own };
        expr.depth += expr.children().iter().map(|child| child.depth).max().unwrap_or(0);
        self.part(span)?;
        if expr.depth > EXPRESSION_DEPTH {
            return Err(self.too_deep(span));
        }
        Ok(expr)
    }

    fn word(&mut self, span: Span) -> Parsed<Expr> {
        let constants =
            [("true", ExprKind::Bool(true)), ("false", ExprKind::Bool(false)), ("null", ExprKind::Null)];
        for (keyword, kind) in constants {
            if self.eat_keywords(keyword) {
                return self.make(kind, span);
            }
        }
        if ["and", "or", "not"].iter().any(|keyword| self.at_keywords(keyword)) {
            return Err(self.unexpected("a value"));
        }
        let name = self.any_word();
        self.make(ExprKind::Name(name.text), span)
    }

    fn record(&mut self, open: Span) -> Parsed<Expr> {
        self.bump();
        let mut fields: Vec<(Name, Expr)> = Vec::new();
        let mut known = HashSet::new();
        while *self.kind() != Kind::Close('}') {
            let name = match self.kind() {
                Kind::Word => self.any_word(),
                Kind::Text(_) => self.plain_text()?,
                _ if fields.is_empty() => return Err(self.unexpected("a field, `name: value`")),
                _ => break,
            };
            self.expect_colon()?;
            let value = self.expr()?;
            if !known.insert(name.text.clone()) {
                self.report(
                    &codes::DECLARED_TWICE,
                    name.span,
                    format!("field `{}` is given twice", brief(&name.text)),
                )
                .help("keep one of them");
            }
            fields.push((name, value));
            if !self.eat(&Kind::Comma) {
                break;
            }
        }
        let end = self.expect_close('}', open)?;
        self.make(ExprKind::Record(fields), open.to(end))
    }

    fn int(&mut self, digits: &str, span: Span) -> Parsed<Expr> {
        let Ok(value) = digits.parse() else {
            self.report(&codes::INTEGER_RANGE, span, "this integer is out of range").help(format!(
                "an integer is between {} and {}",
                i64::MIN,
                i64::MAX
            ));
            return Err(Lost);
        };
        self.make(ExprKind::Int(value), span)
    }

    fn text(&mut self, segments: Vec<Segment>, span: Span) -> Parsed<Expr> {
        let mut parts = Vec::new();
        for segment in segments {
            parts.push(match segment {
                Segment::Plain(plain) => TextPart::Plain(plain),
                Segment::Path(piece) => TextPart::Path(self.path_in_text(piece)?),
            });
        }
        self.make(ExprKind::Text(parts), span)
    }

    fn path_in_text(&mut self, piece: Span) -> Parsed<Expr> {
        let tokens = crate::lex::lex_piece(self.source, piece, self.sink);
        let mut inner: Parser<'_, 's> = Parser::new(self.source, tokens, self.sink);
        inner.parts = self.parts;
        if inner.at_word() {
            let path = inner.path();
            let whole = inner.at_end();
            self.parts = inner.parts;
            let path = path?;
            if whole && is_path(&path) {
                return Ok(path);
            }
        }
        let seen = brief(&self.source[piece.range()]);
        let message = format!("`{}` is not a path", seen.escape_debug());
        self.report(&codes::INTERPOLATION, piece, message)
            .help("name the value with `Let name be …` and write `{name}`; a brace itself is written `{{`");
        Err(Lost)
    }

    fn binary(&mut self, op: BinaryOp, left: Expr, right: Expr) -> Parsed<Expr> {
        let span = left.span.to(right.span);
        self.make(ExprKind::Binary(op, Box::new(left), Box::new(right)), span)
    }

    fn eat_operator(&mut self, operators: &[(&'static str, BinaryOp)]) -> Option<BinaryOp> {
        let (_, op) = operators.iter().find(|(symbol, _)| *self.kind() == Kind::Operator(symbol))?;
        self.bump();
        Some(*op)
    }
}

/// Whether an expression is a name with fields and indices after it.
fn is_path(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Name(_) => true,
        ExprKind::Field(of, _) => is_path(of),
        ExprKind::Index(of, at) => is_path(of) && (is_path(at) || matches!(at.kind, ExprKind::Int(_))),
        _ => false,
    }
}
