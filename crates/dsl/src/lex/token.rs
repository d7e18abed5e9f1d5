//! The tokens of the language.

use crate::Span;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) span: Span,
    /// The indentation of the line, if this is its first token and outside of all brackets.
    pub(crate) first: Option<u32>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    /// A name or a keyword, depending on its place.
    Word,
    Int,
    Float,
    Text(Vec<Segment>),
    Open(char),
    Close(char),
    Comma,
    Colon,
    /// A `.` inside a name or a path.
    Dot,
    /// A `.` at the end of a sentence.
    Stop,
    /// A [`Kind::Stop`] alone on its line. It ends the workflow, or a sentence of several lines.
    LoneStop,
    Operator(&'static str),
    /// Characters that were reported.
    Bad,
    Eof,
    /// A placeholder inside the lexer: the next token is the first of its line.
    LineStart,
}

/// A piece of a text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Segment {
    /// Plain characters, with the escapes resolved.
    Plain(String),
    /// The piece between `{` and `}`.
    Path(Span),
}
