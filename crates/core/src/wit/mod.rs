//! The types of components, as data. The language checks calls against them, the host checks inputs against them, and the
//! sandbox converts values by them. The sandbox computes them once for each version of a component, and they are stored
//! with it.
//!
//! - [`lookup`]: finds a function or type of [`Exports`] by the words of its name.
//! - [`check`](mod@check): whether a JSON value fits a type. It finds all mismatches at once.
//! - [`json`]: the spelling of names and scalars in JSON, shared by `check` and the sandbox's conversion.
//! - [`fits`](mod@fits): whether a new version of a component may replace an old one.

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

/// The exports of one version of a component.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exports {
    pub functions: Vec<Function>,
    /// All types that are exported under a name, including those that no function uses.
    pub types: Vec<NamedType>,
}

/// An exported function. Its names are those of WIT, in kebab-case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Function {
    /// The full name of its interface, such as `acme:shop/cart@1.0.0`. `None` at the top level.
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

/// A type of WIT values. It is structural: aliases are resolved, and the names of types are dropped.
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
    /// Any JSON: the language's `Json`, or a type name that no component exports. No component has it.
    Any,
    /// No value: the language's `Unit`. No component has it.
    Unit,
    /// A resource, stream, future or error context, with its description. A function with one is listed but can't be
    /// called.
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
