//! Values of every type pass through a real component and back; and how functions fail.

use serde_json::json;

use super::*;

#[tokio::test]
async fn values_of_every_type_come_back() {
    let guest = Guest::new("echo").await;
    let table = [
        ("echoBool", json!(true)),
        ("echoU8", json!(255)),
        ("echoU16", json!(65535)),
        ("echoU32", json!(4_294_967_295_u32)),
        ("echoU64", json!(u64::MAX)),
        ("echoS8", json!(-128)),
        ("echoS16", json!(-32768)),
        ("echoS32", json!(-2_147_483_648_i32)),
        ("echoS64", json!(i64::MIN)),
        ("echoF32", json!(0.1)),
        ("echoF64", json!(-1.5e300)),
        ("echoChar", json!("🦀")),
        ("echoString", json!("žluťoučký \n kůň")),
        ("echoList", json!([1, -2, 3])),
        ("echoStrings", json!(["", "b"])),
        ("echoNestedList", json!([[1], [], [2, 3]])),
        ("echoBytes", json!("AAEC/w==")),
        ("echoTuple", json!(["a", 1, false])),
        ("echoOption", json!(null)),
        ("echoOption", json!("some")),
        ("echoNestedOption", json!(null)),
        ("echoNestedOption", json!({ "some": null })),
        ("echoNestedOption", json!({ "some": 3 })),
        ("echoResults", json!([{ "ok": 1 }, { "err": "no" }])),
        ("echoBareResults", json!([{ "ok": null }, { "err": null }])),
        ("echoMap", json!({ "any key": 1, "other": 2 })),
        ("echoNumbered", json!([[1, "a"], [7, "b"]])),
        ("echoVariant", json!("nothing")),
        ("echoVariant", json!({ "circle": 1.5 })),
        ("echoVariant", json!({ "namedPoint": { "x": 1, "y": -1 } })),
        ("echoVariant", json!({ "maybeLabel": null })),
        ("echoEnum", json!("someOtherDay")),
        ("echoFlags", json!(["listAll", "administer"])),
    ];
    for (function, value) in table {
        assert_eq!(guest.ok(function, std::slice::from_ref(&value)).await, value, "{function}");
    }
}

#[tokio::test]
async fn a_record_takes_either_spelling_and_answers_in_camel_case() {
    let guest = Guest::new("echo").await;
    let given = json!({
        "a-name": "n", "where": { "x": 1, "y": 2 }, "trail": [], "shape": "nothing", "day": "some-other-day",
        "may": ["list-all"], "raw-bytes": "", "labels": {}, "perhaps": { "some": null },
    });
    assert_eq!(
        guest.ok("echoRecord", &[given]).await,
        json!({
            "aName": "n", "maybe": null, "perhaps": { "some": null }, "where": { "x": 1, "y": 2 }, "trail": [],
            "shape": "nothing", "day": "someOtherDay", "may": ["listAll"], "rawBytes": "", "labels": {},
        })
    );
}

#[tokio::test]
async fn arguments_that_do_not_fit_name_their_path() {
    let guest = Guest::new("echo").await;
    let failure =
        guest.fails("echoVariant", &[json!({ "namedPoint": { "x": "one" } })], FailureCode::Type).await;
    assert_eq!(failure.message, "value.namedPoint.x: expected an integer, found the text \"one\"");
    assert_eq!(failure.detail.expect("all mismatches").as_array().map(Vec::len), Some(2));
    let failure = guest.fails("add", &[json!(1)], FailureCode::Type).await;
    assert_eq!(failure.message, "`add` takes 2 arguments, 1 were given");
    let failure = guest.fails("echoOption", &[json!(7)], FailureCode::Type).await;
    assert_eq!(failure.message, "value: expected a text, found 7");
}

#[tokio::test]
async fn functions_at_the_top_level_are_called_like_others() {
    let guest = Guest::new("echo").await;
    assert_eq!(guest.ok("greetAll", &[json!(["Ann", "Bob"])]).await, json!("hello, Ann and Bob"));
    assert_eq!(guest.ok("nothing", &[]).await, Value::Null);
    assert_eq!(guest.ok("add", &[json!(2), json!("40")]).await, json!(42));
}

#[tokio::test]
async fn a_result_is_split_into_value_and_failure() {
    let guest = Guest::new("echo").await;
    assert_eq!(guest.ok("echoResult", &[json!({ "ok": 5 })]).await, json!(5));
    let failure = guest.fails("echoResult", &[json!({ "err": "out of stock" })], FailureCode::Error).await;
    assert_eq!(failure, Failure::new(FailureCode::Error, "out of stock"));

    assert_eq!(guest.ok("fail", &[json!("none")]).await, json!("fine"));
    let failure = guest.fails("fail", &[json!("permanent")], FailureCode::Error).await;
    assert_eq!(failure.message, "do not try again");
    assert_eq!(failure.detail, Some(json!({ "permanent": "do not try again" })));
    let failure = guest.fails("fail", &[json!("transient")], FailureCode::TransientError).await;
    assert_eq!(failure.message, "try again");
    let failure = guest.fails("failBare", &[], FailureCode::Error).await;
    assert_eq!(failure, Failure::new(FailureCode::Error, "the function answered `err`"));
}

#[tokio::test]
async fn functions_with_handles_are_listed_but_cannot_be_called() {
    let guest = Guest::new("echo").await;
    assert!(guest.loaded.exports().find_function(Some("handles"), "punch").is_ok());
    let error = guest.loaded.find(Some("handles"), "punch").expect_err("a borrowed resource");
    assert!(matches!(error, FindError::NotCallable { .. }), "{error}");
    assert!(guest.loaded.warnings().iter().any(|w| w.contains("punch")), "{:?}", guest.loaded.warnings());
}

#[tokio::test]
async fn types_keep_their_names_and_the_wit_is_text() {
    let guest = Guest::new("echo").await;
    let exports = guest.loaded.exports();
    let point = exports.find_type("Point").expect("one type").expect("it is exported");
    assert_eq!(point.to_string(), "record { x: s32, y: s32 }");
    let wit = wit_text(component("echo"), exports.clone()).await.expect("it is a component");
    assert!(wit.contains("record everything") && wit.contains("echo-numbered: func"), "{wit}");
}

#[tokio::test]
async fn a_call_reports_its_cost() {
    let guest = Guest::new("echo").await;
    let first = guest.call("echoU8", &[json!(1)]).await;
    let second = guest.call("echoU8", &[json!(1)]).await;
    assert!(first.fuel_used > 0);
    assert_eq!(first.fuel_used, second.fuel_used, "the same work costs the same");
}
