//! Parses tokens into a syntax tree by recursive descent. Each part of the grammar has a file.
//!
//! Blocks are made here, since only the grammar knows where one may begin. A block consists of the lines that are
//! indented deeper than the line of its `:`. Inside a block, the parser sees [`Kind::Eof`] at the first line that
//! isn't. A syntax error loses its sentence: the parser reports it, and goes on with the next sentence or the next line
//! of the block.

mod expr;
mod header;
mod path;
mod settings;
mod statement;
mod ty;
mod workflow;

use crate::Span;
use crate::ast::{File, Name};
use crate::codes::{self, Code};
use crate::diagnostic::{Reported, Sink, brief};
use crate::lex::{Kind, Token};
use crate::limits;

/// Words that can't be names, since they have another meaning in an expression.
const RESERVED: [&str; 6] = ["true", "false", "null", "and", "or", "not"];

/// Parses a source text. The tree has every part that could be read.
pub(crate) fn parse(source: &str, tokens: Vec<Token>, sink: &mut Sink) -> File {
    Parser::new(source, tokens, sink).file()
}

/// A problem was reported, and the sentence around it is lost.
#[derive(Debug)]
pub(crate) struct Lost;

type Parsed<T> = Result<T, Lost>;

struct Parser<'p, 's> {
    source: &'p str,
    tokens: Vec<Token>,
    /// The place of the next token. INVARIANT: less than `tokens.len()`, since the last token is never taken.
    at: usize,
    /// The indentation of the current block. The parser doesn't see the tokens of a line with less.
    indent: u32,
    /// The nesting of brackets, signs and types at this point.
    nesting: u32,
    /// Whether a declaration was lost.
    incomplete: bool,
    /// The number of expressions and statements of this workflow so far.
    parts: usize,
    sink: &'p mut Sink<'s>,
}

impl<'p, 's> Parser<'p, 's> {
    fn new(source: &'p str, tokens: Vec<Token>, sink: &'p mut Sink<'s>) -> Self {
        Self { source, tokens, at: 0, indent: 0, nesting: 0, incomplete: false, parts: 0, sink }
    }

    // Looking at the next tokens.

    fn token(&self) -> &Token {
        &self.tokens[self.at]
    }

    /// The kind of the token after the next `n` tokens, or [`Kind::Eof`] from the end of the block on.
    fn nth(&self, n: usize) -> &Kind {
        for i in self.at..=self.at + n {
            match self.tokens.get(i) {
                None | Some(Token { kind: Kind::Eof, .. }) => return &Kind::Eof,
                Some(token) if token.first.is_some_and(|indent| indent < self.indent) => return &Kind::Eof,
                Some(_) => {}
            }
        }
        &self.tokens[self.at + n].kind
    }

    fn kind(&self) -> &Kind {
        self.nth(0)
    }

    fn at_end(&self) -> bool {
        *self.kind() == Kind::Eof
    }

    /// Whether the next token begins a line or the block ends here.
    fn at_line(&self) -> bool {
        self.at_end() || self.token().first.is_some()
    }

