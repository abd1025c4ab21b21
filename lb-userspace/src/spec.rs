//! Changes of a service, a backend or a check by command: the changed keys, as texts of the configuration file. The API
//! takes them as JSON, the command line makes them of its options, and the control task merges them into the desired state.

mod health;

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use self::health::{HealthSpec, StatusSpec, StatusesSpec, StepSpec};

/// A service as in the configuration file, with the file's keys, texts and defaults. A new service needs `name`,
/// `address` and `port` (or `ports`); a change has only the changed fields.
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
    /// In place of `port`: several ports and ranges. The first one identifies the service.
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
    /// Its ACLs and rate limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guard: Option<GuardSpec>,
    /// How backends are checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthSpec>,
    /// How agents of backends are polled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentSpec>,
    /// Clients that go to groups of backends; replaces all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clients: Option<Vec<ClientsSpec>>,
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

/// Clients that go to a group of backends, with the keys of the configuration file.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientsSpec {
    /// The group of backends.
    pub group: String,
    /// Prefixes of the clients.
    pub from: Vec<String>,
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
    /// Key of AES-128 in hexadecimal, or its placeholder in an export.
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

/// ACLs and rate limits of a service, with the keys of the configuration file.
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

/// How agents of backends are polled, with the keys of the configuration file.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentSpec {
    /// Whether they are polled.
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
    /// The group that it is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}
