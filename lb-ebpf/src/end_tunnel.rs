//! Tunnels that end at this machine, so that one tier of balancers can pass flows on to another.

use lb_common::{
    addr::NetAddr,
    decap::{EndKey, Outcome, Tables},
    service::UDP,
    settings::{ENDS_TUNNELS, Settings},
};
use lb_packet::tunnel_end;
use lb_wire::Frame as _;

use crate::{
    family::Family,
    header::Network,
    maps::{counters, tables, tunnel_ends},
    next_stage::NextStage,
    packet::Packet,
    parse,
    scratch::Scratch,
};

/// Where the protocol number stands in a frame.
const PROTOCOL_V4: usize = 14 + 9;
const NEXT_HEADER_V6: usize = 14 + 6;

/// The tables that the daemon fills.
struct OfDaemon;

impl Tables for OfDaemon {
    #[inline(always)]
    fn gue_port(&self) -> u16 {
        tables::settings().map_or(0, |settings| settings.gue_port)
    }

    #[inline(always)]
    fn is_end(&self, address: &NetAddr) -> bool {
        tunnel_ends::has(EndKey::END, address)
    }

    #[inline(always)]
    fn is_source(&self, family: u8, address: &NetAddr) -> bool {
        tunnel_ends::has(family, address)
    }
}

/// Takes the outer header off a packet that came through a tunnel, and counts it. All others are as they were, those of other
/// tunnels too: the kernel may have an end for them.
#[inline(always)]
pub(crate) fn stage(packet: &Packet, interface_slot: u32) -> NextStage {
    #[cfg(feature = "monitor")]
    crate::monitor::keep(packet);
    let bytes = u64::from(packet.received_len());
    let outcome = match tunnel_end::open(packet, &OfDaemon) {
        Ok(()) => Outcome::Decapsulated,
        Err(outcome) => outcome,
    };
    if outcome == Outcome::Decapsulated {
        counters::count_tunnel_ended(interface_slot, bytes);
    }
    match outcome.reason(is_udp(packet)) {
        None => NextStage::Classify,
        Some(reason) => reason.into(),
    }
}

/// Whether the protocol number of a packet's IP header is that of UDP.
#[inline(always)]
fn is_udp(packet: &Packet) -> bool {
    let at = match parse::ethernet(packet) {
        Ok(Network::V4) => PROTOCOL_V4,
        Ok(Network::V6) => NEXT_HEADER_V6,
        Err(_) => return false,
    };
    packet.read::<[u8; 1]>(at) == Some([UDP])
}

/// Where the entry program goes on with a packet that is not plain: IP in IP is not.
#[inline(always)]
pub(crate) fn before_classify(next: NextStage) -> NextStage {
    if matches!(next, NextStage::Classify) && tables::ends_tunnels() {
        NextStage::EndTunnel
    } else {
        next
    }
}

/// Whether a plain packet for no service may be a GUE packet. One from elsewhere may be a reply of mode `nat`: the stage leads on
/// to that.
#[inline(always)]
pub(crate) fn may_be_gue<A: Family>(scratch: &Scratch<A>, settings: &Settings) -> bool {
    settings.flags & ENDS_TUNNELS != 0
        && scratch.tuple.protocol == UDP
        && scratch.tuple.dst_port.get() == settings.gue_port
}
