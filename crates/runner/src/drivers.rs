//! Which task drives which run, so that a lost lease stops them all and orders reach them.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard};

use aster_core::id::{Fence, HostId, WorkflowId};
use futures_util::future::{AbortHandle, AbortRegistration, Abortable};
use tokio::sync::Notify;

use super::watchdog::Doing;
use super::{Shared, UNPOISONED};

#[derive(Debug, Default)]
pub(super) struct Drivers {
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
pub(super) struct Contact {
    /// Tells the driver that there are orders for its run.
    pub(super) ordered: Notify,
    pub(super) doing: Doing,
}

/// The place of a driver, from which it is removed when this is dropped; one that panics stays, as dead.
#[derive(Debug)]
pub(super) struct Seat {
    shared: Arc<Shared>,
    workflow_id: WorkflowId,
    number: u64,
    registration: AbortRegistration,
}

impl Drivers {
    pub(super) fn len(&self) -> usize {
        self.by_run.len()
    }

    /// What each driver that lives does, with its number.
    pub(super) fn doing(&self) -> impl Iterator<Item = (u64, &Doing)> {
        let living = self.by_run.values().filter(|driver| !driver.is_dead);
        living.map(|driver| (driver.number, &driver.contact.doing))
    }

    /// Whether the run's driver has died of it; none if it has had none since its owner changed.
    pub(super) fn is_dead(&self, workflow_id: WorkflowId) -> Option<bool> {
        self.by_run.get(&workflow_id).map(|driver| driver.is_dead)
    }
}

impl Shared {
    pub(super) fn driving(&self) -> MutexGuard<'_, Drivers> {
        self.driving.lock().expect(UNPOISONED)
    }

    /// A place for a task that is to drive a run; none if another one does, or should. Who drove the run before is stopped.
    pub(super) fn seat(
        self: &Arc<Self>,
        host: HostId,
        workflow_id: WorkflowId,
        fence: Fence,
        contact: &Arc<Contact>,
    ) -> Option<Seat> {
        let mut drivers = self.driving();
        if self.host() != Some(host) {
            // The lease ended meanwhile: the run is another host's to drive.
            return None;
        }
        if drivers.by_run.get(&workflow_id).is_some_and(|known| !known.is_dead && known.fence > fence) {
            // The answer that leads here came late: the run was adopted meanwhile.
            return None;
        }
        drivers.last_number += 1;
        let number = drivers.last_number;
        let (task, registration) = AbortHandle::new_pair();
        let driver = Driver { number, fence, task, contact: Arc::clone(contact), is_dead: false };
        if let Some(replaced) = drivers.by_run.insert(workflow_id, driver) {
            replaced.task.abort();
        }
        Some(Seat { shared: Arc::clone(self), workflow_id, number, registration })
    }

    /// Interrupts every guest and forgets every run; from here on nothing is begun. Nothing is told to the database.
    pub(super) fn stop_driving(&self) {
        let mut drivers = self.driving();
        *self.host.write().expect(UNPOISONED) = None;
        std::mem::take(&mut drivers.by_run).into_values().for_each(|driver| driver.task.abort());
    }

    /// Whether this host drives the run; then its driver looks at the orders.
    pub(super) fn tell_ordered(&self, workflow_id: WorkflowId) -> bool {
        let drivers = self.driving();
        let driver = drivers.by_run.get(&workflow_id);
        if let Some(driver) = driver {
            driver.contact.ordered.notify_one();
        }
        driver.is_some()
    }
}

impl Seat {
    /// Lets `driving` go on until it ends, or a lost lease or a shutdown stops it.
    pub(super) async fn drive(mut self, driving: impl Future<Output = ()>) {
        let (_, spent) = AbortHandle::new_pair();
        let registration = std::mem::replace(&mut self.registration, spent);
        // An error means that it was stopped.
        let _ = Abortable::new(driving, registration).await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut drivers = self.shared.driving();
        // A run that was handed back may have been claimed again meanwhile: then the entry is another task's.
        let Some(own) = drivers.by_run.get_mut(&self.workflow_id).filter(|known| known.number == self.number)
        else {
            return;
        };
        match std::thread::panicking() {
            true => own.is_dead = true,
            false => drop(drivers.by_run.remove(&self.workflow_id)),
        }
    }
}
