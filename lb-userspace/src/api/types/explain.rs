//! Explanations of packets.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /v1/explain`: what would become of a packet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// `forward`, `pass`, `drop` or `reply`.
    pub verdict: String,
    /// Name of the reason it would be counted for.
    pub reason: String,
    /// What to do about it.
    pub remedy: Option<String>,
    /// The service it belongs to.
    pub service: Option<String>,
    /// The backend it goes to, or comes from; `null` also where nobody can say before it comes.
    pub backend: Option<String>,
    /// How it gets there.
    pub mode: Option<String>,
    /// The slot of the service's ring that its flow leads to; `null` where that does not decide.
    pub slot: Option<u32>,
    /// Whether its flow is recorded.
    pub tracked: bool,
    /// What would leave, if anything does.
    pub output: Option<Output>,
    /// How that comes about.
    pub steps: Vec<String>,
}

/// What would leave.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Output {
    /// The interface; `null` where nobody can say before the packet comes.
    pub interface: Option<String>,
    /// The frame in hexadecimal, from the destination MAC address on: of a packet without payload (with zeros where a
    /// length is asked for), TCP sequence number 0. The source port of a new flow of mode `nat` is 0, since a free one is chosen
    /// when the packet comes. `null` where the tables do not say all of it: replies, a next hop that is not resolved, the
    /// next turn of round-robin, one of several source addresses.
    pub packet_hex: Option<String>,
}
