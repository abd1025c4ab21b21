//! Services whose address is a prefix. Entered by packets for no service of their very address, where there is any such service.

use lb_common::service::SHARES_ADDRESS;

use crate::{
    classify, family::Family, lookup, maps::tables, next_stage::NextStage, packet::Packet, scratch::Scratch,
};

/// Goes on with the service whose prefix the packet's destination lies in; without one the packet may be a reply.
#[inline(always)]
pub(crate) fn stage<A: Family>(packet: &Packet, scratch: &mut Scratch<A>) -> NextStage {
    lookup::find_by_prefix(scratch);
    if scratch.service.has(SHARES_ADDRESS) {
        return NextStage::HostSocket;
    }
    if scratch.service.is_some() {
        return classify::forward_or_next(packet, scratch);
    }
    match tables::settings() {
        Ok(settings) => {
            let ip = scratch.ip;
            let (Ok(next) | Err(next)) = classify::next_of_none(packet, &ip, settings, scratch);
            next
        }
        Err(reason) => reason.into(),
    }
}
