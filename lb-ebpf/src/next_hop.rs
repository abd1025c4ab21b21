//! Where a frame goes on layer 2, and sending it there.

use core::{mem::MaybeUninit, ptr};

use aya_ebpf::{
    bindings::bpf_fib_lookup,
    helpers::generated::{bpf_fib_lookup as fib_lookup, bpf_redirect},
};
use lb_common::{
    backend::{Backend, IPV6, RESOLVED},
    flow::LastHop,
    reason::Reason,
};

use crate::{
    family::Family,
    packet::{Macs, Packet},
    parse::Ip,
    verdict::Verdict,
};

/// The way out.
#[derive(Clone, Copy)]
pub(crate) struct NextHop {
    /// Index of the interface.
    ifindex: u32,
    /// Addresses of the frame.
    macs: Macs,
}

impl NextHop {
    /// Back the way a client's packet came.
    #[inline(always)]
    pub(crate) fn back(last_hop: &LastHop) -> Self {
        Self {
            ifindex: last_hop.ifindex,
            macs: Macs {
                destination: last_hop.peer_mac,
                source: last_hop.own_mac,
            },
        }
    }

    /// Towards a backend for a packet that was translated to `src` and `dst`: as the daemon has resolved it, else as
    /// the kernel's routes and neighbours say. Refuses a packet that does not fit.
    #[inline(always)]
    pub(crate) fn towards<A: Family>(
        packet: &Packet,
        ip: &Ip,
        backend: &Backend,
        src: &A,
        dst: &A,
    ) -> Result<Self, Reason> {
        // A frame of several buffers may be an aggregate of segments that each fit.
        if backend.mtu != 0 && ip.len() > usize::from(backend.mtu) && packet.is_linear() {
            return Err(Reason::TooBig);
        }
        if backend.has(RESOLVED) {
            return Ok(Self::resolved(backend));
        }
        Self::ask_kernel(packet, src, dst)
    }

    /// Towards a backend's own address: as the daemon has resolved it, else as the kernel says.
    #[inline(always)]
    pub(crate) fn to_backend(packet: &Packet, backend: &Backend) -> Result<Self, Reason> {
        if backend.has(RESOLVED) {
            return Ok(Self::resolved(backend));
        }
        if backend.has(IPV6) {
            Self::ask_kernel(packet, &backend.source.v6(), &backend.address.v6())
        } else {
            Self::ask_kernel(packet, &backend.source.v4(), &backend.address.v4())
        }
    }

    /// As the daemon has resolved it.
    #[inline(always)]
    fn resolved(backend: &Backend) -> Self {
        Self {
            ifindex: backend.ifindex,
            macs: Macs {
                destination: backend.next_hop_mac,
                source: backend.source_mac,
            },
        }
    }

    /// What the kernel's routes and neighbours say.
    // Not inlined: the stack of a fallback.
    #[inline(never)]
    fn ask_kernel<A: Family>(packet: &Packet, src: &A, dst: &A) -> Result<Self, Reason> {
        let mut params = MaybeUninit::<bpf_fib_lookup>::uninit();
        for word in 0..size_of::<bpf_fib_lookup>() / size_of::<u32>() {
            // Volatile, or it becomes a call of memset, which goes byte by byte.
            // SAFETY: that many words fit.
            unsafe { params.as_mut_ptr().cast::<u32>().add(word).write_volatile(0) };
        }
        // SAFETY: integers and unions of them, for which zero is a value.
        let params = unsafe { params.assume_init_mut() };
        params.family = A::AF;
        params.ifindex = packet.ifindex();
        A::set_route(params, *src, *dst);
        #[expect(clippy::cast_possible_truncation, reason = "64 bytes")]
        let size = size_of::<bpf_fib_lookup>() as i32;
        // SAFETY: the context of this run, and parameters of the size given.
        let found = unsafe { fib_lookup(packet.context().cast(), ptr::from_mut(params), size, 0) };
        // Anything but 0 (BPF_FIB_LKUP_RET_SUCCESS) leaves the addresses unset: no route, no neighbour yet,
        // forwarding disabled.
        if found != 0 {
            return Err(Reason::NoNextHop);
        }
        Ok(Self {
            ifindex: params.ifindex,
            macs: Macs {
                destination: params.dmac,
                source: params.smac,
            },
        })
    }

    /// Writes the frame's addresses and sends it.
    #[inline(always)]
    pub(crate) fn send(&self, packet: &Packet) -> Result<Verdict, Reason> {
        *packet.at::<Macs>(0).ok_or(Reason::Internal)? = self.macs;
        if self.ifindex == packet.ifindex() {
            return Ok(Verdict::SENT_BACK);
        }
        // SAFETY: takes integers alone. It fails on unknown flags only, and there are none.
        unsafe { bpf_redirect(self.ifindex, 0) };
        Ok(Verdict::REDIRECTED)
    }
}

/// How a frame arrived.
#[inline(always)]
pub(crate) fn last_hop(packet: &Packet) -> Result<LastHop, Reason> {
    let macs: Macs = packet.read(0).ok_or(Reason::Truncated)?;
    Ok(LastHop {
        ifindex: packet.ifindex(),
        peer_mac: macs.source,
        own_mac: macs.destination,
    })
}
