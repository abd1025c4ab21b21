//! TCP resets.

use lb_common::{flow::Tuple, reason::Reason};
use network_types::{eth::EthHdr, ip::IpProto, tcp::TcpHdr};

use super::write::{Reply, ethernet, pseudo, sum_of};
use crate::{header::Ip, packet::Packet, transport};
use lb_wire::Frame as _;

/// Turns a TCP segment into the reset that answers it as if there was no connection (RFC 9293 section 3.10.7.1). A reset
/// gets none.
#[inline(always)]
pub(super) fn send<A: Reply>(packet: &Packet, ip: &Ip, tuple: &Tuple<A>) -> Result<(), Reason> {
    const RST: u32 = 1 << 18;
    const ACK: u32 = 1 << 20;
    const WORDS: u32 = 5 << 28;
    const { assert!(TcpHdr::LEN == 5 * 4) };
    let flags = transport::tcp(packet, ip)?;
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
