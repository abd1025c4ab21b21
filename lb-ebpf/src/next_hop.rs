//! Where a frame goes on layer 2, and sending it there.

use core::{
    mem::offset_of,
    ptr,
    sync::atomic::{Ordering, compiler_fence},
};

use aya_ebpf::{
    bindings::{BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup},
    helpers::generated::{bpf_fib_lookup as fib_lookup, bpf_redirect},
};
use lb_common::{
    addr::{NetV4, NetV6},
    backend::{Backend, IPV6, RESOLVED},
    flow::LastHop,
    reason::Reason,
    vlan::Vlans,
};

use crate::{
    family::Family,
    header::Ip,
    next_stage::NextStage,
    packet::{Macs, Packet},
    scratch::{Exit, NextHop},
    verdict::Verdict,
    vlan,
};

impl NextHop {
    /// Back the way a client's packet came.
    #[inline(always)]
    pub(crate) fn back(last_hop: &LastHop) -> Self {
        Self {
            ifindex: last_hop.ifindex,
            macs: arrival(last_hop).swapped(),
            vlans: last_hop.vlans,
        }
    }

    /// Towards a backend for a packet that was translated to `src` and `dst`: as the daemon has resolved it, else as
    /// the kernel's routes and neighbours. A packet that does not fit is an error, with the size that fits in `exit`.
    #[inline(always)]
    pub(crate) fn towards<A: Family>(
        packet: &Packet,
        ip: &Ip,
        backend: &Backend,
        src: &A,
        dst: &A,
        exit: &mut Exit,
    ) -> Result<Self, NextStage> {
        fits(packet, ip, backend, 0, exit)?;
        if backend.has(RESOLVED) {
            return Ok(Self::resolved(backend));
        }
        Ok(Self::ask_kernel(packet, exit, src, dst)?)
    }

    /// Towards a backend's own address: as the daemon has resolved it, else by the kernel's routes.
    #[inline(always)]
    pub(crate) fn to_backend(packet: &Packet, backend: &Backend, exit: &mut Exit) -> Result<Self, Reason> {
        if backend.has(RESOLVED) {
            return Ok(Self::resolved(backend));
        }
        if backend.has(IPV6) {
            Self::ask_kernel(
                packet,
                exit,
                &NetV6::from_record(&backend.source),
                &NetV6::from_record(&backend.address),
            )
        } else {
            Self::ask_kernel(
                packet,
                exit,
                &NetV4::from_record(&backend.source),
                &NetV4::from_record(&backend.address),
            )
        }
    }

    /// As the daemon has resolved it.
    #[inline(always)]
    pub(crate) fn resolved(backend: &Backend) -> Self {
        Self {
            ifindex: backend.ifindex,
            // SAFETY: the two addresses follow each other, within the record.
            macs: unsafe { Macs::at(ptr::from_ref(backend).cast::<u8>().add(MACS)) },
            vlans: backend.vlans,
        }
    }

    /// The next hop by the kernel's routes and neighbours.
    #[inline(always)]
    fn ask_kernel<A: Family>(packet: &Packet, exit: &mut Exit, src: &A, dst: &A) -> Result<Self, Reason> {
        // No route, no neighbour yet, forwarding disabled.
        if exit.ask(packet, src, dst, 0) != BPF_FIB_LKUP_RET_SUCCESS {
            return Err(Reason::NoNextHop);
        }
        Ok(exit.next_hop(packet))
    }

    /// Writes the frame's addresses and sends it.
    #[inline(always)]
    pub(crate) fn send(&self, packet: &Packet) -> Result<Verdict, Reason> {
        packet.set_macs(self.macs).ok_or(Reason::Internal)?;
        if self.vlans != Vlans::NONE {
            vlan::put_tags(packet, self.vlans.tags())?;
        }
        Ok(self.leave(packet))
    }

    /// [`Self::send`] where the way is known to have no VLANs.
    #[inline(always)]
    pub(crate) fn send_untagged(&self, packet: &Packet) -> Result<Verdict, Reason> {
        packet.set_macs(self.macs).ok_or(Reason::Internal)?;
        Ok(self.leave(packet))
    }

    /// Sends a frame that has its addresses.
    #[inline(always)]
    pub(crate) fn leave(&self, packet: &Packet) -> Verdict {
        if self.ifindex == packet.ifindex() {
            return Verdict::SENT_BACK;
        }
        // SAFETY: takes integers alone. It fails on unknown flags only, and there are none.
        unsafe { bpf_redirect(self.ifindex, 0) };
        Verdict::REDIRECTED
    }
}

