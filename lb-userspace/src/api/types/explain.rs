//! Explanations of packets.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /v1/explain`: what would happen to a packet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// `forward`, `pass`, `drop` or `reply`.
    pub verdict: String,
    /// Name of the reason it would be counted for.
    pub reason: String,
    /// The remedy; `null` where none is needed.
    pub remedy: Option<String>,
    /// Why its flow fails although it is forwarded, such as replies that come in where no program runs; `null` where no reason is
    /// known.
    #[serde(default)]
    pub fault: Option<String>,
    /// The service it belongs to.
    pub service: Option<String>,
    /// The backend that it goes to or comes from; `null` also if that is decided only when it arrives.
    pub backend: Option<String>,
    /// How it gets there.
    pub mode: Option<String>,
    /// The slot of the service's ring that its flow leads to; `null` where that does not decide.
    pub slot: Option<u32>,
    /// Whether its flow is recorded.
    pub tracked: bool,
    /// Whether the tunnel that it comes through ends at this machine; `null` for a packet without one.
    #[serde(default)]
    pub tunnel_ends: Option<bool>,
    /// The packet that would leave, if any.
    pub output: Option<Output>,
    /// How that comes about.
    pub steps: Vec<String>,
}

/// The packet that would leave.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Output {
    /// The interface; `null` if it is decided only when the packet arrives.
    pub interface: Option<String>,
    /// The frame in hexadecimal, from the destination MAC address on, for a packet without payload (zeros if a length
    /// is given) and TCP sequence number 0. The source port of a new flow of mode `nat` is 0, since a free port is
    /// allocated when the packet arrives. `null` if the tables do not determine the frame: replies, an unresolved next
    /// hop, round-robin, several source addresses.
    pub packet_hex: Option<String>,
}
