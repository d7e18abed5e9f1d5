//! How large a source text may be, and what is in it. Whatever is larger is refused by a diagnostic, before more work is done.

/// Bytes of a source text.
pub const SOURCE: usize = 1 << 20;

/// Workflow functions of a file. Each is a definition, and keeps the text of the whole file.
pub const FUNCTIONS: usize = 100;

/// Parameters of a function.
pub const PARAMETERS: usize = 100;

/// Components that a function lists after `It performs io`.
pub const COMPONENTS: usize = 100;

/// Steps of a workflow. A run looks at all of them at each transition.
pub const STEPS: usize = 1_000;

/// Dependencies of a workflow's steps, together. A run looks at all of them at each transition.
pub const DEPENDENCIES: usize = 10_000;

/// Values, operators, calls and statements of a workflow, together. Each is evaluated in no time, and takes some hundred bytes.
pub const PARTS: usize = 100_000;

/// How deep brackets, signs and types may nest in the source, so that the stack suffices.
pub const NESTING: u32 = 48;

/// How deep the plan of an expression may nest as JSON. With [`IFS`] it keeps every plan within the 128 levels that
/// serde_json reads.
pub const EXPRESSION_DEPTH: u32 = 84;

/// How many `If` may stand in one another.
pub const IFS: u32 = 8;

/// Bytes of a name. Names stand in messages, in events and in idempotency keys.
pub const NAME: usize = 128;

/// Bytes of a module's name. With a function's name it is a definition's name, which stands in URLs.
pub const MODULE: usize = 256;

/// Errors that are listed, and warnings. A text with more of them is not meant as a workflow.
pub const DIAGNOSTICS: usize = 1_000;
