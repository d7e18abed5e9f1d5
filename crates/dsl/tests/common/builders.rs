//! Builds types and functions of components.

use aster_core::wit::{Field, Function, Type};

pub(crate) fn function(
    interface: Option<&str>,
    name: &str,
    params: &[(&str, Type)],
    result: Option<Type>,
) -> Function {
    Function { interface: interface.map(Into::into), name: name.into(), params: fields(params), result }
}

pub(crate) fn record(of: &[(&str, Type)]) -> Type {
    Type::Record(fields(of))
}

fn fields(of: &[(&str, Type)]) -> Vec<Field> {
    of.iter().map(|(name, ty)| Field { name: (*name).into(), ty: ty.clone() }).collect()
}

pub(crate) fn list(of: Type) -> Type {
    Type::List(Box::new(of))
}

pub(crate) fn option(of: Type) -> Type {
    Type::Option(Box::new(of))
}
