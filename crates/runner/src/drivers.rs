//! Which task drives which run, so that a lost lease stops them all and orders reach them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use aster_core::id::{Fence, HostId, WorkflowId};
use futures_util::future::{AbortHandle, AbortRegistration, Abortable};
use tokio::sync::Notify;

use crate::lease::Lease;
use crate::shared::UNPOISONED;
use crate::watchdog::Doing;

/// The tasks that drive runs on this host.
#[derive(Debug)]
pub(crate) struct Drivers {
    lease: Arc<Lease>,
    table: Mutex<Table>,
    /// Runs whose acceptance is on its way. It may be done already, and the task that sent it will drive the run.
    accepting: Mutex<BTreeSet<WorkflowId>>,
}

#[derive(Debug, Default)]
struct Table {
    by_run: BTreeMap<WorkflowId, Driver>,
    last_number: u64,
}

/// A task that drives a run.
#[derive(Debug)]
struct Driver {
    /// Tells the drivers of one run apart.
    number: u64,
    /// Under which it began.
    fence: Fence,
    task: AbortHandle,
    contact: Arc<Contact>,
    /// It panicked.
    is_dead: bool,
}

/// What a driver and the rest of its host share.
#[derive(Debug, Default)]
pub(crate) struct Contact {
    /// Tells the driver that there are orders for its run.
    pub(crate) ordered: Notify,
    pub(crate) doing: Doing,
}

/// The place of a driver, from which it is removed when this is dropped; one that panics stays, as dead.
#[derive(Debug)]
pub(crate) struct DriverSlot {
    drivers: Arc<Drivers>,
    workflow_id: WorkflowId,
    number: u64,
    registration: AbortRegistration,
}

/// A run that this host owns and no task of it drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stray {
    pub(crate) workflow_id: WorkflowId,
    pub(crate) fence: Fence,
    /// A task began to drive it and died of it. If not, none ever did since the run's owner changed.
    pub(crate) had_driver: bool,
}

impl Drivers {
    pub(crate) fn new(lease: Arc<Lease>) -> Self {
        Self { lease, table: Mutex::default(), accepting: Mutex::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.table().by_run.len()
    }

    /// Shows `see` each driver that lives: its number, and what it does.
    pub(crate) fn for_each(&self, mut see: impl FnMut(u64, &Doing)) {
        for driver in self.table().by_run.values().filter(|driver| !driver.is_dead) {
            see(driver.number, &driver.contact.doing);
        }
    }

    /// Those of the runs that the host owns which no task drives, or is about to drive.
    pub(crate) fn strays(&self, owned: Vec<(WorkflowId, Fence)>) -> Vec<Stray> {
        let accepting = self.accepting.lock().expect(UNPOISONED).clone();
        let table = self.table();
        let undriven = owned.into_iter().filter(|(workflow_id, _)| !accepting.contains(workflow_id));
        let strays = undriven.filter_map(|(workflow_id, fence)| {
            let driver = table.by_run.get(&workflow_id);
            let is_driven = driver.is_some_and(|driver| !driver.is_dead);
            (!is_driven).then_some(Stray { workflow_id, fence, had_driver: driver.is_some() })
        });
        strays.collect()
    }

    /// A place for a task that is to drive a run. `None` means that another task does, or should. The task that drove the run
    /// before is stopped.
    pub(crate) fn slot(
        self: &Arc<Self>,
        host: HostId,
        workflow_id: WorkflowId,
        fence: Fence,
        contact: &Arc<Contact>,
    ) -> Option<DriverSlot> {
        let mut table = self.table();
        if self.lease.host() != Some(host) {
            // The lease ended meanwhile: the run is another host's to drive.
            return None;
        }
        if table.by_run.get(&workflow_id).is_some_and(|known| !known.is_dead && known.fence > fence) {
            // The answer that leads here came late: the run was adopted meanwhile.
            return None;
        }
        table.last_number += 1;
        let number = table.last_number;
        let (task, registration) = AbortHandle::new_pair();
        let driver = Driver { number, fence, task, contact: Arc::clone(contact), is_dead: false };
        if let Some(replaced) = table.by_run.insert(workflow_id, driver) {
            replaced.task.abort();
        }
        Some(DriverSlot { drivers: Arc::clone(self), workflow_id, number, registration })
    }

    /// Until the returned value is dropped, no other task of this host begins to drive the run.
    pub(crate) fn accepting(self: &Arc<Self>, workflow_id: WorkflowId) -> Accepting {
        self.accepting.lock().expect(UNPOISONED).insert(workflow_id);
        Accepting { drivers: Arc::clone(self), workflow_id }
    }

    /// Interrupts every guest and forgets every run; the lease ends, so from here on nothing is begun. Nothing is told to the
    /// database.
    pub(crate) fn stop(&self) {
        let mut table = self.table();
        self.lease.end();
        std::mem::take(&mut table.by_run).into_values().for_each(|driver| driver.task.abort());
    }

    /// Lets the run's driver look at the orders, if this host drives the run. Returns whether it does.
    pub(crate) fn tell_ordered(&self, workflow_id: WorkflowId) -> bool {
        let table = self.table();
        let driver = table.by_run.get(&workflow_id);
        if let Some(driver) = driver {
            driver.contact.ordered.notify_one();
        }
        driver.is_some()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect(UNPOISONED)
    }
}

impl DriverSlot {
    /// Lets `driving` go on until it ends, or a lost lease or a shutdown stops it.
    pub(crate) async fn drive(mut self, driving: impl Future<Output = ()>) {
        let (_, spent) = AbortHandle::new_pair();
        let registration = std::mem::replace(&mut self.registration, spent);
        // An error means that it was stopped.
        let _ = Abortable::new(driving, registration).await;
    }
}

impl Drop for DriverSlot {
    fn drop(&mut self) {
        let mut table = self.drivers.table();
        // A run that was handed back may have been claimed again meanwhile: then the entry is another task's.
        let Some(own) = table.by_run.get_mut(&self.workflow_id).filter(|known| known.number == self.number)
        else {
            return;
        };
        match std::thread::panicking() {
            true => own.is_dead = true,
            false => drop(table.by_run.remove(&self.workflow_id)),
        }
    }
}

/// An acceptance on its way.
#[derive(Debug)]
pub(crate) struct Accepting {
    drivers: Arc<Drivers>,
    workflow_id: WorkflowId,
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.drivers.accepting.lock().expect(UNPOISONED).remove(&self.workflow_id);
    }
}
