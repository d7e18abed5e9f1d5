//! Checks each kind of type against values that fit and values that don't.

use serde_json::json;

use super::*;

fn list(ty: Type) -> Type {
    Type::List(Box::new(ty))
}

fn option(ty: Type) -> Type {
    Type::Option(Box::new(ty))
}

fn record<const N: usize>(fields: [(&str, Type); N]) -> Type {
    Type::Record(fields.into_iter().map(|(name, ty)| Field { name: name.into(), ty }).collect())
}

fn order() -> Type {
    record([
        ("order-id", Type::String),
        ("items", list(record([("product-id", Type::String), ("quantity", Type::U32)]))),
        ("ship-to", option(Type::String)),
    ])
}

fn shape() -> Type {
    Type::Variant(vec![
        Case { name: "no-shape".into(), ty: None },
        Case { name: "big-circle".into(), ty: Some(Type::F64) },
    ])
}

#[track_caller]
fn accepts(ty: &Type, value: Value) {
    assert_eq!(check(ty, &value, "x"), [], "{ty} should take {value}");
}

#[track_caller]
fn refuses(ty: &Type, value: Value, expected: &[(&str, &str)]) {
    let found = check(ty, &value, "x");
    let found: Vec<(&str, &str)> = found.iter().map(|m| (m.path.as_str(), m.message.as_str())).collect();
    assert_eq!(found, expected, "{ty} against {value}");
}

#[test]
fn a_record_is_an_object_in_either_spelling() {
    accepts(&order(), json!({"orderId": "o", "items": [{"productId": "p", "quantity": 1}], "shipTo": null}));
    accepts(&order(), json!({"order-id": "o", "items": []}));
}

#[test]
fn every_mismatch_is_told_with_its_path() {
    let value = json!({"items": [{"productId": 1, "quantity": -1}, 7], "colour": "red"});
    refuses(
        &order(),
        value.clone(),
        &[
            ("x.orderId", "the field is missing"),
            ("x.items[0].productId", "expected a text, found 1"),
            ("x.items[0].quantity", "-1 is out of range: expected 0 to 4294967295"),
            ("x.items[1]", "expected an object, found 7"),
            ("x.colour", "there is no such field"),
        ],
    );
    let pointers: Vec<String> = check(&order(), &value, "").into_iter().map(|m| m.pointer).collect();
    assert_eq!(pointers[2], "/items/0/quantity");
    assert_eq!(check(&order(), &value, "")[2].path, "items[0].quantity");
}

#[test]
fn pointers_escape_what_rfc_6901_escapes() {
    let found = check(&record([]), &json!({"a/b~c": 1}), "x");
    assert_eq!(found[0].pointer, "/a~1b~0c");
}

#[test]
fn a_field_in_two_spellings_is_refused() {
    refuses(
        &record([("order-id", Type::U8)]),
        json!({"order-id": 1, "orderId": 1}),
        &[("x.orderId", "the field is given twice, in two spellings")],
    );
}

#[test]
fn integers_may_be_texts_and_stay_in_range() {
    accepts(&Type::U64, json!("18446744073709551615"));
    accepts(&Type::S64, json!("-9223372036854775808"));
    accepts(&Type::U8, json!(255));
    accepts(&Type::U8, json!(2.0));
    refuses(&Type::U8, json!(256), &[("x", "256 is out of range: expected 0 to 255")]);
    refuses(&Type::S8, json!("-129"), &[("x", "-129 is out of range: expected -128 to 127")]);
    refuses(&Type::U8, json!(1.5), &[("x", "expected an integer, found 1.5")]);
    refuses(&Type::U8, json!("1e2"), &[("x", "expected an integer, found the text \"1e2\"")]);
    refuses(&Type::U8, json!("+1"), &[("x", "expected an integer, found the text \"+1\"")]);
}

#[test]
fn floats_are_finite_numbers() {
    accepts(&Type::F64, json!(1.5));
    accepts(&Type::F32, json!(3));
    refuses(&Type::F32, json!(1e300), &[("x", "1e+300 is out of range: expected a finite f32")]);
    refuses(&Type::F64, json!("NaN"), &[("x", "expected a number, found the text \"NaN\"")]);
}

#[test]
fn options_are_a_value_or_null_and_nested_ones_are_marked() {
    accepts(&option(Type::U8), json!(null));
    accepts(&option(Type::U8), json!(1));
    let nested = option(option(Type::U8));
    for value in [json!(null), json!({"some": null}), json!({"some": 1})] {
        accepts(&nested, value);
    }
    refuses(&nested, json!(1), &[("x", "expected null or {\"some\": …}, found 1")]);
    refuses(&nested, json!({"some": 999}), &[("x.some", "999 is out of range: expected 0 to 255")]);
}

#[test]
fn variants_and_enums_go_by_the_names_of_their_cases() {
    accepts(&shape(), json!("noShape"));
    accepts(&shape(), json!({"big-circle": 1.5}));
    refuses(
        &shape(),
        json!("bigCircle"),
        &[("x", "the case `bigCircle` has a payload: expected {\"bigCircle\": …}")],
    );
    refuses(
        &shape(),
        json!({"square": 1}),
        &[("x.square", "there is no such case: expected `noShape` or `bigCircle`")],
    );
    refuses(&shape(), json!({"noShape": 1}), &[("x.noShape", "expected null, found 1")]);
    refuses(&shape(), json!({}), &[("x", "expected an object with the one case, found 0 fields")]);
    let colour = Type::Enum(vec!["dark-red".into(), "blue".into()]);
    accepts(&colour, json!("darkRed"));
    refuses(&colour, json!("green"), &[("x", "expected `darkRed` or `blue`, found the text \"green\"")]);
}

