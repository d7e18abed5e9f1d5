//! Splits characters into tokens.
//!
//! The first token of a line carries the indentation of the line, from which the parser makes blocks. Inside brackets no
//! token counts as first, so brackets join lines.

mod number;
mod text;
mod token;

pub(crate) use token::{Kind, Segment, Token};

use crate::Span;
use crate::codes;
use crate::diagnostic::{Sink, brief};
use crate::limits::NAME as MAX_NAME;

/// Returns the tokens of the whole source. The last one is [`Kind::Eof`].
pub(crate) fn lex(source: &str, sink: &mut Sink) -> Vec<Token> {
    let mut lexer =
        Lexer { source, at: 0, end: source.len(), depth: 0, tokens: Vec::new(), tabs: Vec::new() };
    if source.starts_with('\u{feff}') {
        lexer.at = '\u{feff}'.len_utf8();
    }
    lexer.line();
    lexer.run(sink);
    lexer.report_tabs(sink);
    lexer.tokens
}

/// Returns the tokens of one piece of the source, which is the inside of `{…}` in a text.
pub(crate) fn lex_piece(source: &str, piece: Span, sink: &mut Sink) -> Vec<Token> {
    let mut lexer =
        Lexer { source, at: piece.start, end: piece.end, depth: 1, tokens: Vec::new(), tabs: Vec::new() };
    lexer.run(sink);
    lexer.tokens
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    end: usize,
    /// The open brackets.
    depth: usize,
    tokens: Vec<Token>,
    /// The place of a tab in the indentation of a line.
    tabs: Vec<Span>,
}

