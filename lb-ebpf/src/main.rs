//! The XDP data plane of `lb`: parse, find the service or the flow, pick a backend, translate, count, send.
//!
//! [`handle`] is the way of a packet; [`verdict::finish`] is the one way out.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]
// The daemon's build of the workspace sees an empty program.
#![cfg_attr(not(target_arch = "bpf"), allow(dead_code, unused))]

#[cfg(target_arch = "bpf")]
mod budget;
#[cfg(target_arch = "bpf")]
mod check;
#[cfg(target_arch = "bpf")]
mod destination;
#[cfg(target_arch = "bpf")]
mod echo;
#[cfg(target_arch = "bpf")]
mod extension;
#[cfg(target_arch = "bpf")]
mod family;
#[cfg(target_arch = "bpf")]
mod follow;
#[cfg(target_arch = "bpf")]
mod forward;
#[cfg(target_arch = "bpf")]
mod fragment;
#[cfg(target_arch = "bpf")]
mod give_way;
#[cfg(target_arch = "bpf")]
mod guard;
#[cfg(target_arch = "bpf")]
mod host_socket;
#[cfg(target_arch = "bpf")]
mod icmp;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod next_hop;
#[cfg(target_arch = "bpf")]
mod open;
#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
mod parse;
#[cfg(target_arch = "bpf")]
mod pick;
#[cfg(target_arch = "bpf")]
mod progress;
#[cfg(target_arch = "bpf")]
mod quic;
#[cfg(target_arch = "bpf")]
mod quote;
#[cfg(target_arch = "bpf")]
mod reply;
#[cfg(target_arch = "bpf")]
mod reset;
#[cfg(target_arch = "bpf")]
mod service;
#[cfg(target_arch = "bpf")]
mod short;
#[cfg(target_arch = "bpf")]
mod signals;
#[cfg(target_arch = "bpf")]
mod track;
#[cfg(target_arch = "bpf")]
mod verdict;
#[cfg(target_arch = "bpf")]
mod vlan;

#[cfg(target_arch = "bpf")]
mod entry {
    use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
    use lb_common::{
        addr::{NetV4, NetV6},
        reason::{Action, Reason},
    };

    use crate::{
        check, destination,
        family::Family,
        forward::dnat,
        fragment, icmp,
        packet::Packet,
        parse::{self, Network},
        pick, reply,
        service::{self, Way},
        verdict, vlan,
    };

    /// What the kernel demands to see before it lends helpers that are under the GPL.
    #[unsafe(no_mangle)]
    #[unsafe(link_section = "license")]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

    /// The program.
    #[xdp(frags)]
    pub(crate) fn lb(ctx: XdpContext) -> u32 {
        let mut packet = Packet::new(ctx.ctx);
        let reason = handle(&mut packet);
        verdict::finish(&packet, reason)
    }

    /// The program of health checks through the path, which the daemon loads when there are any.
    #[xdp]
    pub(crate) fn lb_check(ctx: XdpContext) -> u32 {
        let frame = Packet::new(ctx.ctx);
        match check::handle(&frame).action() {
            Action::Tx | Action::Redirect => xdp_action::XDP_REDIRECT,
            Action::Pass | Action::Drop | Action::Aborted => xdp_action::XDP_DROP,
        }
    }

    /// The way of a frame.
    #[inline(always)]
    fn handle(packet: &mut Packet) -> Reason {
        let mut network = parse::ethernet(packet);
        if let Err(Reason::Vlan) = network {
            *packet = vlan::take_tags(packet);
            network = parse::ethernet(packet);
        }
        let reason = match network {
            Ok(Network::V4) => handle_ip::<NetV4>(packet),
            Ok(Network::V6) => handle_ip::<NetV6>(packet),
            Err(reason) => reason,
        };
        vlan::restore(packet, reason)
    }

    /// Ways that are not translation begin here and not within [`service::handle`], so that they never share a stack.
    #[inline(always)]
    fn handle_ip<A: Family>(packet: &Packet) -> Reason {
        if let Err(reason) = destination::check(packet) {
            return reason;
        }
        let mut way = service::begin::<A>(packet);
        if let Way::Flow = way {
            way = service::handle::<A>(packet);
        }
        if let Way::Icmp = way {
            way = icmp::handle::<A>(packet);
        }
        let mut reason = match way {
            Way::Ends(reason) => reason,
            Way::AsIs => service::forward_as_is::<A>(packet),
            Way::Reply => dnat::reply::<A>(packet),
            Way::NoFlow => service::refuse_unknown::<A>(packet),
            // Asked once.
            Way::Flow | Way::Icmp => Reason::Internal,
        };
        if reason == dnat::CHOSEN {
            reason = dnat::send::<A>(packet);
        }
        if reason == Reason::Fragment {
            return fragment::follow::<A>(packet);
        }
        if reason == pick::REJECT {
            return reply::reject::<A>(packet);
        }
        if reason == Reason::TooBig {
            return reply::too_big::<A>(packet);
        }
        reason
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
