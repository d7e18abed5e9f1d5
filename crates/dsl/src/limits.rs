//! The limits of a source text and its parts. A diagnostic refuses whatever is larger, before more work is done.

/// The most bytes of a source text.
pub const SOURCE: usize = 1 << 20;

/// The most workflow functions of a file. Each is a definition, which keeps the text of the whole file.
pub const FUNCTIONS: usize = 100;

/// The most parameters of a function.
pub const PARAMETERS: usize = 100;

/// The most components that a function lists after `It performs io`.
pub const COMPONENTS: usize = 100;

/// The most steps of a workflow. A run looks at all of them at each transition.
pub const STEPS: usize = 1_000;

/// The most dependencies of all steps of a workflow together. A run looks at all of them at each transition.
pub const DEPENDENCIES: usize = 10_000;

/// The most values, operators, calls and statements of a workflow together. Each is evaluated quickly, and takes some
/// hundred bytes.
pub const PARTS: usize = 100_000;

/// The deepest nesting of brackets, signs and types in the source. It keeps the parser within its stack.
pub const NESTING: u32 = 48;

/// The deepest nesting of the plan of an expression as JSON. Together with [`IFS`] it keeps every plan within the 128
/// levels that serde_json reads.
pub const EXPRESSION_DEPTH: u32 = 84;

/// The deepest nesting of `If`.
pub const IFS: u32 = 8;

/// The most bytes of a name. Names are in messages, in events and in idempotency keys.
pub const NAME: usize = 128;

/// The most bytes of a module's name. Together with a function's name it is the name of a definition, which is in URLs.
pub const MODULE: usize = 256;

/// The most errors that are listed, and the most warnings. A text with more of them is not meant as a workflow.
pub const DIAGNOSTICS: usize = 1_000;
