//! `GET /v1/events`: events of this daemon, and those that the journal on disk has from before.

use std::{
    io,
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use http_body_util::channel::{Channel, Sender};
use hyper::body::Bytes;
use tokio::{sync::mpsc, task};

use super::{
    access::Role,
    error::ApiError,
    query::Params,
    requests::{ErrorBody, ErrorCode, EventsQuery},
};
use crate::{
    api::context::Api,
    events::{Event, rfc3339},
};

/// Events on their way to a reader that is slower than they come; then the sender waits.
const STREAM_DEPTH: usize = 64;

/// Events, one JSON object per line; with `follow` the answer continues. Without `since_ms` and `who`, those since the
/// daemon started.
#[utoipa::path(get, path = "/v1/events", params(EventsQuery), responses(
    (status = 200, body = Event, content_type = "application/x-ndjson"), (status = 503, body = ErrorBody)))]
pub(super) async fn events(
    State(api): State<Arc<Api>>,
    Extension(role): Extension<Role>,
    Params(query): Params<EventsQuery>,
) -> Result<Response, ApiError> {
    let EventsQuery {
        follow,
        since_ms,
        who,
    } = query;
    let permit = if follow {
        let followers = match role {
            Role::Admin | Role::Operate => &api.followers,
            Role::Read => &api.read_followers,
        };
        let permit = Arc::clone(followers).try_acquire_owned();
        let what = "as many clients follow events as may";
        Some(permit.map_err(|_| ApiError::new(ErrorCode::Unavailable, what, None))?)
    } else {
        None
    };
    let since = since_ms.map(|ms| {
        let since = SystemTime::now().checked_sub(Duration::from_millis(ms));
        since.unwrap_or(SystemTime::UNIX_EPOCH)
    });
    let (sender, body) = Channel::<Bytes>::new(STREAM_DEPTH);
    let wanted = Wanted { since, who, follow };
    tokio::spawn(async move {
        let _permit = permit;
        wanted.send(api, sender).await;
    });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::new(body)).into_response())
}

/// Which events a reader wants.
struct Wanted {
    since: Option<SystemTime>,
    who: Option<String>,
    follow: bool,
}

impl Wanted {
    /// Sends events until there is no more, or with `follow` until the reader or the daemon leaves.
    async fn send(self, api: Arc<Api>, mut sender: Sender<Bytes>) {
        let mut newest = api.events.subscribe();
        if self.send_earlier(&api, &mut sender).await.is_break() {
            return;
        }
        let mut sent = 0;
        loop {
            for event in api.events.list(sent, self.since) {
                sent = event.seq;
                if !self.is_by(&event) {
                    continue;
                }
                let Some(line) = line(&event) else { return };
                if sender.send_data(line).await.is_err() {
                    return;
                }
            }
            if !self.follow {
                return;
            }
            tokio::select! {
                () = api.cancel.cancelled() => return,
                changed = newest.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Sends what the journal has from before the events in memory. Breaks once the reader is gone.
    async fn send_earlier(&self, api: &Api, sender: &mut Sender<Bytes>) -> ControlFlow<()> {
        if self.since.is_none() && self.who.is_none() {
            return ControlFlow::Continue(());
        }
        let oldest = api.events.oldest();
        if let (Some((_, at)), Some(since)) = (oldest, self.since)
            && at <= since
        {
            return ControlFlow::Continue(());
        }
        let before = oldest.map_or(u64::MAX, |(seq, _)| seq);
        let since = self.since.map(rfc3339).unwrap_or_default();
        let who = self.who.clone();
        let journal = api.journal.clone();
        let (lines, mut read) = mpsc::channel(STREAM_DEPTH);
        let Ok(permit) = Arc::clone(&api.journal_permits).acquire_owned().await else {
            return ControlFlow::Break(());
        };
        let reading = task::spawn_blocking(move || {
            let _permit = permit;
            journal.read(|event| {
                // Times of one format in UTC have the order of their texts.
                let wanted = event.seq < before && event.at >= since && is_by(&event, who.as_deref());
                let line = Some(event).filter(|_| wanted).as_ref().and_then(line);
                match line.map(|line| lines.blocking_send(line)) {
                    Some(Err(_)) => ControlFlow::Break(()),
                    Some(Ok(())) | None => ControlFlow::Continue(()),
                }
            })
        });
        while let Some(line) = read.recv().await {
            if sender.send_data(line).await.is_err() {
                return ControlFlow::Break(());
            }
        }
        let done: io::Result<()> = reading.await.unwrap_or_else(|error| Err(error.into()));
        if let Err(error) = done {
            tracing::warn!(%error, "cannot read the events on disk");
        }
        ControlFlow::Continue(())
    }

    fn is_by(&self, event: &Event) -> bool {
        is_by(event, self.who.as_deref())
    }
}

/// Whether a user caused an event; anybody without `who`.
fn is_by(event: &Event, who: Option<&str>) -> bool {
    who.is_none_or(|who| event.by.as_ref().is_some_and(|by| by.user == who))
}

fn line(event: &Event) -> Option<Bytes> {
    let mut line = serde_json::to_vec(event).ok()?;
    line.push(b'\n');
    Some(line.into())
}
