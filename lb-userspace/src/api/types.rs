//! The JSON of the admin API, which `-o json` prints. Fields may be added, but not changed.

mod agent;
mod clients;
mod config;
mod drops;
mod explain;
mod flows;
mod guard;
mod host;
mod interface;
mod monitor;

use std::net::{IpAddr, SocketAddr};

use lb_common::service::Mode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::state::words::Word as _;

pub use self::{
    agent::{Agent, AgentPoll},
    clients::Clients,
    config::ConfigState,
    drops::Drops,
    explain::{Explanation, Output},
    flows::{
        Flow, FlowCount, FlowCountQuery, FlowGroup, FlowGroups, FlowListQuery, FlowOrder, FlowSelection,
        FlowStates, FlushQuery, Flushed, order,
    },
    guard::Guard,
    host::Host,
    interface::{Interface, XdpMode},
    monitor::{Lost, MonitorLine, Packet},
};

/// `GET /v1/status`
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// When it started, RFC 3339.
    pub started: String,
    /// Revision of the desired state.
    pub revision: u64,
    /// Whether the desired state is programmed on all its interfaces.
    pub ready: bool,
    /// Interfaces that are to have the program.
    pub interfaces: Vec<Interface>,
    /// All services by name.
    pub services: Vec<Service>,
    /// Where metrics are served; `null` while they are not.
    pub metrics: Option<String>,
    /// Maps and how full they are.
    pub maps: Vec<MapUse>,
    /// How the running state stands to the configuration file.
    #[serde(default)]
    pub config: ConfigState,
    /// Problems; empty if there are none.
    pub problems: Vec<Problem>,
}

/// A map and how full it is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct MapUse {
    /// Its name.
    pub name: String,
    /// Entries in use.
    pub entries: u64,
    /// Entries at most.
    pub capacity: u64,
}

/// Something that keeps traffic from going where it should.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// The service it is about.
    pub service: Option<String>,
    /// The backend it is about.
    pub backend: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// A service: its desired and programmed state, and its traffic.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its address (VIP), or the prefix of its addresses.
    pub address: String,
    /// Its port; 0 is every port. The first one, where it has several.
    pub port: u16,
    /// All its ports and ranges of ports, where it has several; else none.
    #[serde(default)]
    pub ports: Vec<String>,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// How packets reach its backends.
    pub mode: String,
    /// How backends are chosen.
    pub algorithm: String,
    /// What selects the backend.
    pub affinity: String,
    /// Which flows are recorded.
    pub tracking: String,
    /// Which flows can be listed: `all`, or `changing`, those whose slot changed hands.
    #[serde(default)]
    pub recorded_flows: String,
    /// Slots of the ring, as configured.
    pub ring_size: String,
    /// What happens to packets without a backend.
    pub on_empty: String,
    /// What happens to flows of a backend that went down.
    pub on_down: String,
    /// Time for which a backend that went down keeps its established flows.
    pub on_down_after: String,
    /// Share of the backends' weight that checks alone may take out, in percent.
    pub max_removed_percent: u8,
    /// Backups take new flows while fewer of the other backends can.
    #[serde(default)]
    pub backup_below: u32,
    /// Backups that take new flows now; they are counted in `healthy_backends` too.
    #[serde(default)]
    pub serving_backups: usize,
    /// Time over which the weight of a backend that comes up rises.
    #[serde(default)]
    pub slow_start: String,
    /// Time without packets after which a flow is forgotten.
    #[serde(default)]
    pub idle_timeout: String,
    /// The same of a flow with packets in one direction alone.
    #[serde(default)]
    pub half_open_timeout: String,
    /// The same of a TCP connection that was closed or reset; `null` for UDP.
    #[serde(default)]
    pub closed_timeout: Option<String>,
    /// Its ACLs and rate limits.
    #[serde(default)]
    pub guard: Guard,
    /// How backends are checked.
    pub check: String,
    /// How agents of its backends are polled; `null` if they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Clients that go to groups of backends.
    #[serde(default)]
    pub clients: Vec<Clients>,
    /// How connection ids of QUIC name backends, if they do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quic: Vec<Quic>,
    /// Packets from clients.
    pub packets: u64,
    /// Their bytes, whole frames.
    pub bytes: u64,
    /// Flows that began.
    pub new_flows: u64,
    /// Whether half-open flows give way to new ones at present, because source ports or flow table entries run out.
    #[serde(default)]
    pub flows_give_way: bool,
    /// Flows under way.
    pub active_flows: u64,
    /// Packets from backends.
    pub reply_packets: u64,
    /// Their bytes.
    pub reply_bytes: u64,
    /// Packets dropped, by reason.
    pub drops: Vec<Drops>,
    /// Packets that the balancer answered itself, by reason.
    #[serde(default)]
    pub replies: Vec<Drops>,
    /// `ok`, `degraded`, `on backup`, `down`, `no backends`, `broken` or `not programmed`.
    #[serde(default)]
    pub state: String,
    /// Why no packet of it can arrive, even if its checks succeed; `null` if packets can.
    #[serde(default)]
    pub broken: Option<String>,
    /// Commands or changes that mend it, the best first; any of them is enough.
    #[serde(default)]
    pub remedies: Vec<String>,
    /// Faults of the set-up that make flows of single backends fail, whatever their checks say.
    #[serde(default)]
    pub faults: Vec<Fault>,
    /// Backends that take new flows.
    pub healthy_backends: usize,
    /// Its backends in the order of the file, then backends found by host name, then removed ones whose flows finish.
    pub backends: Vec<Backend>,
    /// Host names whose addresses are backends.
    #[serde(default)]
    pub hosts: Vec<Host>,
    /// Whether the desired state is programmed.
    pub programmed: bool,
    /// Why not.
    pub error: Option<String>,
}

