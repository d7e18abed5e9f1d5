//! The same key is the same run, however often it is sent and by however many clients.

use std::sync::Arc;

use aster_tests::ledger::{self, Ledger};
use aster_tests::orders::{order, with};
use aster_tests::{Database, Host, Options};
use serde_json::{Value, json};

fn shop(database: &Database) -> Host {
    let host = Host::start(&Options::database(&database.url()));
    host.set_up();
    ledger::seed(host.client(), "PROD-A", 100);
    host
}

#[test]
fn ten_clients_with_one_key_get_one_run() {
    let database = Database::create();
    let host = Arc::new(shop(&database));
    let clients: Vec<_> = (0..10)
        .map(|_| {
            let host = Arc::clone(&host);
            std::thread::spawn(move || host.client().post("/api/orders", &order("ORD-1")).expect(200).json())
        })
        .collect();
    let answers: Vec<Value> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    for answer in &answers {
        assert_eq!(answer["workflowId"], answers[0]["workflowId"]);
        assert_eq!(answer["timestamp"], answers[0]["timestamp"]);
        assert_eq!(answer["status"], "SCHEDULED");
    }
    let run = host.client().ended(answers[0]["workflowId"].as_str().unwrap());
    assert_eq!(run["status"], "COMPLETED");
    Ledger::read(host.client()).check(&[("PROD-A".to_owned(), 100)].into(), &[run]);
}

#[test]
fn one_key_sent_to_two_hosts_at_once_gives_one_run() {
    let database = Database::create();
    let first = shop(&database);
    let second = Host::start(&Options::database(&database.url()));
    let hosts = [&first, &second];
    let answers: Vec<Value> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..20)
            .map(|n| {
                let client = hosts[n % 2].client();
                scope.spawn(move || client.post("/api/orders", &order("ORD-1")).expect(200).json())
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| answer["workflowId"] == answers[0]["workflowId"]), "{answers:?}");
    let run = second.client().ended(answers[0]["workflowId"].as_str().unwrap());
    assert_eq!(run["status"], "COMPLETED");
}

#[test]
fn the_same_input_in_another_order_of_fields_is_the_same_input() {
    let database = Database::create();
    let host = shop(&database);
    let client = host.client();
    let first = client.post("/api/orders", &order("ORD-1")).expect(200).json();
    // serde_json would sort the fields. This text doesn't, and it spells a number differently.
    let text = r#"{"shipTo":"12 Main St","paymentMethod":"card","metadata":{"channel":"web"},
        "items":[{"price":9.999e1,"quantity":2,"productId":"PROD-A"}],"customerId":"CUST-123","orderId":"ORD-1"}"#;
    let headers = [("Content-Type", "application/json")];
    let again = client.request("POST", "/api/orders", &headers, text.as_bytes()).unwrap().expect(200).json();
    assert_eq!(again["workflowId"], first["workflowId"]);
}

#[test]
fn the_same_key_with_other_input_is_refused_with_the_run_that_has_it() {
    let database = Database::create();
    let host = shop(&database);
    let client = host.client();
    let first = client.post("/api/orders", &order("ORD-1")).expect(200).json();
    let id = first["workflowId"].as_str().unwrap();
    client.ended(id);
    let refused = client.post("/api/orders", &with(order("ORD-1"), "customerId", json!("other"))).expect(409);
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    let problem = refused.json();
    assert_eq!(problem["status"], 409);
    assert!(problem["detail"].as_str().unwrap().contains(id), "{problem}");
}

#[test]
fn a_definition_without_keyed_by_takes_its_key_from_the_header() {
    let database = Database::create();
    let host = shop(&database);
    let client = host.client();
    let path = "/api/definitions/processFailedPayment/runs";
    let key = [("Idempotency-Key", "k-1")];
    let first = client.post_with(path, &key, &order("ORD-1")).expect(202).json();
    let again = client.post_with(path, &key, &order("ORD-1"));
    assert!(matches!(again.status, 200 | 202), "{}", again.status);
    assert_eq!(again.json()["workflowId"], first["workflowId"]);
    let without = client.post(path, &order("ORD-2")).expect(202).json();
    let without_again = client.post(path, &order("ORD-2")).expect(202).json();
    assert_ne!(without["workflowId"], without_again["workflowId"]);

    // The header may repeat the key of `keyed by`, but not differ from it.
    let path = "/api/definitions/fulfillOrder/runs";
    client.post_with(path, &[("Idempotency-Key", "ORD-9")], &order("ORD-9")).expect(202);
    client.post_with(path, &[("Idempotency-Key", "other")], &order("ORD-9")).expect(400);
    for key in ["", &"k".repeat(513)] {
        let path = "/api/definitions/processFailedPayment/runs";
        client.post_with(path, &[("Idempotency-Key", key)], &order("ORD-3")).expect(400);
    }
}

#[test]
fn tenants_see_nothing_of_each_other() {
    let database = Database::create();
    let host = shop(&database);
    let client = host.client();
    let answer = client.post("/api/orders", &order("ORD-1")).expect(200).json();
    let id = answer["workflowId"].as_str().unwrap();
    let other = [("X-Tenant-Id", "other")];
    for path in [format!("/api/workflows/{id}"), format!("/api/workflows/{id}/events")] {
        assert_eq!(client.request("GET", &path, &other, &[]).unwrap().status, 404, "{path}");
    }
    assert_eq!(client.post_with("/api/orders", &other, &order("ORD-1")).status, 404);
    let components = client.request("GET", "/api/components", &other, &[]).unwrap().expect(200).json();
    assert_eq!(components["items"], json!([]));
    let bad = [("X-Tenant-Id", "no spaces please")];
    assert_eq!(client.request("GET", "/api/components", &bad, &[]).unwrap().status, 400);
}

#[test]
fn each_client_that_sends_a_key_again_is_told_which_run_failed() {
    let database = Database::create();
    let host = shop(&database);
    let client = host.client();
    let declined = with(order("ORD-1"), "paymentMethod", json!("pm_insufficient_funds"));
    let first = client.post("/api/orders", &declined).expect(200).json();
    assert_eq!(first.get("previousWorkflowId"), None);
    let first = first["workflowId"].as_str().unwrap().to_owned();
    assert_eq!(client.ended(&first)["status"], "COMPENSATED");

    // All are sent at once, by the trigger and by name. One of them creates the run.
    let answers: Vec<Value> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..20)
            .map(|n| {
                scope.spawn(move || match n % 4 {
                    0 => {
                        client.post("/api/definitions/fulfillOrder/runs", &order("ORD-1")).expect(202).json()
                    }
                    1 => {
                        let wait = [("Prefer", "wait=30")];
                        client
                            .post_with("/api/definitions/fulfillOrder/runs", &wait, &order("ORD-1"))
                            .expect(200)
                            .json()
                    }
                    _ => client.post("/api/orders", &order("ORD-1")).expect(200).json(),
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    for answer in &answers {
        assert_eq!(answer["previousWorkflowId"], first.as_str(), "{answer}");
        assert_eq!(answer["workflowId"], answers[0]["workflowId"]);
    }
    // Later answers say the same, as does the run itself.
    let second = answers[0]["workflowId"].as_str().unwrap();
    let ended = client.ended(second);
    assert_eq!((&ended["status"], &ended["previousWorkflowId"]), (&json!("COMPLETED"), &json!(first)));
    let again = client.post("/api/orders", &order("ORD-1")).expect(200).json();
    assert_eq!(again["previousWorkflowId"], first.as_str(), "{again}");
    assert!(again["message"].as_str().unwrap().contains(&first), "{again}");
}