#[test]
fn results_are_marked_objects() {
    let ty = Type::Result { ok: None, err: Some(Box::new(Type::String)) };
    accepts(&ty, json!({"ok": null}));
    accepts(&ty, json!({"err": "no"}));
    refuses(&ty, json!("ok"), &[("x", "expected {\"ok\": …} or {\"err\": …}, found the text \"ok\"")]);
}

#[test]
fn bytes_are_padded_base64() {
    accepts(&list(Type::U8), json!("AQI="));
    assert_eq!(check(&list(Type::U8), &json!("AQI"), "x").len(), 1);
    refuses(&list(Type::U8), json!([1, 2]), &[("x", "expected bytes as base64 text, found an array")]);
}

#[test]
fn a_char_is_a_text_of_one_scalar() {
    accepts(&Type::Char, json!("é"));
    refuses(
        &Type::Char,
        json!("ab"),
        &[("x", "expected a text of exactly one character, found the text \"ab\"")],
    );
    refuses(&Type::Char, json!("\0"), &[("x", "a text must not contain NUL")]);
}

#[test]
fn flags_are_names_without_repetition() {
    let ty = Type::Flags(vec!["can-read".into(), "can-write".into()]);
    accepts(&ty, json!(["canRead", "can-write"]));
    refuses(&ty, json!(["canRead", "can-read"]), &[("x[1]", "`canRead` is given twice")]);
    refuses(&ty, json!([1]), &[("x[0]", "expected `canRead` or `canWrite`, found 1")]);
}

#[test]
fn maps_are_objects_or_arrays_of_pairs() {
    let by_text = Type::Map(Box::new(Type::String), Box::new(Type::U8));
    accepts(&by_text, json!({"any name": 1}));
    refuses(&by_text, json!({"a": 999}), &[("x.a", "999 is out of range: expected 0 to 255")]);
    let by_number = Type::Map(Box::new(Type::U64), Box::new(Type::Bool));
    accepts(&by_number, json!([[1, true], ["2", false]]));
    refuses(&by_number, json!([[1, true], ["1", false]]), &[("x[1]", "the key is given twice")]);
    let by_float = Type::Map(Box::new(Type::F64), Box::new(Type::Bool));
    refuses(&by_float, json!([[1, true], [1.0, false]]), &[("x[1]", "the key is given twice")]);
    let by_single = Type::Map(Box::new(Type::F32), Box::new(Type::Bool));
    refuses(
        &by_single,
        json!([[0.1, true], [0.100_000_000_1, false]]),
        &[("x[1]", "the key is given twice")],
    );
    refuses(&by_number, json!([[1]]), &[("x[0]", "expected a pair [key, value], found an array")]);
}

#[test]
fn tuples_have_a_fixed_length() {
    let ty = Type::Tuple(vec![Type::U8, Type::Bool]);
    accepts(&ty, json!([1, true]));
    refuses(&ty, json!([1]), &[("x", "expected an array of 2, found 1")]);
}

#[test]
fn any_takes_all_and_unit_takes_null() {
    accepts(&Type::Any, json!({"a": [1, null]}));
    accepts(&Type::Unit, json!(null));
    refuses(&Type::Unit, json!(1), &[("x", "expected null, found 1")]);
}

#[test]
fn a_value_that_is_wrong_all_over_gives_a_bounded_answer() {
    let value = Value::Array(vec![json!("x"); 10_000]);
    assert_eq!(check(&list(Type::U8), &Value::Null, "x").len(), 1);
    assert_eq!(check(&list(Type::U32), &value, "x").len(), MAX_MISMATCHES);
}

#[test]
fn a_record_of_many_fields_is_checked_like_one_of_few() {
    // Few fields are searched one by one, and many are looked up in a table.
    for more in [0, 100_usize] {
        let mut fields: Vec<Field> =
            ["order-id", "ship-to"].map(|name| Field { name: name.into(), ty: Type::U8 }).into();
        fields.push(Field { name: "note".into(), ty: option(Type::U8) });
        fields.extend((0..more).map(|n| Field { name: format!("more-of-it{n}"), ty: option(Type::U8) }));
        let ty = Type::Record(fields);
        accepts(&ty, json!({"order-id": 1, "shipTo": 2}));
        accepts(&ty, json!({"orderId": 1, "ship-to": 2, "note": null}));
        let mut many = json!({"order-id": 1, "shipTo": 2});
        for n in 0..more {
            many[if n % 2 == 0 { format!("moreOfIt{n}") } else { format!("more-of-it{n}") }] = json!(1);
        }
        accepts(&ty, many.clone());
        many["orderId"] = json!(1);
        refuses(&ty, many, &[("x.orderId", "the field is given twice, in two spellings")]);
        refuses(
            &ty,
            json!({"order-id": 1, "orderId": 1, "x": 0, "y": 0}),
            &[
                ("x.orderId", "the field is given twice, in two spellings"),
                ("x.shipTo", "the field is missing"),
                ("x.x", "there is no such field"),
                ("x.y", "there is no such field"),
            ],
        );
    }
}

#[test]
fn a_value_that_its_type_would_make_huge_is_refused() {
    let options = (0..1_000).map(|n| Field { name: format!("f{n}"), ty: option(Type::U8) }).collect();
    let ty = list(Type::Record(options));
    let objects = |n| Value::Array(vec![json!({}); n]);
    accepts(&ty, objects(1_000));
    let message = "the value has more than 4000000 parts, with those that its type adds";
    refuses(&ty, objects(300_000), &[("x", message)]);
    let names = Type::Enum((0..10_000).map(|n| format!("n{n}")).collect());
    refuses(&list(names), Value::Array(vec![json!("n9999"); 100_000]), &[("x", message)]);
}
