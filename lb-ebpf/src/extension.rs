//! Extension headers of IPv6, walked in functions that the verifier checks once: packets with such headers are rare.

use aya_ebpf::bindings::xdp_md;
use lb_common::reason::Reason;

use lb_wire::{header::Protocol, next_stage::NextStage, walk};

use lb_packet::packet::{self, Walks};

/// The frame under work.
pub(crate) type Packet = packet::Packet<InFunctions>;

/// Walks in functions that the verifier checks once.
pub(crate) enum InFunctions {}

impl Walks for InFunctions {
    #[inline(always)]
    fn extension_headers(packet: &Packet, first: u8, offset: usize) -> Result<(Protocol, usize), NextStage> {
        #[expect(clippy::cast_possible_truncation, reason = "an offset into a packet")]
        let offset = offset as u32;
        // The verifier knows nothing of what a global function returns, see `crate::global`.
        // SAFETY: the packet's own context.
        let both = core::hint::black_box(unsafe { skip_headers(packet.context(), u32::from(first), offset) });
        let [end, what] = halves(both);
        match what {
            ENDS_IN_TCP => Ok((Protocol::Tcp, end as usize)),
            ENDS_IN_UDP => Ok((Protocol::Udp, end as usize)),
            ENDS_IN_ICMP => Ok((Protocol::Icmp, end as usize)),
            IS_FRAGMENT => Err(NextStage::Fragment),
            _ => Err(Reason::from_number(end).unwrap_or(Reason::Internal).into()),
        }
    }

    #[inline(always)]
    fn has_fragment_header(packet: &Packet) -> bool {
        // The verifier does not know this result either.
        // SAFETY: the packet's own context.
        core::hint::black_box(unsafe { find_fragment_header(packet.context()) }) != 0
    }
}

/// Result of [`skip_headers`].
const ENDS_IN_TCP: u32 = 0;
const ENDS_IN_UDP: u32 = 1;
const ENDS_IN_ICMP: u32 = 2;
const IS_FRAGMENT: u32 = 3;
const REFUSED: u32 = 4;

#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "what is cut off is the other half"
)]
const fn halves(both: u64) -> [u32; 2] {
    [both as u32, (both >> 32) as u32]
}

/// [`walk::extension_headers`]: an offset or a reason, and above it what that is.
///
/// # Safety
///
/// `ctx` is the context of the packet that the program runs on.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn skip_headers(ctx: *mut xdp_md, first: u32, offset: u32) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "made of a byte")]
    let first = first as u8;
    // SAFETY: required of the caller.
    let packet = unsafe { Packet::new(ctx) };
    let (low, high) = match walk::extension_headers(&packet, first, offset as usize) {
        #[expect(clippy::cast_possible_truncation, reason = "an offset into a packet")]
        Ok((protocol, end)) => (
            end as u32,
            match protocol {
                Protocol::Tcp => ENDS_IN_TCP,
                Protocol::Udp => ENDS_IN_UDP,
                Protocol::Icmp => ENDS_IN_ICMP,
            },
        ),
        Err(NextStage::Done(reason)) => (reason as u32, REFUSED),
        Err(_) => (0, IS_FRAGMENT),
    };
    u64::from(high) << 32 | u64::from(low)
}

/// [`walk::has_fragment_header`].
///
/// # Safety
///
/// `ctx` is the context of the packet that the program runs on.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn find_fragment_header(ctx: *mut xdp_md) -> u32 {
    // SAFETY: required of the caller.
    let packet = unsafe { Packet::new(ctx) };
    u32::from(walk::has_fragment_header(&packet))
}
