//! Every diagnostic code of the language, each with its severity and a title.
//!
//! Codes are stable: a published code keeps its meaning and is never reused. Each has an entry in
//! `docs/diagnostics/README.md` and at least one case under `tests/cases/`, and tests check that.

use crate::Severity;

/// One kind of problem that a source text can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// `E` for an error or `W` for a warning, and three digits. `E023` and `E028` are warnings all the same.
    pub id: &'static str,
    pub severity: Severity,
    /// The problem in general. The message of a diagnostic gives the particulars.
    pub title: &'static str,
}

/// Finds the code with this `id`.
pub fn lookup(id: &str) -> Option<&'static Code> {
    TABLE.iter().find(|code| code.id == id).copied()
}

macro_rules! codes {
    ($($name:ident = $id:literal $severity:ident $title:literal;)*) => {
        $(#[doc = $title] pub static $name: Code = Code { id: $id, severity: Severity::$severity, title: $title };)*

        /// All codes, in the order of their numbers, errors first.
        pub static TABLE: &[&Code] = &[$(&$name),*];
    };
}

codes! {
    TAB = "E001" Error "a tab in the indentation";
    CHARACTER = "E002" Error "a character that the language does not have";
    OPEN_TEXT = "E003" Error "a text that is not closed";
    ESCAPE = "E004" Error "an unknown escape in a text";
    NUMBER = "E005" Error "a malformed number";
    INTEGER_RANGE = "E006" Error "an integer out of range";
    OPEN_BRACKET = "E007" Error "a bracket that is not closed";
    SOURCE_SIZE = "E008" Error "a file that is too large";
    MANY_ERRORS = "E009" Error "more errors than are listed";
    SYNTAX = "E010" Error "something else was expected here";
    SENTENCE_END = "E011" Error "a sentence without its `.`";
    INDENTATION = "E012" Error "an indentation that fits no block";
    BLOCK = "E013" Error "a missing block";
    MODULE = "E014" Error "no module sentence";
    RESERVED = "E015" Error "a reserved word as a name";
    INTERPOLATION = "E016" Error "a faulty or misplaced `{…}` in a text";
    COMPARISON_CHAIN = "E017" Error "a chain of comparisons";
    TOO_LARGE = "E018" Error "nested too deeply, or too large";
    SETTING_TWICE = "E019" Error "a setting given twice";
    UNKNOWN_ITEM = "E020" Error "an unknown setting or sentence";
    NO_STEPS = "E021" Error "a workflow without steps";
    DECLARED_TWICE = "E022" Error "a name declared twice";
    ATTEMPTS = "E024" Error "max attempts below 1";
    DURATION = "E025" Error "a timeout that is not positive or has no unit";
    NO_IO = "E026" Error "calls without `It performs io`";
    UNDECLARED_CAPABILITY = "E027" Error "a capability that is not declared";
    UNKNOWN_DEPENDENCY = "E029" Error "an unknown step in `depends on` or `await`";
    UNKNOWN_NAME = "E030" Error "an unknown name";
    NOT_COMPLETE = "E031" Error "a step that is not surely complete by then";
    CYCLE = "E032" Error "steps that wait for each other";
    AWAIT_PLACE = "E033" Error "`await` in the wrong place";
    SECOND_COMPENSATION = "E034" Error "a second compensation of one step";
    CALL_PLACE = "E035" Error "a call where none can be made";
    COMPENSATION_OWNER = "E036" Error "a compensation of no step";
    TRIGGER = "E037" Error "a faulty trigger";
    TRIGGER_KEY = "E038" Error "a trigger key that is not a path of the input";
    CALL_FORM = "E039" Error "a malformed call";
    QUANTITY = "E040" Error "fuel or memory that is not positive or has no unit";
    UNKNOWN_FUNCTION = "E050" Error "a function that the component does not export";
    AMBIGUOUS_FUNCTION = "E051" Error "a function that several interfaces export";
    NOT_CALLABLE = "E052" Error "a function that cannot be called";
    ARGUMENT_COUNT = "E053" Error "a wrong number of arguments";
    ARGUMENT_TYPE = "E054" Error "an argument of the wrong type";
    NULL_ARGUMENT = "E055" Error "null for a parameter that is not an option";
    UNKNOWN_FIELD = "E056" Error "a path into a value that has no such part";
    TYPE_CONFLICT = "E057" Error "a type that components export differently";
    OPERAND_TYPE = "E058" Error "an operand or condition of the wrong type";
    NO_COMPENSATION = "E023" Warning "a step that calls a component and has no compensation";
    FOREIGN_COMPENSATION = "E028" Warning "a compensation that uses another capability than its step";
    LONG_RETRIES = "W105" Warning "retries that outlast the timeout, or more than 10 attempts";
    ODD_TIMEOUT = "W106" Warning "a timeout under 2 seconds or over 1 hour";
    UNREACHABLE = "W107" Warning "a statement that is never reached";
    ALWAYS_NULL = "W108" Warning "a value that is always null";
    MAY_BE_NULL = "W109" Warning "a value that may be null for a parameter that is not an option";
    MISSING_COMPONENT = "W110" Warning "a component that is not registered";
    UNKNOWN_TYPE = "W111" Warning "a type that no component exports";
    MANY_WARNINGS = "W112" Warning "more warnings than are listed";
    TYPES_UNCHECKED = "W113" Warning "types that are too large to be checked";
}
