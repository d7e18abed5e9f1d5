//! What people want of runs: kept until whoever drives the run has carried it out.

use aster_core::id::{HostId, TenantId, WorkflowId};
use aster_core::journal::Ordered;
use aster_core::order::{Order, What};
use aster_core::state::Status;
use aster_core::time::Timestamp;
use sqlx::PgConnection;
use tokio::time::Instant;
use uuid::Uuid;

use super::connections::{despite_deadlocks, persistently};
use super::runs::parse_status;
use super::{Error, Store, count, instant};

impl Store {
    /// Takes an order for a run of `tenant`: durable, and if nobody drives the run it is to be claimed at once. If the answer is
    /// lost it is asked again: the order's id makes that harmless.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such run.
    pub async fn order(
        &self,
        tenant: &TenantId,
        workflow_id: WorkflowId,
        order: &Order,
        now: Timestamp,
    ) -> Result<Ordered, Error> {
        let order_id = order.author.order_id.ok_or_else(|| Error::refused("the order has no id"))?;
        let (release, statuses): (_, &[Status]) = match &order.what {
            What::Cancel => (None, &[Status::Ready, Status::Running, Status::Compensating]),
            What::Retry { release, .. } => (*release, &[Status::Compensating, Status::CompensationFailed]),
            What::Skip { .. } | What::Settle { .. } => {
                (None, &[Status::Compensating, Status::CompensationFailed])
            }
        };
        let statuses: Vec<&str> = statuses.iter().map(|status| status.as_str()).collect();
        let content = order.content();
        let give_up = Instant::now() + self.connections.patience.client;
        let row = persistently(give_up, || async {
            self.connection()
                .await?
                .ask(|connection| {
                    sqlx::query!(
                        r#"select taken as "taken!", current_status as "current_status!"
                        from order_run(
                            p_tenant => $1,
                            p_workflow_id => $2,
                            p_order_id => $3,
                            p_content => $4,
                            p_release_id => $5,
                            p_at => $6,
                            p_statuses => $7
                        )"#,
                        tenant.as_str(),
                        workflow_id.0,
                        order_id,
                        content,
                        release,
                        instant(now),
                        &statuses as &[&str],
                    )
                    .fetch_optional(connection)
                })
                .await
        })
        .await?;
        let row = row.ok_or_else(|| Error::not_found(format!("run {workflow_id}")))?;
        Ok(Ordered { taken: row.taken, status: parse_status(&row.current_status)? })
    }

    /// The orders for a run that are still there, the oldest first. Some may have been carried out: the log tells.
    pub async fn orders(&self, workflow_id: WorkflowId) -> Result<Vec<Order>, Error> {
        let rows = self
            .connection()
            .await?
            .ask(|connection| {
                sqlx::query!(
                    r#"select order_id, content::text as "content!" from workflow_order where workflow_id = $1 order by order_id"#,
                    workflow_id.0,
                )
                .fetch_all(connection)
            })
            .await?;
        let orders = rows.into_iter().filter_map(|row| match Order::parse(&row.content) {
            Ok(mut order) => {
                order.author.order_id = Some(row.order_id);
                Some(order)
            }
            // Of a newer host: that one, or this one's successor, will carry it out.
            Err(error) => {
                tracing::error!(run.id = %workflow_id, order.id = %row.order_id, %error, "an order can't be read");
                None
            }
        });
        Ok(orders.collect())
    }

    /// Forgets an order that was carried out, or can't be.
    pub async fn forget_order(&self, workflow_id: WorkflowId, order_id: Uuid) -> Result<(), Error> {
        self.connection()
            .await?
            .ask(|connection| {
                sqlx::query!(
                    "delete from workflow_order where workflow_id = $1 and order_id = $2",
                    workflow_id.0,
                    order_id,
                )
                .execute(connection)
            })
            .await?;
        Ok(())
    }

    /// Whether an order waits to be carried out.
    pub async fn is_ordered(&self, workflow_id: WorkflowId, order_id: Uuid) -> Result<bool, Error> {
        self.connection()
            .await?
            .ask(|connection| {
                sqlx::query_scalar!(
                    r#"select exists (
                        select from workflow_order where workflow_id = $1 and order_id = $2
                    ) as "is_there!""#,
                    workflow_id.0,
                    order_id,
                )
                .fetch_one(connection)
            })
            .await
    }

    /// Runs with orders that `host` drives, at most `limit`: its drivers may not have been told.
    pub async fn ordered_runs(&self, host: HostId, limit: usize) -> Result<Vec<WorkflowId>, Error> {
        let ids = self
            .connection()
            .await?
            .ask(|connection| {
                sqlx::query_scalar!(
                    "select distinct o.workflow_id
                    from workflow_order o
                    join workflow_run r on r.workflow_id = o.workflow_id
                    where r.owner = $1
                    limit $2",
                    host.0,
                    count(limit),
                )
                .fetch_all(connection)
            })
            .await?;
        Ok(ids.into_iter().map(WorkflowId).collect())
    }

    /// Looks after orders that came just when their run was given back: it is woken, unless it is over and nothing is left to
    /// do.
    pub async fn settle_stray_orders(&self, now: Timestamp) -> Result<u64, Error> {
        despite_deadlocks(|| async {
            self.connection().await?.ask(|connection| settle_strays(connection, now)).await
        })
        .await
    }
}

async fn settle_strays(connection: &mut PgConnection, now: Timestamp) -> Result<u64, sqlx::Error> {
    let woken = sqlx::query!(
        "update workflow_run r
        set wake_at = $1
        where r.workflow_id in (select o.workflow_id from workflow_order o)
            and r.owner is null
            and (r.wake_at is null or r.wake_at > $1)
            and r.status in ('READY', 'RUNNING', 'COMPENSATING', 'COMPENSATION_FAILED')",
        instant(now),
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "delete from workflow_order o
        where not exists (
            select from workflow_run r
            where r.workflow_id = o.workflow_id
                and r.status in ('READY', 'RUNNING', 'COMPENSATING', 'COMPENSATION_FAILED')
        )",
    )
    .execute(connection)
    .await?;
    Ok(woken.rows_affected())
}
