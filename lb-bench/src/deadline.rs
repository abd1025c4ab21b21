//! Time limits of requests. Arming a timer for each request would cost more than some requests do: one timer stays armed, and is moved
//! when it fires too early.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// The time limit of one request after the other.
pub(crate) struct Deadline {
    limit: Duration,
    sleep: Pin<Box<Sleep>>,
}

impl Deadline {
    /// A limit for each request.
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            limit,
            sleep: Box::pin(sleep_until(Instant::now() + limit)),
        }
    }

    /// Waits for a request that begins at this time; `None` if it takes longer than the limit.
    pub(crate) async fn within<T>(
        &mut self,
        begin: std::time::Instant,
        request: impl Future<Output = T>,
    ) -> Option<T> {
        let end = Instant::from_std(begin) + self.limit;
        let mut request = pin!(request);
        poll_fn(|cx| {
            if let Poll::Ready(result) = request.as_mut().poll(cx) {
                return Poll::Ready(Some(result));
            }
            loop {
                ready!(self.sleep.as_mut().poll(cx));
                if Instant::now() >= end {
                    return Poll::Ready(None);
                }
                self.sleep.as_mut().reset(end);
            }
        })
        .await
    }
}
