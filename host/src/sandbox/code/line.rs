//! The queue for the compiler, in which tenants take turns.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aster_core::id::TenantId;
use tokio::sync::{oneshot, watch};

/// The most uploads of a tenant that may wait, besides those being compiled. Each holds its bytes.
const MOST_OF_A_TENANT: usize = 8;
const MOST_IN_ALL: usize = 64;

/// On whose behalf a component is compiled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Behalf {
    /// A component that was accepted earlier and that runs wait for. It is never refused.
    Host,
    /// An upload of this tenant.
    Tenant(TenantId),
}

/// Why the queue refuses a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoPlace {
    #[error("{MOST_OF_A_TENANT} other uploads of this tenant wait to be compiled")]
    TenantsLineIsFull,
    #[error("{MOST_IN_ALL} other uploads wait to be compiled")]
    LineIsFull,
    #[error("the host is stopping")]
    Stopping,
}

/// Gives out a fixed number of places. Each free place goes to the next tenant that waits, in a circle; within a
/// tenant, to the one that came first. A tenant never has all places, so that one is left for the next tenant.
#[derive(Debug)]
pub(in crate::sandbox) struct Line {
    state: Mutex<State>,
    places: usize,
    is_closed: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    /// INVARIANT: the values add up to `taken`, and none is 0.
    taken_by: HashMap<Behalf, usize>,
    /// INVARIANT: a tenant is in the circle once if it has waiters, and otherwise not at all.
    circle: VecDeque<(Behalf, VecDeque<Waiting>)>,
    waiting: usize,
    next_number: u64,
    is_closed: bool,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    /// Dropped when the line is closed.
    called: oneshot::Sender<()>,
}

/// A place for the compiler. Dropping it gives it back.
#[derive(Debug)]
pub(in crate::sandbox) struct Place {
    line: Arc<Line>,
    behalf: Behalf,
}

/// A waiter in the line. Dropping the ticket leaves the line.
struct Ticket {
    line: Arc<Line>,
    behalf: Behalf,
    number: u64,
    is_used: bool,
}

impl Line {
    pub(in crate::sandbox) fn new(places: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), places, is_closed: watch::Sender::new(false) })
    }

    /// Waits for a place.
    ///
    /// # Errors
    /// Returns an error if too many wait already, or if the line is closed.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the line.
    pub(super) async fn take(self: &Arc<Self>, behalf: Behalf) -> Result<Place, NoPlace> {
        let (mut ticket, called) = {
            let mut state = self.lock();
            if state.is_closed {
                return Err(NoPlace::Stopping);
            }
            let number = state.next_number;
            let called = state.join(&behalf)?;
            state.call_next(self.places);
            (Ticket { line: Arc::clone(self), behalf, number, is_used: false }, called)
        };
        called.await.map_err(|_| NoPlace::Stopping)?;
        ticket.is_used = true;
        Ok(Place { line: Arc::clone(self), behalf: ticket.behalf.clone() })
    }

    /// Refuses everybody who waits, and everybody who comes from now on.
    pub(in crate::sandbox) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        state.waiting = 0;
        state.circle.clear();
        drop(state);
        self.is_closed.send_replace(true);
    }

    /// Waits until the line is closed. Whoever has a place then must give it back.
    pub(super) async fn closed(&self) {
        let mut closed = self.is_closed.subscribe();
        // The sender is in `self`, so it exists as long as this future does.
        let _ = closed.wait_for(|is_closed| *is_closed).await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, behalf: &Behalf) {
        let mut state = self.lock();
        state.taken -= 1;
        if let Some(taken) = state.taken_by.get_mut(behalf) {
            *taken -= 1;
            if *taken == 0 {
                state.taken_by.remove(behalf);
            }
        }
        state.call_next(self.places);
    }

    #[cfg(test)]
    pub(in crate::sandbox) fn waiting(&self) -> usize {
        self.lock().waiting
    }
}

impl State {
    fn join(&mut self, behalf: &Behalf) -> Result<oneshot::Receiver<()>, NoPlace> {
        let found = self.circle.iter().position(|(known, _)| known == behalf);
        if let Behalf::Tenant(_) = behalf {
            if found.is_some_and(|at| self.circle[at].1.len() >= MOST_OF_A_TENANT) {
                return Err(NoPlace::TenantsLineIsFull);
            }
            if self.waiting >= MOST_IN_ALL {
                return Err(NoPlace::LineIsFull);
            }
        }
        let (called, call) = oneshot::channel();
        let waiting = Waiting { number: self.next_number, called };
        match found {
            Some(at) => self.circle[at].1.push_back(waiting),
            None => self.circle.push_back((behalf.clone(), VecDeque::from([waiting]))),
        }
        self.next_number += 1;
        self.waiting += 1;
        Ok(call)
    }

    /// Gives free places to those whose turn it is.
    fn call_next(&mut self, places: usize) {
        while self.taken < places {
            let may_have = |behalf: &Behalf| {
                let taken = self.taken_by.get(behalf).copied().unwrap_or(0);
                *behalf == Behalf::Host || taken + 1 < places || places == 1
            };
            let Some(next) = self.circle.iter().position(|(behalf, _)| may_have(behalf)) else { return };
            let Some((behalf, mut line)) = self.circle.remove(next) else { return };
            if let Some(first) = line.pop_front() {
                self.waiting -= 1;
                self.taken += 1;
                *self.taken_by.entry(behalf.clone()).or_default() += 1;
                // A waiter that has just left gives the place back as soon as it gets the lock.
                first.called.send(()).ok();
            }
            if !line.is_empty() {
                self.circle.push_back((behalf, line));
            }
        }
    }

