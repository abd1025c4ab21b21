//! Packets of the probe, and what their answers mean. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{
    IpHeaders, IpNumber, PacketBuilder, PacketBuilderStep, SlicedPacket, TransportSlice,
    err::packet::BuildVecWriteError,
};
use lb_common::tunnel;

const TTL: u8 = 64;
const WINDOW: u16 = 1024;
/// Protocol numbers.
const ICMP: u8 = 1;
const TCP: u8 = 6;
const ICMPV6: u8 = 58;
/// UDP source port of tunnels: one of the dynamic ports, as the program has them.
const OUTER_PORT: u16 = 0xc000;
/// Position of the UDP checksum in an IPv4 packet without options.
const UDP_CHECKSUM: std::ops::Range<usize> = tunnel::V4_LEN + 6..tunnel::V4_LEN + tunnel::UDP_LEN;

/// The outer header of a tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Outer {
    pub(super) source: IpAddr,
    pub(super) backend: IpAddr,
    /// UDP port of GUE; `None` for IP in IP.
    pub(super) gue_port: Option<u16>,
}

/// What a packet asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Asks {
    /// For a connection, with this sequence number.
    Connection { port: u16, sequence: u32 },
    /// For an echo, with this number.
    Echo { id: u16, number: u16 },
}

/// A question: an inner packet, and the tunnel around it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Question {
    pub(super) source: SocketAddr,
    pub(super) destination: IpAddr,
    pub(super) asks: Asks,
    pub(super) outer: Option<Outer>,
}

/// What an answer says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// A server accepts the connection.
    Accepted,
    /// The machine has the address, and no server listens.
    Closed,
    /// The machine has the address.
    Echo,
    /// Nothing at the backend ends such tunnels.
    NoTunnel,
    /// A firewall refuses the tunnel, or the packet in it.
    Refused,
}

impl Question {
    /// The packet; `None` for addresses of two families.
    pub(super) fn packet(&self) -> Option<Vec<u8>> {
        let builder = ip(self.source.ip(), self.destination)?;
        let inner = match (self.asks, self.destination) {
            (Asks::Connection { port, sequence }, _) => {
                let tcp = builder.tcp(self.source.port(), port, sequence, WINDOW).syn();
                written(|out| tcp.write_to_vec(out, &[]))?
            }
            (Asks::Echo { id, number }, IpAddr::V4(_)) => {
                let echo = builder.icmpv4_echo_request(id, number);
                written(|out| echo.write_to_vec(out, &[]))?
            }
            (Asks::Echo { id, number }, IpAddr::V6(_)) => {
                let echo = builder.icmpv6_echo_request(id, number);
                written(|out| echo.write_to_vec(out, &[]))?
            }
        };
        self.around(inner)
    }

    /// A reset, with which a connection ends that was accepted.
    pub(super) fn reset(&self) -> Option<Vec<u8>> {
        let Asks::Connection { port, sequence } = self.asks else {
            return None;
        };
        let builder = ip(self.source.ip(), self.destination)?;
        let tcp = builder
            .tcp(self.source.port(), port, sequence.wrapping_add(1), 0)
            .rst();
        self.around(written(|out| tcp.write_to_vec(out, &[]))?)
    }

    fn around(&self, inner: Vec<u8>) -> Option<Vec<u8>> {
        let Some(outer) = self.outer else {
            return Some(inner);
        };
        let builder = ip(outer.source, outer.backend)?;
        let Some(port) = outer.gue_port else {
            let number = match self.destination {
                IpAddr::V4(_) => IpNumber(tunnel::IPV4_IN_IP),
                IpAddr::V6(_) => IpNumber(tunnel::IPV6_IN_IP),
            };
            return written(|out| builder.write_to_vec(out, number, &inner));
        };
        let udp = builder.udp(OUTER_PORT, port);
        let mut packet = written(|out| udp.write_to_vec(out, &inner))?;
        if outer.backend.is_ipv4() {
            // As the program sends it.
            packet.get_mut(UDP_CHECKSUM)?.fill(0);
        }
        Some(packet)
    }

    /// What a packet says about the question; `None` if it is no answer to it.
    pub(super) fn answer(&self, arrived: &Arrival<'_>) -> Option<Answer> {
        match (self.asks, arrived.says) {
            (
                Asks::Connection { port, sequence },
                Says::Segment {
                    from,
                    to,
                    acknowledges,
                    resets,
                },
            ) => {
                let fits = arrived.source == self.destination
                    && arrived.destination == self.source.ip()
                    && (from, to) == (port, self.source.port())
                    && acknowledges == sequence.wrapping_add(1);
                fits.then_some(if resets { Answer::Closed } else { Answer::Accepted })
            }
            (Asks::Echo { id, number }, Says::Echo(reply)) => {
                let fits = arrived.source == self.destination && reply == (id, number);
                fits.then_some(Answer::Echo)
            }
            (_, Says::Error { no_end, quote }) => self.error(no_end, quote),
            (Asks::Connection { .. }, Says::Echo(_)) | (Asks::Echo { .. }, Says::Segment { .. }) => None,
        }
    }

