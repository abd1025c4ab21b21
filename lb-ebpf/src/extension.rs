//! Extension headers of IPv6, walked in a function of its own. For the verifier it is a global one (see [`crate::open`]):
//! packets with such headers are rare, and both outer and quoted ones are parsed.

use aya_ebpf::bindings::xdp_md;
use lb_common::reason::Reason;

use crate::{
    packet::Packet,
    parse::{self, Protocol},
};

/// As [`parse::extension_headers`].
#[inline(always)]
pub(crate) fn headers(packet: &Packet, first: u8, offset: usize) -> Result<(Protocol, usize), Reason> {
    #[expect(clippy::cast_possible_truncation, reason = "an offset into a packet")]
    let offset = offset as u32;
    // As in `open::outcome`.
    let [end, what] = halves(core::hint::black_box(skip_headers(
        packet.context(),
        u32::from(first),
        offset,
    )));
    match what {
        ENDS_IN_TCP => Ok((Protocol::Tcp, end as usize)),
        ENDS_IN_UDP => Ok((Protocol::Udp, end as usize)),
        ENDS_IN_ICMP => Ok((Protocol::Icmp, end as usize)),
        _ => Err(Reason::from_number(end).unwrap_or(Reason::Internal)),
    }
}

/// What [`skip_headers`] has found.
const ENDS_IN_TCP: u32 = 0;
const ENDS_IN_UDP: u32 = 1;
const ENDS_IN_ICMP: u32 = 2;
const REFUSED: u32 = 3;

#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "what is cut off is the other half"
)]
const fn halves(both: u64) -> [u32; 2] {
    [both as u32, (both >> 32) as u32]
}

/// [`headers`]: an offset or a reason, and above it what that is.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn skip_headers(ctx: *mut xdp_md, first: u32, offset: u32) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "made of a byte")]
    let first = first as u8;
    let (low, high) = match parse::extension_headers(&Packet::new(ctx), first, offset as usize) {
        #[expect(clippy::cast_possible_truncation, reason = "an offset into a packet")]
        Ok((protocol, end)) => (
            end as u32,
            match protocol {
                Protocol::Tcp => ENDS_IN_TCP,
                Protocol::Udp => ENDS_IN_UDP,
                Protocol::Icmp => ENDS_IN_ICMP,
            },
        ),
        Err(reason) => (reason as u32, REFUSED),
    };
    u64::from(high) << 32 | u64::from(low)
}
