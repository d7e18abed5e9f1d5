//! Parses types, and decides which of them an `and` belongs to.

use aster_core::plan::Type;

use super::{Parsed, Parser, is_keyword};
use crate::ast::{Name, TypeExpr};

const PLAIN: [(&str, Type); 8] = [
    ("text", Type::Text),
    ("int", Type::Int),
    ("float", Type::Float),
    ("double", Type::Double),
    ("bool", Type::Bool),
    ("json", Type::Json),
    ("unit", Type::Unit),
    ("io", Type::Io),
];

impl Parser<'_, '_> {
    /// Parses the type of a parameter. After it, `and name:` begins the next parameter.
    pub(super) fn param_type(&mut self) -> Parsed<TypeExpr> {
        self.whole_type(true)
    }

    /// Parses the type of the result. No parameter can follow it, so the `:` of the head doesn't turn a type's name
    /// into one.
    pub(super) fn result_type(&mut self) -> Parsed<TypeExpr> {
        self.whole_type(false)
    }

    fn whole_type(&mut self, params_follow: bool) -> Parsed<TypeExpr> {
        let mut named = Vec::new();
        let ty = self.ty(params_follow, &mut named)?;
        Ok(TypeExpr { ty, named })
    }

    /// Parses a type. The innermost constructor that still lacks a type takes a following `and`.
    fn ty(&mut self, params_follow: bool, named: &mut Vec<Name>) -> Parsed<Type> {
        if !self.at_word() {
            return Err(self.unexpected("a type"));
        }
        let word = self.nth_word(0);
        let most = match word {
            _ if is_keyword(word, "list") || is_keyword(word, "option") => 1,
            _ if is_keyword(word, "result") || is_keyword(word, "workflow") => 2,
            _ => {
                let name = self.name("a type")?;
                if let Some((_, plain)) = PLAIN.iter().find(|(keyword, _)| is_keyword(&name.text, keyword)) {
                    return Ok(plain.clone());
                }
                named.push(name.clone());
                return Ok(Type::Named(name.text));
            }
        };
        self.bump();
        if !self.eat_keywords("of") {
            return Err(self.unexpected(&format!("`of` and a type after `{word}`")));
        }
        let mut of = vec![self.nested(|p| p.ty(params_follow, named))?];
        while of.len() < most && self.at_keywords("and") && !(params_follow && self.at_param(1)) {
            self.bump();
            of.push(self.nested(|p| p.ty(params_follow, named))?);
        }
        if is_keyword(word, "result") {
            return Ok(Type::Result(of));
        }
        if is_keyword(word, "workflow") {
            return Ok(Type::Workflow(of));
        }
        let one = Box::new(of.remove(0));
        Ok(if is_keyword(word, "list") { Type::List(one) } else { Type::Option(one) })
    }
}

#[cfg(test)]
mod tests {
    use aster_core::plan::Type;

    /// Returns the types of the parameters and of the result of `To f with <params>, produce <result>:`.
    fn types(head: &str) -> String {
        let source = format!("This module is m.\nTo f {head}:\n  workflow:\n    step s:\n      Return 1.\n");
        let mut sink = crate::diagnostic::Sink::new("t.aster", &source);
        let tokens = crate::lex::lex(&source, &mut sink);
        let tree = crate::parse::parse(&source, tokens, &mut sink);
        let found = sink.finish();
        assert!(found.is_empty(), "{head}: {found:?}");
        let function = &tree.functions[0];
        let params: Vec<_> =
            function.params.iter().map(|p| format!("{}: {}", p.name.text, show(&p.ty.ty))).collect();
        format!("{} -> {}", params.join(", "), show(&function.result.as_ref().expect("it was read").ty))
    }

    fn show(ty: &Type) -> String {
        let all = |of: &[Type]| of.iter().map(show).collect::<Vec<_>>().join(", ");
        match ty {
            Type::Named(name) => name.clone(),
            Type::List(of) => format!("List<{}>", show(of)),
            Type::Option(of) => format!("Option<{}>", show(of)),
            Type::Result(of) => format!("Result<{}>", all(of)),
            Type::Workflow(of) => format!("Workflow<{}>", all(of)),
            plain => format!("{plain:?}"),
        }
    }

    #[test]
    fn an_and_belongs_to_the_innermost_constructor_with_room_unless_a_parameter_begins() {
        let table = [
            ("with a: Text, produce Unit", "a: Text -> Unit"),
            ("with a as Text and b as Int produce Unit", "a: Text, b: Int -> Unit"),
            ("given a: List of Text and b: Int, produce Json", "a: List<Text>, b: Int -> Json"),
            (", with a: Order, b: Order, produce X", "a: Order, b: Order -> X"),
            ("produce Result of A and B", " -> Result<A, B>"),
            ("produce Result of List of A and B", " -> Result<List<A>, B>"),
            ("produce Result of Result of A and B and C", " -> Result<Result<A, B>, C>"),
            (
                "produce Workflow of Option of Result of A and B and C",
                " -> Workflow<Option<Result<A, B>>, C>",
            ),
            ("with a: Result of A and b: B, produce C", "a: Result<A>, b: B -> C"),
            ("with a: Result of A and b as B, produce C", "a: Result<A>, b: B -> C"),
            ("with a: Result of A and B and c: C, produce D", "a: Result<A, B>, c: C -> D"),
            ("with a: Result of A and B, c: C, produce D with IO", "a: Result<A, B>, c: C -> D"),
            (
                "with a: List of Result of A and B, produce Result of Unit and Text",
                "a: List<Result<A, B>> -> Result<Unit, Text>",
            ),
            ("with a: list of text, produce io", "a: List<Text> -> Io"),
        ];
        for (head, expected) in table {
            assert_eq!(types(head), expected, "{head}");
        }
    }
}
