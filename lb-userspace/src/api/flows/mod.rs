//! `/v1/flows`: lists, counts and removes flows.
//!
//! Answers are written while the tables are read, so that the daemon holds a chunk of them and some pieces of the answer.

mod count;
mod order;
mod select;
mod stream;

use std::{ops::ControlFlow, sync::Arc, time::SystemTime};

use axum::{
    Json,
    body::Body,
    extract::{Query, State, rejection::QueryRejection},
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task,
};

use self::{
    count::Counter,
    order::{MAX_SORTED, Sorted},
    stream::Lines,
};
use super::{
    context::{Api, MAX_WALKS},
    error::ApiError,
    names::Names,
    requests::{ErrorBody, ErrorCode},
    types::{self, FlowCount, FlowCountQuery, FlowListQuery, FlowSelection, FlushQuery, Flushed},
};
use crate::{
    config::values,
    datapath::FlowFilter,
    events::{EventKind, NewEvent},
};

/// Groups that a count has at most, unless the request says otherwise.
const GROUPS: usize = 1_000;

type Shared = State<Arc<Api>>;
type QueryPart<T> = Result<Query<T>, QueryRejection>;

/// Flows, one JSON object per line: all flows of mode nat, and of other modes those that are recorded.
#[utoipa::path(get, path = "/v1/flows", params(FlowSelection, FlowListQuery), responses(
    (status = 200, body = types::Flow, content_type = "application/x-ndjson"), (status = 404, body = ErrorBody),
    (status = 422, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(super) async fn list_flows(
    State(api): Shared,
    selection: QueryPart<FlowSelection>,
    query: QueryPart<FlowListQuery>,
) -> Result<Response, ApiError> {
    let FlowListQuery { sort, limit } = query?.0;
    let filter = select::filter(&api.control.view(), &selection?.0)?;
    let permit = permit(&api.flows.permits)?;
    let lines = match sort {
        None => Lines::of_tables(api, filter, limit, permit),
        Some(sort) => {
            let mut sorted = Sorted::new(types::order(&sort)?, limit)?;
            let (api, sorted) = walk(api, filter, move |api, filter| {
                api.flows.tables.walk(filter, &mut |flows| sorted.add(flows))?;
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
    selection: QueryPart<FlowSelection>,
    query: QueryPart<FlowCountQuery>,
) -> Result<Json<FlowCount>, ApiError> {
    let FlowCountQuery { by, limit } = query?.0;
    let view = api.control.view();
    let filter = select::filter(&view, &selection?.0)?;
    let by = by.as_deref().map(values::word).transpose()?;
    let limit = limit.unwrap_or(GROUPS);
    let _permit = permit(&api.flows.permits)?;
    let (_, count) = walk(api, filter, move |api, filter| {
        let mut counter = Counter::new(by, Names::new(&view));
        api.flows.tables.walk(filter, &mut |flows| {
            flows.iter().for_each(|flow| counter.add(flow));
            ControlFlow::Continue(())
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
    selection: QueryPart<FlowSelection>,
    query: QueryPart<FlushQuery>,
) -> Result<Json<Flushed>, ApiError> {
    let FlushQuery { dry_run, all } = query?.0;
    let selection = selection?.0;
    let view = api.control.view();
    let filter = select::filter(&view, &selection)?;
    if filter.is_empty() && !all && !dry_run {
        return Err(ApiError::new(
            ErrorCode::Invalid,
            "the flows of all services would be removed",
            Some("name service, backend, client or state of the flows, or give all=true".into()),
        ));
    }
    let _permit = permit(&api.flows.permits)?;
    let (api, flows) = walk(api, filter, move |api, filter| {
        if !dry_run {
            return api.flows.tables.flush(filter);
        }
        let mut count = 0;
        api.flows.tables.walk(filter, &mut |flows| {
            count += flows.len() as u64;
            ControlFlow::Continue(())
        })?;
        Ok(count)
    })
    .await?;
    if !dry_run {
        let event = NewEvent {
            kind: EventKind::FlowsFlushed,
            service: selection.service.clone(),
            backend: selection.service.as_ref().and(selection.backend.clone()),
            revision: view.desired.revision.0,
            message: format!("flows flushed: {flows} ({})", select::text(&selection)),
        };
        api.events.push(event, SystemTime::now());
    }
    Ok(Json(Flushed { flows, dry_run }))
}

/// Has `work` read the tables on a thread for blocking work.
async fn walk<T: Send + 'static>(
    api: Arc<Api>,
    filter: FlowFilter,
    work: impl FnOnce(&Api, &FlowFilter) -> std::io::Result<T> + Send + 'static,
) -> Result<(Arc<Api>, T), ApiError> {
    task::spawn_blocking(move || {
        let done = work(&api, &filter);
        done.map(|done| (api, done))
    })
    .await?
    .map_err(|error| {
        ApiError::new(
            ErrorCode::Failed,
            format!("cannot read the flow tables: {error}"),
            None,
        )
    })
}

fn permit(walks: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, ApiError> {
    Arc::clone(walks).try_acquire_owned().map_err(|_| {
        let what = format!("{MAX_WALKS} requests about flows are under way, and more are not served at once");
        ApiError::new(
            ErrorCode::Unavailable,
            what,
            Some("try again when one has ended".into()),
        )
    })
}

#[cfg(test)]
mod tests;
