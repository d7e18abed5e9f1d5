//! The components that the cases call.

mod builders;

use std::collections::BTreeMap;

use aster_core::wit::{Case, Exports, NamedType, Type};

use builders::{function, list, option, record};

/// `inventory`, `orders`, `payment` and `shop`, by name.
pub(crate) fn components() -> BTreeMap<String, Exports> {
    let line = record(&[("product-id", Type::String), ("quantity", Type::U32)]);
    let order = record(&[
        ("order-id", Type::String),
        ("items", list(line.clone())),
        ("note", option(Type::String)),
        ("express", Type::Bool),
        ("weight", Type::F64),
    ]);
    let validated = record(&[("total", Type::U64), ("currency", Type::String)]);
    let method = Type::Variant(vec![
        Case { name: "cash".into(), ty: None },
        Case { name: "card-number".into(), ty: Some(Type::String) },
    ]);
    let speed = Type::Enum(vec!["standard".into(), "next-day".into()]);

    let orders = Exports {
        functions: vec![function(None, "validate", &[("order", order.clone())], Some(result(validated)))],
        types: vec![named("order", order), named("clash", Type::Bool)],
    };
    let inventory = Exports {
        functions: vec![
            function(
                Some("acme:stock/store@1.0.0"),
                "reserve",
                &[("order-id", Type::String), ("items", list(line))],
                Some(result(Type::U64)),
            ),
            function(Some("acme:stock/store@1.0.0"), "release", &[("order-id", Type::String)], None),
            function(None, "watch", &[("feed", Type::Opaque("a stream".into()))], None),
        ],
        types: vec![named("clash", Type::String)],
    };
    let payment = Exports {
        functions: vec![
            function(
                None,
                "charge",
                &[("order-id", Type::String), ("method", option(method)), ("cents", Type::U64)],
                Some(result(record(&[("payment-id", Type::String)]))),
            ),
            function(
                None,
                "refund",
                &[("order-id", Type::String), ("payment-id", option(Type::String))],
                None,
            ),
        ],
        types: vec![],
    };
    let shop = Exports {
        functions: vec![
            function(Some("acme:shop/cart@1.0.0"), "add", &[("product", Type::String)], None),
            function(Some("acme:shop/list@1.0.0"), "add", &[("product", Type::String)], None),
            function(Some("acme:shop/cart@1.0.0"), "ship", &[("speed", speed), ("parcels", Type::U8)], None),
            function(
                Some("acme:shop/cart@1.0.0"),
                "place",
                &[("at", record(&[("street", Type::String), ("zip", option(Type::String))]))],
                Some(Type::Tuple(vec![Type::F64, Type::F64])),
            ),
        ],
        types: vec![],
    };
    [("orders", orders), ("inventory", inventory), ("payment", payment), ("shop", shop)]
        .map(|(name, exports)| (name.to_owned(), exports))
        .into()
}

fn named(name: &str, ty: Type) -> NamedType {
    NamedType { interface: None, name: name.into(), ty }
}

fn result(ok: Type) -> Type {
    Type::Result { ok: Some(Box::new(ok)), err: Some(Box::new(Type::String)) }
}
