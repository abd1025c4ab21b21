//! The XDP data plane of `lb`: one small entry program, and stages that are programs of their own.
//!
//! [`programs::lb`] is where a packet begins: its service, and the fast path. What that does not end goes on in the stage that
//! [`lb_wire::next_stage::NextStage`] names; [`stage::dispatch`] enters it, and [`verdict::finish`] is the one way out.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]
// The daemon's build of the workspace sees an empty program.
#![cfg_attr(not(target_arch = "bpf"), allow(dead_code, unused))]

#[cfg(target_arch = "bpf")]
mod answer;
#[cfg(target_arch = "bpf")]
mod budget;
#[cfg(target_arch = "bpf")]
mod check;
#[cfg(target_arch = "bpf")]
mod check_packet;
#[cfg(target_arch = "bpf")]
mod classify;
#[cfg(target_arch = "bpf")]
mod clients;
#[cfg(target_arch = "bpf")]
mod clock;
#[cfg(target_arch = "bpf")]
mod destination;
#[cfg(target_arch = "bpf")]
mod dnat;
#[cfg(target_arch = "bpf")]
mod end_tunnel;
#[cfg(target_arch = "bpf")]
mod extension;
#[cfg(target_arch = "bpf")]
mod family;
#[cfg(target_arch = "bpf")]
mod fast_path;
#[cfg(target_arch = "bpf")]
mod follow;
#[cfg(target_arch = "bpf")]
mod forward;
#[cfg(target_arch = "bpf")]
mod fragment;
#[cfg(target_arch = "bpf")]
mod global;
#[cfg(target_arch = "bpf")]
mod guard;
#[cfg(target_arch = "bpf")]
mod host_socket;
#[cfg(target_arch = "bpf")]
mod icmp;
#[cfg(target_arch = "bpf")]
mod jump;
#[cfg(target_arch = "bpf")]
mod lookup;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(all(target_arch = "bpf", feature = "monitor"))]
mod monitor;
#[cfg(target_arch = "bpf")]
mod nat;
#[cfg(target_arch = "bpf")]
mod next_hop;
#[cfg(target_arch = "bpf")]
mod packet {
    pub(crate) use crate::extension::Packet;
    pub(crate) use lb_packet::packet::*;
}
#[cfg(target_arch = "bpf")]
mod plain;
#[cfg(target_arch = "bpf")]
mod prefix;
#[cfg(target_arch = "bpf")]
mod quic;
#[cfg(all(target_arch = "bpf", feature = "monitor"))]
mod record;
#[cfg(target_arch = "bpf")]
mod scratch;
#[cfg(target_arch = "bpf")]
mod select;
#[cfg(target_arch = "bpf")]
mod slow_path;
#[cfg(target_arch = "bpf")]
mod stage;
#[cfg(target_arch = "bpf")]
mod start;
#[cfg(target_arch = "bpf")]
mod verdict;
#[cfg(target_arch = "bpf")]
mod vlan;

#[cfg(target_arch = "bpf")]
use lb_wire::{header, next_stage, order, parse, transport, walk};

#[cfg(target_arch = "bpf")]
mod programs {
    use core::hint::cold_path;

    use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
    use lb_common::{
        addr::{NetV4, NetV6},
        reason::Reason,
        stage::{ENTRY_LEADS_TO, Stage},
        vlan::Tags,
    };

    use crate::{
        answer, check, classify, clients, destination, dnat, end_tunnel, family::Family, fast_path, fragment,
        header::Network, host_socket, icmp, lookup, nat, next_stage::NextStage, packet::Packet, parse,
        prefix, quic, scratch::Scratch, slow_path, stage, verdict, vlan,
    };

    /// The licence, without which the kernel refuses helpers under the GPL.
    #[unsafe(no_mangle)]
    #[unsafe(link_section = "license")]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

