//! Requests that no well-meaning client sends. Each gets a clear answer, and nothing is lost or half done.

use aster_tests::ledger::{self, Ledger};
use aster_tests::orders::{order, with};
use aster_tests::{Answer, Database, Host, Options, workflow};
use serde_json::{Value, json};

fn shop(database: &Database) -> Host {
    let host = Host::start(&Options::database(&database.url()));
    host.set_up();
    ledger::seed(host.client(), "PROD-A", 10);
    host
}

/// Returns the problem of a refused request.
#[track_caller]
fn problem(answer: &Answer, status: u16) -> Value {
    assert_eq!(answer.status, status, "{}", String::from_utf8_lossy(&answer.body));
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let problem = answer.json();
    assert_eq!(problem["status"], status);
    for field in ["type", "title", "detail"] {
        assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "no {field}: {problem}");
    }
    problem
}

#[test]
fn orders_that_do_not_fit_are_refused_with_the_place_of_each_fault() {
    let database = Database::create();
    let host = shop(&database);
    let client = host.client();
    let post = |body: &[u8]| {
        client.request("POST", "/api/orders", &[("Content-Type", "application/json")], body).unwrap()
    };
    for text in ["", "{", "nonsense", "{\"orderId\": }", "\u{1}", "[1,2"] {
        problem(&post(text.as_bytes()), 400);
    }
    problem(&post(&[0xff, 0xfe, 0x00]), 400);
    problem(&post("[".repeat(100_000).as_bytes()), 400);
    let text = order("ORD-1").to_string().replace("\"quantity\":", "\"quantity\":1,\"quantity\":");
    let problem_ = problem(&post(text.as_bytes()), 400);
    assert_eq!(problem_["errors"][0]["pointer"], "/items/0/quantity", "{problem_}");
    let headers = [("Content-Type", "application/json"), ("Content-Encoding", "gzip")];
    problem(&client.request("POST", "/api/orders", &headers, b"{}").unwrap(), 415);

    let item = |field: &str, value: Value| {
        let mut item = json!({"productId": "PROD-A", "quantity": 2, "price": 1.0});
        item[field] = value;
        with(order("ORD-1"), "items", json!([item]))
    };
    let mut missing = order("ORD-1");
    missing.as_object_mut().unwrap().remove("items");
    let cases = [
        (json!([]), ""),
        (json!("text"), ""),
        (Value::Null, ""),
        (missing, "/items"),
        (with(order("ORD-1"), "colour", json!("red")), "/colour"),
        (with(order("ORD-1"), "items", json!("none")), "/items"),
        (with(order("ORD-1"), "orderId", json!(17)), "/orderId"),
        (with(order("ORD-1"), "metadata", json!({"channel": 3})), "/metadata/channel"),
        (item("quantity", json!("two")), "/items/0/quantity"),
        (item("quantity", json!(2.5)), "/items/0/quantity"),
        (item("quantity", json!(1_u64 << 40)), "/items/0/quantity"),
        (item("price", json!(true)), "/items/0/price"),
        (item("size", json!(1)), "/items/0/size"),
    ];
    for (body, pointer) in cases {
        let problem = problem(&client.post("/api/orders", &body), 400);
        let errors = problem["errors"].as_array().unwrap_or_else(|| panic!("no errors: {problem}"));
        assert!(errors.iter().any(|error| error["pointer"] == pointer), "{pointer}: {problem}");
    }
    // Postgres can't store a NUL in a text, so the host refuses it first.
    let nul = with(order("ORD-1"), "customerId", json!("a\u{0}b"));
    problem(&client.post("/api/orders", &nul), 400);
    let nul = with(order("ORD-1"), "orderId", json!("a\u{0}b"));
    problem(&client.post("/api/orders", &nul), 400);

    let metrics = client.get("/api/workflows/metrics").expect(200).json();
    assert_eq!(
        metrics,
        json!({"READY": 0, "RUNNING": 0, "COMPLETED": 0, "FAILED": 0, "COMPENSATING": 0,
        "COMPENSATED": 0, "COMPENSATION_FAILED": 0})
    );
    let run = client.post("/api/orders", &order("ORD-1")).expect(200).json();
    assert_eq!(client.ended(run["workflowId"].as_str().unwrap())["status"], "COMPLETED");
}

