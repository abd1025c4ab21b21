//! `GET /v1/monitor`

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    body::Body,
    extract::{Query, State, rejection::QueryRejection},
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use etherparse::{IpNumber, LaxNetSlice, LaxSlicedPacket, TransportSlice};
use http_body_util::channel::{Channel, Sender};
use hyper::body::Bytes;
use lb_common::{
    monitor::Direction,
    reason::{Action, Reason},
};
use tokio::time::{MissedTickBehavior, interval};

use super::{
    error::ApiError,
    requests::{ErrorBody, ErrorCode, MonitorQuery},
    types::{Lost, MonitorLine, Packet},
};
use crate::{
    api::context::Api,
    chain::chain,
    control::ControlView,
    datapath::{Monitor, MonitorError, MonitorFilter, MonitoredPacket},
    state::service::ServiceKey,
};

/// Records a second, unless the request sets another rate.
const DEFAULT_RATE: u32 = 1_000;
/// Most records a second that a request may ask for.
const MAX_RATE: u32 = 100_000;
/// Pieces of the answer on their way to a reader that is slower than they come; then packets are lost.
const STREAM_DEPTH: usize = 16;
/// Time between lines about lost packets. They also show that a reader is gone.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Names in a hint, at most.
const MOST_NAMES: usize = 12;

/// Packets as they come, one JSON object per line, until the reader or the daemon leaves. There is one monitor at a time.
#[utoipa::path(get, path = "/v1/monitor", params(MonitorQuery), responses(
    (status = 200, body = MonitorLine, content_type = "application/x-ndjson"),
    (status = 404, body = ErrorBody), (status = 409, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn monitor(
    State(api): State<Arc<Api>>,
    query: Result<Query<MonitorQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let query = query?.0;
    let with_bytes = query.packets;
    let filter = filter(&query, &api.control.view())?;
    let monitor = api.monitors.begin(filter).await?;
    let (sender, body) = Channel::<Bytes>::new(STREAM_DEPTH);
    tokio::spawn(async move { send(&api, monitor, sender, with_bytes).await });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::new(body)).into_response())
}

/// Sends packets until the reader or the daemon leaves.
async fn send(api: &Api, mut monitor: Monitor, mut sender: Sender<Bytes>, with_bytes: bool) {
    let mut reports = interval(REPORT_EVERY);
    reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let lines = tokio::select! {
            () = api.cancel.cancelled() => return,
            _ = reports.tick() => monitor.lost().map(|lost| vec![MonitorLine::Lost(Lost { lost })]),
            packets = monitor.packets() => packets.map(|packets| {
                let view = api.control.view();
                let line = |packet| MonitorLine::Packet(Box::new(shown(packet, &view, with_bytes)));
                packets.into_iter().map(line).collect()
            }),
        };
        let lines = match lines {
            Ok(lines) => lines,
            Err(error) => {
                tracing::warn!(%error, "a monitor ends: its records cannot be read");
                return;
            }
        };
        let mut piece = Vec::new();
        for line in lines {
            if serde_json::to_writer(&mut piece, &line).is_err() {
                return;
            }
            piece.push(b'\n');
        }
        tokio::select! {
            () = api.cancel.cancelled() => return,
            sent = sender.send_data(piece.into()) => if sent.is_err() { return },
        }
    }
}

