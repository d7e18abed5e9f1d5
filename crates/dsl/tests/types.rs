//! The types of expressions, and which values are taken for which parameters.

#[path = "common/builders.rs"]
mod builders;

use std::collections::BTreeMap;

use aster_core::wit::{Case, Exports, NamedType, Type};
use aster_dsl::{Diagnostic, check_with};

use builders::{function, list, option, record};

fn tuple<const N: usize>(of: [Type; N]) -> Type {
    Type::Tuple(of.into())
}

fn map(key: Type, value: Type) -> Type {
    Type::Map(Box::new(key), Box::new(value))
}

fn variant<const N: usize>(of: [(&str, Option<Type>); N]) -> Type {
    Type::Variant(of.map(|(name, ty)| Case { name: name.into(), ty }).into())
}

fn enumeration<const N: usize>(names: [&str; N]) -> Type {
    Type::Enum(names.map(str::to_owned).into())
}

fn flags<const N: usize>(names: [&str; N]) -> Type {
    Type::Flags(names.map(str::to_owned).into())
}

fn outcome(ok: Type, err: Type) -> Type {
    Type::Result { ok: Some(Box::new(ok)), err: Some(Box::new(err)) }
}

fn bytes() -> Type {
    list(Type::U8)
}

/// The problems of a step with these statements, `CODE message`. In it `T.give().v` has the type `given`, and `T.take` has
/// one parameter, `it`, of the type `taken`.
fn problems(given: &Type, taken: &Type, statements: &str) -> Vec<String> {
    let found = diagnostics(given, taken, statements);
    found.iter().map(|found| format!("{} {}", found.code, found.message)).collect()
}

fn diagnostics(given: &Type, taken: &Type, statements: &str) -> Vec<Diagnostic> {
    let exports = Exports {
        functions: vec![
            function(None, "give", &[], Some(record(&[("v", given.clone())]))),
            function(None, "take", &[("it", taken.clone())], None),
        ],
        types: vec![],
    };
    let lines: String = statements.lines().map(|line| format!("      {line}\n")).collect();
    let source = format!(
        "This module is m.\nTo f produce Json with IO. It performs io:\n  workflow:\n    step one:\n{lines}      compensate:\n        T.give().\n"
    );
    check_with("m.aster", &source, &BTreeMap::from([("t".to_owned(), exports)])).diagnostics
}

/// The help of the only problem of such a step.
fn help(given: &Type, taken: &Type, statements: &str) -> String {
    match &diagnostics(given, taken, statements)[..] {
        [only] => only.help.clone().unwrap_or_default(),
        other => panic!("{other:?}"),
    }
}

/// The type of an expression, in which `v` is a value of the type `given`, as messages describe it.
fn type_of(given: &Type, expr: &str) -> String {
    // The one reports all but truth values, the other all but numbers; neither reports what may be anything.
    let statements = format!("Let v be T.give().v.\nLet it be {expr}.\nIf it:\n  Return 1.\nReturn -it.");
    let problems = problems(given, &Type::Bool, &statements);
    let told = |prefix: &str| problems.iter().find_map(|problem| problem.strip_prefix(prefix));
    told("E058 a condition is true or false, and this is ")
        .or_else(|| told("E058 `-` takes a number, and this is "))
        .unwrap_or("any JSON")
        .to_owned()
}

