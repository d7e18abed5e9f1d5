//! Limits how long a peer may keep a connection waiting.
//!
//! Only time spent waiting for the peer counts, and the bytes that it sends or takes buy it more. So a slow line is no
//! fault, but a peer that stalls or trickles is.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::exchange::Exchange;
use super::metrics::{Connections, Slow};

/// This many bytes restore the whole patience.
const FAIR_BYTES: usize = 64 << 10;

/// A whole message may take this many times the patience, however steadily it moves.
const WHOLE: u32 = 20;

/// Wakes its task at an instant that may move. Moving it to a later instant costs nothing.
#[derive(Debug, Default)]
pub(super) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Returns whether the instant has come. If it hasn't, the task is woken when it does.
    pub(super) fn rings(&mut self, at: Instant, cx: &mut Context<'_>) -> bool {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        loop {
            if sleep.as_mut().poll(cx).is_pending() {
                return false;
            }
            // The timer was set for an earlier instant, which has moved since.
            if Instant::now() >= at {
                return true;
            }
            sleep.as_mut().reset(at);
        }
    }
}

/// The time that a peer has left.
#[derive(Debug)]
pub(super) struct Patience {
    limit: Duration,
    waited: Duration,
    /// Since when the peer is being waited for.
    since: Option<Instant>,
    /// The bytes that moved since the patience was last restored.
    bytes: usize,
    /// When the whole message must have moved. The first wait sets this.
    end: Option<Instant>,
    alarm: Alarm,
}

impl Patience {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, waited: Duration::ZERO, since: None, bytes: 0, end: None, alarm: Alarm::default() }
    }

    /// Restores everything for the next message.
    pub(super) fn renew(&mut self) {
        (self.waited, self.since, self.bytes, self.end) = (Duration::ZERO, None, 0, None);
    }

    /// Notes that the peer has sent or taken this many bytes.
    pub(super) fn moved(&mut self, bytes: usize) {
        if let Some(since) = self.since.take() {
            self.waited += since.elapsed();
        }
        self.bytes += bytes;
        if self.bytes >= FAIR_BYTES {
            (self.bytes, self.waited) = (0, Duration::ZERO);
        }
    }

    /// Returns whether waiting for the peer has taken too long. Call this only when there is nothing else to do. If it
    /// returns false, the task is woken when the time is over.
    pub(super) fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let since = *self.since.get_or_insert_with(Instant::now);
        let end = *self.end.get_or_insert_with(|| since + self.limit * WHOLE);
        let at = (since + self.limit.saturating_sub(self.waited)).min(end);
        self.alarm.rings(at, cx)
    }

    pub(super) fn too_slow(&self) -> TooSlow {
        TooSlow { limit: self.limit }
    }
}

/// The peer has used up its time.
#[derive(Debug, thiserror::Error)]
#[error(
    "the client may keep the host waiting for {limit:?} per {} KiB, and for {WHOLE} times as long in all",
    FAIR_BYTES >> 10
)]
pub(super) struct TooSlow {
    limit: Duration,
}

/// The body of a request, with a limit on the wait for its chunks.
#[derive(Debug)]
pub(super) struct Paced {
    body: Incoming,
    patience: Patience,
    exchange: Arc<Exchange>,
    connections: Arc<Connections>,
}

impl Paced {
    pub(super) fn new(
        body: Incoming,
        limit: Duration,
        exchange: Arc<Exchange>,
        connections: Arc<Connections>,
    ) -> Self {
        exchange.set_unread(!body.is_end_stream());
        Self { body, patience: Patience::new(limit), exchange, connections }
    }
}

impl Body for Paced {
    type Data = bytes::Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            if self.patience.is_over(cx) {
                self.connections.count_too_slow(Slow::Body);
                return Poll::Ready(Some(Err(self.patience.too_slow().into())));
            }
            return Poll::Pending;
        };
        if let Some(Ok(frame)) = &frame {
            self.patience.moved(frame.data_ref().map_or(0, bytes::Bytes::len));
        }
        if frame.is_none() || self.body.is_end_stream() {
            self.exchange.set_unread(false);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::advance;

    use super::*;

    async fn is_over(patience: &mut Patience) -> bool {
        poll_fn(|cx| Poll::Ready(patience.is_over(cx))).await
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn only_waiting_counts_and_bytes_buy_more_time() {
        let mut patience = Patience::new(10 * SECOND);
        assert!(!is_over(&mut patience).await);
        advance(6 * SECOND).await;
        patience.moved(FAIR_BYTES - 1);
        // Time that the host itself takes doesn't count.
        advance(100 * SECOND).await;
        assert!(!is_over(&mut patience).await);
        advance(3 * SECOND).await;
        assert!(!is_over(&mut patience).await);
        patience.moved(1);
        assert!(!is_over(&mut patience).await);
        advance(9 * SECOND).await;
        assert!(!is_over(&mut patience).await);
        advance(2 * SECOND).await;
        assert!(is_over(&mut patience).await);
        patience.renew();
        assert!(!is_over(&mut patience).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_trickles_runs_out_of_time() {
        let mut patience = Patience::new(10 * SECOND);
        for _ in 0..33 {
            assert!(!is_over(&mut patience).await);
            advance(6 * SECOND).await;
            patience.moved(FAIR_BYTES);
        }
        advance(3 * SECOND).await;
        assert!(is_over(&mut patience).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_waits_is_woken_when_the_time_is_over() {
        let mut patience = Patience::new(10 * SECOND);
        let began = Instant::now();
        poll_fn(|cx| if patience.is_over(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
        assert_eq!(began.elapsed().as_secs(), 10);
    }
}
