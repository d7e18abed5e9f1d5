//! A test's own database in the server that `DATABASE_URL` names.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

/// The database is dropped with this value, unless the test failed. Then it is kept for inspection.
#[derive(Debug)]
pub struct Database {
    server: String,
    name: String,
}

impl Database {
    /// # Panics
    /// Panics if `DATABASE_URL` isn't set, or if the server doesn't answer.
    pub fn create() -> Self {
        let server = std::env::var("DATABASE_URL")
            .expect("tests need a Postgres: run them by `cargo xtask test`, or set DATABASE_URL");
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("aster_test_{}_{nanos}_{count}", std::process::id());
        execute(&server, format!("create database {name}"));
        Self { server, name }
    }

    pub fn url(&self) -> String {
        let (before, query) = self.server.split_once('?').unwrap_or((&self.server, ""));
        let slash = before.rfind('/').expect("a URL has slashes");
        format!("{}/{}?{query}", &before[..slash], self.name)
    }

    /// Runs a statement, and returns the first column of its rows as text.
    ///
    /// # Panics
    /// Panics if Postgres refuses the statement.
    pub fn query(&self, sql: &str) -> Vec<String> {
        let url = self.url();
        block_on(async {
            let mut connection = PgConnection::connect(&url).await.expect("Postgres answers");
            sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_all(&mut connection).await.expect(sql)
        })
    }
}

/// Another session, in a transaction that it doesn't end. Dropping this ends it without a commit.
#[derive(Debug)]
pub struct Session {
    runtime: tokio::runtime::Runtime,
    connection: PgConnection,
}

impl Database {
    /// Begins a transaction with these statements.
    ///
    /// # Panics
    /// Panics if Postgres refuses them.
    pub fn session(&self, sql: &str) -> Session {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime can be built");
        let url = self.url();
        let connection = runtime.block_on(async {
            let mut connection = PgConnection::connect(&url).await.expect("Postgres answers");
            let begun = sqlx::raw_sql(AssertSqlSafe(format!("begin; {sql}"))).execute(&mut connection).await;
            begun.expect("the statements are right");
            connection
        });
        Session { runtime, connection }
    }
}

impl Session {
    /// Ends the transaction. Its locks are released when this returns.
    ///
    /// # Panics
    /// Panics if Postgres is gone.
    pub fn end(mut self) {
        let ended = self.runtime.block_on(sqlx::raw_sql("rollback").execute(&mut self.connection));
        ended.expect("a transaction can be ended");
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            execute(&self.server, format!("drop database if exists {} with (force)", self.name));
        }
    }
}

fn execute(server: &str, sql: String) {
    block_on(async {
        let mut connection = PgConnection::connect(server).await.expect("Postgres answers at DATABASE_URL");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.expect("the statement is right");
    });
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be built").block_on(future)
}
