//! TCP resets that the balancer answers with.
//!
//! The functions that are not generic are what the verifier calls global, as in [`crate::open`].

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    addr::{NetV4, NetV6},
    reason::Reason,
};
use network_types::{eth::EthHdr, ip::IpProto, tcp::TcpHdr};

use crate::{
    family::Family,
    maps,
    packet::Packet,
    parse::{self, Ip},
    reply::{Reply, ethernet, pseudo, sum_of},
};

/// Answers a TCP segment of mode `nat` that belongs to no flow, as the backend would that knows no connection either; its
/// service is in the room. Returns what has become of it, which is counted for the service where it is no drop.
#[inline(always)]
pub(crate) fn no_flow<A: Family>(packet: &Packet) -> Reason {
    let no_flow = if A::IS_V6 { no_flow_v6 } else { no_flow_v4 };
    // As in `open::outcome`.
    let reason = core::hint::black_box(no_flow(packet.context()));
    Reason::from_number(reason).unwrap_or(Reason::Internal)
}

/// [`no_flow`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn no_flow_v4(ctx: *mut xdp_md) -> u32 {
    let (Ok(reason) | Err(reason)) = try_no_flow::<NetV4>(&Packet::new(ctx));
    reason as u32
}

/// [`no_flow`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn no_flow_v6(ctx: *mut xdp_md) -> u32 {
    let (Ok(reason) | Err(reason)) = try_no_flow::<NetV6>(&Packet::new(ctx));
    reason as u32
}

#[inline(always)]
fn try_no_flow<A: Reply>(packet: &Packet) -> Result<Reason, Reason> {
    let room = A::room()?;
    let ip = room.ip;
    // As in `crate::reply`.
    if !room.tuple.src.is_host() || A::is_fragment(packet, &ip) {
        return Err(Reason::NoFlow);
    }
    answer::<A>(packet, &ip).map_err(|reason| {
        if reason == Reason::NoBackend {
            Reason::NoFlow
        } else {
            reason
        }
    })?;
    maps::count_service_drop(room.service.id, Reason::NoFlowReset);
    Ok(Reason::NoFlowReset)
}

/// Turns a TCP segment into the reset that answers it as if there was no connection (RFC 9293 section 3.10.7.1). A reset
/// gets none.
#[inline(always)]
pub(crate) fn answer<A: Reply>(packet: &Packet, ip: &Ip) -> Result<(), Reason> {
    const RST: u32 = 1 << 18;
    const ACK: u32 = 1 << 20;
    const WORDS: u32 = 5 << 28;
    const { assert!(TcpHdr::LEN == 5 * 4) };
    let flags = parse::tcp(packet, ip)?;
    if flags.rst() {
        return Err(Reason::NoBackend);
    }
    let [_, seq, ack, offset, ..]: [[u8; 4]; 5] = packet.read(ip.payload).ok_or(Reason::Internal)?;
    let data = ip.payload_len() - usize::from(offset[0] >> 4) * 4;
    #[expect(clippy::cast_possible_truncation, reason = "less than 64 KiB")]
    let length = data as u32 + u32::from(flags.syn()) + u32::from(flags.fin());
    let (seq, ack, flags) = if flags.ack() {
        (u32::from_ne_bytes(ack), 0, RST)
    } else {
        let next = u32::from_be_bytes(seq).wrapping_add(length);
        (0, next.to_be(), RST | ACK)
    };

    let tuple = &A::room()?.tuple;
    let [a, b] = tuple.dst_port.0.to_ne_bytes();
    let [c, d] = tuple.src_port.0.to_ne_bytes();
    let mut words = [
        u32::from_ne_bytes([a, b, c, d]),
        seq,
        ack,
        (WORDS | flags).to_be(),
        0,
    ];
    let sum = pseudo(tuple, IpProto::Tcp, TcpHdr::LEN);
    let [check_low, check_high] = (!sum_of(sum, &words).fold()).to_ne_bytes();
    words[4] = u32::from_ne_bytes([check_low, check_high, 0, 0]);

    let macs = packet.macs().ok_or(Reason::Internal)?;
    let l4 = EthHdr::LEN + A::LEN;
    if !packet.cut(packet.frame_len as usize, l4 + TcpHdr::LEN) {
        return Err(Reason::Internal);
    }
    ethernet::<A>(packet, macs)?;
    A::write_header(packet, tuple, IpProto::Tcp, TcpHdr::LEN)?;
    packet.put(l4, words).ok_or(Reason::Internal)
}
