//! `GET /v1/explain`

use std::{io, net::IpAddr, sync::Arc};

use axum::{Json, extract::State};
use lb_common::{
    quic::MAX_CONNECTION_ID,
    reason::{Action, Reason},
};
use tokio::task;

use super::{
    error::ApiError,
    query::Params,
    requests::{ErrorBody, ErrorCode, ExplainQuery},
    types::{self, Output},
};
use crate::{
    api::context::Api,
    config::values,
    control::Fault,
    datapath::{self, Interface},
    explain::{self, Explanation, Outer, OuterKind, Question},
    state::{names::BackendName, quic, service::Protocol, words::Word},
};

/// What would happen to a packet, and why; no packet is sent, and no flow changes.
#[utoipa::path(get, path = "/v1/explain", params(ExplainQuery), responses(
    (status = 200, body = types::Explanation), (status = 422, body = ErrorBody)))]
pub(super) async fn explain(
    State(api): State<Arc<Api>>,
    Params(query): Params<ExplainQuery>,
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
        tunnel,
        tunnel_from,
        tunnel_to,
    } = query;
    let invalid = |what: String| ApiError::new(ErrorCode::Invalid, what, None);
    let arrives = match &interface {
        None => attached(&api, |_| true).map(|(_, ifindex)| ifindex),
        Some(name) => {
            let has_name = |known: &Interface| {
                known.name == *name || known.configured == *name || known.altnames.contains(name)
            };
            let known = attached(&api, has_name).map(|(_, ifindex)| ifindex);
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
    let outer = match (tunnel, tunnel_from, tunnel_to) {
        (None, None, None) => None,
        (Some(kind), Some(from), Some(to)) => Some(outer(&kind, &from, &to)?),
        (Some(_) | None, ..) => {
            return Err(invalid(
                "tunnel, tunnel_from and tunnel_to are given together or not at all".into(),
            ));
        }
    };
    let question = Question {
        source: values::endpoint(&source)?,
        destination: values::endpoint(&destination)?,
        protocol,
        opens: !established && protocol == Protocol::Tcp,
        ifindex: arrives.unwrap_or_default(),
        ttl: ttl.unwrap_or(Question::TTL),
        length: length.unwrap_or_default(),
        connection_id,
        outer,
    };
    if question.tuple().is_none() {
        return Err(invalid("source and destination are of different families".into()));
    }
    let view = api.control.view();
    let (asked, named) = (Arc::clone(&api), Arc::clone(&view));
    // Reading maps is system calls.
    let explained = task::spawn_blocking(move || {
        let explanation = explain::explain(&question, &*asked.tables, &named)?;
        let exit = explanation.ifindex.map(|index| interface_name(&asked, index));
        io::Result::Ok((explanation, exit))
    });
    let (explanation, exit) = explained.await?.map_err(|error| {
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
        ifindex: _,
        frame,
        tunnel_ends,
        steps,
    } = explanation;
    let verdict = verdict(reason);
    let names = service.zip(backend).and_then(|(key, address)| {
        view.backends()
            .find(|(_, of, at)| *of == key && *at == address)
            .map(|((_, name), _, _)| name.to_string())
    });
    let mut services = view.desired.services.values();
    let service = service.and_then(|key| services.find(|service| service.key == key));
    let faults = api.observer.faults();
    let fault = service
        .filter(|_| verdict == FORWARD)
        .and_then(|service| fault_of(faults.get(&service.name)?, names.as_deref()));
    let remedy = match fault {
        Some(fault) => (!fault.remedies.is_empty()).then(|| fault.remedies.join(", or ")),
        None => reason.has_remedy().then(|| reason.remedy().to_owned()),
    };
    Ok(Json(types::Explanation {
        verdict: verdict.to_owned(),
        reason: reason.name().to_owned(),
        remedy,
        fault: fault.map(Fault::reason),
        service: service.map(|service| service.name.to_string()),
        backend: names,
        mode: mode.map(|mode| mode.word().to_owned()),
        slot,
        tracked,
        tunnel_ends,
        output: (verdict == FORWARD).then(|| Output {
            interface: exit,
            packet_hex: frame.as_deref().map(hex),
        }),
        steps,
    }))
}

/// The outer header of a tunnel.
fn outer(kind: &str, source: &str, destination: &str) -> Result<Outer, ApiError> {
    let invalid = |what: String| ApiError::new(ErrorCode::Invalid, what, None);
    let kind = match kind {
        "ipip" => OuterKind::Ipip,
        "gue" => OuterKind::Gue,
        other => return Err(invalid(format!("{other:?} is no tunnel: ipip or gue"))),
    };
    let address = |text: &str| -> Result<IpAddr, ApiError> {
        text.parse()
            .map_err(|_| invalid(format!("{text:?} is no IP address")))
    };
    let (source, destination) = (address(source)?, address(destination)?);
    if source.is_ipv4() != destination.is_ipv4() {
        return Err(invalid("the tunnel's addresses are of different families".into()));
    }
    Ok(Outer {
        kind,
        source,
        destination,
    })
}

/// Why flows to a backend fail: for a reason of its own, else one of all flows of the service.
fn fault_of<'a>(faults: &'a [Fault], backend: Option<&str>) -> Option<&'a Fault> {
    let is_own = |fault: &&Fault| {
        let of = fault.backend.as_ref().map(BackendName::as_str);
        of.is_some() && of == backend
    };
    let own = faults.iter().find(is_own);
    own.or_else(|| faults.iter().find(|fault| fault.is_total))
}

/// Bytes in hexadecimal, two digits each.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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

/// Name and index of the first such interface that has the program.
fn attached(api: &Api, is_meant: impl Fn(&Interface) -> bool) -> Option<(String, u32)> {
    let interfaces = api.interfaces.borrow();
    let mut meant = interfaces.iter().filter(|interface| is_meant(interface));
    meant.find_map(|interface| Some((interface.name.clone(), interface.attached.as_ref()?.ifindex)))
}

/// The name of an interface, which need not have the program.
fn interface_name(api: &Api, index: u32) -> String {
    let has_index = |interface: &Interface| {
        interface
            .attached
            .as_ref()
            .is_some_and(|attached| attached.ifindex == index)
    };
    attached(api, has_index).map_or_else(|| datapath::interface_name(index), |(name, _)| name)
}
