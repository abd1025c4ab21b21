//! Recording where the first fragment of a datagram goes, so that the others follow.

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    backend::{Backend, BackendId},
    flow::{self, NatFlow},
    fragment::{AS_IS, FORWARD, REPLY, ROUTED},
    service::ServiceId,
};

use super::header::{Fragmented, begin};
use crate::{family::Family, global::global, packet::Packet, scratch::FragmentScratch};

/// Records that a first fragment goes to a backend as it is.
#[inline(always)]
pub(crate) fn as_is<A: Family>(
    packet: &Packet,
    fragments: &mut FragmentScratch<A>,
    service: ServiceId,
    id: BackendId,
    backend: &Backend,
    hash: u32,
) {
    let went = &mut fragments.went;
    (went.backend, went.generation, went.hash) = (id, backend.generation, hash);
    went.service = service;
    record(fragments, packet.context(), packet.frame_len, AS_IS.into());
}

/// Records that a first fragment is translated as its flow, and gives it a new identification.
#[inline(always)]
pub(crate) fn translated<A: Family>(packet: &Packet, fragments: &mut FragmentScratch<A>, flow: &NatFlow<A>) {
    let kind = match flow.direction {
        flow::REPLY => REPLY,
        flow::ROUTED => ROUTED,
        _ => FORWARD,
    };
    let went = &mut fragments.went;
    (went.src, went.dst) = (flow.src, flow.dst);
    (went.backend, went.generation, went.service) = (flow.backend, flow.generation, flow.service);
    went.last_hop = flow.last_hop;
    record(fragments, packet.context(), packet.frame_len, kind.into());
}

global! {
    /// Records a first fragment whose next hop is in the scratch. The result is not needed: a table that evicts its oldest entry
    /// is never full.
    fn record(&mut FragmentScratch, ctx: *mut xdp_md, frame_len: u32, kind: u32) -> u32 = record_v4, record_v6: recorded
}

#[inline(always)]
fn recorded<A: Fragmented>(
    fragments: &mut FragmentScratch<A>,
    ctx: *mut xdp_md,
    frame_len: u32,
    kind: u32,
) -> u32 {
    // SAFETY: the caller's context.
    let packet = unsafe { Packet::resume(ctx, lb_common::vlan::Tags::NONE, frame_len) };
    #[expect(clippy::cast_possible_truncation, reason = "made of a byte")]
    let kind = kind as u8;
    if A::read(&packet, &mut fragments.fragment).is_err() {
        return 0;
    }
    begin(&packet, fragments, kind);
    if kind != AS_IS {
        fragments.went.id = A::new_id();
        if A::set_id(&packet, &fragments.fragment, fragments.went.id).is_none() {
            return 0;
        }
    }
    A::write_fragment(&fragments.datagram, &fragments.went);
    0
}