impl Lexer<'_> {
    fn run(&mut self, sink: &mut Sink) {
        while let Some(c) = self.peek() {
            if sink.is_full() {
                self.at = self.end;
                break;
            }
            match c {
                '\n' => {
                    self.at += 1;
                    self.line();
                }
                '#' => self.skip_comment(sink),
                '/' if self.rest().starts_with("//") => self.skip_comment(sink),
                c if c.is_whitespace() => self.at += c.len_utf8(),
                '"' => self.text(sink),
                c if c.is_ascii_digit() => self.number(sink),
                c if c.is_alphabetic() || c == '_' => self.word(sink),
                _ => self.symbol(c, sink),
            }
        }
        self.push_with_indent(Kind::Eof, Span::new(self.end, self.end), Some(0));
    }

    /// Marks the first token of a line with the indentation. The lexer is at the start of the line.
    fn line(&mut self) {
        let mut indent = 0;
        let mut tab = None;
        while let Some(c) = self.peek() {
            match c {
                ' ' => indent += 1,
                '\t' => {
                    tab.get_or_insert(Span::new(self.at, self.at + 1));
                    indent += 4;
                }
                _ => break,
            }
            self.at += 1;
        }
        let rest = self.rest();
        let blank = rest.trim_start_matches([' ', '\t', '\r']);
        if blank.is_empty() || blank.starts_with(['\n', '#']) || blank.starts_with("//") {
            return;
        }
        let rest = &rest[..rest.find('\n').unwrap_or(rest.len())];
        if self.depth > 0 && starts_sentence(rest) {
            self.depth = 0;
        }
        if self.depth == 0 {
            self.tabs.extend(tab);
            self.first(indent);
        }
    }

    /// Makes the next token the first of its line. A placeholder holds the indentation until then.
    fn first(&mut self, indent: u32) {
        self.tokens.pop_if(|last| last.kind == Kind::LineStart);
        self.tokens.push(Token {
            kind: Kind::LineStart,
            span: Span::new(self.at, self.at),
            first: Some(indent),
        });
    }

    fn push(&mut self, kind: Kind, start: usize) {
        self.push_with_indent(kind, Span::new(start, self.at), None);
    }

    fn push_with_indent(&mut self, kind: Kind, span: Span, mut first: Option<u32>) {
        if let Some(Token { kind: Kind::LineStart, first: indent, .. }) = self.tokens.last() {
            first = first.or(*indent);
            self.tokens.pop();
        }
        self.tokens.push(Token { kind, span, first });
    }

    fn word(&mut self, sink: &mut Sink) {
        let start = self.at;
        while let Some(c) = self.peek() {
            if !c.is_alphanumeric() && c != '_' {
                break;
            }
            self.at += c.len_utf8();
        }
        let word = &self.source[start..self.at];
        if !word.is_ascii() {
            let message = format!("`{}` is not a name", brief(word));
            sink.report(&codes::CHARACTER, Span::new(start, self.at), message).help(
                "names are made of the letters a to z, digits and `_`; anything else can stand in a text",
            );
        }
        if word.len() > MAX_NAME {
            let message = format!("this name has {} characters", word.chars().count());
            sink.report(&codes::TOO_LARGE, Span::new(start, self.at), message)
                .help(format!("a name has at most {MAX_NAME}"));
            self.push(Kind::Bad, start);
            return;
        }
        self.push(Kind::Word, start);
    }

    fn symbol(&mut self, c: char, sink: &mut Sink) {
        let start = self.at;
        let two = self.rest().get(..2).unwrap_or("");
        let (kind, length) = match (two, c) {
            ("==", _) => (Kind::Operator("=="), 2),
            ("!=", _) => (Kind::Operator("!="), 2),
            ("<=", _) => (Kind::Operator("<="), 2),
            (">=", _) => (Kind::Operator(">="), 2),
            (_, '<') => (Kind::Operator("<"), 1),
            (_, '>') => (Kind::Operator(">"), 1),
            (_, '+') => (Kind::Operator("+"), 1),
            (_, '-') => (Kind::Operator("-"), 1),
            (_, '*') => (Kind::Operator("*"), 1),
            (_, '/') => (Kind::Operator("/"), 1),
            (_, ',') => (Kind::Comma, 1),
            (_, ':') => (Kind::Colon, 1),
            (_, '(' | '[' | '{') => {
                self.depth += 1;
                (Kind::Open(c), 1)
            }
            (_, ')' | ']' | '}') => {
                self.depth = self.depth.saturating_sub(1);
                (Kind::Close(c), 1)
            }
            (_, '.') => (self.dot(), 1),
            _ => {
                self.unknown(c, sink);
                return;
            }
        };
        self.at += length;
        self.push(kind, start);
    }

    /// Reads a `.`. It ends a sentence if white space, a comment or the end of the file follows.
    fn dot(&mut self) -> Kind {
        let after = &self.rest()[1..];
        let comment = |rest: &str| rest.starts_with('#') || rest.starts_with("//");
        if !(after.is_empty() || after.starts_with(char::is_whitespace) || comment(after)) {
            return Kind::Dot;
        }
        // The rest of a line is looked at only for its first token.
        let alone = matches!(self.tokens.last(), Some(Token { kind: Kind::LineStart, .. })) && {
            let rest_of_line = after[..after.find('\n').unwrap_or(after.len())].trim_start();
            rest_of_line.is_empty() || comment(rest_of_line)
        };
        // A bracket ends with its sentence, so that an open bracket spoils no other sentence.
        self.depth = 0;
        if alone { Kind::LoneStop } else { Kind::Stop }
    }

    fn unknown(&mut self, c: char, sink: &mut Sink) {
        let start = self.at;
        let two = self.rest().get(..2).unwrap_or("");
        let (kind, length, help) = match (two, c) {
            ("&&", _) => (Kind::Bad, 2, Some("write `and`")),
            ("||", _) => (Kind::Bad, 2, Some("write `or`")),
            (_, '!') => (Kind::Bad, 1, Some("write `not`")),
            (_, '=') => {
                (Kind::Operator("=="), 1, Some("compare with `==`, and name a value with `Let name be …`"))
            }
            (_, ';') => (Kind::Bad, 1, Some("a sentence ends with `.`")),
            (_, '\'' | '“' | '”' | '`') => {
                (Kind::Bad, c.len_utf8(), Some("a text stands between two `\"`"))
            }
            _ => (Kind::Bad, c.len_utf8(), None),
        };
        self.at += length;
        let seen = self.source[start..self.at].escape_debug().to_string();
        sink.report(
            &codes::CHARACTER,
            Span::new(start, self.at),
            format!("`{seen}` is not part of the language"),
        )
        .maybe_help(help.map(str::to_owned));
        self.push(kind, start);
    }

    fn skip_comment(&mut self, sink: &mut Sink) {
        let rest = self.rest();
        let length = rest.find('\n').unwrap_or(rest.len());
        if let Some(nul) = rest[..length].find('\0') {
            let at = self.at + nul;
            sink.report(&codes::CHARACTER, Span::new(at, at + 1), "a comment can't hold a NUL character");
        }
        self.at += length;
    }

    fn report_tabs(&self, sink: &mut Sink) {
        let Some(&first) = self.tabs.first() else { return };
        let message = match self.tabs.len() {
            1 => "this line is indented with a tab".to_owned(),
            n => format!("{n} lines are indented with tabs, from this one on"),
        };
        sink.report(&codes::TAB, first, message).help("indent with spaces");
    }

    fn rest(&self) -> &str {
        &self.source[self.at..self.end]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }
}

/// Whether a line can't be the inside of a bracket, so that a bracket before it was left open.
fn starts_sentence(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let first = words.next().unwrap_or("");
    let (second, third) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let is = |keyword: &str| first.eq_ignore_ascii_case(keyword);
    let named = second.starts_with(|c: char| c.is_alphabetic() || c == '_');
    (is("step") && named)
        || is("compensate:")
        || (is("return") && named)
        || (is("let") && named && third == "be")
}