#[test]
fn a_type_is_described_in_words() {
    let check = |ty: Type, expected: &str| assert_eq!(type_of(&ty, "v"), expected, "{ty:?}");
    check(Type::Bool, "true or false");
    check(Type::S8, "an integer (s8)");
    check(Type::U64, "an integer (u64)");
    check(Type::F32, "a number");
    check(Type::F64, "a number");
    check(Type::Char, "a character");
    check(Type::String, "a text");
    check(bytes(), "bytes as base64 text");
    check(list(Type::Any), "a list");
    check(list(Type::String), "a list, each item a text");
    check(tuple([Type::Bool, Type::Bool]), "a tuple of 2");
    check(record(&[("order-id", Type::Bool), ("total", Type::Bool)]), "a record { orderId, total }");
    check(variant([("by-post", None), ("cash", None)]), "a variant { byPost, cash }");
    check(enumeration(["by-post", "cash"]), "one of { byPost, cash }");
    check(flags(["by-post", "cash"]), "flags { byPost, cash }");
    check(option(Type::String), "a text or null");
    check(option(Type::Bool), "true or false or null");
    check(outcome(Type::Bool, Type::Bool), "a result");
    check(map(Type::String, Type::Bool), "a map");
    check(Type::Any, "any JSON");
    check(Type::Unit, "null");
    // Names beyond the eighth are left out, and so is what lies deeper than three levels.
    let many = enumeration(["a", "b", "c", "d", "e", "f", "g", "h", "i"]);
    check(many, "one of { a, b, c, d, e, f, g, h, … }");
    let eight = enumeration(["a", "b", "c", "d", "e", "f", "g", "h"]);
    check(eight, "one of { a, b, c, d, e, f, g, h }");
    check(list(list(Type::String)), "a list, each item a list, each item a text");
    check(list(list(list(Type::String))), "a list, each item a list, each item a list, each item …");
}

#[test]
fn an_expression_has_the_type_of_its_operands() {
    let check = |expr: &str, expected: &str| assert_eq!(type_of(&Type::U8, expr), expected, "{expr}");
    check("null", "null");
    check("true", "true or false");
    check("1", "an integer (s64)");
    check("1.5", "a number");
    check("\"a\"", "a text");
    check("\"{v}\"", "a text");
    check("v", "an integer (u8)");
    check("[]", "a list");
    check("[1, 2]", "a list, each item an integer (s64)");
    check("[v, v]", "a list");
    check("[v, 1]", "a list");
    check("[1, \"a\", 1]", "a list");
    check("[1, null]", "a list, each item an integer (s64) or null");
    check("[null, 1]", "a list, each item an integer (s64) or null");
    check("[null, 1, null, 1]", "a list, each item an integer (s64) or null");
    check("[null, 1, \"a\"]", "a list, each item any JSON or null");
    check("[[1], [2, null]]", "a list, each item a list, each item … or null");
    check("{a: 1, b: v}", "a record { a, b }");
    check("not true", "true or false");
    check("-v", "an integer (s64)");
    check("-1.5", "a number");
    check("-(1.5)", "a number");
    check("v + 1", "an integer (s64)");
    check("v - 1.5", "a number");
    check("1.5 * v", "a number");
    check("v / v", "an integer (s64)");
    check("\"a\" + \"b\"", "a text");
    check("[1] + [2]", "a list, each item an integer (s64)");
    check("[1] + [null]", "a list, each item an integer (s64) or null");
    check("1 + \"a\"", "any JSON");
    check("[1] + \"a\"", "any JSON");
    for comparison in ["==", "!=", "<", "<=", ">", ">="] {
        check(&format!("v {comparison} 1"), "true or false");
    }
    check("true and false", "true or false");
    check("true or false", "true or false");
    check("T.take(true)", "null");
}

#[test]
fn a_negated_value_of_any_type_may_be_anything() {
    assert_eq!(type_of(&Type::Any, "-v"), "any JSON");
    assert_eq!(type_of(&Type::F32, "-v"), "a number");
    assert_eq!(type_of(&Type::Any, "v + 1"), "any JSON");
    assert_eq!(type_of(&Type::F32, "v + 1"), "a number");
    assert_eq!(type_of(&option(Type::U8), "v + v"), "any JSON");
}

#[test]
fn values_of_two_types_have_the_type_of_both() {
    let check = |given: Type, expr: &str, expected: &str| {
        assert_eq!(type_of(&given, expr), expected, "{expr} of {given:?}");
    };
    check(option(Type::String), "[v, \"a\"]", "a list, each item a text or null");
    check(option(Type::String), "[\"a\", v]", "a list, each item a text or null");
    check(option(Type::String), "[v, null]", "a list, each item a text or null");
    check(option(Type::String), "[null, v]", "a list, each item a text or null");
    check(option(Type::String), "[[1][0], v]", "a list, each item any JSON or null");
    check(Type::Any, "[v, 1]", "a list");
    check(Type::Any, "[1, v]", "a list");
    check(Type::Any, "[v, null]", "a list");
    check(Type::Any, "[null, v]", "a list");
    let two = record(&[("a", option(Type::String)), ("b", option(list(Type::String)))]);
    check(two, "[v.a, v.b]", "a list, each item any JSON or null");
    check(Type::String, "[v, v]", "a list, each item a text");
    check(option(list(Type::String)), "[v, [null]]", "a list, each item a list, each item … or null");
}