    /// What an ICMP error about a quoted packet says.
    fn error(&self, no_end: bool, quote: &[u8]) -> Option<Answer> {
        let header = Header::of(quote)?;
        if let Some(outer) = self.outer
            && header.destination == outer.backend
            && header.source == outer.source
        {
            return Some(if no_end { Answer::NoTunnel } else { Answer::Refused });
        }
        // Eight bytes behind the header are quoted at least (RFC 792), which hold ports and sequence number.
        let word = |at: usize| {
            let bytes = header.rest.get(at..at + 4)?.try_into().ok()?;
            Some(u32::from_be_bytes(bytes))
        };
        let is_this = header.destination == self.destination
            && header.source == self.source.ip()
            && match self.asks {
                Asks::Connection { port, sequence } => {
                    let ports = u32::from(self.source.port()) << 16 | u32::from(port);
                    word(0) == Some(ports) && word(4) == Some(sequence)
                }
                Asks::Echo { id, number } => word(4) == Some(u32::from(id) << 16 | u32::from(number)),
            };
        is_this.then_some(Answer::Refused)
    }
}

/// What a packet says that arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Arrival<'a> {
    source: IpAddr,
    destination: IpAddr,
    says: Says<'a>,
    /// Whether the checksum of its transport is right.
    pub(super) is_sound: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Says<'a> {
    Segment {
        from: u16,
        to: u16,
        acknowledges: u32,
        resets: bool,
    },
    Echo((u16, u16)),
    Error {
        /// Whether the protocol, or the port, is not served.
        no_end: bool,
        quote: &'a [u8],
    },
}

impl<'a> Arrival<'a> {
    /// Of a packet that begins with its IP header; `None` if it can be no answer.
    pub(super) fn of(packet: &'a [u8]) -> Option<Self> {
        let Header {
            source,
            destination,
            protocol,
            rest,
        } = Header::of(packet)?;
        let half = |at: usize| {
            let bytes = rest.get(at..at + 2)?.try_into().ok()?;
            Some(u16::from_be_bytes(bytes))
        };
        let (&kind, &code) = (rest.first()?, rest.get(1)?);
        let says = match (protocol, kind, code) {
            (TCP, ..) => {
                /// Flags of a segment (RFC 9293 section 3.1).
                const RST: u8 = 0x04;
                let flags = *rest.get(13)?;
                Says::Segment {
                    from: half(0)?,
                    to: half(2)?,
                    acknowledges: u32::from(half(8)?) << 16 | u32::from(half(10)?),
                    resets: flags & RST != 0,
                }
            }
            (ICMP, 0, _) | (ICMPV6, 129, _) => Says::Echo((half(4)?, half(6)?)),
            // "Protocol unreachable", "port unreachable"; ICMPv6's "unrecognized next header", "port unreachable".
            (ICMP, 3, 2 | 3) | (ICMPV6, 4, 1) | (ICMPV6, 1, 4) => Says::Error {
                no_end: true,
                quote: rest.get(8..)?,
            },
            (ICMP, 3, _) | (ICMPV6, 1, _) => Says::Error {
                no_end: false,
                quote: rest.get(8..)?,
            },
            _ => return None,
        };
        Some(Self {
            source,
            destination,
            says,
            is_sound: is_sound(packet).unwrap_or(true),
        })
    }
}

/// The plain header of a packet, which may be cut short behind it.
struct Header<'a> {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    rest: &'a [u8],
}

impl<'a> Header<'a> {
    fn of(packet: &'a [u8]) -> Option<Self> {
        let address = |at: usize, length: usize| packet.get(at..at + length);
        match packet.first()? >> 4 {
            4 => {
                let v4 = |at| {
                    Some(IpAddr::V4(Ipv4Addr::from(
                        <[u8; 4]>::try_from(address(at, 4)?).ok()?,
                    )))
                };
                Some(Self {
                    source: v4(12)?,
                    destination: v4(16)?,
                    protocol: *packet.get(9)?,
                    rest: packet.get(usize::from(packet.first()? & 0xf) * 4..)?,
                })
            }
            6 => {
                let v6 = |at| {
                    let octets = <[u8; 16]>::try_from(address(at, 16)?).ok()?;
                    Some(IpAddr::V6(Ipv6Addr::from(octets)))
                };
                Some(Self {
                    source: v6(8)?,
                    destination: v6(24)?,
                    protocol: *packet.get(6)?,
                    rest: packet.get(40..)?,
                })
            }
            _ => None,
        }
    }
}

