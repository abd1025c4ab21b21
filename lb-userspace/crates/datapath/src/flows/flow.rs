//! A flow, and which flows are meant.

use std::{collections::BTreeSet, io, net::SocketAddr, ops::ControlFlow};

use lb_common::{
    backend::{BackendId, Generation},
    flow::PROVEN,
    service::TCP,
    vlan::Vlans,
};

use crate::{
    half::{Half, is_over},
    state::{
        guard::Prefix,
        service::{Protocol, ServiceKey},
    },
};

/// An age that is about as long as its clock can count is a beginning after the clock was read: the program's and ours
/// tick apart by some milliseconds, and packets come meanwhile.
const AHEAD_MILLIS: u32 = 60_000;

/// How far a flow has come, by the packets that the balancer has seen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FlowState {
    /// TCP: the connection is not established. UDP: the backend has not answered.
    Opening,
    /// TCP: the client has acknowledged the backend's SYN. UDP: the backend has answered.
    Established,
    /// TCP: one end has sent a FIN.
    Closing,
    /// TCP: both ends have sent a FIN, or one has sent a RST. Such flows do not count as active.
    Closed,
}

lb_health_core::words! {
    FlowState, "state": FlowState::Opening = "opening", FlowState::Established = "established",
        FlowState::Closing = "closing", FlowState::Closed = "closed";
}

impl FlowState {
    /// The state of a flow with these two directions.
    pub(super) const fn of(protocol: u8, forward: Half, reply: Half) -> Self {
        let (forward, reply) = (forward.as_believed_by(reply), reply.as_believed_by(forward));
        if protocol != TCP {
            return if reply.state & PROVEN == 0 {
                Self::Opening
            } else {
                Self::Established
            };
        }
        if is_over(forward, reply) {
            Self::Closed
        } else if forward.state & reply.state & PROVEN == 0 {
            Self::Opening
        } else if forward.has_ended() || reply.has_ended() {
            Self::Closing
        } else {
            Self::Established
        }
    }
}

/// The way on which replies leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WayBack {
    /// Index of the interface.
    pub ifindex: u32,
    /// VLANs of the frames.
    pub vlans: Vlans,
}

/// A flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    /// Its protocol.
    pub protocol: Protocol,
    /// The client's address and port.
    pub client: SocketAddr,
    /// The address and port that the client sends to.
    pub destination: SocketAddr,
    /// The service.
    pub service: ServiceKey,
    /// The number of its backend, and the number's generation.
    pub owner: (BackendId, Generation),
    /// The backend's configured address; port 0 keeps the client's destination port.
    pub backend: SocketAddr,
    /// The address and port at the backend.
    pub to: SocketAddr,
    /// The source address and port that the backend sees, in mode `nat`; elsewhere it sees the client's.
    pub via: Option<SocketAddr>,
    /// How far it has come.
    pub state: FlowState,
    /// Seconds since the SYN that opened it, or its first datagram; `None` in modes other than `nat`, which do not record it.
    pub age: Option<u32>,
    /// Seconds since its last packet in either direction.
    pub idle: u32,
    /// The slot that the ring gives its tuple; `None` where new flows take turns, or there is no ring.
    pub slot: Option<u32>,
    /// How replies leave, in mode `nat`; elsewhere they do not pass the balancer.
    pub way_back: Option<WayBack>,
}

/// Which flows are meant: those for which all of it holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FlowFilter {
    /// Of this service.
    pub service: Option<ServiceKey>,
    /// Of one of these backends, each of a service.
    pub backends: Option<BTreeSet<(ServiceKey, SocketAddr)>>,
    /// Of clients in this prefix.
    pub client: Option<Prefix>,
    /// In this state.
    pub state: Option<FlowState>,
}

impl FlowFilter {
    /// Whether every flow is meant.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether flows of a backend are meant.
    pub(super) fn takes_backend(&self, service: &ServiceKey, backend: SocketAddr) -> bool {
        self.service.is_none_or(|meant| meant == *service)
            && self
                .backends
                .as_ref()
                .is_none_or(|meant| meant.contains(&(*service, backend)))
    }

    /// Whether flows of a family can be meant.
    pub(super) fn takes_family(&self, v4: bool) -> bool {
        let of_service = self.service.map(|key| key.address.is_ipv4());
        let of_client = self.client.map(|prefix| prefix.address().is_ipv4());
        of_service.is_none_or(|meant| meant == v4) && of_client.is_none_or(|meant| meant == v4)
    }
}

/// Reads and removes flows. Blocks for as long as the system calls take.
pub trait ReadFlows: Send + Sync {
    /// Calls `visit` with some flows at a time that `filter` lets through, until it breaks or all were read. Flows that
    /// come, go or change meanwhile may be missed, and a flow without NAT may come twice.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    fn walk(&self, filter: &FlowFilter, visit: &mut dyn FnMut(&[Flow]) -> ControlFlow<()>) -> io::Result<()>;

    /// Removes the flows that `filter` lets through, and counts each in `removed`. The next packet of such a flow finds it unknown.
    ///
    /// # Errors
    /// When the kernel refuses; those that are counted are removed.
    fn flush(&self, filter: &FlowFilter, removed: &mut u64) -> io::Result<()>;
}

/// Seconds since a flow began, from milliseconds modulo 2^32.
pub(super) const fn age(now: u32, began: u32) -> u32 {
    let millis = now.wrapping_sub(began);
    if millis > u32::MAX - AHEAD_MILLIS {
        0
    } else {
        millis / 1_000
    }
}

#[cfg(test)]
mod tests;
