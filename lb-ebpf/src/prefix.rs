//! Services whose address is a prefix. Entered by packets for no service of their very address, where there is any such service.

use lb_common::{service::SHARES_ADDRESS, vlan::Tags};

use crate::{
    classify, family::Family, fast_path, lookup, maps::tables, next_stage::NextStage, packet::Packet,
    scratch::Scratch,
};

/// Goes on with the service whose prefix the packet's destination lies in; without one the packet may be a reply.
#[inline(always)]
pub(crate) fn stage<A: Family>(packet: &Packet, scratch: &mut Scratch<A>) -> NextStage {
    lookup::find_by_prefix(scratch);
    if scratch.service.has(SHARES_ADDRESS) {
        return NextStage::HostSocket;
    }
    let ip = scratch.ip;
    if scratch.service.is_some() {
        // Whatever `classify` has read comes here, too.
        let next = if packet.tags == Tags::NONE && !A::is_fragment(packet, &ip) {
            fast_path::forward(packet, &ip, scratch)
        } else {
            None
        };
        return next.unwrap_or_else(|| classify::next_of_flow(scratch));
    }
    match tables::settings() {
        Ok(settings) => {
            let (Ok(next) | Err(next)) = classify::next_of_none(packet, &ip, settings, scratch);
            next
        }
        Err(reason) => reason.into(),
    }
}
