//! Requests of the admin API, and its answers to changes.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::config::ConfigError;

/// Largest body of a request about one service or backend, in bytes: a service with as many prefixes as fit. Values of JSON take
/// up to 20 times their length in memory.
pub const MAX_SERVICE_REQUEST: usize = 8 << 20;

/// A report of a backend, or of a script beside it, for services with checks of kind push.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportSpec {
    /// How it is.
    pub health: Reported,
    /// Milliseconds for which that holds, up to a day; `ttl` of the service's check where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// The reason, shown with `down`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The states that can be reported.
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
    /// Further files of the same configuration. `[lb]` and each service stand in one of all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<MoreToml>,
    /// Only show what would change.
    #[serde(default)]
    pub dry_run: bool,
    /// Remove all services where the file has none; without it, such a file is refused.
    #[serde(default, alias = "empty")]
    pub allow_empty: bool,
    /// Remove every service or more than half of the backends, of all or of one service; without it, that is refused.
    #[serde(default)]
    pub allow_removals: bool,
}

/// A further file of a configuration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MoreToml {
    /// Name of the file, for messages.
    pub file: String,
    /// Its content.
    pub toml: String,
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

/// What a reload may remove.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ReloadQuery {
    /// Every service, where the file has none.
    #[serde(default)]
    pub allow_empty: bool,
    /// Every service or more than half of the backends, of all or of one service.
    #[serde(default)]
    pub allow_removals: bool,
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
    /// The tunnel that it comes through: `ipip` or `gue`, with both of the next two; the rest is about the packet in it.
    #[serde(default)]
    pub tunnel: Option<String>,
    /// Source address of the tunnel's outer header.
    #[serde(default)]
    pub tunnel_from: Option<String>,
    /// Destination address of the tunnel's outer header.
    #[serde(default)]
    pub tunnel_to: Option<String>,
}

/// Which events are wanted.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
    /// Stay and send events as they come.
    #[serde(default)]
    pub follow: bool,
    /// Only events of this many last milliseconds, also from before the daemon started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// Only events that this user caused, also from before the daemon started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
}

/// Which packets are wanted; all of the conditions that are given.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct MonitorQuery {
    /// Only packets that are dropped.
    #[serde(default)]
    pub drops: bool,
    /// Only packets of this service, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Only packets of this backend, by name or `ADDRESS:PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// Only packets of clients in this prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Only packets that count for these reasons, separated by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Look at every Nth packet; 1 is all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<u32>,
    /// Packets a second, at most: 1 to 100,000; 1,000 if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
    /// With the packets' first bytes, before and after.
    #[serde(default)]
    pub packets: bool,
}

/// The effect of a change.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Changed {
    /// Revision in force now.
    pub revision: u64,
    /// Whether anything is different from before.
    pub changed: bool,
    /// Whether it was only tried.
    pub dry_run: bool,
    /// The differences, one line each, beginning with `+`, `-` or `~`.
    pub diff: Vec<String>,
    /// Services that are added or changed.
    #[serde(default)]
    pub services: Vec<String>,
    /// For each service that is changed or removed, the effect on its flows, if any.
    pub moved: Vec<Moved>,
    /// Limits of the change.
    pub warnings: Vec<String>,
    /// The lines of `diff` that undo changes made by command since a configuration file was applied.
    #[serde(default)]
    pub replaced: Vec<String>,
}

/// How much of a service moves.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Moved {
    /// The service.
    pub service: String,
    /// Whether the service is removed: then its flows end.
    #[serde(default)]
    pub removed: bool,
    /// Share of its new flows that go to another backend than before, or to none, 0 to 1.
    pub share: f64,
    /// Flows under way that are moved to another backend, or end, when last counted.
    #[serde(default)]
    pub flows: u64,
    /// Whether there may be more of them: the service records only flows whose slot changed hands.
    #[serde(default)]
    pub uncounted: bool,
}

/// Body of every answer that is not a success.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What is wrong.
    pub error: ErrorDetail,
}

/// A problem and its remedy.
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
    /// The socket is for reading alone.
    Forbidden,
    /// It removes so much that it has to be confirmed.
    Unconfirmed,
    /// The request is larger than the daemon takes.
    TooLarge,
}

/// An error with its place in a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct PlacedError {
    /// The file.
    #[serde(default)]
    pub file: String,
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
            file,
            line,
            column,
            message,
            hint,
        } = error;
        Self {
            file,
            line,
            column,
            message,
            hint,
        }
    }
}
