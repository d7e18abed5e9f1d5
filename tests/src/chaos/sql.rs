//! Queries of the database that bypass all proxies.

use std::time::Duration;

use anyhow::{Context, Result};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection};
use tokio::runtime::Handle;

/// Clones ask the same database.
#[derive(Clone, Debug)]
pub(crate) struct Sql {
    runtime: Handle,
    options: PgConnectOptions,
}

impl Sql {
    pub(crate) fn new(runtime: Handle, options: PgConnectOptions) -> Self {
        Self { runtime, options }
    }

    /// Runs a query on a new connection.
    pub(crate) fn ask<T>(
        &self,
        limit: Duration,
        question: impl AsyncFnOnce(&mut PgConnection) -> Result<T>,
    ) -> Result<T> {
        let asked = async {
            let mut connection = self.options.connect().await?;
            question(&mut connection).await
        };
        self.runtime
            .block_on(async { tokio::time::timeout(limit, asked).await })
            .context("Postgres doesn't answer")?
    }
}
