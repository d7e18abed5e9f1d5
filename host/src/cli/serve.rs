//! `aster serve`

use std::env;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tracing_subscriber::EnvFilter;

use super::{Outcome, print};
use crate::config::{self, Config, DEFAULT_DATA_DIR, Database, Housekeeping, Limits};

#[derive(Args, Debug)]
pub(super) struct Serve {
    /// Where REST is answered.
    #[arg(long, env = "ASTER_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    /// The Postgres that keeps the data [env: DATABASE_URL].
    // Not clap's `env`: a variable that is set would then conflict with --data-dir.
    #[arg(long, value_name = "URL", conflicts_with = "data_dir")]
    database_url: Option<String>,

    /// Keep the data in a private Postgres in this folder [default: .aster].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// How long other hosts on the same database leave this one's runs alone after its last sign of life.
    #[arg(long, env = "ASTER_LEASE", value_name = "DURATION", default_value = "5s", value_parser = config::duration)]
    lease: Duration,

    #[command(flatten)]
    limits: Limits,

    #[command(flatten)]
    housekeeping: Housekeeping,
}

impl Serve {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let filter = EnvFilter::try_from_env("ASTER_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(print::color_of_notes())
            .with_writer(std::io::stderr)
            .init();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.context("can't start the threads of the host")?;
        runtime.block_on(Box::pin(crate::serve::run(self.config(env::var("DATABASE_URL").ok()))))?;
        Ok(Outcome::Fine)
    }

    fn config(self, database_url_of_env: Option<String>) -> Config {
        let database = match (self.database_url, self.data_dir) {
            (Some(url), _) => Database::Url(url),
            (None, Some(dir)) => Database::DataDir(dir),
            (None, None) => match database_url_of_env.filter(|url| !url.is_empty()) {
                Some(url) => Database::Url(url),
                None => Database::DataDir(DEFAULT_DATA_DIR.into()),
            },
        };
        Config {
            listen: self.listen,
            database,
            lease: self.lease,
            limits: self.limits,
            housekeeping: self.housekeeping,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        serve: Serve,
    }

    #[test]
    fn flags_go_before_the_environment_and_that_before_the_default() {
        let check = |line: &str, env: Option<&str>, expected: Database| {
            let line = Line::try_parse_from(line.split(' ')).expect("these are flags");
            assert_eq!(line.serve.config(env.map(str::to_owned)).database, expected);
        };
        let url = |url: &str| Database::Url(url.into());
        let dir = |dir: &str| Database::DataDir(dir.into());
        check("serve --database-url a", Some("b"), url("a"));
        check("serve --data-dir d", Some("b"), dir("d"));
        check("serve --listen 0.0.0.0:1", Some("b"), url("b"));
        check("serve --listen 0.0.0.0:1", Some(""), dir(".aster"));
        check("serve --listen 0.0.0.0:1", None, dir(".aster"));
    }
}