    /// The entry program, which interfaces run.
    #[xdp(frags)]
    pub(crate) fn lb(ctx: XdpContext) -> u32 {
        // Before the length is taken: the verifier refuses what the compiler would keep of that.
        #[cfg(feature = "monitor")]
        let keeps = crate::monitor::begin();
        // SAFETY: the context of this run.
        let mut packet = unsafe { Packet::first_buffer(ctx.ctx) };
        match parse::ethernet(&packet) {
            // SAFETY: this program's main function; one of the two.
            Ok(Network::V4) => unsafe {
                begin::<NetV4>(
                    packet,
                    #[cfg(feature = "monitor")]
                    keeps,
                )
            },
            // SAFETY: this program's main function; one of the two.
            Ok(Network::V6) => unsafe {
                begin::<NetV6>(
                    packet,
                    #[cfg(feature = "monitor")]
                    keeps,
                )
            },
            Err(next) => {
                cold_path();
                packet.measure();
                #[cfg(feature = "monitor")]
                keeps.any_packet(&packet);
                stage::dispatch::<NetV4, ENTRY_LEADS_TO>(&packet, verdict::interface_slot(&packet), next)
            }
        }
    }

    /// Packets that are not plain: VLAN tags, options, extension headers, fragments; and packets that came through a tunnel. They
    /// have no fast path.
    #[xdp(frags)]
    pub(crate) fn classify(ctx: XdpContext) -> u32 {
        // SAFETY: the context of this run.
        let received = unsafe { Packet::new(ctx.ctx) };
        let slot = verdict::interface_slot(&received);
        let Some(tags) = vlan::take_tags(&received) else {
            return verdict::finish(&received, slot, Reason::Vlan);
        };
        // SAFETY: the context of this run.
        let packet = unsafe { Packet::resume(ctx.ctx, tags, received.frame_len - tags.len()) };
        match parse::ethernet(&packet) {
            // SAFETY: this program's main function; one of the two.
            Ok(Network::V4) => unsafe {
                stage::run_on::<_, { Stage::Classify.leads_to() }>(&packet, slot, classified::<NetV4>)
            },
            // SAFETY: this program's main function; one of the two.
            Ok(Network::V6) => unsafe {
                stage::run_on::<_, { Stage::Classify.leads_to() }>(&packet, slot, classified::<NetV6>)
            },
            Err(next) => verdict::finish(&packet, slot, next.reason()),
        }
    }

    /// The end of tunnels at this machine.
    #[xdp(frags)]
    pub(crate) fn end_tunnel(ctx: XdpContext) -> u32 {
        // SAFETY: the context of this run.
        let packet = unsafe { Packet::new(ctx.ctx) };
        let slot = verdict::interface_slot(&packet);
        let next = end_tunnel::stage(&packet, slot);
        stage::dispatch::<NetV4, { Stage::EndTunnel.leads_to() }>(&packet, slot, next)
    }

    /// Classifies any frame whose tags were taken off.
    #[inline(always)]
    fn classified<A: Family>(packet: &Packet, scratch: &mut Scratch<A>) -> NextStage {
        let mut classified = || {
            // The entry program has not looked at those with tags.
            if packet.tags != Tags::NONE {
                destination::check(packet, scratch.interface_slot)?;
            }
            let ip = classify::read(packet, scratch)?;
            classify::next(packet, &ip, scratch)
        };
        let (Ok(next) | Err(next)) = classified();
        next
    }

    /// A packet's begin: its service, and the fast path.
    ///
    /// # Safety
    ///
    /// As [`stage::run`].
    #[inline(always)]
    unsafe fn begin<A: Family>(
        mut packet: Packet,
        #[cfg(feature = "monitor")] keeps: crate::monitor::Keeps,
    ) -> u32 {
        let slot = verdict::interface_slot(&packet);
        let mut classified = || {
            if let Err(reason) = destination::check(&packet, slot) {
                cold_path();
                packet.measure();
                return Err(reason.into());
            }
            // SAFETY: by the contract.
            let scratch = unsafe { A::scratch() }?;
            let ip = match A::plain(&mut packet, scratch) {
                Ok(ip) => ip,
                Err(next) => {
                    cold_path();
                    if !matches!(next, NextStage::Icmp) {
                        packet.measure();
                    }
                    scratch.keep(&packet, slot);
                    return Ok(next);
                }
            };
            scratch.keep(&packet, slot);
            if let Some(settings) = lookup::find_or_settings(scratch)? {
                if end_tunnel::may_be_gue(scratch, settings) {
                    return Ok(NextStage::EndTunnel);
                }
                let next = classify::next_of_unmatched(&packet, &ip, settings, scratch)?;
                scratch.ip = ip;
                return Ok(next);
            }
            #[cfg(feature = "monitor")]
            keeps.packet_of(scratch.service.id, &packet);
            if let Some(next) = fast_path::forward(&packet, &ip, scratch) {
                return Ok(next);
            }
            scratch.ip = ip;
            Ok(classify::next_of_service(scratch))
        };
        let (Ok(next) | Err(next)) = classified();
        #[cfg(feature = "monitor")]
        if !matches!(next, NextStage::Done(_)) {
            keeps.any_packet(&packet);
        }
        stage::dispatch::<A, ENTRY_LEADS_TO>(&packet, slot, end_tunnel::before_classify(next))
    }

