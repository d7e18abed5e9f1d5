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
