//! Reads texts, such as `"total: {order.total}\n"`.

use super::{Kind, Lexer, Segment};
use crate::Span;
use crate::codes;
use crate::diagnostic::Sink;

impl Lexer<'_> {
    pub(super) fn text(&mut self, sink: &mut Sink) {
        let start = self.at;
        self.at += 1;
        let mut segments = Vec::new();
        let mut plain = String::new();
        let mut closed = false;
        // The place of the next `}`, `"` or line break. It is looked for once for all `{` before it.
        let mut ahead = None;
        while !closed && !sink.is_full() {
            let at = self.at;
            let Some(c) = self.rest().chars().next().filter(|&c| c != '\n') else {
                sink.report(
                    &codes::OPEN_TEXT,
                    Span::new(start, self.text_end(start)),
                    "this text is not closed on its line",
                )
                .help("close it with `\"`; a line break in a text is written `\\n`");
                break;
            };
            self.at += c.len_utf8();
            match c {
                '"' => closed = true,
                '\\' => plain.extend(self.escape(at, sink)),
                '{' | '}' if self.rest().starts_with(c) => {
                    self.at += 1;
                    plain.push(c);
                }
                '{' => {
                    let close = match ahead.filter(|&end| end >= self.at) {
                        Some(end) => end,
                        None => {
                            let found = self.rest().find(['}', '"', '\n']);
                            let end = found.map_or(self.end, |length| self.at + length);
                            sink.work(end - self.at);
                            end
                        }
                    };
                    ahead = Some(close);
                    if !self.source[close..self.end].starts_with('}') {
                        sink.report(
                            &codes::INTERPOLATION,
                            Span::new(at, at + 1),
                            "this `{` is not closed in its text",
                        )
                        .help("close it with `}`; a brace itself is written `{{` or `\\{`");
                        continue;
                    }
                    let path = Span::new(self.at, close);
                    self.at = close + 1;
                    if !plain.is_empty() {
                        segments.push(Segment::Plain(std::mem::take(&mut plain)));
                    }
                    segments.push(Segment::Path(path));
                }
                '\0' => {
                    sink.report(
                        &codes::CHARACTER,
                        Span::new(at, at + 1),
                        "a text can't hold a NUL character",
                    );
                }
                c => plain.push(c),
            }
        }
        if !plain.is_empty() || segments.is_empty() {
            segments.push(Segment::Plain(plain));
        }
        self.push(Kind::Text(segments), start);
        if !closed {
            // The text includes the end of its sentence.
            self.depth = 0;
            self.push(Kind::Stop, self.at);
        }
    }

    /// Reads the escape after a `\` at `at`.
    fn escape(&mut self, at: usize, sink: &mut Sink) -> Option<char> {
        let c = self.rest().chars().next().filter(|&c| c != '\n')?;
        self.at += c.len_utf8();
        let value = match c {
            'n' => Some('\n'),
            't' => Some('\t'),
            'r' => Some('\r'),
            '"' | '\\' | '{' | '}' => Some(c),
            'u' => self.code_point(),
            _ => None,
        };
        if value.is_none() {
            let seen = &self.source[at..self.at];
            sink.report(&codes::ESCAPE, Span::new(at, self.at), format!("`{seen}` is not an escape"))
                .help(r#"the escapes are \n \t \r \" \\ \{ \} and \u{…} with the code point in hexadecimal"#);
        }
        value
    }

    /// Reads `{1f600}` after `\u`. A NUL is refused, since it can't be stored.
    fn code_point(&mut self) -> Option<char> {
        let rest = self.rest().strip_prefix('{')?;
        let length =
            rest.find(|c: char| !c.is_ascii_hexdigit()).filter(|&n| n <= 6 && rest[n..].starts_with('}'))?;
        let value = u32::from_str_radix(&rest[..length], 16).ok();
        self.at += length + 2;
        value.and_then(char::from_u32).filter(|&c| c != '\0')
    }

    /// The end of an unclosed text. The white space and the carriage return at the end of its line don't belong to it.
    fn text_end(&self, start: usize) -> usize {
        start + self.source[start..self.at].trim_end().len()
    }
}
