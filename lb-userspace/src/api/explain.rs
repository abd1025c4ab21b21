//! `GET /v1/explain`

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use lb_common::{
    quic::MAX_CONNECTION_ID,
    reason::{Action, Reason},
};
use tokio::task;

use super::{
    Api,
    error::ApiError,
    requests::{ErrorBody, ErrorCode, ExplainQuery},
    types::{self, Output},
};
use crate::{
    config::values,
    explain::{self, Explanation, Question},
    state::{quic, service::Protocol, words::Word},
};

/// What would become of a packet, and why; no packet is sent, and no flow is touched.
#[utoipa::path(get, path = "/v1/explain", params(ExplainQuery), responses(
    (status = 200, body = types::Explanation), (status = 422, body = ErrorBody)))]
pub(super) async fn explain(
    State(api): State<Arc<Api>>,
    query: Result<Query<ExplainQuery>, QueryRejection>,
) -> Result<Json<types::Explanation>, ApiError> {
    let ExplainQuery {
        protocol,
        source,
        destination,
        established,
        interface,
        ttl,
        length,
        quic_id,
    } = query?.0;
    let invalid = |what: String| ApiError::new(ErrorCode::Invalid, what, None);
    let arrives = match &interface {
        None => api.interfaces.first(),
        Some(name) => {
            let known = api.interfaces.iter().find(|known| known.name == *name);
            Some(known.ok_or_else(|| invalid(format!("the program is not on interface {name}")))?)
        }
    };
    let protocol = values::word(&protocol)?;
    let connection_id = match &quic_id {
        None => Vec::new(),
        Some(text) => quic::bytes(text)
            .filter(|id| id.len() <= MAX_CONNECTION_ID)
            .ok_or_else(|| invalid(format!("{text:?} is no QUIC connection id in hexadecimal")))?,
    };
    let question = Question {
        source: values::endpoint(&source)?,
        destination: values::endpoint(&destination)?,
        protocol,
        opens: !established && protocol == Protocol::Tcp,
        ifindex: arrives.map_or(0, |interface| interface.ifindex),
        ttl: ttl.unwrap_or(Question::TTL),
        length: length.unwrap_or_default(),
        connection_id,
    };
    if question.tuple().is_none() {
        return Err(invalid("source and destination are of different families".into()));
    }
    let view = api.control.view();
    let (asked, named) = (Arc::clone(&api), Arc::clone(&view));
    // Reading maps is system calls.
    let told = task::spawn_blocking(move || explain::explain(&question, &*asked.tables, &named)).await?;
    let told = told.map_err(|error| {
        ApiError::new(
            ErrorCode::Failed,
            format!("cannot read the tables: {error}"),
            None,
        )
    })?;
    let Explanation {
        reason,
        service,
        backend,
        mode,
        slot,
        tracked,
        ifindex,
        steps,
    } = told;
    let verdict = verdict(reason);
    let names = service.zip(backend).and_then(|(key, address)| {
        view.backends()
            .find(|(_, of, at)| *of == key && *at == address)
            .map(|((_, name), _, _)| name.to_string())
    });
    let mut services = view.desired.services.values();
    Ok(Json(types::Explanation {
        verdict: verdict.to_owned(),
        reason: reason.name().to_owned(),
        remedy: Some(reason.remedy().to_owned()),
        service: service.and_then(|key| {
            let named = services.find(|service| service.key == key);
            named.map(|service| service.name.to_string())
        }),
        backend: names,
        mode: mode.map(|mode| mode.word().to_owned()),
        slot,
        tracked,
        output: (verdict == FORWARD).then(|| Output {
            interface: ifindex.map(|index| interface_name(&api, index)),
            packet_hex: None,
        }),
        steps,
    }))
}

const FORWARD: &str = "forward";

fn verdict(reason: Reason) -> &'static str {
    match reason.action() {
        _ if reason.is_reply() => "reply",
        Action::Tx | Action::Redirect => FORWARD,
        Action::Pass => "pass",
        Action::Drop | Action::Aborted => "drop",
    }
}

/// The name of an interface that has the program, else its number.
fn interface_name(api: &Api, index: u32) -> String {
    let mut known = api.interfaces.iter();
    known.find(|interface| interface.ifindex == index).map_or_else(
        || format!("interface {index}"),
        |interface| interface.name.clone(),
    )
}
