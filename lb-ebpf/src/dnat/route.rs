//! The way of replies, which go where the kernel's routes lead. What those lead to the machine itself is none: a backend answers
//! the machine's own checks from the same endpoint.

use core::mem::offset_of;

use aya_ebpf::bindings::{
    BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_FWD_DISABLED, BPF_FIB_LKUP_RET_NO_NEIGH,
    BPF_FIB_LKUP_RET_SUCCESS, BPF_FIB_LKUP_RET_UNSUPP_LWT,
};
use lb_common::{addr::NetPort, reason::Reason};
use network_types::ip::Ipv4Hdr;

use crate::{
    classify,
    family::Family,
    header::{Ip, Protocol},
    next_stage::NextStage,
    packet::Packet,
    scratch::Exit,
    verdict,
};
use lb_wire::Frame as _;

/// Looks up the route of a reply that is translated to `src` and `dst`: whether the kernel forwards it, or the program by
/// `exit`. The error is the reason why neither does, and the reply is not translated.
#[inline(always)]
pub(crate) fn leaves_by_kernel<A: Family>(
    exit: &mut Exit,
    packet: &Packet,
    ip: &Ip,
    src: &A,
    dst: &A,
) -> Result<bool, NextStage> {
    // Only then does it count whether it fits, see `next_hop::fits`.
    let len = if packet.is_linear() { ip.packet_len() } else { 0 };
    match exit.ask(packet, src, dst, len) {
        // Other devices may not take frames from a program: VLANs, bridges, tunnels.
        BPF_FIB_LKUP_RET_SUCCESS => Ok(!verdict::serves(exit.ifindex())),
        BPF_FIB_LKUP_RET_NO_NEIGH | BPF_FIB_LKUP_RET_UNSUPP_LWT => Ok(true),
        BPF_FIB_LKUP_RET_FRAG_NEEDED if may_fragment::<A>(packet, ip) => Ok(true),
        BPF_FIB_LKUP_RET_FRAG_NEEDED => Err(Reason::ReplyByKernel.into()),
        BPF_FIB_LKUP_RET_FWD_DISABLED => Err(Reason::ForwardingDisabled.into()),
        // For the machine itself, or there is no way: that is the kernel's to say, to the backend's own address.
        _ => Err(foreign::<A>(packet, ip)),
    }
}

/// Whether a router may make fragments of a packet that does not fit.
#[inline(always)]
fn may_fragment<A: Family>(packet: &Packet, ip: &Ip) -> bool {
    const FLAGS: usize = offset_of!(Ipv4Hdr, frags);
    const DONT_FRAGMENT: u8 = 0x40;
    let flags = packet.read::<[u8; 1]>(ip.header + FLAGS);
    !A::IS_V6 && flags.is_some_and(|[flags]| flags & DONT_FRAGMENT == 0)
}

/// A record's port, or the packet's own.
#[inline(always)]
pub(super) const fn port(record: NetPort, own: NetPort) -> NetPort {
    if record.0 == 0 { own } else { record }
}

/// A packet that is not for us after all.
#[inline(always)]
pub(super) fn foreign<A: Family>(packet: &Packet, ip: &Ip) -> NextStage {
    match ip.protocol {
        Protocol::Tcp | Protocol::Udp => classify::unmatched::<A>(packet, ip),
        Protocol::Icmp => Reason::OtherProtocol.into(),
    }
}
