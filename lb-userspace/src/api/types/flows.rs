//! Flows.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    config::values::{self, ValueError},
    state::words::Word as _,
};

/// What flows are listed by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlowOrder {
    /// The oldest first; flows whose age is not known last.
    Age,
    /// The longest idle first.
    Idle,
    /// By client address and port.
    Client,
}

/// What flows are counted by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlowGroups {
    /// Service.
    Service,
    /// Backend.
    Backend,
    /// Client address.
    Client,
}

lb_health_core::words! {
    FlowOrder, "sort": FlowOrder::Age = "age", FlowOrder::Idle = "idle", FlowOrder::Client = "client";
    FlowGroups, "by": FlowGroups::Service = "service", FlowGroups::Backend = "backend", FlowGroups::Client = "client";
}

/// An order of flows.
///
/// # Errors
/// The text is not an order; the error lists them.
pub fn order(text: &str) -> Result<FlowOrder, ValueError> {
    if text == "bytes" {
        let words: Vec<&str> = FlowOrder::WORDS.iter().map(|(_, word)| *word).collect();
        return Err(ValueError::new(
            "flows cannot be sorted by bytes, which are counted for services and backends and not for each flow",
            format!("sort by {}", words.join(", ")),
        ));
    }
    values::word(text)
}

/// Which flows are meant: those for which all of it holds.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct FlowSelection {
    /// Name of their service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Name of their backend, of any service unless that is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// Address of their client, or a prefix of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// `opening`, `established`, `closing` or `closed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// How flows are listed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct FlowListQuery {
    /// `age`, `idle` or `client`; left out: in no order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sort: Option<String>,
    /// How many at most; left out: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// How flows are counted.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct FlowCountQuery {
    /// `service`, `backend` or `client`; left out: all together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// How many groups at most, the largest; left out: 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// How flows are removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct FlushQuery {
    /// Only count them.
    #[serde(default)]
    pub dry_run: bool,
    /// Remove the flows of all services. Without it, a request that names no flows is refused.
    #[serde(default)]
    pub all: bool,
}

/// A flow: a line of `GET /v1/flows`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Flow<'a> {
    /// Its service.
    #[serde(borrow)]
    pub service: Cow<'a, str>,
    /// Its backend.
    #[serde(borrow)]
    pub backend: Cow<'a, str>,
    /// `tcp` or `udp`.
    #[serde(borrow)]
    pub protocol: Cow<'a, str>,
    /// Address and port of the client.
    #[serde(borrow)]
    pub client: Cow<'a, str>,
    /// Address and port that the client sends to.
    #[serde(borrow)]
    pub address: Cow<'a, str>,
    /// Address and port at the backend.
    #[serde(borrow)]
    pub to: Cow<'a, str>,
    /// Source address and port that the backend sees, in mode `nat`; `null` in other modes, where it sees the client's.
    #[schema(value_type = Option<String>)]
    pub via: Option<&'a str>,
    /// `opening`, `established`, `closing` or `closed`.
    #[serde(borrow)]
    pub state: Cow<'a, str>,
    /// Seconds since the SYN that opened it, or its first datagram; `null` in modes other than `nat`, which do not record it.
    pub age: Option<u32>,
    /// Seconds since its last packet.
    pub idle: u32,
    /// The ring slot of its tuple; `null` where new flows take turns.
    pub slot: Option<u32>,
    /// Interface on which replies leave, in mode `nat`.
    #[serde(borrow)]
    pub interface: Option<Cow<'a, str>>,
    /// VLAN ids of replies, the outer one first.
    pub vlans: Vec<u16>,
}

/// `GET /v1/flows/count`
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct FlowCount {
    /// All flows that are meant.
    pub flows: u64,
    /// The same by state.
    pub states: FlowStates,
    /// The largest groups, the largest first; empty unless asked for.
    pub groups: Vec<FlowGroup>,
    /// Flows that are in none of these groups.
    pub rest: u64,
    /// Whether every group was counted. Else there are too many clients, and flows of some are only in `rest`.
    pub exact: bool,
}

/// Flows by state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct FlowStates {
    /// Not established, or not answered.
    pub opening: u64,
    /// Established, or answered.
    pub established: u64,
    /// One end has ended it.
    pub closing: u64,
    /// Both ends have ended it, or it was reset.
    pub closed: u64,
}

/// Flows of one service, backend or client.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct FlowGroup {
    /// The service, in groups of services and backends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The backend, in groups of backends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// The client's address, in groups of clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Its flows.
    pub flows: u64,
}

/// The answer to `DELETE /v1/flows`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Flushed {
    /// How many flows were removed, or would be.
    pub flows: u64,
    /// Whether they were only counted.
    pub dry_run: bool,
}