    /// The word after the next `n` tokens as the source spells it, or an empty text if that is no word.
    fn nth_word(&self, n: usize) -> &'p str {
        if *self.nth(n) == Kind::Word { &self.source[self.tokens[self.at + n].span.range()] } else { "" }
    }

    fn at_word(&self) -> bool {
        *self.kind() == Kind::Word
    }

    /// Whether the next words are these keywords. Each may begin with a capital.
    fn at_keywords(&self, keywords: &str) -> bool {
        keywords.split(' ').enumerate().all(|(n, keyword)| is_keyword(self.nth_word(n), keyword))
    }

    /// Whether a parameter begins after the next `n` tokens: `ident (":" | "as")`.
    fn at_param(&self, n: usize) -> bool {
        *self.nth(n) == Kind::Word
            && (*self.nth(n + 1) == Kind::Colon || is_keyword(self.nth_word(n + 1), "as"))
    }

    /// Whether a `.` follows the next token without a blank, so that a path goes on.
    fn dot_follows(&self) -> bool {
        *self.nth(1) == Kind::Dot && self.tokens[self.at + 1].span.start == self.token().span.end
    }

    // Taking tokens.

    fn bump(&mut self) -> Span {
        let span = self.token().span;
        self.sink.work(1);
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        span
    }

    fn eat(&mut self, kind: &Kind) -> bool {
        let found = !self.at_end() && self.kind() == kind;
        if found {
            self.bump();
        }
        found
    }

    fn eat_keywords(&mut self, keywords: &str) -> bool {
        let found = self.at_keywords(keywords);
        if found {
            keywords.split(' ').for_each(|_| {
                self.bump();
            });
        }
        found
    }

    fn expect_keywords(&mut self, keywords: &str) -> Parsed<()> {
        if self.eat_keywords(keywords) { Ok(()) } else { Err(self.unexpected(&format!("`{keywords}`"))) }
    }

    fn expect_colon(&mut self) -> Parsed<()> {
        if self.eat(&Kind::Colon) {
            return Ok(());
        }
        if !self.at_line() {
            return Err(self.unexpected("`:`"));
        }
        let before = self.previous();
        self.report(&codes::SYNTAX, before, "this line does not end with `:`")
            .help("write `:` at its end; what belongs to it stands on the lines below, indented deeper")
            .label("a `:` belongs after this");
        Err(Lost)
    }

    /// Takes the bracket that closes the one at `open`.
    fn expect_close(&mut self, bracket: char, open: Span) -> Parsed<Span> {
        if *self.kind() == Kind::Close(bracket) {
            return Ok(self.bump());
        }
        let over = self.at_end() || matches!(self.kind(), Kind::Stop | Kind::LoneStop | Kind::Close(_));
        if over || self.token().first.is_some() {
            let seen = &self.source[open.range()];
            self.report(&codes::OPEN_BRACKET, open, format!("this `{seen}` is not closed"))
                .help(format!("write `{bracket}` where it ends"))
                .label("opened here");
            return Err(Lost);
        }
        Err(self.unexpected(&format!("`,` or `{bracket}`")))
    }

    /// Takes the `.` of a sentence.
    fn expect_stop(&mut self) -> Parsed<()> {
        if matches!(self.kind(), Kind::Stop | Kind::LoneStop) {
            self.bump();
            return Ok(());
        }
        if self.at_line() {
            // The next line begins something else, so nothing more is lost.
            let before = self.previous();
            self.report(&codes::SENTENCE_END, before, "this sentence does not end with `.`")
                .help("write `.` at its end")
                .label("a `.` belongs after this");
            return Ok(());
        }
        Err(self.unexpected("`.`"))
    }

    /// Takes a name that is declared or used here.
    fn name(&mut self, what: &str) -> Parsed<Name> {
        if !self.at_word() {
            return Err(self.unexpected(what));
        }
        let name = self.any_word();
        if RESERVED.iter().any(|word| is_keyword(&name.text, word)) {
            let help = format!("choose another name, `{}_` for example", name.text);
            self.report(&codes::RESERVED, name.span, format!("`{}` is a reserved word", name.text))
                .help(help);
        }
        Ok(name)
    }

    /// Takes the next token, which is a word.
    fn any_word(&mut self) -> Name {
        let span = self.bump();
        Name { text: self.source[span.range()].to_owned(), span }
    }

    fn previous(&self) -> Span {
        self.at.checked_sub(1).map_or(Span::default(), |before| self.tokens[before].span)
    }

    // Reporting problems.

    fn report(&mut self, code: &'static Code, span: Span, message: impl Into<String>) -> Reported<'_> {
        self.sink.report(code, span, message)
    }

    /// Reports that `expected` was expected next.
    fn unexpected(&mut self, expected: &str) -> Lost {
        if *self.kind() == Kind::Bad {
            return Lost;
        }
        let (span, found) = self.found();
        self.report(&codes::SYNTAX, span, format!("expected {expected}, found {found}"));
        Lost
    }

    fn found(&self) -> (Span, String) {
        if self.at_end() {
            let over =
                if self.token().kind == Kind::Eof { "the end of the file" } else { "the end of the block" };
            let before = self.previous();
            return (Span::new(before.end, before.end), over.to_owned());
        }
        let span = self.token().span;
        let found = match self.kind() {
            Kind::Text(_) => "a text".to_owned(),
            Kind::Stop | Kind::LoneStop => "the end of the sentence".to_owned(),
            _ => format!("`{}`", brief(&self.source[span.range()])),
        };
        (span, found)
    }

    /// Skips to the next sentence of the block, which begins after a `.` or at a line that is not indented deeper.
    fn recover(&mut self) {
        while !self.at_end() {
            let token = self.token();
            if token.first.is_some_and(|indent| indent <= self.indent) {
                return;
            }
            let stop = token.kind == Kind::Stop;
            self.bump();
            if stop && !self.at_end() && self.token().first.is_none() {
                return;
            }
        }
    }

    /// Skips to the `:` at the end of the line or to the end of the line, after an error in the head of a block.
    fn recover_head(&mut self) {
        while !self.at_line() {
            let colon = *self.kind() == Kind::Colon;
            self.bump();
            if colon && self.at_line() {
                return;
            }
        }
    }

    /// Reads the items of the block that begins on the next line. `after` names what the block belongs to.
    fn block(&mut self, after: &str, mut item: impl FnMut(&mut Self)) {
        let outer = self.indent;
        let token = self.token();
        let deeper = token.first.filter(|indent| *indent > outer && !self.at_end());
        let strict = deeper.is_some();
        if !strict {
            let inline = !self.at_line();
            let help = "write what belongs to it on the lines below, indented deeper";
            let (span, message) = match inline {
                true => (token.span, format!("the block of {after} must begin on a line of its own")),
                false => (self.previous(), format!("{after} has no block")),
            };
            self.report(&codes::BLOCK, span, message).help(help);
            if !inline {
                return;
            }
        }
        self.indent = deeper.unwrap_or(outer + 1);
        while !self.at_end() && !self.sink.is_full() {
            if strict && let Some(indent) = self.token().first.filter(|indent| *indent > self.indent) {
                let span = self.token().span;
                let expected = self.indent;
                self.report(
                    &codes::INDENTATION,
                    span,
                    format!("this line is indented by {indent}, its block by {expected}"),
                )
                .help(format!(
                    "indent it by {expected}, or put a `:` at the end of the line that it belongs to"
                ));
            }
            let before = self.at;
            item(self);
            if self.at == before {
                self.bump();
            }
        }
        self.indent = outer;
    }

    /// Runs `read` one level deeper, unless that would nest too deeply.
    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.nesting >= limits::NESTING {
            let span = self.token().span;
            return Err(self.too_deep(span));
        }
        self.nesting += 1;
        let result = read(self);
        self.nesting -= 1;
        result
    }

    /// Counts an expression or a statement. One too many is lost, and so are all after it.
    fn part(&mut self, span: Span) -> Parsed<()> {
        self.parts += 1;
        if self.parts <= limits::PARTS {
            return Ok(());
        }
        if self.parts == limits::PARTS + 1 {
            let message = format!(
                "this workflow has more than {} values, operators, calls and statements",
                limits::PARTS
            );
            self.report(&codes::TOO_LARGE, span, message).help("make several workflows of it");
        }
        self.incomplete = true;
        Err(Lost)
    }

    fn too_deep(&mut self, span: Span) -> Lost {
        self.report(&codes::TOO_LARGE, span, "this nests too deeply")
            .help("name the inner parts with `Let name be …`");
        Lost
    }
}

/// Some words in backticks, for a message.
fn list<'w>(words: impl Iterator<Item = &'w str>) -> String {
    words.map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// Whether `word` is `keyword`, with a small or a capital first letter; `io` may also be `IO`.
fn is_keyword(word: &str, keyword: &str) -> bool {
    if keyword == "io" {
        return word.eq_ignore_ascii_case(keyword);
    }
    word.len() == keyword.len()
        && word.get(1..) == keyword.get(1..)
        && word.get(..1).is_some_and(|first| first.eq_ignore_ascii_case(&keyword[..1]))
}
