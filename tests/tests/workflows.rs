//! The three workflows over HTTP, with every way in which each can end.

use aster_tests::ledger::{self, Ledger};
use aster_tests::orders::{declined, order, too_many, unreachable, with};
use aster_tests::{Client, Database, Host, Options};
use serde_json::{Value, json};

struct Shop {
    host: Host,
    // This comes after the host, which uses it.
    _database: Database,
}

impl Shop {
    /// Starts a host with everything deployed and ten pieces of `PROD-A`.
    fn open() -> Self {
        let database = Database::create();
        let host = Host::start(&Options::database(&database.url()));
        host.set_up();
        ledger::seed(host.client(), "PROD-A", 10);
        Self { host, _database: database }
    }

    fn client(&self) -> &Client {
        self.host.client()
    }

    /// Posts an order, and returns its run when it is over.
    #[track_caller]
    fn order(&self, order: &Value) -> Value {
        let answer = self.client().post("/api/orders", order).expect(200).json();
        assert_eq!(answer["status"], "SCHEDULED", "{answer}");
        assert_eq!(answer["orderId"], order["orderId"]);
        self.client().ended(answer["workflowId"].as_str().expect("a run was started"))
    }

    #[track_caller]
    fn start(&self, definition: &str, input: &Value) -> Value {
        let path = format!("/api/definitions/{definition}/runs");
        let answer = self.client().post(&path, input).expect(202);
        let started = answer.json();
        let id = started["workflowId"].as_str().expect("a run was started");
        assert_eq!(answer.header("location"), Some(format!("/api/workflows/{id}").as_str()));
        self.client().ended(id)
    }

    fn log(&self, run: &Value) -> Vec<String> {
        self.client().log(run["workflowId"].as_str().expect("a run has an id"))
    }
}

#[test]
fn a_good_order_is_completed_with_one_of_each() {
    let shop = Shop::open();
    let run = shop.order(&order("ORD-001"));
    assert_eq!(run["status"], "COMPLETED", "{run}");
    assert_eq!(
        shop.log(&run),
        [
            "WORKFLOW_STARTED",
            "STEP_STARTED validate_order",
            "STEP_COMPLETED validate_order",
            "STEP_STARTED reserve_inventory",
            "STEP_COMPLETED reserve_inventory",
            "STEP_STARTED charge_payment",
            "STEP_COMPLETED charge_payment",
            "STEP_STARTED create_shipment",
            "STEP_COMPLETED create_shipment",
            "STEP_STARTED notify_customer",
            "STEP_COMPLETED notify_customer",
            "WORKFLOW_COMPLETED",
        ]
    );
    let ledger = Ledger::read(shop.client());
    assert_eq!(ledger.stock["PROD-A"], 8);
    assert_eq!(ledger.payments["ORD-001"]["amountCents"], 19_998);
    ledger.check(&[("PROD-A".to_owned(), 10)].into(), std::slice::from_ref(&run));

    let status = shop.client().get("/api/orders/ORD-001/status").expect(200).json();
    assert_eq!(status["status"], "COMPLETED");
    assert_eq!(status["workflowId"], run["workflowId"]);
    assert_eq!(status["events"].as_array().map(Vec::len), Some(12));
    assert_eq!(status["cause"], Value::Null);
}

#[test]
fn events_record_the_code_that_ran_and_its_cost() {
    let shop = Shop::open();
    let run = shop.order(&order("ORD-001"));
    let events = shop.client().events(run["workflowId"].as_str().unwrap());
    let completed = events.as_array().unwrap().iter().filter(|event| event["eventType"] == "STEP_COMPLETED");
    for (n, event) in completed.enumerate() {
        let payload = &event["payload"];
        assert_eq!(payload["v"], 1);
        assert_eq!(payload["attempt"], 1);
        assert!(payload["fuelUsed"].as_u64().is_some_and(|fuel| fuel > 0), "{payload}");
        assert!(payload["digest"].as_str().is_some_and(|digest| digest.starts_with("sha256:")), "{payload}");
        assert_eq!(payload["component"], ["orders", "inventory", "payment", "shipping", "notification"][n]);
    }
    for (n, event) in events.as_array().unwrap().iter().enumerate() {
        assert_eq!(event["sequence"], n + 1);
        assert_eq!(event["workflowId"], run["workflowId"]);
        assert!(
            event["occurredAt"].as_str().is_some_and(|at| at.ends_with('Z') && at.len() == 24),
            "{event}"
        );
    }
    let path = format!("/api/workflows/{}/events?fromSeq=11", run["workflowId"].as_str().unwrap());
    let tail = shop.client().get(&path).expect(200).json();
    assert_eq!(tail.as_array().map(Vec::len), Some(2));
}