#[test]
fn a_path_has_the_type_of_its_part() {
    let check = |given: Type, path: &str, expected: &str| {
        assert_eq!(type_of(&given, path), expected, "{path} of {given:?}");
    };
    let order = || record(&[("order-id", Type::String), ("at", option(Type::U8))]);
    check(order(), "v.orderId", "a text");
    check(order(), "v.order_id", "a text");
    check(order(), "v.at", "an integer (u8) or null");
    check(option(order()), "v.orderId", "a text or null");
    check(option(order()), "v.at", "an integer (u8) or null");
    check(option(option(order())), "v.orderId", "any JSON");
    check(Type::Any, "v.orderId", "any JSON");
    check(Type::Unit, "v.orderId", "null");
    check(map(Type::String, Type::U8), "v.anything", "an integer (u8) or null");
    check(variant([("card", Some(Type::String)), ("cash", None)]), "v.card", "a text");
    check(outcome(Type::String, Type::U8), "v.ok", "a text");
    check(outcome(Type::String, Type::U8), "v.err", "an integer (u8)");
    check(Type::Result { ok: None, err: None }, "v.ok", "null");
    check(Type::Any, "{a: 1}.a", "an integer (s64)");
    check(list(Type::String), "v[0]", "a text");
    check(list(order()), "v[0].orderId", "a text");
    check(option(list(Type::String)), "v[0]", "a text or null");
    check(option(option(list(Type::String))), "v[0]", "any JSON");
    check(tuple([Type::String, Type::U8]), "v[0]", "a text");
    check(tuple([Type::String, Type::U8]), "v[1]", "an integer (u8)");
    check(tuple([Type::String, Type::U8]), "v[1 - 1]", "any JSON");
    check(map(Type::U8, Type::String), "v[0]", "any JSON");
    check(Type::Any, "v[0]", "any JSON");
    check(Type::Unit, "v[0]", "null");
    check(Type::Any, "[1, 2][0]", "an integer (s64)");
}

#[test]
fn a_path_into_a_value_without_such_a_part_is_reported() {
    let check = |given: Type, path: &str, expected: &str| {
        assert_eq!(problems(&given, &Type::Bool, &format!("Return T.give().v{path}.")), [expected], "{path}");
    };
    let order = || record(&[("order-id", Type::String)]);
    check(order(), ".total", "E056 there is no `total` in this: it is a record { orderId }");
    check(option(order()), ".total", "E056 there is no `total` in this: it is a record { orderId }");
    check(
        variant([("card", Some(Type::U8)), ("cash", None)]),
        ".cash",
        "E056 there is no `cash` in this: it is a variant { card, cash }",
    );
    check(outcome(Type::U8, Type::U8), ".value", "E056 there is no `value` in this: it is a result");
    check(Type::String, ".length", "E056 there is no `length` in this: it is a text");
    check(map(Type::U8, Type::U8), ".length", "E056 there is no `length` in this: it is a map");
    check(tuple([Type::U8, Type::U8]), "[2]", "E056 this tuple has 2 items");
    check(tuple([Type::U8, Type::U8]), "[-1]", "E056 this tuple has 2 items");
    check(Type::String, "[0]", "E056 this has no items: it is a text");
    check(bytes(), "[0]", "E056 this has no items: it is bytes as base64 text");
    check(map(Type::String, Type::U8), "[0]", "E056 this has no items: it is a map");
    let pairs = problems(&map(Type::U8, Type::U8), &Type::Bool, "Return T.give().v[0].");
    assert_eq!(pairs, [""; 0], "a map whose keys aren't texts is a list of pairs");
    check(list(Type::U16), "[\"a\"]", "E058 an index takes an integer, and this is a text");
    check(list(Type::U16), "[1.5]", "E058 an index takes an integer, and this is a number");
}