/// The filter that a query describes.
fn filter(query: &MonitorQuery, view: &ControlView) -> Result<MonitorFilter, ApiError> {
    let MonitorQuery {
        drops,
        service,
        backend,
        client,
        reason,
        sample,
        rate,
        packets: _,
    } = query;
    let invalid = |what: String, hint: String| ApiError::new(ErrorCode::Invalid, what, Some(hint));
    let reasons = match reason {
        None => Reason::ALL
            .iter()
            .copied()
            .filter(|reason| !drops || is_drop(*reason))
            .collect(),
        Some(names) => names
            .split(',')
            .map(|name| named(name, *drops))
            .collect::<Result<_, _>>()?,
    };
    let service = service
        .as_deref()
        .map(|name| service_key(name, view))
        .transpose()?;
    let backends = match backend {
        None => Vec::new(),
        Some(name) => backends(name, service.as_ref(), view)?,
    };
    let client = match client {
        None => None,
        Some(text) => Some(prefix(text).ok_or_else(|| {
            let example = "use an address, or one with a length such as 198.51.100.0/24";
            invalid(format!("client {text:?} is no prefix"), example.into())
        })?),
    };
    let sample = sample.unwrap_or(1);
    if sample == 0 {
        return Err(invalid("sample is 0".into(), "1 is every packet".into()));
    }
    let rate = rate.unwrap_or(DEFAULT_RATE);
    if !(1..=MAX_RATE).contains(&rate) {
        return Err(invalid(
            format!("rate is {rate}"),
            format!("use 1 to {MAX_RATE} packets a second"),
        ));
    }
    Ok(MonitorFilter {
        reasons,
        service,
        backends,
        client,
        sample,
        rate,
    })
}

const fn is_drop(reason: Reason) -> bool {
    match reason.action() {
        Action::Drop | Action::Aborted => true,
        Action::Tx | Action::Redirect | Action::Pass => false,
    }
}

fn named(name: &str, drops: bool) -> Result<Reason, ApiError> {
    let found = Reason::ALL.iter().copied().find(|reason| reason.name() == name);
    let hint = || Some("`lb explain` lists all reasons".to_owned());
    let reason = found.ok_or_else(|| {
        ApiError::new(
            ErrorCode::NotFound,
            format!("reason {name:?}: no such reason"),
            hint(),
        )
    })?;
    if drops && !is_drop(reason) {
        let what = format!("packets of reason {name} are not dropped");
        return Err(ApiError::new(
            ErrorCode::Invalid,
            what,
            Some("leave out drops, or the reason".into()),
        ));
    }
    Ok(reason)
}

fn service_key(name: &str, view: &ControlView) -> Result<ServiceKey, ApiError> {
    let mut services = view.desired.services.values();
    let found = services.find(|service| service.name.as_str() == name);
    found.map(|service| service.key).ok_or_else(|| {
        let names = view
            .desired
            .services
            .values()
            .map(|service| service.name.to_string());
        ApiError::new(
            ErrorCode::NotFound,
            format!("service {name:?}: no such service"),
            hint("services", names),
        )
    })
}

/// The backends of a name or address, of one service or all.
fn backends(
    wanted: &str,
    service: Option<&ServiceKey>,
    view: &ControlView,
) -> Result<Vec<(ServiceKey, SocketAddr)>, ApiError> {
    let address = wanted.parse::<SocketAddr>().ok();
    let of_service = || {
        view.backends()
            .filter(|(_, key, _)| service.is_none_or(|service| service == key))
    };
    let found: Vec<_> = of_service()
        .filter(|((_, name), _, at)| name.as_str() == wanted || Some(*at) == address)
        .map(|(_, key, address)| (key, address))
        .collect();
    if found.is_empty() {
        let names = of_service().map(|((service, name), ..)| format!("{service}/{name}"));
        let what = format!("backend {wanted:?}: no such backend");
        return Err(ApiError::new(ErrorCode::NotFound, what, hint("backends", names)));
    }
    Ok(found)
}

/// The names that there are, as far as they fit.
fn hint(what: &str, names: impl Iterator<Item = String>) -> Option<String> {
    let mut names: Vec<String> = names.take(MOST_NAMES + 1).collect();
    if names.is_empty() {
        return Some(format!("there are no {what}"));
    }
    if names.len() > MOST_NAMES {
        names.truncate(MOST_NAMES);
        names.push("…".to_owned());
    }
    Some(format!("{what}: {}", names.join(", ")))
}

/// An address, or a prefix of one.
fn prefix(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = match text.split_once('/') {
        None => (text, None),
        Some((address, length)) => (address, Some(length)),
    };
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = length.map_or(Some(most), |length| length.parse().ok())?;
    (length <= most).then_some((address, length))
}