#[test]
fn the_log_of_a_declined_order_is_exactly_as_specified() {
    let shop = Shop::open();
    let run = shop.order(&declined("ORD-002"));
    assert_eq!(run["status"], "COMPENSATED", "{run}");
    assert_eq!(run["cause"], "STEP");
    assert_eq!(run["error"]["message"], "insufficient funds");
    assert_eq!(
        shop.log(&run),
        [
            "WORKFLOW_STARTED",
            "STEP_STARTED validate_order",
            "STEP_COMPLETED validate_order",
            "STEP_STARTED reserve_inventory",
            "STEP_COMPLETED reserve_inventory",
            "STEP_STARTED charge_payment",
            "STEP_FAILED charge_payment",
            "WORKFLOW_FAILED charge_payment",
            "COMPENSATION_STARTED charge_payment",
            "COMPENSATION_COMPLETED charge_payment",
            "COMPENSATION_STARTED reserve_inventory",
            "COMPENSATION_COMPLETED reserve_inventory",
            "WORKFLOW_COMPENSATED",
        ]
    );
    let ledger = Ledger::read(shop.client());
    assert_eq!(ledger.stock["PROD-A"], 10);
    assert!(!ledger.payments.contains_key("ORD-002"), "nothing was charged, so there is nothing to refund");
    ledger.check(&[("PROD-A".to_owned(), 10)].into(), &[run]);
}

#[test]
fn an_order_that_cannot_be_shipped_is_refunded_and_released() {
    let shop = Shop::open();
    let run = shop.order(&unreachable("ORD-003"));
    assert_eq!(run["status"], "COMPENSATED", "{run}");
    assert_eq!(run["error"]["message"], "address unreachable");
    let log = shop.log(&run);
    let undone: Vec<&str> =
        log.iter().filter_map(|line| line.strip_prefix("COMPENSATION_COMPLETED ")).collect();
    assert_eq!(undone, ["create_shipment", "charge_payment", "reserve_inventory"]);
    let ledger = Ledger::read(shop.client());
    assert_eq!(ledger.payments["ORD-003"]["state"], "refunded");
    assert_eq!(ledger.reservations["ORD-003"]["state"], "released");
    assert!(ledger.outbox.is_empty());
    ledger.check(&[("PROD-A".to_owned(), 10)].into(), &[run]);
}

#[test]
fn an_order_for_more_than_the_stock_fails_in_its_reservation() {
    let shop = Shop::open();
    let run = shop.order(&too_many("ORD-004"));
    assert_eq!(run["status"], "COMPENSATED", "{run}");
    assert_eq!(run["error"]["message"], "out of stock: PROD-A");
    let log = shop.log(&run);
    assert!(!log.iter().any(|line| line.contains("charge_payment")), "{log:?}");
    Ledger::read(shop.client()).check(&[("PROD-A".to_owned(), 10)].into(), &[run]);
}

#[test]
fn an_invalid_order_fails_with_nothing_to_undo() {
    let shop = Shop::open();
    let item =
        |quantity: i64, price: f64| json!([{"productId": "PROD-A", "quantity": quantity, "price": price}]);
    let cases = [
        with(order("E-1"), "items", json!([])),
        with(order("E-2"), "items", item(0, 1.0)),
        with(order("E-3"), "items", item(1, -1.0)),
        with(order("E-4"), "customerId", json!("")),
        with(order("E-5"), "items", item(1, 0.001)),
    ];
    for case in cases {
        let run = shop.order(&case);
        assert_eq!(run["status"], "FAILED", "{case}: {run}");
        let log = shop.log(&run);
        assert_eq!(log.last().map(String::as_str), Some("WORKFLOW_FAILED validate_order"), "{log:?}");
    }
}

#[test]
fn an_optional_field_that_is_absent_is_null_to_the_steps() {
    let shop = Shop::open();
    let mut order = order("ORD-007");
    for optional in ["metadata", "paymentMethod", "shipTo"] {
        order.as_object_mut().unwrap().remove(optional);
    }
    let run = shop.order(&order);
    assert_eq!(run["status"], "COMPLETED", "{run}");
    let kebab = json!({"order-id": "ORD-008", "customer-id": "C", "items": [
        {"product-id": "PROD-A", "quantity": 1, "price": 1.5}]});
    let answer = shop.client().post("/api/orders", &kebab).expect(200).json();
    assert_eq!(answer["orderId"], "ORD-008");
    let run = shop.client().ended(answer["workflowId"].as_str().unwrap());
    assert_eq!(run["status"], "COMPLETED", "{run}");
    assert_eq!(run["input"]["orderId"], "ORD-008");
}