    /// Defines the programs of stages, one for each family.
    macro_rules! stages {
        ($($v4:ident, $v6:ident: $which:ident, $stage:path;)+) => {$(
            #[xdp(frags)]
            pub(crate) fn $v4(ctx: XdpContext) -> u32 {
                // SAFETY: this program's main function.
                unsafe { stage::run::<NetV4, { Stage::$which.leads_to() }>(ctx.ctx, $stage) }
            }

            #[xdp(frags)]
            pub(crate) fn $v6(ctx: XdpContext) -> u32 {
                // SAFETY: this program's main function.
                unsafe { stage::run::<NetV6, { Stage::$which.leads_to() }>(ctx.ctx, $stage) }
            }
        )+};
    }

    stages! {
        host_socket_v4, host_socket_v6: HostSocket, host_socket::stage;
        prefix_v4, prefix_v6: Prefix, prefix::stage;
        clients_v4, clients_v6: Clients, clients::stage;
        quic_v4, quic_v6: Quic, quic::stage;
        slow_path_v4, slow_path_v6: SlowPath, slow_path::stage;
        nat_v4, nat_v6: Nat, nat::known::stage;
        new_flow_v4, new_flow_v6: NewFlow, nat::new_flow::stage;
        no_flow_v4, no_flow_v6: NoFlow, answer::reject::no_flow;
        dnat_v4, dnat_v6: Dnat, dnat::send::stage;
        dnat_reply_v4, dnat_reply_v6: DnatReply, dnat::reply::stage;
        icmp_v4, icmp_v6: Icmp, icmp::stage;
        echo_v4, echo_v6: Echo, answer::echo::stage;
        fragment_v4, fragment_v6: Fragment, fragment::follow::stage;
        reject_v4, reject_v6: Reject, answer::reject::stage;
        too_big_v4, too_big_v6: TooBig, answer::too_big::stage;
    }

    /// The stage that records packets, after all others.
    #[cfg(feature = "monitor")]
    #[xdp(frags)]
    pub(crate) fn lb_monitor(ctx: XdpContext) -> u32 {
        crate::record::stage(ctx.ctx)
    }

    /// The program of health checks through the path, which the daemon loads when there are any.
    #[xdp]
    pub(crate) fn lb_check(ctx: XdpContext) -> u32 {
        // SAFETY: the context of this run.
        let packet = unsafe { Packet::new(ctx.ctx) };
        let sent = match parse::ethernet(&packet) {
            // SAFETY: this program's main function; one of the two.
            Ok(Network::V4) => unsafe { check::<NetV4>(&packet) },
            // SAFETY: this program's main function; one of the two.
            Ok(Network::V6) => unsafe { check::<NetV6>(&packet) },
            Err(_) => false,
        };
        if sent {
            xdp_action::XDP_REDIRECT
        } else {
            xdp_action::XDP_DROP
        }
    }

    /// Sends a check's packet; whether it was sent.
    ///
    /// # Safety
    ///
    /// As [`stage::run`].
    #[inline(always)]
    unsafe fn check<A: Family>(packet: &Packet) -> bool {
        // SAFETY: by the contract.
        unsafe { A::scratch() }.is_ok_and(|scratch| check::run(packet, scratch))
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
