//! The types of components, as data: what the language checks calls against, what inputs are checked against, and
//! what the sandbox converts values by. Computed once per component version by the sandbox, and stored with it.
//!
//! - [`lookup`]: a function or type of [`Exports`] by its name's words.
//! - [`check`](mod@check): whether a JSON value fits a type, with every mismatch at once.
//! - [`json`]: the spelling of names and scalars in JSON, shared by `check` and the sandbox's conversion.
//! - [`fits`](mod@fits): whether a new version of a component may take an old one's place.

pub mod check;
pub mod fits;
pub mod json;
pub mod lookup;
pub mod normal;

pub use check::{Mismatch, check};
pub use fits::{Break, fits};
pub use lookup::LookupError;
pub use normal::normalize;

use serde::{Deserialize, Serialize};

/// What a component version exports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exports {
    pub functions: Vec<Function>,
    /// Types exported under a name, also those that no function mentions.
    pub types: Vec<NamedType>,
}

/// An exported function. Names are WIT's own, in kebab-case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Function {
    /// The full name of the instance that holds it, `acme:shop/cart@1.0.0`; none at the top level.
    pub interface: Option<String>,
    pub name: String,
    pub params: Vec<Field>,
    pub result: Option<Type>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamedType {
    pub interface: Option<String>,
    pub name: String,
    #[serde(rename = "type")]
    pub ty: Type,
}

/// A WIT value type. Structural: aliases are resolved, names of types are not kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Type {
    Bool,
    S8,
    U8,
    S16,
    U16,
    S32,
    U32,
    S64,
    U64,
    F32,
    F64,
    Char,
    String,
    List(Box<Type>),
    Tuple(Vec<Type>),
    Record(Vec<Field>),
    Variant(Vec<Case>),
    Enum(Vec<String>),
    Flags(Vec<String>),
    Option(Box<Type>),
    Result {
        ok: Option<Box<Type>>,
        err: Option<Box<Type>>,
    },
    Map(Box<Type>, Box<Type>),
    /// Any JSON: the language's `Json`, and a type name that no component exports. Never in a component.
    Any,
    /// No value: the language's `Unit`. Never in a component.
    Unit,
    /// A resource, stream, future or error context, by its description: listed, not callable.
    Opaque(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Field {
    pub name: String,
    #[serde(rename = "type")]
    pub ty: Type,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Case {
    pub name: String,
    #[serde(rename = "type")]
    pub ty: Option<Type>,
}
