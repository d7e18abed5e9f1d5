//! The setup for most benchmarks: a host with release settings on its own durable Postgres, with the six components and
//! the three workflows.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use aster_postgres::{Embedded, Options};
use tempfile::TempDir;

use super::database::Database;
use crate::host::{self, Host};
use crate::interrupt::Interrupt;
use crate::progress::Stages;
use crate::workspace::Workspace;
use crate::{build, demo};

pub(super) struct Stand {
    // This comes before Postgres, which it needs, because fields are dropped in this order.
    pub(super) host: Host,
    pub(super) database: Database,
    pub(super) postgres: Embedded,
    folder: TempDir,
    interrupt: Interrupt,
}

impl Stand {
    pub(super) fn set_up(workspace: &Workspace, stages: &mut Stages) -> Result<Self> {
        Self::set_up_with(workspace, None, stages)
    }

    /// Uses another host than the one built here, for comparisons.
    pub(super) fn set_up_with(
        workspace: &Workspace,
        program: Option<&Path>,
        stages: &mut Stages,
    ) -> Result<Self> {
        let stand = Self::empty(workspace, program, stages)?;
        stages.doing("components and workflows", || demo::deploy(workspace, stand.host.api()))?;
        Ok(stand)
    }

    /// Sets up a host with nothing deployed.
    pub(super) fn set_up_empty(workspace: &Workspace, stages: &mut Stages) -> Result<Self> {
        Self::empty(workspace, None, stages)
    }

    fn empty(workspace: &Workspace, program: Option<&Path>, stages: &mut Stages) -> Result<Self> {
        build::components(workspace, stages)?;
        if program.is_none() {
            build::release_host(workspace, stages)?;
        }
        // The folder is on the disk that holds the build, because a temporary folder may be in memory.
        let folder = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(workspace.target())
            .context("can't make a folder for the database")?;
        let interrupt = Interrupt::install()?;
        let postgres = stages
            .doing("Postgres", || Ok(Embedded::start(Options::new(folder.path().join("postgres")))?))?;
        let database = Database::new(postgres.url())?;
        let address = host::free_address("127.0.0.1:0")?;
        let program = program.map_or_else(|| workspace.release_host(), Path::to_owned);
        let log = folder.path().join("aster.log");
        let host = stages.doing("host starts", || {
            Host::start_on(&program, postgres.url(), "5s", &log, &address, || !interrupt.has_come())
        })?;
        Ok(Self { host, database, postgres, folder, interrupt })
    }

    /// # Errors
    /// Returns an error if the benchmark was interrupted.
    pub(super) fn check_wanted(&self) -> Result<()> {
        ensure!(!self.interrupt.has_come(), "interrupted");
        Ok(())
    }

    pub(super) fn take_down(self) {
        let Self { host, postgres, folder, .. } = self;
        drop(host);
        postgres.stop();
        drop(folder);
    }
}
