//! Measures types.

use aster_core::wit::Type;

/// Counts the parts of a type, up to about `most`.
pub(super) fn parts(ty: &Type, most: usize) -> usize {
    fn count(ty: &Type, most: usize, counted: &mut usize) {
        *counted += 1;
        if *counted >= most {
            return;
        }
        match ty {
            Type::List(of) | Type::Option(of) => count(of, most, counted),
            Type::Tuple(of) => of.iter().for_each(|of| count(of, most, counted)),
            Type::Record(fields) => fields.iter().for_each(|field| count(&field.ty, most, counted)),
            Type::Variant(cases) => cases.iter().for_each(|case| match &case.ty {
                Some(ty) => count(ty, most, counted),
                None => *counted += 1,
            }),
            Type::Enum(names) | Type::Flags(names) => *counted += names.len(),
            Type::Result { ok, err } => {
                [ok, err].into_iter().flatten().for_each(|of| count(of, most, counted));
            }
            Type::Map(key, value) => {
                count(key, most, counted);
                count(value, most, counted);
            }
            _ => {}
        }
    }
    let mut counted = 0;
    count(ty, most, &mut counted);
    counted
}

/// Counts the parts of a type that expressions build, of lists and records. Returns `None` if there are more than
/// `most` parts, or if they nest deeper than `levels`.
pub(super) fn known_parts(ty: &Type, most: usize, levels: usize) -> Option<usize> {
    /// Subtracts the parts of `ty` from `parts`.
    fn after(ty: &Type, parts: usize, levels: usize) -> Option<usize> {
        let (parts, levels) = (parts.checked_sub(1)?, levels.checked_sub(1)?);
        match ty {
            Type::List(item) | Type::Option(item) => after(item, parts, levels),
            Type::Record(fields) => {
                fields.iter().try_fold(parts, |parts, field| after(&field.ty, parts, levels))
            }
            Type::Tuple(items) => items.iter().try_fold(parts, |parts, item| after(item, parts, levels)),
            _ => Some(parts),
        }
    }
    Some(most - after(ty, most, levels)?)
}

#[cfg(test)]
mod tests {
    use aster_core::wit::{Case, Field};

    use super::*;

    fn list(of: Type) -> Type {
        Type::List(Box::new(of))
    }

    fn option(of: Type) -> Type {
        Type::Option(Box::new(of))
    }

    fn record<const N: usize>(of: [Type; N]) -> Type {
        Type::Record(of.map(|ty| Field { name: "a".into(), ty }).into())
    }

    #[test]
    fn each_type_and_each_name_inside_is_a_part() {
        let check = |ty: Type, expected: usize| assert_eq!(parts(&ty, 100), expected, "{ty:?}");
        let case = |ty| Case { name: "a".into(), ty };
        let names = || vec!["a".to_owned(), "b".to_owned()];
        let boxed = || Box::new(list(Type::Bool));
        check(Type::Bool, 1);
        check(list(list(Type::Bool)), 3);
        check(option(option(Type::Bool)), 3);
        check(Type::Tuple(vec![Type::Bool, list(Type::Bool)]), 4);
        check(record([Type::Bool, list(Type::Bool)]), 4);
        check(Type::Variant(vec![case(None), case(Some(list(Type::Bool)))]), 4);
        check(Type::Enum(names()), 3);
        check(Type::Flags(names()), 3);
        check(Type::Result { ok: Some(boxed()), err: None }, 3);
        check(Type::Result { ok: Some(boxed()), err: Some(boxed()) }, 5);
        check(Type::Map(boxed(), Box::new(Type::Bool)), 4);
    }

    #[test]
    fn parts_beyond_the_most_are_not_counted() {
        let deep = list(list(list(Type::Bool)));
        assert_eq!([1, 2, 3, 4, 5].map(|most| parts(&deep, most)), [1, 2, 3, 4, 4]);
    }

    #[test]
    fn known_parts_are_counted_up_to_the_limits() {
        let check = |ty: &Type, parts: usize, levels: usize| {
            assert_eq!(known_parts(ty, parts, levels), Some(parts), "{ty:?}");
            assert_eq!(known_parts(ty, 100, 100), Some(parts), "{ty:?}");
            assert_eq!(known_parts(ty, parts - 1, levels), None, "{ty:?}");
            assert_eq!(known_parts(ty, parts, levels - 1), None, "{ty:?}");
        };
        check(&Type::Bool, 1, 1);
        check(&Type::Enum(vec!["a".into()]), 1, 1);
        check(&list(list(Type::Bool)), 3, 3);
        check(&option(Type::Bool), 2, 2);
        check(&record([Type::Bool, list(Type::Bool)]), 4, 3);
        check(&Type::Tuple(vec![Type::Bool, list(Type::Bool)]), 4, 3);
    }
}