/// A packet by the names that services and backends have now.
fn shown(packet: MonitoredPacket, view: &ControlView, with_bytes: bool) -> Packet {
    let MonitoredPacket {
        at,
        interface,
        reason,
        service,
        backend,
        direction,
        received_len,
        sent_len,
        before,
        after,
    } = packet;
    let (came, left) = (addresses(&before), addresses(&after));
    let (client, destination) = match direction {
        Direction::Request | Direction::Unknown => came
            .as_ref()
            .map(|came| (came.source.clone(), came.destination.clone())),
        Direction::Reply => left
            .as_ref()
            .map(|left| (left.destination.clone(), left.source.clone())),
    }
    .unzip();
    let service_name = service.map(|key| {
        let mut services = view.desired.services.values();
        let named = services.find(|service| service.key == key);
        named.map_or_else(|| key.to_string(), |service| service.name.to_string())
    });
    let backend_name = service.zip(backend).map(|(key, address)| {
        let mut backends = view.backends();
        let named = backends.find(|(_, of, at)| *of == key && *at == address);
        named.map_or_else(|| address.to_string(), |((_, name), ..)| name.to_string())
    });
    Packet {
        at: humantime::format_rfc3339_micros(at.max(SystemTime::UNIX_EPOCH)).to_string(),
        interface,
        verdict: reason.action().name().to_owned(),
        reason: reason.name().to_owned(),
        direction: match direction {
            Direction::Unknown => None,
            Direction::Request => Some("request".to_owned()),
            Direction::Reply => Some("reply".to_owned()),
        },
        protocol: came.map(|came| came.protocol),
        client,
        destination,
        service: service_name,
        backend: backend_name,
        backend_address: backend.map(|address| address.to_string()),
        bytes: received_len,
        sent_bytes: sent_len,
        before: with_bytes.then(|| hex(&before)),
        after: with_bytes.then(|| hex(&after)),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Addresses of an IP packet, with ports if there are some.
struct Addresses {
    protocol: String,
    source: String,
    destination: String,
}

/// Those of a frame, of which the first bytes are there; `None` if it is no IP packet, or too short.
fn addresses(frame: &[u8]) -> Option<Addresses> {
    let packet = LaxSlicedPacket::from_ethernet(frame).ok()?;
    let (source, destination, number): (IpAddr, IpAddr, IpNumber) = match packet.net.as_ref()? {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            (
                header.source_addr().into(),
                header.destination_addr().into(),
                ip.payload().ip_number,
            )
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            (
                header.source_addr().into(),
                header.destination_addr().into(),
                ip.payload().ip_number,
            )
        }
        LaxNetSlice::Arp(_) => return None,
    };
    let ports = match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => Some((tcp.source_port(), tcp.destination_port())),
        Some(TransportSlice::Udp(udp)) => Some((udp.source_port(), udp.destination_port())),
        Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_)) | None => None,
    };
    let text = |address: IpAddr, port: Option<u16>| {
        port.map_or_else(
            || address.to_string(),
            |port| SocketAddr::new(address, port).to_string(),
        )
    };
    Some(Addresses {
        protocol: match number {
            IpNumber::TCP => "tcp".to_owned(),
            IpNumber::UDP => "udp".to_owned(),
            IpNumber::ICMP => "icmp".to_owned(),
            IpNumber::IPV6_ICMP => "icmpv6".to_owned(),
            IpNumber(number) => number.to_string(),
        },
        source: text(source, ports.map(|(source, _)| source)),
        destination: text(destination, ports.map(|(_, destination)| destination)),
    })
}

impl From<MonitorError> for ApiError {
    fn from(error: MonitorError) -> Self {
        let (code, hint) = match &error {
            MonitorError::Busy => (ErrorCode::Conflict, Some("wait until it ends, or end it")),
            MonitorError::NotAttached | MonitorError::NotProgrammed(_) => {
                (ErrorCode::Conflict, Some("`lb status` shows why"))
            }
            MonitorError::ManyBackends(_) => (ErrorCode::Invalid, Some("name the service, too")),
            MonitorError::Program(_) | MonitorError::Refused(_) => (ErrorCode::Failed, None),
        };
        Self::new(code, chain(&error), hint.map(str::to_owned))
    }
}
