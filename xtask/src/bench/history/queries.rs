//! The queries: over HTTP, and as somebody would write them by hand in SQL.

use crate::bench::past::Sample;

pub(super) struct Query {
    pub(super) name: &'static str,
    /// The run after `cursor=` is the one after which the page begins.
    pub(super) path: fn(&Sample) -> String,
    pub(super) sql: &'static str,
    /// The arguments in parentheses, or nothing if there are none.
    pub(super) arguments: fn(&Sample) -> String,
}

macro_rules! list {
    ($name:literal, $filter:literal, $where:literal, first) => {
        Query {
            name: $name,
            path: |_| concat!("/api/workflows?", $filter).to_owned(),
            sql: concat!(
                "select * from run_row where tenant = 'default'",
                $where,
                " order by workflow_id desc limit 51"
            ),
            arguments: |_| String::new(),
        }
    };
    ($name:literal, $filter:literal, $where:literal, deep) => {
        Query {
            name: $name,
            path: |sample| format!(concat!("/api/workflows?", $filter, "cursor={}"), sample.workflow_id),
            sql: concat!(
                "select * from run_row where tenant = 'default'",
                $where,
                " and workflow_id < $1::uuid order by workflow_id desc limit 51"
            ),
            arguments: id,
        }
    };
}

macro_rules! ids {
    ($status:literal) => {
        Query {
            name: concat!("ids by status ", $status),
            path: |_| concat!("/api/workflows/by-status/", $status).to_owned(),
            sql: concat!(
                "select workflow_id from workflow_run where tenant = 'default' and status = '",
                $status,
                "' order by workflow_id desc limit 100"
            ),
            arguments: |_| String::new(),
        }
    };
}

fn id(sample: &Sample) -> String {
    format!("('{}')", sample.workflow_id)
}

pub(super) const QUERIES: [Query; 26] = [
    list!("list, first page", "", "", first),
    list!("list, any page", "", "", deep),
    list!("COMPLETED, first page", "status=COMPLETED&", " and status = 'COMPLETED'", first),
    list!("COMPLETED, any page", "status=COMPLETED&", " and status = 'COMPLETED'", deep),
    list!("FAILED, any page", "status=FAILED&", " and status = 'FAILED'", deep),
    list!("RUNNING, first page", "status=RUNNING&", " and status = 'RUNNING'", first),
    list!(
        "COMPENSATION_FAILED, first page",
        "status=COMPENSATION_FAILED&",
        " and status = 'COMPENSATION_FAILED'",
        first
    ),
    list!(
        "COMPENSATION_FAILED, any page",
        "status=COMPENSATION_FAILED&",
        " and status = 'COMPENSATION_FAILED'",
        deep
    ),
    list!(
        "definition with half the runs, any page",
        "definition=io.aster.ecommerce.order_fulfillment.fulfillOrder&",
        " and definition = 'io.aster.ecommerce.order_fulfillment.fulfillOrder'",
        deep
    ),
    list!(
        "definition with few runs, first page",
        "definition=io.aster.ecommerce.payment_compensation.processFailedPayment&",
        " and definition = 'io.aster.ecommerce.payment_compensation.processFailedPayment'",
        first
    ),
    list!(
        "COMPLETED of that definition (none)",
        "status=COMPLETED&definition=io.aster.ecommerce.payment_compensation.processFailedPayment&",
        " and status = 'COMPLETED' and definition = 'io.aster.ecommerce.payment_compensation.processFailedPayment'",
        first
    ),
    list!(
        "FAILED of a definition without (none)",
        "status=FAILED&definition=io.aster.ecommerce.inventory_replenishment.replenishInventory&",
        " and status = 'FAILED' and definition = 'io.aster.ecommerce.inventory_replenishment.replenishInventory'",
        first
    ),
    list!(
        "cause STEP of a definition without (none)",
        "cause=STEP&definition=io.aster.ecommerce.inventory_replenishment.replenishInventory&",
        " and cause = 'STEP' and definition = 'io.aster.ecommerce.inventory_replenishment.replenishInventory'",
        first
    ),
    list!(
        "FAILED, cause TIMEOUT (none)",
        "status=FAILED&cause=TIMEOUT&",
        " and status = 'FAILED' and cause = 'TIMEOUT'",
        first
    ),
    list!("cause STEP, any page", "cause=STEP&", " and cause = 'STEP'", deep),
    list!("cause TIMEOUT (one in 500), any page", "cause=TIMEOUT&", " and cause = 'TIMEOUT'", deep),
    list!("cause CANCEL (none)", "cause=CANCEL&", " and cause = 'CANCEL'", first),
    ids!("COMPLETED"),
    ids!("RUNNING"),
    ids!("COMPENSATION_FAILED"),
    ids!("READY"),
    Query {
        name: "run",
        path: |sample| format!("/api/workflows/{}", sample.workflow_id),
        sql: "select * from run_row where workflow_id = $1::uuid",
        arguments: id,
    },
    Query {
        name: "events of a run",
        path: |sample| format!("/api/workflows/{}/events", sample.workflow_id),
        sql: "select sequence, event_type, payload, occurred_at from workflow_events where workflow_id = $1::uuid order by sequence",
        arguments: id,
    },
    Query {
        name: "status by a trigger's key",
        path: |sample| format!("/api/orders/{}/status", sample.key),
        sql: "select r.*, e.sequence, e.event_type, e.payload, e.occurred_at from workflow_key k join run_row r on r.workflow_id = k.workflow_id join workflow_events e on e.workflow_id = r.workflow_id where k.tenant = 'default' and k.definition = 'io.aster.ecommerce.order_fulfillment.fulfillOrder' and k.key = $1 order by e.sequence",
        arguments: |sample| format!("('{}')", sample.key),
    },
    Query {
        name: "counts by status",
        path: |_| "/api/workflows/metrics".to_owned(),
        sql: "select status, sum(n) from run_count where tenant = 'default' group by status",
        arguments: |_| String::new(),
    },
    Query {
        name: "/metrics",
        path: |_| "/metrics".to_owned(),
        sql: "select status, sum(n) from run_count group by status",
        arguments: |_| String::new(),
    },
];
