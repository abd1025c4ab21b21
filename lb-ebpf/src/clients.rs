//! Services some of whose clients go to a group of backends: such a client has a ring of its own.

use lb_common::{clients, guard::PrefixKey};

use crate::{
    classify, family::Family, header::Protocol, maps::client_rings, next_stage::NextStage, packet::Packet,
    scratch::Scratch,
};

/// Finds the ring of the packet's client, and goes on as if the service had no other.
#[inline(always)]
pub(crate) fn stage<A: Family>(packet: &Packet, scratch: &mut Scratch<A>) -> NextStage {
    let key = PrefixKey::new(
        scratch.service.id,
        scratch.tuple.src.to_record(),
        PrefixKey::ADDRESS,
    );
    clients::select(&mut scratch.service, client_rings::of(&key));
    if scratch.ip.protocol == Protocol::Icmp {
        // An error about a packet of a backend's, whose client the tuple names.
        return NextStage::SlowPath;
    }
    classify::forward_or_next(packet, scratch)
}
