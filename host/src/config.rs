//! The host's configuration. A flag takes precedence over the environment, and the environment over the defaults below.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;

use crate::sandbox::CodeKey;

/// The data folder if none is given.
pub const DEFAULT_DATA_DIR: &str = ".aster";

/// Everything that `serve::run` needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The address on which the host serves HTTP.
    pub listen: SocketAddr,
    pub database: Database,
    /// How long other hosts on the same database leave this host's runs alone after its last sign of life.
    pub lease: Duration,
    /// The folder that keeps compiled code between starts.
    pub cache_dir: Option<PathBuf>,
    /// The key with which hosts on the same database recognize each other's compiled code. `None` means that each host
    /// compiles for itself.
    pub code_key: Option<CodeKey>,
    pub limits: Limits,
    pub http: Http,
    pub housekeeping: Housekeeping,
}

/// The folder for compiled code if none is given: in the data folder, or otherwise in the user's own cache (XDG Base
/// Directory Specification). `None` means that this user has no home folder.
pub(crate) fn default_cache_dir(
    database: &Database,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Option<PathBuf> {
    if let Database::DataDir(folder) = database {
        return Some(folder.join("compiled"));
    }
    // The specification says that relative paths are ignored.
    let folder = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?;
    Some(cache.join("aster"))
}

/// The Postgres server that keeps the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Database {
    /// A server that somebody else runs.
    Url(String),
    /// A private server in this folder, which the host starts and stops.
    DataDir(PathBuf),
}

/// What one run, step or request may use.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(next_help_heading = "Limits")]
pub struct Limits {
    /// Time limit for a run, from its acceptance, if its workflow sets none.
    #[arg(long, env = "ASTER_WORKFLOW_TIMEOUT", value_name = "DURATION", default_value = "1h", value_parser = duration)]
    pub workflow_timeout: Duration,

    /// Time limit for an attempt, from its first call, if its step sets none.
    #[arg(long, env = "ASTER_STEP_TIMEOUT", value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub step_timeout: Duration,

    /// Fuel for an attempt, if its step sets none. A WebAssembly instruction costs about one unit.
    #[arg(long, env = "ASTER_STEP_FUEL", value_name = "UNITS", default_value_t = 1_000_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub step_fuel: u64,

    /// Memory of a component's instance, if the step sets no limit.
    #[arg(long = "step-memory", env = "ASTER_STEP_MEMORY", value_name = "SIZE", default_value = "64MiB", value_parser = size)]
    pub step_memory_bytes: u64,

    /// Largest size of an input, a step's value or a key-value entry.
    #[arg(long = "max-value", env = "ASTER_MAX_VALUE", value_name = "SIZE", default_value = "1MiB", value_parser = size)]
    pub value_bytes: u64,

    /// Largest size of an uploaded component.
    #[arg(long = "max-component", env = "ASTER_MAX_COMPONENT", value_name = "SIZE", default_value = "64MiB", value_parser = size)]
    pub component_bytes: u64,

    /// Memory that the compilation of a component may use.
    #[arg(long = "compile-memory", env = "ASTER_COMPILE_MEMORY", value_name = "SIZE", default_value = "2GiB", value_parser = size)]
    pub compile_memory_bytes: u64,

    /// Processor time that the compilation of a component may use, summed over all processors.
    #[arg(long, env = "ASTER_COMPILE_TIME", value_name = "DURATION", default_value = "2m", value_parser = duration)]
    pub compile_time: Duration,

    /// How many runs this host drives at the same time. Further runs wait as READY.
    #[arg(long, env = "ASTER_MAX_ACTIVE_RUNS", value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_active_runs: u32,

    /// How many runs may wait in the database for a slot on a host. While all slots of this host are taken and this
    /// many runs wait, it refuses new ones (503).
    #[arg(long, env = "ASTER_MAX_READY_RUNS", value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_ready_runs: u32,
}

impl Default for Limits {
    /// The same values as the defaults of the flags.
    fn default() -> Self {
        Self {
            workflow_timeout: Duration::from_secs(3_600),
            step_timeout: Duration::from_secs(30),
            step_fuel: 1_000_000_000,
            step_memory_bytes: 64 << 20,
            value_bytes: 1 << 20,
            component_bytes: 64 << 20,
            compile_memory_bytes: 2 << 30,
            compile_time: Duration::from_secs(120),
            max_active_runs: 1_000,
            max_ready_runs: 100_000,
        }
    }
}

/// How clients may use their connections.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(next_help_heading = "Connections")]
pub struct Http {
    /// How many connections clients may have open; the host refuses further ones (503). It takes fewer if the limit on
    /// open files leaves no room for so many.
    #[arg(long, env = "ASTER_MAX_CONNECTIONS", value_name = "N", default_value_t = 4_096, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: u32,

    /// How long the host waits for a client to send the head of a request, to send 64 KiB of its body, or to take 64
    /// KiB of an answer. A whole body or answer may take 20 times as long.
    #[arg(long, env = "ASTER_REQUEST_TIMEOUT", value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub request_timeout: Duration,

