//! `GET /live`: server-sent events (the HTML standard, section 9.2), first the whole state, then what differs from the state before.
//! A reader that is slower misses states, and gets a whole one when it has caught up.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    body::Body,
    extract::{Query, State},
    http::{
        HeaderValue, StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use http_body_util::channel::{Channel, Sender};
use hyper::body::Bytes;

use super::feed::{Feed, Subscription};
use crate::serve::Endless;

/// Services at most whose backends a stream shows.
const MAX_OPENED: usize = 8;
/// Longest name of a service that is looked for, in bytes.
const MAX_NAME: usize = 256;
/// States on their way to a reader.
const DEPTH: usize = 1;

/// The services whose backends are shown: `open=NAME`, several times.
pub(super) async fn live(
    State(feed): State<Arc<Feed>>,
    Query(query): Query<Vec<(String, String)>>,
) -> Response {
    let names = query
        .into_iter()
        .filter(|(key, name)| key == "open" && name.len() <= MAX_NAME);
    let opened: BTreeSet<String> = names.map(|(_, name)| name).take(MAX_OPENED).collect();
    let cancel = feed.api.cancel.clone();
    let Some(subscription) = feed.subscribe(opened) else {
        let text = "as many pages are open as may\n";
        let mut response = (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static("5"));
        return response;
    };
    let (sender, body) = Channel::<Bytes>::new(DEPTH);
    tokio::spawn(async move {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = send(subscription, sender) => {}
        }
    });
    let mut response = ([(CONTENT_TYPE, "text/event-stream")], Body::new(body)).into_response();
    response.extensions_mut().insert(Endless);
    response
}

/// Sends states until the reader leaves.
async fn send(mut subscription: Subscription, mut sender: Sender<Bytes>) {
    let mut sent = None;
    let mut shown = BTreeSet::new();
    // The browser learns at once that it is connected.
    if sender.send_data(Bytes::from_static(b":\n\n")).await.is_err() {
        return;
    }
    loop {
        let tick = subscription.ticks.borrow_and_update().clone();
        if let Some(tick) = tick {
            let follows = sent == Some(tick.number.wrapping_sub(1));
            let mut texts = vec![tick.state.text(follows)];
            for name in &subscription.opened {
                let known = follows && shown.contains(name);
                match tick.backends.get(name) {
                    Some(backends) => {
                        texts.push(backends.text(known));
                        shown.insert(name.clone());
                    }
                    None => {
                        shown.remove(name);
                    }
                }
            }
            for text in texts {
                if sender.send_data(text).await.is_err() {
                    return;
                }
            }
            sent = Some(tick.number);
        }
        if subscription.ticks.changed().await.is_err() {
            return;
        }
    }
}
