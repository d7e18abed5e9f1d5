//! Clients that start runs at whichever host is there, and don't let go of one before it is accepted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::bell::Bell;
use super::cluster::Cluster;
use super::random::Random;
use super::submission::Submission;
use crate::{Answer, Client};

/// Each has one submission under way.
pub(crate) const CLIENTS: u64 = 24;
/// Before the same is sent again.
const PAUSE: (u64, u64) = (20, 200);
/// More of them say nothing new.
const MOST_UNEXPECTED: usize = 20;

/// What the clients know.
#[derive(Debug, Default)]
pub(crate) struct Book {
    /// By the submission's number.
    pub(crate) accepted: BTreeMap<u64, Accepted>,
    /// Sent and not accepted before the end.
    pub(crate) given_up: Vec<String>,
    /// Answers that no host may give here.
    pub(crate) unexpected: Vec<String>,
    /// Submissions that were sent to two hosts at once.
    pub(crate) doubles: u64,
    /// Requests that had no answer, and those that were answered 503: all were sent again.
    pub(crate) lost_answers: u64,
    pub(crate) unavailable: u64,
    /// Answers to cancellations, by status; "lost" without one.
    pub(crate) cancellations: BTreeMap<String, u64>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Accepted {
    pub(crate) workflow_id: Uuid,
    pub(crate) cancel_asked: bool,
}

#[derive(Debug)]
pub(crate) struct Load<'a> {
    cluster: &'a Cluster,
    seed: u64,
    /// Between two submissions of one client.
    interval: Duration,
    next: AtomicU64,
    accepted: AtomicU64,
    book: Mutex<Book>,
}

impl<'a> Load<'a> {
    /// So many submissions a second, by all clients together, if the hosts keep up.
    pub(crate) fn new(cluster: &'a Cluster, seed: u64, rate: u32) -> Self {
        let interval = Duration::from_secs(CLIENTS) / rate.max(1);
        let (next, accepted) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { cluster, seed, interval, next, accepted, book: Mutex::default() }
    }

    /// One client: new submissions until `end`, and the last one until it is accepted or `give_up` rings.
    pub(crate) fn run_client(&self, client: u64, end: &Bell, give_up: &Bell) {
        let mut random = Random::nth(self.seed ^ 0x0063_6c69, client);
        let mut due = Instant::now() + self.interval.mul_f64(client as f64 / CLIENTS as f64);
        while !end.wait(due.saturating_duration_since(Instant::now())) {
            // What was missed in an outage isn't made up for.
            due = (due + self.interval).max(Instant::now());
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            self.submit(n, &mut random, give_up);
        }
    }

    /// How many runs were accepted so far.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    pub(crate) fn into_book(self) -> Book {
        self.book.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(&self, n: u64, random: &mut Random, give_up: &Bell) {
        let submission = Submission::nth(self.seed, n);
        let wish = random.below(self.cluster.len());
        let ids = if submission.is_double {
            let mut other = Random::nth(random.next(), n);
            thread::scope(|scope| {
                let second = scope.spawn(|| self.until_accepted(&submission, wish + 1, &mut other, give_up));
                let first = self.until_accepted(&submission, wish, random, give_up);
                [first, second.join().expect("a client returns its failures")]
            })
        } else {
            let id = self.until_accepted(&submission, wish, random, give_up);
            [id, id]
        };
        let [Some(workflow_id), Some(same)] = ids else {
            self.note(|book| book.given_up.push(submission.key));
            return;
        };
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.note(|book| {
            book.doubles += u64::from(submission.is_double);
            if workflow_id != same {
                book.unexpected
                    .push(format!("{} was accepted as {workflow_id} and as {same}", submission.key));
            }
            let cancel_asked = submission.cancel_after.is_some();
            book.accepted.insert(n, Accepted { workflow_id, cancel_asked });
        });
        if let Some(pause) = submission.cancel_after {
            give_up.wait(pause);
            self.cancel(workflow_id, wish);
        }
    }

    /// Sends the same again, to another host perhaps, until one accepts it.
    fn until_accepted(
        &self,
        submission: &Submission,
        wish: usize,
        random: &mut Random,
        give_up: &Bell,
    ) -> Option<Uuid> {
        let mut host = self.cluster.choose(wish);
        loop {
            match self.send(submission, self.cluster.client(host)) {
                Ok(workflow_id) => return Some(workflow_id),
                Err(()) => self.cluster.avoid(host),
            }
            if give_up.wait(random.millis(PAUSE.0, PAUSE.1)) {
                return None;
            }
            host = self.cluster.choose(random.below(self.cluster.len()));
        }
    }

    fn send(&self, submission: &Submission, client: &Client) -> Result<Uuid, ()> {
        let mut headers = vec![("Content-Type", "application/json")];
        if submission.needs_key_header() {
            headers.push(("Idempotency-Key", submission.key.as_str()));
        }
        let body = submission.input.to_string();
        match client.request("POST", submission.fate.workflow().path, &headers, body.as_bytes()) {
            Err(_) => {
                self.note(|book| book.lost_answers += 1);
                Err(())
            }
            Ok(answer) if answer.status == 503 => {
                self.note(|book| book.unavailable += 1);
                Err(())
            }
            Ok(answer) => workflow_id(&answer).ok_or_else(|| {
                let body = String::from_utf8_lossy(&answer.body);
                let what = format!("{} was answered {}: {body}", submission.key, answer.status);
                self.note(|book| {
                    if book.unexpected.len() < MOST_UNEXPECTED {
                        book.unexpected.push(what);
                    }
                });
            }),
        }
    }

    /// Once: whether it came through shows in the end of the run.
    fn cancel(&self, workflow_id: Uuid, wish: usize) {
        let client = self.cluster.client(self.cluster.choose(wish));
        let path = format!("/api/workflows/{workflow_id}/cancel");
        let answer = client.request("POST", &path, &[], &[]);
        let status = answer.map_or_else(|_| "lost".to_owned(), |answer| answer.status.to_string());
        self.note(|book| {
            if !["200", "202", "404", "409", "501", "503", "lost"].contains(&status.as_str()) {
                book.unexpected.push(format!("cancelling {workflow_id} was answered {status}"));
            }
            *book.cancellations.entry(status).or_default() += 1;
        });
    }

    fn note(&self, note: impl FnOnce(&mut Book)) {
        note(&mut self.book.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

fn workflow_id(answer: &Answer) -> Option<Uuid> {
    if !matches!(answer.status, 200 | 202) {
        return None;
    }
    let body: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
    body["workflowId"].as_str()?.parse().ok()
}
