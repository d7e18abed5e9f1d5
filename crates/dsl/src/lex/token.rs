//! What the source is made of.

use crate::Span;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) span: Span,
    /// The line's indentation, if this is the first token of a line and stands in no bracket.
    pub(crate) first: Option<u32>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    /// A name or a keyword; which of them, only its place says.
    Word,
    Int,
    Float,
    Text(Vec<Segment>),
    Open(char),
    Close(char),
    Comma,
    Colon,
    /// Inside a name or path.
    Dot,
    /// At the end of a sentence.
    Stop,
    /// A [`Kind::Stop`] that has its line to itself: the end of the workflow, or of a sentence of several lines.
    LoneStop,
    Operator(&'static str),
    /// Already reported.
    Bad,
    Eof,
    /// Only inside the lexer: the next token is the first of its line.
    LineStart,
}

/// A piece of a text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Segment {
    /// With its escapes resolved.
    Plain(String),
    /// What stands between `{` and `}`.
    Path(Span),
}
