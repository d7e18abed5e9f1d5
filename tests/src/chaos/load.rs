//! Clients that start runs at any host that is there, and send a submission again until it is accepted.

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
use crate::Answer;

/// The number of clients. Each has one submission under way.
pub(crate) const CLIENTS: u64 = 48;
/// The pause before the same submission is sent again.
const PAUSE: (u64, u64) = (20, 200);
/// More unexpected answers than this say nothing new.
const MOST_UNEXPECTED: usize = 20;

/// The results that the clients know.
#[derive(Debug, Default)]
pub(crate) struct Book {
    /// By the submission's number.
    pub(crate) accepted: BTreeMap<u64, Accepted>,
    /// Submissions that were sent but not accepted before the end.
    pub(crate) given_up: Vec<String>,
    /// Answers that no host may give here.
    pub(crate) unexpected: Vec<String>,
    /// The number of submissions that were sent to two hosts at once.
    pub(crate) doubles: u64,
    /// The number of requests without an answer, and of those answered 503. All were sent again.
    pub(crate) lost_answers: u64,
    pub(crate) unavailable: u64,
    /// Answers to cancellations by status, or "lost" if there was none.
    pub(crate) cancellations: BTreeMap<String, u64>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Accepted {
    pub(crate) workflow_id: Uuid,
    pub(crate) cancel_asked: bool,
    /// Whether a host said that the run is cancelled.
    pub(crate) cancel_accepted: bool,
}

#[derive(Debug)]
pub(crate) struct Load<'a> {
    cluster: &'a Cluster,
    seed: u64,
    /// The time between two submissions of one client.
    interval: Duration,
    next: AtomicU64,
    /// By the host that gave the answer.
    accepted: Vec<AtomicU64>,
    book: Mutex<Book>,
}

impl<'a> Load<'a> {
    /// `rate` is the number of submissions a second by all clients together, if the hosts keep up.
    pub(crate) fn new(cluster: &'a Cluster, seed: u64, rate: u32) -> Self {
        let interval = Duration::from_secs(CLIENTS) / rate.max(1);
        let accepted = (0..cluster.len()).map(|_| AtomicU64::new(0)).collect();
        Self { cluster, seed, interval, next: AtomicU64::new(0), accepted, book: Mutex::default() }
    }

    /// Runs one client: it sends new submissions until `end` rings, and repeats the last one until it is accepted or
    /// `give_up` rings.
    pub(crate) fn run_client(&self, client: u64, end: &Bell, give_up: &Bell) {
        let mut random = Random::nth(self.seed ^ 0x0063_6c69, client);
        let mut due = Instant::now() + self.interval.mul_f64(client as f64 / CLIENTS as f64);
        while !end.wait(due.saturating_duration_since(Instant::now())) {
            // Submissions that were missed during an outage are not made up for.
            due = (due + self.interval).max(Instant::now());
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            self.submit(n, &mut random, give_up);
        }
    }

    /// Returns how many submissions each host has accepted so far.
    pub(crate) fn accepted(&self) -> Vec<u64> {
        self.accepted.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    pub(crate) fn into_book(self) -> Book {
        self.book.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(&self, n: u64, random: &mut Random, give_up: &Bell) {
        let submission = Submission::nth(self.seed, n);
        let hosts = self.cluster.len();
        let wish = random.below(hosts);
        let ids = if submission.is_double {
            let mut other = Random::nth(random.next(), n);
            thread::scope(|scope| {
                let second =
                    scope.spawn(|| self.until_accepted(&submission, (wish + 1) % hosts, &mut other, give_up));
                let first = self.until_accepted(&submission, wish, random, give_up);
                [first, second.join().expect("a client returns its failures")]
            })
        } else {
            let id = self.until_accepted(&submission, self.cluster.choose(wish), random, give_up);
            [id, id]
        };
        let [Some(workflow_id), Some(same)] = ids else {
            self.note(|book| book.given_up.push(submission.key));
            return;
        };
        self.note(|book| {
            book.doubles += u64::from(submission.is_double);
            if workflow_id != same {
                book.unexpected
                    .push(format!("{} was accepted as {workflow_id} and as {same}", submission.key));
            }
            let cancel_asked = submission.cancel_after.is_some();
            book.accepted.insert(n, Accepted { workflow_id, cancel_asked, cancel_accepted: false });
        });
        if let Some(pause) = submission.cancel_after {
            give_up.wait(pause);
            self.cancel(n, workflow_id, wish);
        }
    }

    /// Sends the submission to `host`, and then again, possibly to another host, until it is accepted.
    fn until_accepted(
        &self,
        submission: &Submission,
        mut host: usize,
        random: &mut Random,
        give_up: &Bell,
    ) -> Option<Uuid> {
        loop {
            match self.send(submission, host) {
                Ok(workflow_id) => {
                    self.accepted[host].fetch_add(1, Ordering::Relaxed);
                    return Some(workflow_id);
                }
                Err(()) => self.cluster.avoid(host),
            }
            if give_up.wait(random.millis(PAUSE.0, PAUSE.1)) {
                return None;
            }
            host = self.cluster.choose(random.below(self.cluster.len()));
        }
    }

    fn send(&self, submission: &Submission, host: usize) -> Result<Uuid, ()> {
        let mut headers = vec![("Content-Type", "application/json")];
        if submission.needs_key_header() {
            headers.push(("Idempotency-Key", submission.key.as_str()));
        }
        let body = submission.input.to_string();
        match self.cluster.ask(host, submission.fate.workflow().path, &headers, body.as_bytes()) {
            None => {
                self.note(|book| book.lost_answers += 1);
                Err(())
            }
            Some(answer) if answer.status == 503 => {
                self.note(|book| book.unavailable += 1);
                Err(())
            }
            Some(answer) => workflow_id(&answer).ok_or_else(|| {
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

    /// Cancels once. The end of the run shows whether the order arrived.
    fn cancel(&self, n: u64, workflow_id: Uuid, wish: usize) {
        let path = format!("/api/workflows/{workflow_id}/cancel");
        let answer = self.cluster.ask(self.cluster.choose(wish), &path, &[], &[]);
        let status = answer.map_or_else(|| "lost".to_owned(), |answer| answer.status.to_string());
        self.note(|book| {
            if !["200", "202", "404", "409", "501", "503", "lost"].contains(&status.as_str()) {
                book.unexpected.push(format!("cancelling {workflow_id} was answered {status}"));
            }
            if matches!(status.as_str(), "200" | "202")
                && let Some(accepted) = book.accepted.get_mut(&n)
            {
                accepted.cancel_accepted = true;
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