    /// Removes a waiter. Returns whether it was still waiting.
    fn leave(&mut self, behalf: &Behalf, number: u64) -> bool {
        let Some(at) = self.circle.iter().position(|(known, _)| known == behalf) else { return false };
        let line = &mut self.circle[at].1;
        let Some(place) = line.iter().position(|waiting| waiting.number == number) else { return false };
        line.remove(place);
        if line.is_empty() {
            self.circle.remove(at);
        }
        self.waiting -= 1;
        true
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.is_used {
            return;
        }
        let mut state = self.line.lock();
        let was_called = !state.leave(&self.behalf, self.number) && !state.is_closed;
        drop(state);
        if was_called {
            self.line.give_back(&self.behalf);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.line.give_back(&self.behalf);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;

    type Waiter = Pin<Box<dyn Future<Output = Result<Place, NoPlace>>>>;

    fn poll<T>(future: &mut Pin<Box<dyn Future<Output = T>>>) -> Poll<T> {
        future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    /// Makes a waiter for this tenant, and puts it into the line.
    fn comes(line: &Arc<Line>, tenant: &str) -> Waiter {
        let (line, behalf) = (Arc::clone(line), Behalf::Tenant(tenant.parse().expect("a name")));
        Box::pin(async move { line.take(behalf).await })
    }

    fn place(waiter: &mut Waiter) -> Option<Place> {
        match poll(waiter) {
            Poll::Ready(place) => Some(place.expect("a place")),
            Poll::Pending => None,
        }
    }

    #[test]
    fn places_go_to_one_of_each_tenant_in_turn() {
        let line = Line::new(1);
        let held = place(&mut comes(&line, "x")).expect("the line is empty");
        let mut waiting: Vec<(&str, Waiter)> = Vec::new();
        for (name, tenant) in [("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b"), ("c1", "c"), ("b2", "b")] {
            let mut waiter = comes(&line, tenant);
            assert!(place(&mut waiter).is_none());
            waiting.push((name, waiter));
        }
        let mut order = Vec::new();
        let mut held = Some(held);
        while let Some(place_before) = held.take() {
            drop(place_before);
            waiting.retain_mut(|(name, waiter)| match place(waiter) {
                Some(given) => {
                    order.push(*name);
                    held = Some(given);
                    false
                }
                None => true,
            });
        }
        assert_eq!(order, ["a1", "b1", "c1", "a2", "b2", "a3"]);
    }

    #[test]
    fn a_tenant_never_has_all_places() {
        let line = Line::new(3);
        let _held = [comes(&line, "a"), comes(&line, "a")].map(|mut it| place(&mut it).expect("a place"));
        let mut third = comes(&line, "a");
        assert!(place(&mut third).is_none());
        assert!(place(&mut comes(&line, "b")).is_some(), "and it is given back");
        assert!(place(&mut third).is_none());
        let mut host = Box::pin({
            let line = Arc::clone(&line);
            async move { line.take(Behalf::Host).await }
        }) as Waiter;
        assert!(place(&mut host).is_some());
    }

    #[test]
    fn a_waiter_that_leaves_blocks_nobody() {
        let line = Line::new(1);
        let held = place(&mut comes(&line, "x")).expect("the line is empty");
        let (mut first, mut second, mut third) = (comes(&line, "a"), comes(&line, "b"), comes(&line, "c"));
        for waiter in [&mut first, &mut second, &mut third] {
            assert!(place(waiter).is_none());
        }
        drop(first);
        assert_eq!(line.waiting(), 2);
        drop(held);
        // The second waiter was called, and leaves before it notices.
        drop(second);
        assert!(place(&mut third).is_some());
        assert_eq!(line.waiting(), 0);
        assert!(place(&mut comes(&line, "d")).is_some());
    }

    #[test]
    fn the_line_is_bounded_for_each_tenant_and_in_all_but_not_for_the_host() {
        let line = Line::new(1);
        let _held = place(&mut comes(&line, "x")).expect("the line is empty");
        let mut waiting = Vec::new();
        let mut refused = |tenant: &str| {
            let mut waiter = comes(&line, tenant);
            match poll(&mut waiter) {
                Poll::Ready(refused) => refused.err(),
                Poll::Pending => {
                    waiting.push(waiter);
                    None
                }
            }
        };
        for tenant in ["a", "b", "c", "d", "e", "f", "g"] {
            assert!((0..MOST_OF_A_TENANT).all(|_| refused(tenant).is_none()));
            assert_eq!(refused(tenant), Some(NoPlace::TenantsLineIsFull));
        }
        assert!((0..8).all(|n| refused(&format!("tenant-{n}")).is_none()));
        assert_eq!(refused("late"), Some(NoPlace::LineIsFull));
        let mut host = pin!(line.take(Behalf::Host));
        assert!(host.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }

    #[test]
    fn closing_the_line_refuses_all_waiters() {
        let line = Line::new(1);
        let held = place(&mut comes(&line, "x")).expect("the line is empty");
        let mut waiter = comes(&line, "a");
        assert!(place(&mut waiter).is_none());
        line.close();
        assert!(matches!(poll(&mut waiter), Poll::Ready(Err(NoPlace::Stopping))));
        drop((held, waiter));
        assert!(matches!(poll(&mut comes(&line, "a")), Poll::Ready(Err(NoPlace::Stopping))));
    }
}