/// Whether the checksum of a whole TCP segment is right; `None` of other packets.
fn is_sound(packet: &[u8]) -> Option<bool> {
    let sliced = SlicedPacket::from_ip(packet).ok()?;
    let Some(TransportSlice::Tcp(tcp)) = sliced.transport else {
        return None;
    };
    let header = tcp.to_header();
    let Header {
        source, destination, ..
    } = Header::of(packet)?;
    let computed = match (source, destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            header.calc_checksum_ipv4_raw(from.octets(), to.octets(), tcp.payload())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            header.calc_checksum_ipv6_raw(from.octets(), to.octets(), tcp.payload())
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    Some(computed.ok()? == header.checksum)
}

fn ip(source: IpAddr, destination: IpAddr) -> Option<PacketBuilderStep<IpHeaders>> {
    match (source, destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => Some(PacketBuilder::ipv4(from.octets(), to.octets(), TTL)),
        (IpAddr::V6(from), IpAddr::V6(to)) => Some(PacketBuilder::ipv6(from.octets(), to.octets(), TTL)),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

fn written(write: impl FnOnce(&mut Vec<u8>) -> Result<(), BuildVecWriteError>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    write(&mut out).ok()?;
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEQUENCE: u32 = 0xffff_ffff;
    const PORT: u16 = 61_000;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn question(outer: Option<Outer>) -> Question {
        Question {
            source: SocketAddr::new(address("10.0.0.1"), PORT),
            destination: address("192.0.2.10"),
            asks: Asks::Connection {
                port: 80,
                sequence: SEQUENCE,
            },
            outer,
        }
    }

    fn answered(question: &Question, packet: &[u8]) -> Option<Answer> {
        question.answer(&Arrival::of(packet)?)
    }

    #[test]
    fn answers_of_a_server_are_told_from_those_to_others() {
        let reply = |acknowledges: u32, to: u16, resets: bool| {
            let tcp = PacketBuilder::ipv4([192, 0, 2, 10], [10, 0, 0, 1], TTL)
                .tcp(80, to, 7, WINDOW)
                .ack(acknowledges);
            let tcp = if resets { tcp.rst() } else { tcp.syn() };
            written(|out| tcp.write_to_vec(out, &[])).unwrap()
        };
        let asked = question(None);
        for (packet, expected) in [
            (reply(0, PORT, false), Some(Answer::Accepted)),
            (reply(0, PORT, true), Some(Answer::Closed)),
            (reply(1, PORT, false), None),
            (reply(0, PORT + 1, false), None),
        ] {
            assert_eq!(answered(&asked, &packet), expected);
            assert!(Arrival::of(&packet).unwrap().is_sound);
        }
        let mut damaged = reply(0, PORT, false);
        *damaged.last_mut().unwrap() ^= 1;
        assert!(!Arrival::of(&damaged).unwrap().is_sound);
        assert_eq!(answered(&asked, &asked.packet().unwrap()), None, "its own packet");
        for length in 0..damaged.len() {
            // Nothing panics.
            let _ = answered(&asked, &damaged[..length]);
        }
    }

    #[test]
    fn errors_about_the_tunnel_are_told_from_those_about_the_packet_in_it() {
        let outer = |gue_port| {
            Some(Outer {
                source: address("10.0.0.1"),
                backend: address("10.0.0.9"),
                gue_port,
            })
        };
        let error = |code: u8, quote: &[u8]| {
            let mut body = vec![3, code, 0, 0, 0, 0, 0, 0];
            body.extend(quote);
            let builder = PacketBuilder::ipv4([10, 0, 0, 9], [10, 0, 0, 1], TTL);
            written(|out| builder.write_to_vec(out, IpNumber(ICMP), &body)).unwrap()
        };
        let inner = question(None).packet().unwrap();
        for gue_port in [None, Some(6080)] {
            let asked = question(outer(gue_port));
            let packet = asked.packet().unwrap();
            assert_eq!(answered(&asked, &error(2, &packet[..28])), Some(Answer::NoTunnel));
            assert_eq!(answered(&asked, &error(3, &packet[..28])), Some(Answer::NoTunnel));
            assert_eq!(answered(&asked, &error(13, &packet[..28])), Some(Answer::Refused));
            assert_eq!(answered(&asked, &error(3, &inner[..28])), Some(Answer::Refused));
            let other = Question {
                asks: Asks::Connection {
                    port: 80,
                    sequence: SEQUENCE - 1,
                },
                ..asked
            };
            assert_eq!(
                answered(&other, &error(3, &inner[..28])),
                None,
                "of another question"
            );
            assert_eq!(answered(&question(None), &error(2, &packet[..28])), None);
        }
    }

    #[test]
    fn an_echo_of_ipv6_in_ipv4_is_recognised_by_its_number() {
        let asked = Question {
            source: SocketAddr::new(address("2001:db8::1"), PORT),
            destination: address("2001:db8::10"),
            asks: Asks::Echo { id: 5, number: 6 },
            outer: Some(Outer {
                source: address("10.0.0.1"),
                backend: address("10.0.0.9"),
                gue_port: None,
            }),
        };
        let packet = asked.packet().unwrap();
        assert_eq!((packet[9], packet[20] >> 4), (tunnel::IPV6_IN_IP, 6));
        let reply = |number| {
            let from = "2001:db8::10".parse::<Ipv6Addr>().unwrap().octets();
            let to = "2001:db8::1".parse::<Ipv6Addr>().unwrap().octets();
            let echo = PacketBuilder::ipv6(from, to, TTL).icmpv6_echo_reply(5, number);
            written(|out| echo.write_to_vec(out, &[])).unwrap()
        };
        assert_eq!(answered(&asked, &reply(6)), Some(Answer::Echo));
        assert_eq!(answered(&asked, &reply(7)), None);
    }
}