#[test]
fn bodies_that_are_too_large_are_refused_and_the_host_keeps_serving() {
    let database = Database::create();
    let host = shop(&database);
    let client = host.client();
    let large = with(order("ORD-1"), "customerId", json!("x".repeat(20 << 20)));
    let headers = [("Content-Type", "application/json")];
    // The body is refused before it is read, and yet a client that sends all of it first sees the answer.
    problem(&client.request("POST", "/api/orders", &headers, large.to_string().as_bytes()).unwrap(), 413);
    let just_too_large = with(order("ORD-1"), "customerId", json!("x".repeat(1 << 20)));
    problem(&client.post("/api/orders", &just_too_large), 413);
    client.get("/healthz").expect(200);
}

#[test]
fn missing_things_are_not_found_and_invalid_requests_are_refused() {
    let database = Database::create();
    let host = shop(&database);
    let client = host.client();
    let nobody = "01890a5d-ac96-774b-bcce-b302099a8057";
    for path in [
        "/api/nothing".to_owned(),
        "/api/components/nothing".to_owned(),
        "/api/definitions/nothing".to_owned(),
        format!("/api/workflows/{nobody}"),
        format!("/api/workflows/{nobody}/events"),
        "/api/orders/nobody/status".to_owned(),
        "/api/components/inventory/keyvalue/stock/nothing".to_owned(),
        format!("/api/components/inventory/versions/sha256:{}", "0".repeat(64)),
    ] {
        problem(&client.get(&path), 404);
    }
    problem(&client.post("/api/definitions/nothing/runs", &json!({})), 404);
    for path in [
        "/api/workflows/not-a-uuid",
        "/api/workflows?status=DONE",
        "/api/workflows?cursor=%00",
        "/api/workflows?limit=lots",
        "/api/workflows?colour=red",
        "/api/workflows/by-status/DONE",
        "/api/components/inventory/versions/md5:0",
        "/api/components/inventory/keyvalue/stock/a%00b",
    ] {
        problem(&client.get(path), 400);
    }
    problem(&client.request("DELETE", "/api/workflows", &[], &[]).unwrap(), 405);
    let long = "k".repeat(600);
    problem(&client.put(&format!("/api/components/inventory/keyvalue/stock/{long}"), b"1"), 400);
}

#[test]
fn a_file_with_errors_deploys_nothing_and_reports_all_of_them() {
    let database = Database::create();
    let host = shop(&database);
    let client = host.client();
    let headers = [("Content-Type", "text/plain")];
    let source = workflow("order-fulfillment")
        .replace("order_fulfillment.", "order_fulfillment_two.")
        .replace("\"/api/orders\"", "\"/api/other-orders\"")
        .replace("Inventory.release(", "Inventory.relase(")
        .replace("Shipping.cancel(", "Shipping.cancel(1, 2, ");
    let refused = client.request("POST", "/api/definitions", &headers, source.as_bytes()).unwrap();
    let problem = problem(&refused, 422);
    let diagnostics = problem["diagnostics"].as_array().unwrap_or_else(|| panic!("{problem}"));
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic["severity"] == "error").count();
    assert_eq!(errors, 2, "{problem:#}");
    let definitions = client.get("/api/definitions").expect(200).json();
    assert_eq!(definitions["items"].as_array().map(Vec::len), Some(3));

    for garbage in [&b""[..], b"\xff\xfe", b"This module is", b"\tTo", b"\0\0\0"] {
        let refused = client.request("POST", "/api/definitions", &headers, garbage).unwrap();
        assert!(matches!(refused.status, 400 | 422), "{} {garbage:?}", refused.status);
    }
}

#[test]
fn a_trigger_whose_path_is_taken_is_refused_at_deployment() {
    let database = Database::create();
    let host = shop(&database);
    let client = host.client();
    let headers = [("Content-Type", "text/plain")];
    let module = |name: &str, path: &str| {
        workflow("order-fulfillment").replace("order_fulfillment.", name).replace("\"/api/orders\"", path)
    };
    for source in [
        module("order_fulfillment_two.", "\"/api/orders\""),
        module("order_fulfillment_three.", "\"/api/workflows\""),
        module("order_fulfillment_four.", "\"/healthz\""),
        module("order_fulfillment_five.", "\"/api/orders/abc/status\""),
    ] {
        let refused = client.request("POST", "/api/definitions", &headers, source.as_bytes()).unwrap();
        problem(&refused, 409);
    }
}