#[test]
fn a_corrected_order_takes_the_key_of_the_one_that_was_undone() {
    let shop = Shop::open();
    let first = shop.order(&declined("ORD-005"));
    assert_eq!(first["status"], "COMPENSATED");
    let path = "/api/orders";
    let answer = shop.client().post(path, &order("ORD-005")).expect(200).json();
    assert_ne!(answer["workflowId"], first["workflowId"]);
    assert_eq!(answer["previousWorkflowId"], first["workflowId"], "{answer}");
    let second = shop.client().ended(answer["workflowId"].as_str().unwrap());
    assert_eq!(second["status"], "COMPLETED", "{second}");

    // The key is used up now.
    shop.client().post(path, &declined("ORD-005")).expect(409);
    let again = shop.client().post(path, &order("ORD-005")).expect(200).json();
    assert_eq!(again["workflowId"], second["workflowId"]);
    assert_eq!(again["timestamp"], answer["timestamp"]);
    Ledger::read(shop.client()).check(&[("PROD-A".to_owned(), 10)].into(), &[first, second]);
}

#[test]
fn orders_for_one_product_succeed_until_it_is_sold_out() {
    let shop = Shop::open();
    let client = shop.client();
    ledger::seed(client, "PROD-A", 40);
    // Each order wants two pieces. Twenty orders get them, ten don't, and none waits for ever.
    let runs: Vec<Value> = std::thread::scope(|scope| {
        let orders: Vec<_> = (0..30)
            .map(|n| {
                scope.spawn(move || {
                    let answer = client.post("/api/orders", &order(&format!("HOT-{n}"))).expect(200).json();
                    client.ended(answer["workflowId"].as_str().expect("a run was started"))
                })
            })
            .collect();
        orders.into_iter().map(|order| order.join().unwrap()).collect()
    });
    let count = |status: &str| runs.iter().filter(|run| run["status"] == status).count();
    assert_eq!((count("COMPLETED"), count("COMPENSATED")), (20, 10));
    let ledger = Ledger::read(client);
    assert_eq!(ledger.stock["PROD-A"], 0);
    ledger.check(&[("PROD-A".to_owned(), 40)].into(), &runs);
}

#[test]
fn a_failed_payment_is_compensated_and_nothing_follows_it() {
    let shop = Shop::open();
    let run = shop.start("processFailedPayment", &order("ORD-006"));
    assert_eq!(run["status"], "COMPENSATED", "{run}");
    assert_eq!(
        shop.log(&run),
        [
            "WORKFLOW_STARTED",
            "STEP_STARTED prepare_order",
            "STEP_COMPLETED prepare_order",
            "STEP_STARTED attempt_payment",
            "STEP_FAILED attempt_payment",
            "WORKFLOW_FAILED attempt_payment",
            "COMPENSATION_STARTED attempt_payment",
            "COMPENSATION_COMPLETED attempt_payment",
            "COMPENSATION_STARTED prepare_order",
            "COMPENSATION_COMPLETED prepare_order",
            "WORKFLOW_COMPENSATED",
        ]
    );
    assert_eq!(run["error"]["message"], "insufficient funds");
}

#[test]
fn stock_is_replenished_by_two_suppliers_in_parallel() {
    let shop = Shop::open();
    let request = json!({"requestId": "R-1", "items": [
        {"productId": "PROD-A", "threshold": 50, "quantity": 41},
        {"productId": "PROD-B", "threshold": 5, "quantity": 7},
        {"productId": "PROD-C", "threshold": 0, "quantity": 9},
    ]});
    let run = shop.start("io.aster.ecommerce.inventory_replenishment.replenishInventory", &request);
    assert_eq!(run["status"], "COMPLETED", "{run}");
    let log = shop.log(&run);
    let at =
        |line: &str| log.iter().position(|other| other == line).unwrap_or_else(|| panic!("{line}: {log:?}"));
    let both_started = at("STEP_STARTED order_from_supplier_a").max(at("STEP_STARTED order_from_supplier_b"));
    let one_completed =
        at("STEP_COMPLETED order_from_supplier_a").min(at("STEP_COMPLETED order_from_supplier_b"));
    let both_completed =
        at("STEP_COMPLETED order_from_supplier_a").max(at("STEP_COMPLETED order_from_supplier_b"));
    assert!(both_started < one_completed, "not in parallel: {log:?}");
    assert!(both_completed < at("STEP_STARTED update_inventory"), "{log:?}");
    let ledger = Ledger::read(shop.client());
    assert_eq!(ledger.stock["PROD-A"], 51);
    assert_eq!(ledger.stock["PROD-B"], 7);
    assert!(!ledger.stock.contains_key("PROD-C"), "its stock was not below the threshold");
}
