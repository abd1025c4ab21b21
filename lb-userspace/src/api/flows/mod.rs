//! `/v1/flows`: lists, counts and removes flows.
//!
//! Answers are written while the tables are read, so that the daemon holds a chunk of them and some pieces of the answer.

mod count;
mod digits;
mod line;
mod order;
mod select;
mod stream;

use std::{
    io,
    ops::ControlFlow,
    sync::{Arc, Weak},
    time::SystemTime,
};

use axum::{
    Extension, Json,
    body::Body,
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use tokio::{sync::OwnedSemaphorePermit, task};

use self::{
    count::Counter,
    order::{MAX_SORTED, Sorted},
    stream::Lines,
};
use super::{
    access::{Operator, Role},
    context::{Api, Flows, MAX_READ_WALKS, MAX_WALKS},
    error::ApiError,
    names::Names,
    query::Selected,
    requests::{ErrorBody, ErrorCode},
    types::{self, FlowCount, FlowCountQuery, FlowListQuery, FlowSelection, FlushQuery, Flushed},
};
use crate::{
    config::values,
    events::{EventKind, NewEvent},
};

/// Groups that a count has at most, unless the request says otherwise.
const GROUPS: usize = 1_000;

type Shared = State<Arc<Api>>;

/// Flows, one JSON object per line: all flows of mode nat, and of other modes those that are recorded.
#[utoipa::path(get, path = "/v1/flows", params(FlowSelection, FlowListQuery), responses(
    (status = 200, body = types::Flow, content_type = "application/x-ndjson"), (status = 404, body = ErrorBody),
    (status = 422, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(super) async fn list_flows(
    State(api): Shared,
    Extension(role): Extension<Role>,
    Selected(selection, query): Selected<FlowListQuery>,
) -> Result<Response, ApiError> {
    let FlowListQuery { sort, limit } = query;
    let filter = select::filter(&api.control.view(), &selection)?;
    let permit = permit(&api.flows, role)?;
    let lines = match sort {
        None => Lines::of_tables(api, filter, limit, permit),
        Some(sort) => {
            let mut sorted = Sorted::new(types::order(&sort)?, limit)?;
            let (sorted, permit) = walk(&api, permit, move |api, client| {
                api.flows.tables.walk(&filter, &mut |flows| {
                    client.waits()?;
                    sorted.add(flows)
                })?;
                Ok(sorted)
            })
            .await?;
            let flows = sorted.into_flows().ok_or_else(|| {
                let what = format!("more than {MAX_SORTED} flows are not sorted");
                let hint = format!("give --limit, up to {MAX_SORTED}, or a filter");
                ApiError::new(ErrorCode::Invalid, what, Some(hint))
            })?;
            Lines::of_flows(api, flows, permit)
        }
    };
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::new(lines)).into_response())
}

/// How many flows there are, by state, and by service, backend or client.
#[utoipa::path(get, path = "/v1/flows/count", params(FlowSelection, FlowCountQuery), responses(
    (status = 200, body = FlowCount), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody),
    (status = 503, body = ErrorBody)))]
pub(super) async fn count_flows(
    State(api): Shared,
    Extension(role): Extension<Role>,
    Selected(selection, query): Selected<FlowCountQuery>,
) -> Result<Json<FlowCount>, ApiError> {
    let FlowCountQuery { by, limit } = query;
    let view = api.control.view();
    let filter = select::filter(&view, &selection)?;
    let by = by.as_deref().map(values::word).transpose()?;
    let limit = limit.unwrap_or(GROUPS);
    let permit = permit(&api.flows, role)?;
    let (count, _) = walk(&api, permit, move |api, client| {
        let mut counter = Counter::new(by, Names::new(&view));
        api.flows.tables.walk(&filter, &mut |flows| {
            flows.iter().for_each(|flow| counter.add(flow));
            client.waits()
        })?;
        Ok(counter.finish(limit))
    })
    .await?;
    Ok(Json(count))
}

/// Removes flows, so that their next packets find them unknown. In mode nat a TCP connection is reset by its client's next
/// packet.
#[utoipa::path(delete, path = "/v1/flows", params(FlowSelection, FlushQuery), responses(
    (status = 200, body = Flushed), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody),
    (status = 503, body = ErrorBody)))]
pub(super) async fn flush_flows(
    State(api): Shared,
    Operator(by, role): Operator,
    Selected(selection, query): Selected<FlushQuery>,
) -> Result<Json<Flushed>, ApiError> {
    let FlushQuery { dry_run, all } = query;
    let view = api.control.view();
    let filter = select::filter(&view, &selection)?;
    if filter.is_empty() && !all && !dry_run {
        return Err(ApiError::new(
            ErrorCode::Invalid,
            "the flows of all services would be removed",
            Some("name service, backend, client or state of the flows, or give all=true".into()),
        ));
    }
    let permit = permit(&api.flows, role)?;
    let (flows, _) = walk(&api, permit, move |api, client| {
        let mut flows = 0;
        if dry_run {
            api.flows.tables.walk(&filter, &mut |found| {
                flows += found.len() as u64;
                client.waits()
            })?;
            return Ok(flows);
        }
        // To its end, even if the client is gone: so the event has all of them.
        let flushed = api.flows.tables.flush(&filter, &mut flows);
        let event = NewEvent {
            kind: EventKind::FlowsFlushed,
            service: selection.service.clone(),
            backend: selection.service.as_ref().and(selection.backend.clone()),
            revision: view.desired.revision.0,
            message: format!("flows flushed: {flows} ({})", select::text(&selection)),
            by,
        };
        api.events.push(event, SystemTime::now());
        let removed = |error| io::Error::other(format!("{error}; {flows} flows were removed before"));
        flushed.map_err(removed)?;
        Ok(flows)
    })
    .await?;
    Ok(Json(Flushed { flows, dry_run }))
}

/// The client of a request, as the thread sees it that works for it.
struct Client(Weak<()>);

impl Client {
    /// Breaks once the client is gone.
    fn waits(&self) -> ControlFlow<()> {
        if self.0.strong_count() == 0 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

/// Has `work` read the tables on a thread for blocking work, which holds the permit until it has ended, even if the client is gone.
async fn walk<T: Send + 'static>(
    api: &Arc<Api>,
    permit: OwnedSemaphorePermit,
    work: impl FnOnce(&Api, &Client) -> io::Result<T> + Send + 'static,
) -> Result<(T, OwnedSemaphorePermit), ApiError> {
    // Dropped together with the request.
    let waits = Arc::new(());
    let client = Client(Arc::downgrade(&waits));
    let api = Arc::clone(api);
    let done = task::spawn_blocking(move || work(&api, &client).map(|done| (done, permit))).await?;
    drop(waits);
    done.map_err(|error| {
        let what = format!("cannot read the flow tables: {error}");
        ApiError::new(ErrorCode::Failed, what, None)
    })
}

fn permit(flows: &Flows, role: Role) -> Result<OwnedSemaphorePermit, ApiError> {
    let (walks, most) = match role {
        Role::Admin | Role::Operate => (&flows.permits, MAX_WALKS),
        Role::Read => (&flows.read_permits, MAX_READ_WALKS),
    };
    Arc::clone(walks).try_acquire_owned().map_err(|_| {
        let what = format!("{most} requests about flows are under way, and more are not served at once");
        ApiError::new(
            ErrorCode::Unavailable,
            what,
            Some("try again when one has ended".into()),
        )
    })
}

#[cfg(test)]
mod tests;