    /// How long the host keeps an idle connection. Set this longer than clients keep theirs, or they lose requests.
    #[arg(long, env = "ASTER_IDLE_TIMEOUT", value_name = "DURATION", default_value = "2m", value_parser = duration)]
    pub idle_timeout: Duration,

    /// How many components may be uploaded at the same time; the host refuses further uploads (503).
    #[arg(long, env = "ASTER_MAX_UPLOADS", value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_uploads: u32,
}

impl Default for Http {
    /// The same values as the defaults of the flags.
    fn default() -> Self {
        Self {
            max_connections: 4_096,
            request_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(120),
            max_uploads: 8,
        }
    }
}

/// What the host deletes or ends after a time, and when.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(next_help_heading = "Housekeeping")]
pub struct Housekeeping {
    /// How long runs are kept after their end. Older ones are deleted with their events and keys, by the week in which
    /// they began. A run that is unfinished or COMPENSATION_FAILED is never deleted, and holds back its week [default:
    /// for ever].
    #[arg(long, env = "ASTER_RETENTION", value_name = "DURATION", value_parser = duration)]
    pub retention: Option<Duration>,

    /// How long the host holds a client that waits for a run to end (`Prefer: wait=…`). Then it answers that the run is
    /// not over yet.
    #[arg(long, env = "ASTER_WAITER_TTL", value_name = "DURATION", default_value = "24h", value_parser = duration)]
    pub waiter_ttl: Duration,

    /// How often the host looks for clients that have waited longer than this.
    #[arg(long, env = "ASTER_WAITER_SWEEP", value_name = "DURATION", default_value = "1h", value_parser = duration)]
    pub waiter_sweep: Duration,
}

impl Default for Housekeeping {
    /// The same values as the defaults of the flags.
    fn default() -> Self {
        Self {
            retention: None,
            waiter_ttl: Duration::from_secs(24 * 3_600),
            waiter_sweep: Duration::from_secs(3_600),
        }
    }
}

/// Reads `500ms`, `30s`, `5m`, `1h` or `7d`: a positive whole number and its unit, with or without spaces between them.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("`{unit}` is not a unit of time: expected ms, s, m, h or d, as in `30s`")),
    };
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(|| "too long".to_owned())
}

/// Reads `512KiB`, `64MiB` or `1GiB`: a positive whole number and its unit, with or without spaces between them.
fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text)?;
    let bytes = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => {
            return Err(format!(
                "`{unit}` is not a unit of size: expected B, KiB, MiB or GiB, as in `64MiB`"
            ));
        }
    };
    number.checked_mul(bytes).ok_or_else(|| "too large".to_owned())
}

fn split(text: &str) -> Result<(u64, &str), String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    match u64::from_str(&text[..digits]) {
        Ok(number) if number > 0 => Ok((number, text[digits..].trim())),
        _ => Err("expected a positive whole number with a unit".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Command, FromArgMatches as _};

    #[test]
    fn the_defaults_of_flags_and_code_are_the_same() {
        let matches = Limits::augment_args(Command::new("aster")).get_matches_from(["aster"]);
        assert_eq!(Limits::from_arg_matches(&matches).expect("every flag has a default"), Limits::default());
        let matches = Http::augment_args(Command::new("aster")).get_matches_from(["aster"]);
        assert_eq!(Http::from_arg_matches(&matches).expect("every flag has a default"), Http::default());
        let matches = Housekeeping::augment_args(Command::new("aster")).get_matches_from(["aster"]);
        assert_eq!(
            Housekeeping::from_arg_matches(&matches).expect("every flag has a default"),
            Housekeeping::default()
        );
    }

    #[test]
    fn compiled_code_goes_to_the_data_folder_or_to_the_users_cache() {
        let check = |database: &Database, variables: &[(&str, &str)], expected: Option<&str>| {
            let variable = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| OsString::from(value))
            };
            assert_eq!(default_cache_dir(database, variable), expected.map(PathBuf::from), "{variables:?}");
        };
        let url = Database::Url("postgres://".into());
        check(&Database::DataDir("d".into()), &[("HOME", "/home/ada")], Some("d/compiled"));
        check(&url, &[("HOME", "/home/ada")], Some("/home/ada/.cache/aster"));
        check(&url, &[("HOME", "/home/ada"), ("XDG_CACHE_HOME", "/c")], Some("/c/aster"));
        check(&url, &[("HOME", "/home/ada"), ("XDG_CACHE_HOME", "c")], Some("/home/ada/.cache/aster"));
        check(&url, &[("HOME", "")], None);
        check(&url, &[], None);
    }

    #[test]
    fn durations_and_sizes_need_a_number_and_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("7 d"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(size("64 MiB"), Ok(64 << 20));
        for wrong in
            ["", "s", "0s", "-1s", "30", "30 parsecs", "99999999999999999999s", "18446744073709551615d"]
        {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "MiB", "0B", "1", "1MB", "18446744073709551615GiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