#[test]
fn a_missing_component_refuses_a_run_without_using_up_its_key() {
    let database = Database::create();
    let host = Host::start(&Options::database(&database.url()));
    let client = host.client();
    for name in ["orders", "inventory", "payment", "shipping"] {
        host.push(name);
    }
    host.deploy(&workflow("order-fulfillment"));
    ledger::seed(client, "PROD-A", 10);
    let answer = client.post("/api/orders", &order("ORD-1")).expect(200).json();
    assert_eq!(answer["status"], "ERROR", "{answer}");
    assert_eq!(answer["workflowId"], Value::Null);
    assert!(answer["message"].as_str().unwrap().contains("notification"), "{answer}");

    host.push("notification");
    let answer = client.post("/api/orders", &order("ORD-1")).expect(200).json();
    assert_eq!(answer["status"], "SCHEDULED", "{answer}");
    let run = client.ended(answer["workflowId"].as_str().unwrap());
    assert_eq!(run["status"], "COMPLETED");
    Ledger::read(client).check(&[("PROD-A".to_owned(), 10)].into(), &[run]);
}

#[test]
fn a_call_that_is_not_built_yet_is_refused_as_such() {
    let database = Database::create();
    let host = shop(&database);
    let client = host.client();
    let run = client.post("/api/orders", &order("ORD-1")).expect(200).json();
    let id = run["workflowId"].as_str().unwrap();
    client.ended(id);
    problem(&client.get(&format!("/api/workflows/{id}/events/stream")), 501);
}

#[test]
fn a_cursor_is_valid_only_for_its_own_list_and_filters() {
    let database = Database::create();
    let host = shop(&database);
    let client = host.client();
    for n in 0..3 {
        let run = client.post("/api/orders", &order(&format!("ORD-{n}"))).expect(200).json();
        client.ended(run["workflowId"].as_str().unwrap());
    }
    let cursor = |list: &str| {
        let page = client.get(&format!("{list}limit=1")).expect(200).json();
        page["nextCursor"].as_str().unwrap_or_else(|| panic!("{list} has no second page: {page}")).to_owned()
    };
    let lists = [
        "/api/workflows?",
        "/api/workflows?status=COMPLETED&",
        "/api/workflows?definition=fulfillOrder&",
        "/api/workflows?definition=fulfillOrder&status=COMPLETED&",
        "/api/components?",
        "/api/definitions?",
        "/api/components/shipping/keyvalue/shipments?",
        "/api/components/payment/keyvalue/payments?",
    ];
    for from in lists {
        let cursor = cursor(from);
        for to in lists {
            let answer = client.get(&format!("{to}limit=2&cursor={cursor}"));
            if from == to {
                assert!(!answer.expect(200).json()["items"].as_array().unwrap().is_empty());
            } else {
                let problem = problem(&answer, 400);
                assert_eq!(problem["type"], "/problems/invalid-parameter");
                assert_eq!(problem["errors"][0]["parameter"], "cursor");
            }
        }
        // The order of the filters doesn't matter, and another tenant has other lists.
        if let Some((path, _)) = from.split_once("definition=fulfillOrder&status=COMPLETED&") {
            client
                .get(&format!("{path}cursor={cursor}&status=COMPLETED&definition=fulfillOrder"))
                .expect(200);
        }
        let other = [("X-Tenant-Id", "other")];
        let answer = client.request("GET", &format!("{from}cursor={cursor}"), &other, &[]).unwrap();
        assert!(matches!(answer.status, 400 | 404), "{}", answer.status);
        for nonsense in ["", "!", "AAAA", "AAAAAAAAAAAAAAAAAAAAAA", &cursor[1..]] {
            problem(&client.get(&format!("{from}cursor={nonsense}")), 400);
        }
    }
    let repair = |cursor: &str| {
        client.post(&format!("/api/workflows/repair?cursor={cursor}"), &json!({"act": "retry"}))
    };
    for cursor in ["", "AAAA", &cursor("/api/workflows?")] {
        problem(&repair(cursor), 400);
    }
}