#[test]
fn an_operand_of_another_type_is_reported() {
    let check = |given: Type, expr: &str, expected: &[&str]| {
        let problems = problems(&given, &Type::Bool, &format!("Let v be T.give().v.\nReturn {expr}."));
        let expected: Vec<String> = expected.iter().map(|message| format!("E058 {message}")).collect();
        assert_eq!(problems, expected, "{expr} of {given:?}");
    };
    check(Type::String, "not v", &["`not` takes true or false, and this is a text"]);
    check(Type::String, "-v", &["`-` takes a number, and this is a text"]);
    check(Type::String, "v or true", &["`or` takes true or false, and this is a text"]);
    check(Type::String, "true and v", &["`and` takes true or false, and this is a text"]);
    check(Type::Bool, "v < 1", &["a comparison takes a number or a text, and this is true or false"]);
    check(Type::Bool, "1 >= v", &["a comparison takes a number or a text, and this is true or false"]);
    check(Type::Bool, "v + 1", &["`+` takes a number, a text or a list, and this is true or false"]);
    check(Type::String, "v - 1", &["`-` takes a number, and this is a text"]);
    check(Type::String, "1 * v", &["`*` takes a number, and this is a text"]);
    check(Type::String, "v / 1", &["`/` takes a number, and this is a text"]);
    check(Type::String, "v / v", &["`/` takes a number, and this is a text"; 2]);
    // Whatever is right for some value of the type is left to the run.
    for expr in ["not v", "v and true", "-v", "v + 1", "v < 1", "v - 1"] {
        check(Type::Any, expr, &[]);
        check(option(Type::Any), expr, &[]);
    }
    check(option(Type::Bool), "not v", &[]);
    check(option(Type::U8), "v - 1", &[]);
    check(Type::String, "v < \"a\"", &[]);
    check(bytes(), "v < \"a\"", &[]);
    check(Type::Char, "v < \"a\"", &[]);
    check(enumeration(["a"]), "v < \"a\"", &[]);
    check(variant([("a", None)]), "v < \"a\"", &[]);
    check(
        list(Type::U16),
        "v < \"a\"",
        &["a comparison takes a number or a text, and this is a list, each item an integer (u16)"],
    );
    check(list(Type::U16), "v + v", &[]);
    check(tuple([Type::U16]), "v + v", &[]);
    check(Type::Unit, "v == 1", &[]);
}

#[test]
fn a_condition_is_true_or_false() {
    let check = |given: Type, expected: &[&str]| {
        let statements = "Let v be T.give().v.\nIf v:\n  Return 1.";
        assert_eq!(problems(&given, &Type::Bool, statements), expected, "{given:?}");
    };
    check(Type::Bool, &[]);
    check(option(Type::Bool), &[]);
    check(Type::Any, &[]);
    check(Type::U8, &["E058 a condition is true or false, and this is an integer (u8)"]);
}

/// Whether a value of the type `given` is taken for a parameter of the type `taken`: without a word, with a warning that it may
/// be null, or not at all.
#[derive(Debug, PartialEq)]
enum Taken {
    Yes,
    UnlessNull,
    No,
}

fn taken(given: &Type, taken: &Type) -> Taken {
    let problems = problems(given, taken, "Let v be T.give().v.\nT.take(v).");
    match &problems[..] {
        [] => Taken::Yes,
        [problem] if problem.starts_with("W109 `it` can't be null, and this may be") => Taken::UnlessNull,
        [problem] if problem.starts_with("E054 `it` is ") => Taken::No,
        other => panic!("{given:?} for {taken:?}: {other:?}"),
    }
}