/// Whether the packet and what is put before it fit the way to the backend.
#[inline(always)]
pub(crate) fn fits(
    packet: &Packet,
    ip: &Ip,
    backend: &Backend,
    overhead: usize,
    exit: &mut Exit,
) -> Result<(), NextStage> {
    let mtu = usize::from(backend.mtu);
    // A frame of several buffers may be an aggregate of segments that each fit.
    if mtu != 0 && ip.packet_len() + overhead > mtu && packet.is_linear() {
        #[expect(clippy::cast_possible_truncation, reason = "an MTU")]
        let limit = mtu.saturating_sub(overhead) as u32;
        exit.limit = limit;
        return Err(NextStage::TooBig);
    }
    Ok(())
}

impl Exit {
    /// Sends the frame to `hop`. Passes it through memory, whose content the verifier does not track: so it walks the rest only
    /// once for all callers.
    #[inline(always)]
    pub(crate) fn leave(&self, packet: &Packet) -> Result<Verdict, Reason> {
        compiler_fence(Ordering::SeqCst);
        self.hop.send(packet)
    }

    /// Asks for the way of a packet of `len` bytes, 0 where its length does not count. Returns one of the kernel's
    /// `BPF_FIB_LKUP_RET_*`: only success leaves a next hop.
    #[inline(always)]
    pub(crate) fn ask<A: Family>(&mut self, packet: &Packet, src: &A, dst: &A, len: usize) -> u32 {
        let params = &mut self.route;
        for word in 0..size_of::<bpf_fib_lookup>() / size_of::<u32>() {
            // Volatile, or it becomes a call of memset, which goes byte by byte.
            // SAFETY: that many words fit.
            unsafe { ptr::from_mut(params).cast::<u32>().add(word).write_volatile(0) };
        }
        params.family = A::AF;
        params.ifindex = packet.ifindex();
        #[expect(clippy::cast_possible_truncation, reason = "an IP packet's length")]
        let len = len as u16;
        params.__bindgen_anon_1.tot_len = len;
        A::set_route(params, *src, *dst);
        #[expect(clippy::cast_possible_truncation, reason = "64 bytes")]
        let size = size_of::<bpf_fib_lookup>() as i32;
        // SAFETY: the context of this run, and parameters of the size given.
        let found = unsafe { fib_lookup(packet.context().cast(), ptr::from_mut(params), size, 0) };
        // An error of the call itself is a number that no result has.
        u32::try_from(found).unwrap_or(u32::MAX)
    }

    /// The interface that the packet leaves by.
    #[inline(always)]
    pub(crate) const fn ifindex(&self) -> u32 {
        self.route.ifindex
    }

    /// The next hop that was found for the packet.
    #[inline(always)]
    pub(crate) fn next_hop(&self, packet: &Packet) -> NextHop {
        NextHop {
            ifindex: self.route.ifindex,
            // SAFETY: the two addresses follow each other, within the parameters.
            macs: unsafe { Macs::at((&raw const self.route.smac).cast()) }.swapped(),
            // The kernel does not return them. On the same link, the packet's own are the best guess.
            vlans: if self.route.ifindex == packet.ifindex() {
                Vlans::of_tags(packet.tags)
            } else {
                Vlans::NONE
            },
        }
    }
}

/// Where the addresses of a frame to the backend stand in its record.
const MACS: usize = offset_of!(Backend, next_hop_mac);
const _: () = assert!(offset_of!(Backend, source_mac) == MACS + 6);
const _: () = assert!(offset_of!(bpf_fib_lookup, dmac) == offset_of!(bpf_fib_lookup, smac) + 6);
const _: () = assert!(offset_of!(LastHop, own_mac) == 0 && offset_of!(LastHop, peer_mac) == 6);

/// The addresses of the frame, by which the last hop is recognized.
#[inline(always)]
fn arrival(last_hop: &LastHop) -> Macs {
    // SAFETY: the two addresses stand first, as in the frame.
    unsafe { Macs::at(ptr::from_ref(last_hop).cast()) }
}

/// Whether the frame arrived by this hop.
#[inline(always)]
pub(crate) fn arrived_by(packet: &Packet, last_hop: &LastHop) -> Result<bool, Reason> {
    let macs = packet.macs().ok_or(Reason::Truncated)?;
    let same = macs.same(arrival(last_hop)) && packet.ifindex() == last_hop.ifindex;
    Ok(same && Vlans::of_tags(packet.tags) == last_hop.vlans)
}

/// Tells how the frame arrived.
#[inline(always)]
pub(crate) fn set_last_hop(packet: &Packet, last_hop: &mut LastHop) -> Result<(), Reason> {
    let macs = packet.macs().ok_or(Reason::Truncated)?;
    // SAFETY: as in `arrival`.
    unsafe { macs.write(ptr::from_mut(last_hop).cast()) };
    last_hop.ifindex = packet.ifindex();
    last_hop.vlans = Vlans::of_tags(packet.tags);
    Ok(())
}