/// A way in which connection ids of QUIC name backends.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Quic {
    /// The configuration id.
    pub config_id: u8,
    /// Bytes of a server id.
    pub server_id_length: u8,
    /// Bytes of a nonce.
    pub nonce_length: u8,
    /// A placeholder for the key; `null` without encryption.
    pub key: Option<String>,
}

/// Why flows of a backend fail, whatever its checks say.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Fault {
    /// Name of the backend.
    pub backend: String,
    /// The reason.
    pub message: String,
    /// Commands or changes that mend it, the best first; any of them is enough.
    pub remedies: Vec<String>,
}

/// A backend of a service.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Backend {
    /// Its name.
    pub name: String,
    /// Where packets go.
    #[schema(value_type = String)]
    pub address: SocketAddr,
    /// The host name of the service that has this address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovered_by: Option<String>,
    /// The configured weight.
    pub weight: u16,
    /// The weight in force: 0 while it takes no new flows, a part of it while it begins slowly.
    pub effective_weight: u32,
    /// Whether it takes new flows only while too few others can.
    #[serde(default)]
    pub backup: bool,
    /// The group that it is of.
    pub group: Option<String>,
    /// How far a backend has come that begins slowly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<SlowStart>,
    /// Health state by checks and agent: `down` if either reports it.
    pub health: Health,
    /// The operator's word.
    pub admin: Admin,
    /// When a drain ends by itself and the backend is disabled, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_until: Option<String>,
    /// The same, under its former name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_deadline: Option<String>,
    /// It was removed and finishes its flows.
    pub removed: bool,
    /// How packets reach it.
    pub mode: String,
    /// What connection ids of QUIC name it by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub server_ids: Vec<String>,
    /// The way to it; `null` until it was looked for.
    pub next_hop: Option<NextHop>,
    /// Packets from clients.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Flows that began.
    pub new_flows: u64,
    /// Flows under way, when last counted.
    pub active_flows: u64,
    /// Milliseconds since that count began; `null` before the first.
    pub flows_counted_ms_ago: Option<u64>,
    /// Packets it sent back.
    pub reply_packets: u64,
    /// Their bytes.
    pub reply_bytes: u64,
    /// Its failed flows, in mode `nat`.
    #[serde(default)]
    pub signals: Signals,
    /// The last check; `null` before the first and without checks.
    pub last_check: Option<LastCheck>,
    /// Backends, as `service/backend`, that the same check covers: target and settings are equal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub check_shared_with: Vec<String>,
    /// The certificate that its checks saw last; of several, the first to expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// The state that its agent reports, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Agent>,
    /// Whether it is held down for having fallen too often.
    #[serde(default)]
    pub damped: bool,
    /// Whether its flows failed since the latest success of a check.
    #[serde(default)]
    pub suspect: bool,
    /// Its circuit breaker: `closed`, `open` or `half-open`; `null` where it has none.
    #[serde(default)]
    pub breaker: Option<String>,
    /// Since when the health state holds, RFC 3339.
    pub since: Option<String>,
}

