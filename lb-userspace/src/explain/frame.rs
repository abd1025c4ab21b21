//! The frame that would leave, byte by byte.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    EtherType, IpHeaders, IpNumber, Ipv4Header, Ipv6Header, PacketBuilder, PacketBuilderStep,
    err::packet::BuildVecWriteError,
};
use lb_common::{
    backend::{Backend, IPV6},
    service::Mode,
    tunnel,
};

use crate::{explain::question::Question, state::service::Protocol};

/// Bytes of the headers that [`packet`] writes before the payload.
const V4_HEADER: usize = Ipv4Header::MIN_LEN;
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
/// Position of the UDP checksum in an IPv4 packet without options.
const UDP_CHECKSUM: std::ops::Range<usize> = V4_HEADER + 6..V4_HEADER + UDP_HEADER;

/// A packet on its way to a backend.
pub(super) struct Carried<'a> {
    pub(super) question: &'a Question,
    /// Its new source and destination, in modes that rewrite them; `None` where they cannot be predicted.
    pub(super) rewritten: Option<(SocketAddr, SocketAddr)>,
    pub(super) backend: &'a Backend,
    /// Hash of its flow, for the headers of tunnels.
    pub(super) hash: u32,
    /// UDP port of GUE.
    pub(super) gue_port: u16,
}

impl Carried<'_> {
    /// The frame; `None` where its parts do not make one, such as addresses of two families.
    pub(super) fn frame(&self) -> Option<Vec<u8>> {
        let Backend {
            mode,
            next_hop_mac,
            source_mac,
            vlans,
            ..
        } = *self.backend;
        let question = self.question;
        let within = |ttl| packet(question, question.source, question.destination, ttl);
        let packet = match Mode::from_u8(mode)? {
            Mode::Nat | Mode::Dnat => {
                let (source, destination) = self.rewritten?;
                packet(question, source, destination, question.ttl.checked_sub(1)?)?
            }
            Mode::L2dsr => within(question.ttl)?,
            Mode::Ipip => self.around(&within(question.ttl)?, false)?,
            Mode::Gue => self.around(&within(question.ttl)?, true)?,
        };
        let tags = vlans.tags();
        let tags = [tags.outer(), tags.inner()].map(u32::to_ne_bytes);
        let ether_type = match packet.first()? >> 4 {
            4 => EtherType::IPV4,
            _ => EtherType::IPV6,
        };
        let mut frame = [next_hop_mac, source_mac].concat();
        for tag in tags.iter().filter(|tag| **tag != [0; 4]) {
            frame.extend_from_slice(tag);
        }
        frame.extend_from_slice(&ether_type.0.to_be_bytes());
        frame.extend_from_slice(&packet);
        Some(frame)
    }

    /// A packet within another, as modes `ipip` and `gue` send it.
    fn around(&self, packet: &[u8], gue: bool) -> Option<Vec<u8>> {
        let is_v6 = packet.first()? >> 4 == 6;
        let (backend, outer_v6) = (self.backend, self.backend.has(IPV6));
        let builder = if outer_v6 {
            PacketBuilder::ip(IpHeaders::Ipv6(
                Ipv6Header {
                    flow_label: tunnel::flow_label(self.hash).try_into().ok()?,
                    hop_limit: tunnel::HOP_LIMIT,
                    source: backend.outer_source_v6(self.hash).to_std().octets(),
                    destination: backend.address.v6().to_std().octets(),
                    ..Ipv6Header::default()
                },
                Default::default(),
            ))
        } else {
            ip(
                IpAddr::V4(backend.outer_source_v4(self.hash).to_std()),
                IpAddr::V4(backend.address.v4().to_std()),
                tunnel::HOP_LIMIT,
            )?
        };
        if !gue {
            let number = if is_v6 { IpNumber::IPV6 } else { IpNumber::IPV4 };
            return written(|out| builder.write_to_vec(out, number, packet));
        }
        let udp = builder.udp(tunnel::source_port(self.hash), self.gue_port);
        let mut whole = written(|out| udp.write_to_vec(out, packet))?;
        if !outer_v6 {
            // The program sends no UDP checksum over IPv4, where it is optional.
            whole.get_mut(UDP_CHECKSUM)?.fill(0);
        }
        Some(whole)
    }
}

/// An IP packet as a client sends it, with default values where the question has none.
fn packet(question: &Question, source: SocketAddr, destination: SocketAddr, ttl: u8) -> Option<Vec<u8>> {
    let headers = match source {
        SocketAddr::V4(_) => V4_HEADER,
        SocketAddr::V6(_) => Ipv6Header::LEN,
    };
    let builder = ip(source.ip(), destination.ip(), ttl)?;
    let (from, to) = (source.port(), destination.port());
    let payload = |header: usize| vec![0; usize::from(question.length).saturating_sub(headers + header)];
    match question.protocol {
        Protocol::Tcp => {
            let tcp = builder.tcp(from, to, 0, u16::MAX);
            let tcp = if question.opens { tcp.syn() } else { tcp.ack(0) };
            written(|out| tcp.write_to_vec(out, &payload(TCP_HEADER)))
        }
        Protocol::Udp => written(|out| builder.udp(from, to).write_to_vec(out, &payload(UDP_HEADER))),
    }
}

fn ip(source: IpAddr, destination: IpAddr, ttl: u8) -> Option<PacketBuilderStep<IpHeaders>> {
    match (source, destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => Some(PacketBuilder::ipv4(from.octets(), to.octets(), ttl)),
        (IpAddr::V6(from), IpAddr::V6(to)) => Some(PacketBuilder::ipv6(from.octets(), to.octets(), ttl)),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

fn written(write: impl FnOnce(&mut Vec<u8>) -> Result<(), BuildVecWriteError>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    write(&mut out).ok()?;
    Some(out)
}