#[test]
fn a_value_is_taken_if_some_value_of_its_type_fits_the_parameter() {
    use Type::{Any, Bool, Char, F32, F64, S64, String, U8, U16, U32};
    let yes = [
        (Any, U8),
        (U8, Any),
        (Bool, Bool),
        // Integers, whose range is left to the run.
        (U8, S64),
        (S64, U8),
        (U8, F64),
        (F32, F64),
        (F64, F32),
        // What is a text in JSON.
        (String, String),
        (Char, String),
        (enumeration(["a"]), String),
        (bytes(), String),
        (variant([("a", None), ("b", Some(U8))]), String),
        (String, Char),
        (enumeration(["a"]), Char),
        (String, enumeration(["a"])),
        (enumeration(["a", "b"]), enumeration(["b", "c"])),
        (variant([("a", None)]), enumeration(["a"])),
        (String, bytes()),
        (bytes(), bytes()),
        // Variants.
        (variant([("a", None), ("b", None)]), variant([("b", None), ("c", None)])),
        (String, variant([("a", None)])),
        (record(&[("a", U8)]), variant([("a", Some(U8))])),
        (map(String, U8), variant([("a", Some(U8))])),
        // Lists and tuples.
        (list(U16), list(U32)),
        (tuple([U16, U16]), list(U16)),
        (tuple([U16, String]), tuple([U32, Char])),
        (list(U16), tuple([U16, U32])),
        (list(String), flags(["a"])),
        (list(enumeration(["a"])), flags(["a"])),
        // Records and maps.
        (record(&[("a", U8)]), record(&[("a", U16)])),
        (record(&[("order-id", U8)]), record(&[("order-id", U8), ("b", option(U8))])),
        (map(String, U8), record(&[("a", U8)])),
        (record(&[("a", U8)]), map(String, U16)),
        (map(String, U8), map(String, U16)),
        (list(tuple([U8, U8])), map(U8, U8)),
        (tuple([U8, U8]), map(U8, U8)),
        // Results.
        (outcome(U8, U8), outcome(U8, U8)),
        (record(&[("ok", U8)]), outcome(U8, U8)),
        (variant([("ok", Some(U8))]), outcome(U8, U8)),
        // Options.
        (option(U8), option(U16)),
        (U8, option(U16)),
        (option(U8), Any),
    ];
    for (given, param) in yes {
        assert_eq!(taken(&given, &param), Taken::Yes, "{given:?} for {param:?}");
    }
    let unless_null = [(option(U8), U16), (option(String), String), (option(option(U8)), U8)];
    for (given, param) in unless_null {
        assert_eq!(taken(&given, &param), Taken::UnlessNull, "{given:?} for {param:?}");
    }
    let no = [
        (Bool, U8),
        (String, U8),
        (F64, U8),
        (String, F64),
        (Bool, F32),
        (U8, Bool),
        (U8, String),
        (list(String), String),
        (variant([("a", Some(U8))]), String),
        (U8, Char),
        (variant([("a", None)]), Char),
        (U8, enumeration(["a"])),
        (variant([("a", Some(U8))]), enumeration(["a"])),
        (enumeration(["a"]), enumeration(["b"])),
        (variant([("a", None)]), variant([("b", None)])),
        (U8, variant([("a", None)])),
        (list(U16), variant([("a", None)])),
        (list(U16), bytes()),
        (bytes(), list(U16)),
        (list(String), list(U16)),
        (tuple([U16, String]), list(U16)),
        (U16, list(U16)),
        (tuple([U16]), tuple([U16, U16])),
        (tuple([U16, U16]), tuple([U16])),
        (tuple([U16]), tuple([String])),
        (list(String), tuple([U16])),
        (bytes(), tuple([U8])),
        (list(U16), flags(["a"])),
        (String, flags(["a"])),
        (record(&[("a", String)]), record(&[("a", U8)])),
        (record(&[("a", U8)]), record(&[("b", option(U8))])),
        (record(&[("a", U8)]), record(&[("a", U8), ("b", U8)])),
        (record(&[("a", String)]), map(String, U8)),
        (map(String, String), map(String, U8)),
        (list(tuple([String, U8])), map(String, U8)),
        (String, map(String, U8)),
        (U8, outcome(U8, U8)),
        (String, outcome(U8, U8)),
        (option(String), U8),
        (String, option(U8)),
        (option(String), option(U8)),
    ];
    for (given, param) in no {
        assert_eq!(taken(&given, &param), Taken::No, "{given:?} for {param:?}");
    }
}

