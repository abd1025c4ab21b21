//! Sockets of this machine that expect a packet to a service on every port of one of the machine's own addresses.
//!
//! The functions at work are what the verifier calls global, as in [`crate::open`].

use core::{hint::black_box, mem::offset_of, ptr};

use aya_ebpf::{
    bindings::{bpf_sock_tuple, xdp_md},
    helpers::generated::{bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp},
};
use lb_common::{
    addr::{NetV4, NetV6},
    flow::Tuple,
    reason::Reason,
    service::{SHARES_ADDRESS, Service, TCP},
};

use crate::{family::Family, packet::Packet, parse::Ip};

/// What a look-up returns.
const NONE: u32 = 0;
const EXPECTED: u32 = 1;

/// Bytes of the kernel's `bpf_sock_tuple` for each family: addresses, then ports, as a tuple begins.
const SIZE_V4: u32 = 12;
const SIZE_V6: u32 = 36;
const _: () = assert!(offset_of!(Tuple<NetV4>, protocol) == SIZE_V4 as usize);
const _: () = assert!(offset_of!(Tuple<NetV6>, protocol) == SIZE_V6 as usize);

/// `BPF_F_CURRENT_NETNS`: the network namespace of the interface.
const CURRENT_NETNS: u64 = u64::MAX;
/// `BPF_TCP_LISTEN` of linux/bpf.h.
const LISTEN: u32 = 10;

/// Whether a socket of this machine expects the packet, and the service shares its address with them. The packet's tuple is in
/// scratch; of an ICMP error, that of the flow it is about.
#[inline(always)]
pub(crate) fn expects<A: Family>(packet: &Packet, service: &Service) -> bool {
    let expected = if A::IS_V6 { host_socket_v6 } else { host_socket_v4 };
    // The verifier knows nothing about what a global function returns, so the compiler must not either.
    service.has(SHARES_ADDRESS) && black_box(expected(packet.context())) != NONE
}

/// What such a packet is counted as. [`crate::fragment::follow`] remembers that of a first fragment.
#[inline(always)]
pub(crate) fn reason<A: Family>(packet: &Packet, ip: &Ip) -> Reason {
    if A::is_fragment(packet, ip) {
        Reason::Fragment
    } else {
        Reason::HostSocket
    }
}

/// [`expects`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn host_socket_v4(ctx: *mut xdp_md) -> u32 {
    expected::<NetV4>(ctx)
}

/// [`expects`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn host_socket_v6(ctx: *mut xdp_md) -> u32 {
    expected::<NetV6>(ctx)
}

/// Whether a socket expects packets of the tuple in scratch. One that is connected to the packet's source always does, also
/// in TIME_WAIT; one that takes packets of anybody (a TCP listener, an unconnected UDP socket) does unless a flow is known,
/// so that a server that starts on this machine breaks no established flow.
#[inline(always)]
fn expected<A: Family>(ctx: *mut xdp_md) -> u32 {
    let Ok(mut room) = A::room() else { return NONE };
    let size = if A::IS_V6 { SIZE_V6 } else { SIZE_V4 };
    let tuple: *mut bpf_sock_tuple = (&raw mut room.tuple).cast();
    let connected = if room.tuple.protocol == TCP {
        // SAFETY: the context of this run, and as many bytes of the tuple as given.
        let socket = unsafe { bpf_skc_lookup_tcp(ctx.cast(), tuple, size, CURRENT_NETNS, 0) };
        if socket.is_null() {
            return NONE;
        }
        // SAFETY: the socket is not released yet.
        let state = unsafe { ptr::read_volatile(&raw const (*socket).state) };
        // SAFETY: as above; it is not used afterwards.
        unsafe { bpf_sk_release(socket.cast()) };
        state != LISTEN
    } else {
        // SAFETY: as above.
        let socket = unsafe { bpf_sk_lookup_udp(ctx.cast(), tuple, size, CURRENT_NETNS, 0) };
        if socket.is_null() {
            return NONE;
        }
        // SAFETY: as above.
        let peer = unsafe { ptr::read_volatile(&raw const (*socket).dst_port) };
        // SAFETY: as above.
        unsafe { bpf_sk_release(socket.cast()) };
        peer != 0
    };
    if connected || A::find(&room.tuple).is_none() {
        EXPECTED
    } else {
        NONE
    }
}
