//! What the admin API is asked and how it answers changes.

mod health;

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

pub use self::health::{HealthSpec, StatusSpec, StatusesSpec, StepSpec};
use super::types::Admin;
use crate::config::ConfigError;

/// A service as in the configuration file, with the file's keys, texts and defaults. For a new service `name`,
/// `address` and `port` (or `ports`) are needed; a change holds what changes.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// Unique name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Address (VIP).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Port; 0 is every port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// In place of `port`: several ports and ranges of them. The service is known by the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<PortsSpec>>,
    /// `tcp` or `udp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// How packets reach the backends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// How backends are chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<String>,
    /// What decides about the backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<String>,
    /// Which flows are recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracking: Option<String>,
    /// `"auto"` or a number of slots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ring_size: Option<RingSizeSpec>,
    /// Policy without backends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_empty: Option<String>,
    /// Policy for flows of a backend that went down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_down: Option<String>,
    /// Time for which a backend that went down keeps its established flows, for example `3s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_down_after: Option<String>,
    /// Share of the backends' weight that checks alone may take out, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_removed_percent: Option<u8>,
    /// Backups take flows while fewer of the other backends can; from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_below: Option<u32>,
    /// Time over which a new backend's weight rises, for example `30s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<String>,
    /// Time without packets after which a flow is forgotten; 2h4m of TCP, 5m of UDP where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<String>,
    /// The same of a flow with packets in one direction alone; 1m where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub half_open_timeout: Option<String>,
    /// The same of a TCP connection that was closed or reset; 10s where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed_timeout: Option<String>,
    /// Who may send to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guard: Option<GuardSpec>,
    /// How backends are checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthSpec>,
    /// How agents of backends are asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentSpec>,
    /// How connection ids of QUIC name backends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quic: Option<Vec<QuicSpec>>,
}

/// A port, or several as a text.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum PortsSpec {
    /// `443`
    One(u16),
    /// `"8000-8100"`
    Range(String),
}

/// How connection ids of QUIC name backends, with the keys of the configuration file.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QuicSpec {
    /// The configuration id, 0 to 6.
    pub config_id: u8,
    /// Bytes of a server id.
    pub server_id_length: u8,
    /// Bytes of a nonce.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nonce_length: Option<u8>,
    /// Key of AES-128 in hexadecimal, or what stands for one in an export.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// Shows no key.
impl fmt::Debug for QuicSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicSpec")
            .field("config_id", &self.config_id)
            .finish_non_exhaustive()
    }
}

/// Who may send to a service, and how many flows may begin, with the keys of the configuration file.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GuardSpec {
    /// Prefixes of clients that may send, and none but them; empty: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<String>>,
    /// Prefixes of clients that may not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deny: Option<Vec<String>>,
    /// New flows a second; 0: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_flows: Option<u32>,
    /// New flows at once; 0: as many as in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_flows_burst: Option<u32>,
    /// New flows a second of each source; 0: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_new_flows: Option<u32>,
    /// New flows at once of each source; 0: as many as in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_new_flows_burst: Option<u32>,
    /// First bits of a client's address that make it a source; 0: 32 of IPv4, 64 of IPv6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_bits: Option<u8>,
}

/// How agents of backends are asked, with the keys of the configuration file.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentSpec {
    /// Whether they are asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Their port, where backends name none of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// What is sent to them first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send: Option<String>,
    /// Time between two questions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    /// Time after which a question has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
}

/// `"auto"` or a number.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum RingSizeSpec {
    /// A prime from 251 to 131,071.
    Slots(u32),
    /// `auto`.
    Text(String),
}

/// A backend as in the configuration file.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackendSpec {
    /// Unique within the service.
    pub name: String,
    /// `IP:PORT`.
    pub address: String,
    /// Share of new flows; 100 where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// Mode of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// What connection ids of QUIC name it by, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_ids: Option<Vec<String>>,
    /// Port of its agent; 0: it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_port: Option<u16>,
    /// Whether it takes new flows only while too few others can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<bool>,
}