#[test]
fn a_literal_is_taken_part_by_part() {
    let check = |argument: &str, param: Type, expected: &[&str]| {
        let problems = problems(&Type::Any, &param, &format!("T.take({argument})."));
        assert_eq!(problems, expected, "{argument} for {param:?}");
    };
    use Type::{Bool, Char, F64, S8, S16, S32, S64, String, U8, U16, U32, U64};

    // Every integer type at its limits.
    let limits = [
        (S8, "s8", "-128", "127", "-129", "128"),
        (U8, "u8", "0", "255", "-1", "256"),
        (S16, "s16", "-32768", "32767", "-32769", "32768"),
        (U16, "u16", "0", "65535", "-1", "65536"),
        (S32, "s32", "-2147483648", "2147483647", "-2147483649", "2147483648"),
        (U32, "u32", "0", "4294967295", "-1", "4294967296"),
    ];
    for (ty, name, least, most, below, above) in limits {
        check(least, ty.clone(), &[]);
        check(most, ty.clone(), &[]);
        for out in [below, above] {
            let message = format!("E054 `it` is an integer ({name}), and {out} is out of its range");
            check(out, ty.clone(), &[&message]);
            check(out, option(ty.clone()), &[&message]);
        }
    }
    check("-1", U64, &["E054 `it` is an integer (u64), and -1 is out of its range"]);
    check("0", U64, &[]);
    check("-9223372036854775808", S64, &[]);
    check("300", F64, &[]);
    check("300", String, &["E054 `it` is a text, and this is an integer (s64)"]);

    // Lists.
    check("[1, 2]", list(U16), &[]);
    check("[1, \"a\"]", list(U16), &["E054 `it` is an integer (u16), and this is a text"]);
    check(
        "[1, 2]",
        bytes(),
        &["E054 `it` is bytes as base64 text, and this is a list, each item an integer (s64)"],
    );
    check("[1, \"a\"]", tuple([U16, String]), &[]);
    check("[\"a\", 1]", tuple([U16, U16]), &["E054 `it` is an integer (u16), and this is a text"]);
    check("[1]", tuple([U16, U16]), &[]);
    check("[\"a\"]", tuple([U16, U16]), &["E054 `it` is a tuple of 2, and this is a list, each item a text"]);
    check("[\"a\", \"b\"]", flags(["a", "b"]), &[]);
    check("[\"a\", \"c\"]", flags(["a", "b"]), &["E054 `it` can't be `c`"]);
    check("[null]", list(option(U16)), &[]);
    check("[null]", list(U16), &["E055 `it` can't be null: it is an integer (u16)"]);

    // Records and maps.
    let order = || record(&[("order-id", String), ("note", option(String))]);
    check("{orderId: \"a\"}", order(), &[]);
    check("{order_id: \"a\"}", order(), &["E054 `it` has no field `order_id`"]);
    check("{\"order-id\": \"a\"}", order(), &[]);
    check("{orderId: \"a\", note: null}", order(), &[]);
    check("{}", order(), &["E054 `it` lacks `orderId`"]);
    check("{orderId: 1}", order(), &["E054 `orderId` is a text, and this is an integer (s64)"]);
    check(
        "{orderId: \"a\", more: -\"b\"}",
        order(),
        &["E054 `it` has no field `more`", "E058 `-` takes a number, and this is a text"],
    );
    check("{a: 1, b: 2}", map(String, U16), &[]);
    check("{a: \"b\"}", map(U8, U16), &["E054 `it` is a map, and this is a record { a }"]);
    check("{a: 1, b: \"c\"}", map(String, U16), &["E054 `it` is an integer (u16), and this is a text"]);

    // Texts that are written out.
    check("\"by-post\"", enumeration(["by-post"]), &[]);
    check("\"byPost\"", enumeration(["by-post"]), &[]);
    check("\"post\"", enumeration(["by-post"]), &["E054 `it` can't be `post`"]);
    check("\"{T.give().v}\"", String, &["E016 `T.give().v` is not a path"]);
    check("\"a\"", variant([("a", None), ("b", Some(U8))]), &[]);
    check("\"b\"", variant([("a", None), ("b", Some(U8))]), &["E054 `it` can't be `b`"]);
    check("\"c\"", Char, &[]);
    check("\"ü\"", Char, &[]);
    check("\"\"", Char, &["E054 `it` is a character, and this is a text"]);
    check("\"cc\"", Char, &["E054 `it` is a character, and this is a text"]);
    check("\"a\"", option(enumeration(["b"])), &["E054 `it` can't be `a`"]);

    // Null.
    check("null", U8, &["E055 `it` can't be null: it is an integer (u8)"]);
    check("null", option(U8), &[]);
    check("null", Type::Any, &[]);
    check("null", option(option(U8)), &[]);
    check(
        "1",
        option(option(Bool)),
        &["E054 `it` is true or false or null or null, and this is an integer (s64)"],
    );
}

