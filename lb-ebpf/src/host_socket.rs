//! Sockets of this machine that expect a packet to a service on every port of one of the machine's own addresses.

use core::{mem::offset_of, ptr};

use aya_ebpf::{
    bindings::bpf_sock_tuple,
    helpers::generated::{bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp},
};
use lb_common::{
    addr::{NetV4, NetV6},
    flow::Tuple,
    reason::Reason,
    service::TCP,
};

use crate::{classify, family::Family, next_stage::NextStage, packet::Packet, scratch::Scratch};

/// Bytes of the kernel's `bpf_sock_tuple` for each family: addresses, then ports, as a tuple begins.
const SIZE_V4: u32 = 12;
const SIZE_V6: u32 = 36;
const _: () = assert!(offset_of!(Tuple<NetV4>, protocol) == SIZE_V4 as usize);
const _: () = assert!(offset_of!(Tuple<NetV6>, protocol) == SIZE_V6 as usize);

/// `BPF_F_CURRENT_NETNS`: the network namespace of the interface.
const CURRENT_NETNS: u64 = u64::MAX;
/// `BPF_TCP_LISTEN` of linux/bpf.h.
const LISTEN: u32 = 10;

/// Passes a packet that a socket of this machine expects; others go on to their service.
#[inline(always)]
pub(crate) fn stage<A: Family>(packet: &Packet, scratch: &mut Scratch<A>) -> NextStage {
    let ip = scratch.ip;
    if expects(packet, &mut scratch.tuple) {
        // The stage of fragments records the verdict of a first one.
        return if A::is_fragment(packet, &ip) {
            NextStage::Fragment
        } else {
            Reason::HostSocket.into()
        };
    }
    classify::next_of_flow(scratch)
}

/// Whether a socket expects packets of the tuple; for an ICMP error, of the tuple of its flow. A socket that is connected to the
/// packet's source always does, also in TIME_WAIT; a socket for any source (a TCP listener, an unconnected UDP socket) does
/// unless a flow is known, so that a server that starts on this machine breaks no established flow.
#[inline(always)]
pub(crate) fn expects<A: Family>(packet: &Packet, tuple: &mut Tuple<A>) -> bool {
    let size = if A::IS_V6 { SIZE_V6 } else { SIZE_V4 };
    let ctx = packet.context();
    let of_socket: *mut bpf_sock_tuple = ptr::from_mut(tuple).cast();
    let connected = if tuple.protocol == TCP {
        // SAFETY: the context of this run, and as many bytes of the tuple as given.
        let socket = unsafe { bpf_skc_lookup_tcp(ctx.cast(), of_socket, size, CURRENT_NETNS, 0) };
        if socket.is_null() {
            return false;
        }
        // SAFETY: the socket is not released yet.
        let state = unsafe { ptr::read_volatile(&raw const (*socket).state) };
        // SAFETY: the socket is not released yet; it is not used afterwards.
        unsafe { bpf_sk_release(socket.cast()) };
        state != LISTEN
    } else {
        // SAFETY: the context of this run, and as many bytes of the tuple as given.
        let socket = unsafe { bpf_sk_lookup_udp(ctx.cast(), of_socket, size, CURRENT_NETNS, 0) };
        if socket.is_null() {
            return false;
        }
        // SAFETY: the socket is not released yet.
        let peer = unsafe { ptr::read_volatile(&raw const (*socket).dst_port) };
        // SAFETY: the socket is not released yet; it is not used afterwards.
        unsafe { bpf_sk_release(socket.cast()) };
        peer != 0
    };
    connected || A::find(tuple).is_none()
}
