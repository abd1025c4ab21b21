//! Live packets.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::requests::ErrorBody;

/// A line of `GET /v1/monitor`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum MonitorLine {
    /// A packet.
    Packet(Box<Packet>),
    /// Packets that are missing between the others.
    Lost(Lost),
    /// The last line, if the monitor ends by itself: its service or backend was removed, or records cannot be read.
    Ended(ErrorBody),
}

/// Sent once a second.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Lost {
    /// Packets so far that the filter asked for and that were not recorded: there were more than the rate allows, or the reader was
    /// late.
    pub lost: u64,
}

/// A packet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Packet {
    /// When it left the program, in RFC 3339 with microseconds, UTC.
    pub at: String,
    /// The interface on which it came.
    pub interface: String,
    /// `tx`, `redirect`, `pass`, `drop` or `aborted`.
    pub verdict: String,
    /// Name of the reason that it counts for.
    pub reason: String,
    /// `request` from a client, `reply` from a backend; `null` where the program did not come to know.
    pub direction: Option<String>,
    /// `tcp`, `udp`, `icmp`, `icmpv6`, or another protocol's number; `null` if it is no IP packet.
    pub protocol: Option<String>,
    /// The client, with its port if there is one; of a packet of no service its source.
    pub client: Option<String>,
    /// The address that the client sends to, with its port if there is one.
    pub destination: Option<String>,
    /// Its service, by the name that it had when the packet came.
    pub service: Option<String>,
    /// Its backend, in the same way.
    pub backend: Option<String>,
    /// The backend's address.
    pub backend_address: Option<String>,
    /// Bytes of the frame as it came.
    pub bytes: u32,
    /// Bytes of the frame as it left.
    pub sent_bytes: u32,
    /// The frame's first bytes as it came, in hexadecimal; with `packets` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// The frame's first bytes as it left, in the same way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}