#[test]
fn a_text_with_values_in_it_may_be_any_case() {
    let check = |param: Type| {
        let statements = "Let v be T.give().v.\nT.take(\"{v}\").";
        assert_eq!(problems(&Type::String, &param, statements), [""; 0], "{param:?}");
    };
    check(enumeration(["a"]));
    check(variant([("a", None)]));
    check(Type::Char);
}

#[test]
fn the_help_says_what_would_fit() {
    let not_taken = |argument: &str, param: Type| help(&Type::Any, &param, &format!("T.take({argument})."));
    assert_eq!(not_taken("1", Type::String), "write something that is a text");
    assert_eq!(not_taken("1", option(Type::String)), "write something that is a text");
    let nested = option(option(Type::String));
    assert_eq!(not_taken("1", nested), "write something that is a text or null or null");
    assert_eq!(not_taken("\"c\"", enumeration(["by-post"])), "it is one of `byPost`");
    assert_eq!(not_taken("\"by-pots\"", enumeration(["by-post"])), "did you mean `byPost`?");
    let path = |given: Type, path: &str| help(&given, &Type::Bool, &format!("Return T.give().v{path}."));
    let method = variant([("card", Some(Type::U8)), ("cash", None), ("by-post", Some(Type::U8))]);
    assert_eq!(path(method, ".cash"), "it has `card`, `byPost`");
    assert_eq!(path(outcome(Type::U8, Type::U8), ".value"), "it has `ok`, `err`");
    assert_eq!(path(Type::String, ".length"), "leave the field out");
    assert_eq!(help(&Type::Any, &Type::Any, "T.other.nothing()."), "it exports `give`, `take`");
    assert_eq!(help(&Type::Any, &Type::Any, "T.other.give()."), "`give` is exported at the top level");
    // Twenty names are listed, and no more.
    let names = |count: usize| -> Vec<String> { (0..count).map(|n| format!("some-name-{n}")).collect() };
    let listed: Vec<String> = (0..20).map(|n| format!("`someName{n}`")).collect();
    assert_eq!(not_taken("\"c\"", Type::Enum(names(20))), format!("it is one of {}", listed.join(", ")));
    assert_eq!(not_taken("\"c\"", Type::Enum(names(21))), format!("it is one of {}, …", listed.join(", ")));
}

#[test]
fn a_step_that_depends_on_a_later_one_knows_the_type_of_its_value() {
    let exports = Exports {
        functions: vec![function(None, "give", &[], Some(record(&[("v", Type::U8)])))],
        types: vec![],
    };
    let steps = "    step one depends on [three]:\n      Return three.nothing.\n    step two depends on []:\n      Return 1.\n    step three depends on two:\n      Return T.give().\n      compensate:\n        T.give().\n";
    let source =
        format!("This module is m.\nTo f produce Json with IO. It performs io:\n  workflow:\n{steps}");
    let checked = check_with("m.aster", &source, &BTreeMap::from([("t".to_owned(), exports)]));
    let found: Vec<&str> = checked.diagnostics.iter().map(|found| found.message.as_str()).collect();
    assert_eq!(found, ["there is no `nothing` in this: it is a record { v }"]);
}

#[test]
fn a_type_that_components_export_differently_is_reported_as_each_place_spells_it() {
    let exports = |ty: Type| Exports {
        functions: vec![function(None, "give", &[], None)],
        types: vec![NamedType { interface: None, name: "line-item".into(), ty }],
    };
    let components =
        BTreeMap::from([("t".to_owned(), exports(Type::Bool)), ("u".to_owned(), exports(Type::U8))]);
    let source = "This module is m.\nTo f with a: LineItem, b: line_item, produce Json with IO. It performs io:\n  workflow:\n    step one:\n      T.give().\n      U.give().\n      compensate:\n        T.give().\n";
    let checked = check_with("m.aster", source, &components);
    let found: Vec<&str> = checked.diagnostics.iter().map(|found| found.message.as_str()).collect();
    let message = |name: &str| format!("type `{name}` is exported with different shapes, by `t` and `u`");
    assert_eq!(found, [message("LineItem"), message("line_item")]);
}
