//! Bodies of requests: bounded in sum, and read before a handler needs them.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::header::{CONTENT_LENGTH, EXPECT},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time,
};

use super::{error::ApiError, requests::ErrorCode};
use crate::number;

/// Largest body of a request, in bytes: a configuration file with as many backends as fit.
pub const MAX_REQUEST: usize = 64 << 20;

/// Bytes of all bodies that are held at once: a largest one, and as much again for others.
const BUDGET: usize = 2 * MAX_REQUEST;
/// Bytes that the budget is counted in.
const UNIT: usize = 1024;
/// Time that a request waits for its part of the budget.
const PATIENCE: time::Duration = time::Duration::from_secs(30);
/// Size from which on a body's memory is worth giving back.
const LARGE: usize = 1 << 20;

/// Bytes of a refused body that are read and dropped: a client that sends all of it before it reads gets the answer then, and not a
/// reset. Twice the largest request.
const DISCARDED: usize = 2 * MAX_REQUEST;
/// Time for that.
const LINGER: time::Duration = time::Duration::from_secs(10);
/// Refused bodies that are read to their end at once; further connections are closed with the answer.
const DISCARDS: usize = 4;

/// Holds a part of the budget for as long as the bytes are in use.
pub(super) type Held = Arc<OwnedSemaphorePermit>;

/// The budget of all bodies.
pub(super) struct Bodies {
    budget: Arc<Semaphore>,
    discards: Arc<Semaphore>,
    released: Arc<Notify>,
}

impl Bodies {
    /// An unused budget. `released` is notified when a large body is freed.
    pub(super) fn new(released: Arc<Notify>) -> Self {
        Self {
            budget: Arc::new(Semaphore::new(BUDGET / UNIT)),
            discards: Arc::new(Semaphore::new(DISCARDS)),
            released,
        }
    }

    /// Reads the rest of a refused body beside the answer, and drops it.
    fn discard(&self, mut body: Body) {
        let Ok(permit) = Arc::clone(&self.discards).try_acquire_owned() else {
            return;
        };
        tokio::spawn(async move {
            let _permit = permit;
            let read = async {
                let mut left = DISCARDED;
                while let Some(Ok(frame)) = body.frame().await {
                    let length = frame.data_ref().map_or(0, Bytes::len);
                    let Some(less) = left.checked_sub(length) else {
                        return;
                    };
                    left = less;
                }
            };
            // A client that takes longer has had the answer for that long.
            let _ = time::timeout(LINGER, read).await;
        });
    }
}

/// Reads the body of a request within the budget. Its part is given back when the answer is there and every holder of
/// the request's [`Held`] is done.
pub(super) async fn within_budget(
    State(bodies): State<Arc<Bodies>>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let length = match parts.headers.get(CONTENT_LENGTH) {
        None if body.is_end_stream() => 0,
        // A body without a length may become as large as any.
        None => MAX_REQUEST,
        Some(length) => length
            .to_str()
            .ok()
            .and_then(number::decimal)
            .unwrap_or(usize::MAX),
    };
    if length == 0 {
        return next.run(Request::from_parts(parts, Body::empty())).await;
    }
    // With the answer in place of "100 Continue" the client does not send its body.
    let is_sent = !parts.headers.contains_key(EXPECT);
    let rest = |body: Body| {
        if is_sent {
            bodies.discard(body);
        }
    };
    if length > MAX_REQUEST {
        rest(body);
        return too_large();
    }
    let units = u32::try_from(length.div_ceil(UNIT)).unwrap_or(u32::MAX);
    let granted = Arc::clone(&bodies.budget).acquire_many_owned(units);
    let Ok(Ok(permit)) = time::timeout(PATIENCE, granted).await else {
        rest(body);
        let what = "too many large requests in progress: try again later";
        return ApiError::new(ErrorCode::Unavailable, what, None).into_response();
    };
    let held: Held = Arc::new(permit);
    let mut body = body;
    let bytes = match read(&mut body, length).await {
        Ok(bytes) => bytes,
        Err(refused) => {
            bodies.discard(body);
            return refused;
        }
    };
    parts.extensions.insert(Arc::clone(&held));
    let response = next.run(Request::from_parts(parts, Body::from(bytes))).await;
    if length >= LARGE {
        bodies.released.notify_one();
    }
    response
}

/// At most `length` bytes, in one place: each frame of a body may keep a larger buffer alive.
async fn read(body: &mut Body, length: usize) -> Result<Bytes, Response> {
    // Unwritten pages cost nothing, so memory grows only with bytes that the client sends.
    let mut bytes = Vec::with_capacity(length);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            let what = format!("the request is cut short: {error}");
            ApiError::new(ErrorCode::Invalid, what, None).into_response()
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > length {
            return Err(too_large());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.into())
}

fn too_large() -> Response {
    let what = format!("a request is at most {} MiB large", MAX_REQUEST >> 20);
    ApiError::new(ErrorCode::TooLarge, what, None).into_response()
}

#[cfg(test)]
mod tests {
    use axum::{Router, http::StatusCode, middleware, routing::post};
    use http_body_util::channel::Channel;
    use tower_service::Service;

    use super::*;

    /// A request that announces `length` bytes, and the end to send them by.
    fn announced(length: usize) -> (http_body_util::channel::Sender<Bytes>, Request) {
        let (sender, body) = Channel::<Bytes>::new(1);
        let request = Request::post("/").header(CONTENT_LENGTH, length);
        (sender, request.body(Body::new(body)).unwrap())
    }

    fn router() -> (Router, Arc<Semaphore>) {
        let bodies = Arc::new(Bodies::new(Arc::default()));
        let budget = Arc::clone(&bodies.budget);
        let router = Router::new()
            .route("/", post(async |bytes: Bytes| bytes.len().to_string()))
            .layer(middleware::from_fn_with_state(bodies, within_budget));
        (router, budget)
    }

    async fn text(response: Response) -> String {
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.into()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_under_way_share_one_budget() {
        let (mut router, budget) = router();
        let (_slow, first) = announced(MAX_REQUEST);
        let slow = tokio::spawn(router.call(first));
        let (mut quick, second) = announced(MAX_REQUEST);
        let second = tokio::spawn(router.call(second));
        while budget.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let (_third, request) = announced(1);
        let refused = router.call(request).await.unwrap();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        // A client that finishes and a client that disconnects both return their budget.
        quick.send_data(Bytes::from(vec![b'x'; 5])).await.unwrap();
        drop(quick);
        assert_eq!(text(second.await.unwrap().unwrap()).await, "5");
        assert_eq!(budget.available_permits(), MAX_REQUEST / UNIT);
        slow.abort();
        assert!(slow.await.unwrap_err().is_cancelled());
        assert_eq!(budget.available_permits(), BUDGET / UNIT);
    }

    #[tokio::test]
    async fn request_beyond_its_limit_or_length_is_refused() {
        let (mut router, budget) = router();
        let (_sender, request) = announced(MAX_REQUEST + 1);
        let refused = router.call(request).await.unwrap();
        assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
        let (mut sender, request) = announced(3);
        let answer = tokio::spawn(router.call(request));
        sender.send_data(Bytes::from_static(b"four")).await.unwrap();
        let refused = answer.await.unwrap().unwrap();
        assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(budget.available_permits(), BUDGET / UNIT);
    }
}
