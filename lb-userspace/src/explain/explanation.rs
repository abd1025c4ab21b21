//! The explanation of a packet.

use std::net::SocketAddr;

use lb_common::{reason::Reason, service::Mode};

use crate::state::service::ServiceKey;

/// The verdict for a packet, and the steps that lead to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// The reason under which it would count.
    pub reason: Reason,
    /// The service it belongs to.
    pub service: Option<ServiceKey>,
    /// The backend that it goes to or comes from; `None` also where that cannot be predicted.
    pub backend: Option<SocketAddr>,
    /// The mode of the backend.
    pub mode: Option<Mode>,
    /// The ring slot of its flow.
    pub slot: Option<u32>,
    /// Whether its flow is recorded.
    pub tracked: bool,
    /// Index of the interface on which it would leave.
    pub ifindex: Option<u32>,
    /// The frame that would leave, where the tables determine all of it.
    pub frame: Option<Vec<u8>>,
    /// Whether the tunnel that it comes through ends here; `None` for a packet without one.
    pub tunnel_ends: Option<bool>,
    /// The steps, one sentence each.
    pub steps: Vec<String>,
}

impl Explanation {
    /// A verdict without a service or steps.
    pub(super) const fn of(reason: Reason) -> Self {
        Self {
            reason,
            service: None,
            backend: None,
            mode: None,
            slot: None,
            tracked: false,
            ifindex: None,
            frame: None,
            tunnel_ends: None,
            steps: Vec::new(),
        }
    }
}