/// What changes about a backend.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackendPatch {
    /// `IP:PORT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Share of new flows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// Mode of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// What connection ids of QUIC name it by, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_ids: Option<Vec<String>>,
    /// Port of its agent; 0: it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_port: Option<u16>,
    /// Whether it takes new flows only while too few others can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<bool>,
    /// The operator's word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<Admin>,
    /// With `admin: draining`: milliseconds after which flows that are left move and the backend is disabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// What a backend, or a script beside it, reports, for services with checks of kind push.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportSpec {
    /// How it is.
    pub health: Reported,
    /// Milliseconds for which that holds, up to a day; `ttl` of the service's check where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// What is wrong, shown with `down`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What can be reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Reported {
    /// It is well.
    Up,
    /// It is not.
    Down,
}

/// The answer to a report.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ReportTaken {
    /// Milliseconds for which it holds.
    pub holds_ms: u64,
}

/// A whole configuration file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// Name of the file, for messages.
    pub file: String,
    /// Its content.
    pub toml: String,
    /// Only say what would change.
    #[serde(default)]
    pub dry_run: bool,
    /// Remove all services where the file has none; without it, such a file is refused.
    #[serde(default)]
    pub empty: bool,
}

/// Optimistic concurrency: the change is refused when the desired state has moved on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Expected {
    /// Revision the caller has seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

/// How a backend is removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RemoveQuery {
    /// Revision the caller has seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Do not let its flows finish.
    #[serde(default)]
    pub now: bool,
}

/// Which packet to explain.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ExplainQuery {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Address and port of its sender.
    pub source: String,
    /// Address and port that it is sent to.
    pub destination: String,
    /// It comes from the middle of a connection, and does not open one.
    #[serde(default)]
    pub established: bool,
    /// Name of the interface that it comes in on; left out: the first one.
    #[serde(default)]
    pub interface: Option<String>,
    /// Its TTL or hop limit; left out: 64.
    #[serde(default)]
    pub ttl: Option<u8>,
    /// Bytes of the IP packet; left out: it fits everywhere.
    #[serde(default)]
    pub length: Option<u16>,
    /// The QUIC connection id that it is sent to, in hexadecimal.
    #[serde(default)]
    pub quic_id: Option<String>,
}

/// Which events are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
    /// Stay and send events as they come.
    #[serde(default)]
    pub follow: bool,
    /// Only events of the last so many milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
}

/// What a change did.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Changed {
    /// Revision in force now.
    pub revision: u64,
    /// Whether anything is different from before.
    pub changed: bool,
    /// Whether it was only tried.
    pub dry_run: bool,
    /// What is different, one line each, beginning with `+`, `-` or `~`.
    pub diff: Vec<String>,
    /// For each changed service, what happens to its flows, where anything does.
    pub moved: Vec<Moved>,
    /// What the change cannot do.
    pub warnings: Vec<String>,
    /// Of `diff`, what undoes changes made by command since a configuration file was applied.
    #[serde(default)]
    pub replaced: Vec<String>,
}

/// How much of a service moves.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Moved {
    /// The service.
    pub service: String,
    /// Share of its new flows that go to another backend than before, 0 to 1.
    pub share: f64,
    /// Flows under way that are moved to another backend, when last counted.
    #[serde(default)]
    pub flows: u64,
}

/// Body of every answer that is not a success.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What is wrong.
    pub error: ErrorDetail,
}

/// What is wrong and what to do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ErrorDetail {
    /// What kind of failure.
    pub code: ErrorCode,
    /// What is wrong.
    pub message: String,
    /// What to do.
    #[serde(default)]
    pub hint: Option<String>,
    /// Every single error of a file, with its place.
    #[serde(default)]
    pub details: Vec<PlacedError>,
}

/// What kind of failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request makes no sense.
    Invalid,
    /// No such service or backend.
    NotFound,
    /// It exists with other content, or the revision moved on.
    Conflict,
    /// It could not be saved or programmed; the old state stays.
    Failed,
    /// The daemon is starting or leaving.
    Unavailable,
}

/// An error with its place in a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct PlacedError {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do.
    #[serde(default)]
    pub hint: Option<String>,
}

impl From<ConfigError> for PlacedError {
    fn from(error: ConfigError) -> Self {
        let ConfigError {
            file: _,
            line,
            column,
            message,
            hint,
        } = error;
        Self {
            line,
            column,
            message,
            hint,
        }
    }
}
