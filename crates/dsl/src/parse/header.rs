//! Parses the file, its module sentence and the heads of its functions.

use super::{Lost, Parsed, Parser, is_keyword};
use crate::ast::{File, Function, Io, Name, Param, TypeExpr};
use crate::codes;
use crate::lex::Kind;
use crate::limits;

/// The part between `To` and `:`.
struct Head {
    params: Vec<Param>,
    result: Option<TypeExpr>,
    io: Option<Io>,
}

impl Parser<'_, '_> {
    pub(super) fn file(mut self) -> File {
        let module = self.module();
        let mut functions = Vec::new();
        while !self.at_end() && !self.sink.is_full() {
            if self.at_keywords("to") {
                functions.extend(self.function());
                continue;
            }
            if self.at_keywords("this module is") {
                let span = self.token().span;
                self.report(&codes::MODULE, span, "a file is one module, and its sentence comes first")
                    .help("keep one `This module is …`, at the beginning of the file");
            } else {
                let (span, found) = self.found();
                self.report(&codes::SYNTAX, span, format!("expected `To`, found {found}"))
                    .help("a workflow function begins with `To name with parameter: Type, produce Type:`");
            }
            self.skip_to_function();
        }
        if functions.is_empty() && !self.sink.has_errors() {
            let (span, _) = self.found();
            self.report(&codes::SYNTAX, span, "expected a workflow function, found the end of the file")
                .help("write `To name with parameter: Type, produce Type:` and the workflow below it");
        }
        File { module, functions }
    }

    fn module(&mut self) -> Option<Name> {
        if !self.at_keywords("this module is") {
            let (span, _) = self.found();
            self.report(&codes::MODULE, span, "the file does not begin with its module sentence")
                .help("begin with `This module is some.name.`");
            return None;
        }
        self.eat_keywords("this module is");
        let module = self.dotted_name().and_then(|name| {
            self.expect_stop()?;
            Ok(name)
        });
        if module.is_err() {
            self.recover();
        }
        module.ok()
    }

    fn dotted_name(&mut self) -> Parsed<Name> {
        if !self.at_word() {
            return Err(self.unexpected("the module's name"));
        }
        let mut name = self.any_word();
        while self.eat(&Kind::Dot) {
            if !self.at_word() {
                return Err(self.unexpected("a name after the `.`"));
            }
            let part = self.any_word();
            name.text.push('.');
            name.text.push_str(&part.text);
            name.span = name.span.to(part.span);
        }
        if name.text.len() > limits::MODULE {
            self.report(&codes::TOO_LARGE, name.span, "this module's name is too long")
                .help(format!("it has at most {} characters", limits::MODULE));
        }
        Ok(name)
    }

    /// Skips to the next function, after an error at the top level of the file.
    fn skip_to_function(&mut self) {
        self.bump();
        while !self.at_end() && (self.token().first != Some(0) || !self.at_keywords("to")) {
            self.bump();
        }
    }

    fn function(&mut self) -> Option<Function> {
        if self.token().first.is_some_and(|indent| indent > 0) {
            let span = self.token().span;
            self.report(&codes::INDENTATION, span, "a workflow function is not indented")
                .help("begin it in the first column");
        }
        self.bump();
        let Ok(name) = self.name("the function's name") else {
            self.skip_to_function();
            return None;
        };
        self.incomplete = false;
        let mut function = Function { name, params: Vec::new(), result: None, io: None, workflow: None };
        match self.head() {
            Ok(head) => {
                function.params = head.params;
                function.result = head.result;
                function.io = head.io;
            }
            Err(Lost) => {
                // Its parameters are unknown, and so are the components that its steps may call.
                self.incomplete = true;
                while !self.at_end()
                    && self.token().first.is_none_or(|indent| indent > 0 && !self.at_keywords("workflow"))
                {
                    self.bump();
                }
            }
        }
        let incomplete = self.incomplete;
        // The lone `.` is at the workflow's own indentation or less, so it is in the function's block or after it.
        let mut own = 0;
        let mut ended = false;
        self.block("the function", |p| {
            own = p.indent;
            if *p.kind() == Kind::LoneStop && function.workflow.is_some() && !ended {
                p.bump();
                ended = true;
                return;
            }
            p.incomplete = incomplete;
            p.workflow_of(&mut function);
        });
        let token = self.token();
        if !ended && token.kind == Kind::LoneStop && token.first.is_some_and(|indent| indent < own) {
            self.bump();
        }
        Some(function)
    }

    fn workflow_of(&mut self, function: &mut Function) {
        if self.at_keywords("workflow") && function.workflow.is_none() {
            function.workflow = Some(self.workflow());
            return;
        }
        let (span, found) = self.found();
        let message = match function.workflow {
            None => format!("expected `workflow:`, found {found}"),
            Some(_) => format!("expected the end of the function after its workflow, found {found}"),
        };
        self.report(&codes::SYNTAX, span, message)
            .help("a function has one `workflow:`, and its steps stand indented below");
        while !self.at_end() && !self.at_keywords("workflow") {
            self.bump();
        }
    }

    fn head(&mut self) -> Parsed<Head> {
        let mut params = Vec::new();
        self.eat(&Kind::Comma);
        if self.eat_keywords("with") || self.eat_keywords("given") {
            params.push(self.param()?);
            while self.at_another_param() {
                self.bump();
                params.push(self.param()?);
            }
            self.eat(&Kind::Comma);
        }
        if !self.at_keywords("produce") && self.at_keywords("and") {
            return Err(self.unexpected("another parameter, `name: Type`, or `produce`"));
        }
        self.expect_keywords("produce")?;
        let result = Some(self.result_type()?);
        if self.at_keywords("with") {
            self.expect_keywords("with io")?;
        }
        let mut io = None;
        if *self.kind() == Kind::Stop && is_keyword(self.nth_word(1), "it") {
            self.bump();
        }
        if self.at_keywords("it") {
            self.expect_keywords("it performs io")?;
            io = Some(Io { list: self.capabilities()? });
        }
        self.expect_colon()?;
        Ok(Head { params, result, io })
    }

    /// Whether another parameter follows: `,` or `and`, then `ident (":" | "as")`.
    fn at_another_param(&self) -> bool {
        (*self.kind() == Kind::Comma || self.at_keywords("and")) && self.at_param(1)
    }

    fn param(&mut self) -> Parsed<Param> {
        let name = self.name("a parameter's name")?;
        if !self.eat(&Kind::Colon) && !self.eat_keywords("as") {
            return Err(self.unexpected("`:` and the parameter's type"));
        }
        Ok(Param { name, ty: self.param_type()? })
    }

    fn capabilities(&mut self) -> Parsed<Option<Vec<Name>>> {
        let mut list = Vec::new();
        if self.eat_keywords("with") {
            list.push(self.name("a component's name")?);
            while self.eat(&Kind::Comma) || self.eat_keywords("and") {
                // `, and` is one separator.
                self.eat_keywords("and");
                list.push(self.name("a component's name")?);
            }
        } else if *self.kind() == Kind::Open('[') {
            let open = self.bump();
            while *self.kind() != Kind::Close(']') {
                list.push(self.name("a component's name")?);
                if !self.eat(&Kind::Comma) {
                    break;
                }
            }
            self.expect_close(']', open)?;
        } else {
            return Ok(None);
        }
        Ok(Some(list))
    }
}