impl Backend {
    /// Whether it is a backup that takes new flows.
    pub(crate) const fn is_serving_backup(&self) -> bool {
        self.backup && self.effective_weight > 0
    }

    /// Whether none of its flows has ever had a reply, though its replies come through the balancer. `protocol` is its service's:
    /// UDP may have none.
    pub(crate) fn lacks_replies(&self, protocol: &str) -> bool {
        /// New flows that a backend may have before the first reply.
        const FIRST_FLOWS: u64 = 10;
        let comes_back = self.mode == Mode::Nat.word() || self.mode == Mode::Dnat.word();
        comes_back && protocol == "tcp" && self.reply_packets == 0 && self.new_flows >= FIRST_FLOWS
    }
}

/// Until when the certificate of a backend is valid.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Certificate {
    /// The end, RFC 3339.
    pub expires: String,
    /// Whole days until then; negative after it.
    pub days_left: i64,
    /// Whether that is less than `warn_before` of the check.
    pub expires_soon: bool,
}

/// Failed flows of a backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Signals {
    /// SYNs that clients repeated since it had not answered.
    pub unanswered: u64,
    /// Flows whose first answer was a reset.
    pub refused: u64,
    /// ICMP errors that report it unreachable.
    pub unreachable: u64,
}

/// How far a backend has come that begins slowly.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct SlowStart {
    /// Share of its weight that it has, in percent.
    pub percent: u8,
    /// When it has the whole, RFC 3339.
    pub until: String,
}

/// The way to a backend.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct NextHop {
    /// The backend itself or a router.
    #[schema(value_type = Option<String>)]
    pub via: Option<IpAddr>,
    /// The interface towards it.
    pub interface: Option<String>,
    /// Its problem.
    pub error: Option<String>,
    /// Whether nothing can be sent to the backend.
    #[serde(default)]
    pub blocked: bool,
}

/// Outcome of a check.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct LastCheck {
    /// Whether it passed.
    pub ok: bool,
    /// How long it took, microseconds.
    pub latency_us: u64,
    /// What was seen.
    pub detail: String,
    /// What to do about a failure, where it has one remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// Whether it failed for a reason of the balancer's machine, and so does not count.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub local: bool,
    /// When it ended, RFC 3339.
    pub at: String,
    /// The mode by which checks go through the forwarding path, if they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub through: Option<String>,
    /// Each of several checks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<CheckPart>,
}

/// Outcome of one of several checks.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct CheckPart {
    /// Its kind, and its port where that is its own.
    pub check: String,
    /// Whether it passed.
    pub ok: bool,
    /// How long it took, microseconds.
    pub latency_us: u64,
    /// What was seen.
    pub detail: String,
}

/// Verdict of the checks about a backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Passing.
    Up,
    /// Failing.
    Down,
    /// No checks.
    Unchecked,
}

/// The operator's word about a backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Admin {
    /// Takes flows as its health allows.
    Enabled,
    /// Takes no new flows, keeps the ones it has.
    Draining,
    /// Takes no flows at all.
    Disabled,
}

/// `GET /v1/health`
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Readiness {
    /// Whether the desired state is programmed.
    pub ready: bool,
    /// Revision of the desired state.
    pub revision: u64,
}
