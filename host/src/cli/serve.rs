//! `aster serve`

use std::env;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use super::{Outcome, print};
use crate::config::{self, Config, DEFAULT_DATA_DIR, Database, Housekeeping, Http, Limits};
use crate::logs;

#[derive(Args, Debug)]
pub(super) struct Serve {
    /// Address on which the host serves HTTP.
    #[arg(long, env = "ASTER_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    /// URL of the Postgres database that keeps the data [env: DATABASE_URL].
    // This isn't clap's `env`, because then a variable that is set would conflict with --data-dir.
    #[arg(long, value_name = "URL", conflicts_with = "data_dir")]
    database_url: Option<String>,

    /// Keep the data in a private Postgres server in this folder [default: .aster].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// How long other hosts on the same database leave this host's runs alone after its last sign of life.
    #[arg(long, env = "ASTER_LEASE", value_name = "DURATION", default_value = "5s", value_parser = config::duration)]
    lease: Duration,

    /// Keep compiled code in this folder, which only this user may enter (mode 0700) [default: `compiled` in the data
    /// folder, or else `aster` in $XDG_CACHE_HOME or ~/.cache].
    #[arg(long, env = "ASTER_CACHE_DIR", value_name = "DIR")]
    cache_dir: Option<PathBuf>,

    /// Threads that drive runs and answer requests. Guests that compute for long have other threads [default: one less
    /// than there are processors].
    // Postgres mostly runs on the same machine, and everything waits for its one connection for commits: on two
    // processors, two threads carry a fifth less than one.
    #[arg(long, env = "ASTER_WORKER_THREADS", value_name = "N")]
    worker_threads: Option<std::num::NonZeroU16>,

    #[command(flatten)]
    limits: Limits,

    #[command(flatten)]
    http: Http,

    #[command(flatten)]
    housekeeping: Housekeeping,

    #[command(flatten)]
    log: logs::Options,
}

impl Serve {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads =
            self.worker_threads.map_or(cores.saturating_sub(1).max(1), |threads| threads.get().into());
        let log = self.log.clone();
        let config = self.config(|name| env::var_os(name))?;
        // The log is closed after everything else has ended.
        let _log = logs::begin(&log, print::color_of_notes());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
        let runtime = runtime.context("can't start the threads of the host")?;
        runtime.block_on(Box::pin(crate::serve::run(config)))?;
        Ok(Outcome::Fine)
    }

    /// `variable` reads the environment. An empty variable counts as unset.
    fn config(self, variable: impl Fn(&str) -> Option<OsString>) -> anyhow::Result<Config> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let database = match (self.database_url, self.data_dir) {
            (Some(url), _) => Database::Url(url),
            (None, Some(dir)) => Database::DataDir(dir),
            (None, None) => match variable("DATABASE_URL").and_then(|url| url.into_string().ok()) {
                Some(url) => Database::Url(url),
                None => Database::DataDir(DEFAULT_DATA_DIR.into()),
            },
        };
        // There is no flag for this key, because other users of the machine can read a process's arguments.
        let code_key = variable(CODE_KEY).map(|key| key.to_string_lossy().parse()).transpose();
        let cache_dir = self.cache_dir.or_else(|| config::default_cache_dir(&database, variable));
        Ok(Config {
            listen: self.listen,
            database,
            lease: self.lease,
            cache_dir,
            code_key: code_key.context(CODE_KEY)?,
            limits: self.limits,
            http: self.http,
            housekeeping: self.housekeeping,
        })
    }
}

/// The variable with the secret that makes hosts trust each other's compiled code.
const CODE_KEY: &str = "ASTER_CODE_KEY";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        serve: Serve,
    }

    fn config(line: &str, environment: &[(&str, &str)]) -> anyhow::Result<Config> {
        let line = Line::try_parse_from(line.split(' ')).expect("these are flags");
        line.serve.config(|name| {
            let found = environment.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.into())
        })
    }

    #[test]
    fn a_flag_overrides_the_environment_which_overrides_the_default() {
        let check = |line: &str, url: Option<&str>, expected: Database| {
            let environment: Vec<_> = url.map(|url| ("DATABASE_URL", url)).into_iter().collect();
            assert_eq!(config(line, &environment).expect("the configuration is valid").database, expected);
        };
        let url = |url: &str| Database::Url(url.into());
        let dir = |dir: &str| Database::DataDir(dir.into());
        check("serve --database-url a", Some("b"), url("a"));
        check("serve --data-dir d", Some("b"), dir("d"));
        check("serve --listen 0.0.0.0:1", Some("b"), url("b"));
        check("serve --listen 0.0.0.0:1", Some(""), dir(".aster"));
        check("serve --listen 0.0.0.0:1", None, dir(".aster"));
        let own = config("serve --data-dir d --cache-dir c", &[]).expect("the configuration is valid");
        assert_eq!(own.cache_dir, Some("c".into()));
    }

    #[test]
    fn a_code_key_is_valid_or_refused_and_never_printed() {
        let key = "5ecre7".repeat(11);
        let given = config("serve --data-dir d", &[(CODE_KEY, &key.replace('r', "0"))]).expect("it is a key");
        assert!(given.code_key.is_some());
        assert!(!format!("{given:?}").contains("5ec"), "{given:?}");
        let error = config("serve --data-dir d", &[(CODE_KEY, &key)]).expect_err("`r` is no digit");
        assert!(!format!("{error:#}").contains("5ec"), "{error:#}");
        assert!(format!("{error:#}").starts_with("ASTER_CODE_KEY: expected at least 64"), "{error:#}");
    }
}
