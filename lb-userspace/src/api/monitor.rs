//! `GET /v1/monitor`

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    body::Body,
    extract::State,
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
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use super::{
    access::Changer,
    error::ApiError,
    names::Names,
    query::Params,
    requests::{ErrorBody, ErrorCode, MonitorQuery},
    selection::{BackendMeant, Selection},
    types::{Lost, MonitorLine, Packet},
};
use crate::{
    api::context::Api,
    chain::chain,
    config::values,
    control::ControlView,
    datapath::{Monitor, MonitorError, MonitorFilter, MonitoredPacket, Places},
    state::names::ServiceName,
};

/// Records a second, unless the request sets another rate.
const DEFAULT_RATE: u32 = 1_000;
/// Most records a second that a request may ask for.
const MAX_RATE: u32 = 100_000;
/// Pieces of the answer on their way to a reader that is slower than they come; then packets are lost.
const STREAM_DEPTH: usize = 16;
/// Time between lines about lost packets. They also show that a reader is gone.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Packets as they come, one JSON object per line, until the reader or the daemon leaves. There is one monitor at a time.
#[utoipa::path(get, path = "/v1/monitor", params(MonitorQuery), responses(
    (status = 200, body = MonitorLine, content_type = "application/x-ndjson"),
    (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn monitor(
    State(api): State<Arc<Api>>,
    _: Changer,
    Params(query): Params<MonitorQuery>,
) -> Result<Response, ApiError> {
    let mut views = api.control.views();
    let selection = selection(&query)?;
    let places = selection.find(&views.borrow_and_update())?;
    let monitor = api.monitors.begin(filter(&query, places)?).await?;
    let (sender, body) = Channel::<Bytes>::new(STREAM_DEPTH);
    let shown = Shown {
        monitor,
        selection,
        views,
        names: None,
        with_bytes: query.packets,
    };
    // Ends before the daemon does, and with it the monitored program.
    let tracker = api.tracker.clone();
    tracker.spawn(async move { shown.send(&api, sender).await });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::new(body)).into_response())
}

/// A monitor whose packets go to a reader.
struct Shown {
    monitor: Monitor,
    selection: Selection,
    views: watch::Receiver<Arc<ControlView>>,
    /// Names of the present view, made when a packet needs them.
    names: Option<Names>,
    with_bytes: bool,
}

impl Shown {
    /// Sends packets until the reader or the daemon leaves, or the monitor has to end.
    async fn send(mut self, api: &Api, mut sender: Sender<Bytes>) {
        let mut reports = interval(REPORT_EVERY);
        reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let lines = tokio::select! {
                () = api.cancel.cancelled() => return,
                _ = reports.tick() => {
                    let lost = self.monitor.lost();
                    lost.map(|lost| vec![MonitorLine::Lost(Lost { lost })]).map_err(ApiError::from)
                }
                // An error means that the daemon leaves.
                Ok(()) = self.views.changed() => match self.follow() {
                    Ok(()) => continue,
                    Err(error) => Err(error),
                },
                packets = self.monitor.packets() => {
                    packets.map(|packets| self.lines(packets)).map_err(ApiError::from)
                }
            };
            let (lines, ends) = match lines {
                Ok(lines) => (lines, false),
                Err(error) => {
                    let body = error.into_body();
                    tracing::info!(reason = body.error.message, "a monitor ends");
                    (vec![MonitorLine::Ended(body)], true)
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
                sent = sender.send_data(piece.into()) => if sent.is_err() || ends { return },
            }
        }
    }

    /// Follows the service and backends to the addresses that they have now.
    fn follow(&mut self) -> Result<(), ApiError> {
        self.names = None;
        let places = {
            let view = self.views.borrow_and_update();
            let found = self.selection.find(&view);
            found.map_err(|_| removed(&self.selection, &view))?
        };
        Ok(self.monitor.follow(places)?)
    }

    fn lines(&mut self, packets: Vec<MonitoredPacket>) -> Vec<MonitorLine> {
        let Self {
            views,
            names,
            with_bytes,
            ..
        } = self;
        let names = names.get_or_insert_with(|| Names::new(&views.borrow()));
        let line = |packet| MonitorLine::Packet(Box::new(shown(packet, names, *with_bytes)));
        packets.into_iter().map(line).collect()
    }
}

/// Why a monitor ends whose service or backend is gone.
fn removed(selection: &Selection, view: &ControlView) -> ApiError {
    let Selection { service, backend } = selection;
    let is_gone = |name: &&ServiceName| !view.desired.services.contains_key(*name);
    let what = match (service.as_ref().filter(is_gone), backend) {
        (None, Some(backend)) => format!("backend {}", selection.backend_text(backend)),
        (Some(name), _) => format!("service {name}"),
        (None, None) => "what was selected".to_owned(),
    };
    ApiError::new(
        ErrorCode::NotFound,
        format!("{what} was removed"),
        Some("the monitor has ended; without a service and a backend it shows all packets".into()),
    )
}

/// The service and backend that a query names.
fn selection(query: &MonitorQuery) -> Result<Selection, ApiError> {
    let address = query.backend.as_deref().and_then(|text| text.parse().ok());
    let name = query.backend.as_deref().filter(|_| address.is_none());
    let named = Selection::named(query.service.as_deref(), name)?;
    Ok(Selection {
        backend: address.map(BackendMeant::Address).or(named.backend),
        ..named
    })
}

/// The filter that a query describes.
fn filter(query: &MonitorQuery, places: Places) -> Result<MonitorFilter, ApiError> {
    let MonitorQuery {
        drops,
        client,
        reason,
        sample,
        rate,
        service: _,
        backend: _,
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
    let client = client.as_deref().map(values::prefix).transpose()?;
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
        places,
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

/// A packet by the names that services and backends have now.
fn shown(packet: MonitoredPacket, names: &Names, with_bytes: bool) -> Packet {
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
    let service_name = service.map(|key| names.service(&key).into_owned());
    let of_service = service.zip(backend);
    let backend_name = of_service.map(|(key, address)| names.backend(key, address).into_owned());
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
            MonitorError::Program(_) | MonitorError::Refused(_) | MonitorError::Records(_) => {
                (ErrorCode::Failed, None)
            }
        };
        Self::new(code, chain(&error), hint.map(str::to_owned))
    }
}
