//! Frames, built by etherparse and then broken on purpose.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a frame that cannot be built is a mistake in the table"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{Icmpv4Type, Icmpv6Type, IpNumber, Ipv4Header, Ipv6Header, PacketBuilder, icmpv4, icmpv6};
use lb_common::reason::Reason;

pub(crate) const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const LB_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub(crate) const BACKEND_MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];

/// Where the IP header begins.
const IP: usize = 14;

/// The addresses of one family.
#[derive(Clone, Copy)]
pub(crate) struct Side {
    client: IpAddr,
    vip: IpAddr,
    snat: IpAddr,
    backend: IpAddr,
}

const fn v4(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, last))
}

const fn v6(last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last))
}

pub(crate) const V4: Side = Side {
    client: v4(100),
    vip: v4(10),
    snat: v4(1),
    backend: v4(20),
};
pub(crate) const V6: Side = Side {
    client: v6(0x100),
    vip: v6(0x10),
    snat: v6(1),
    backend: v6(0x20),
};

impl Side {
    pub(crate) fn client(self, port: u16) -> SocketAddr {
        SocketAddr::new(self.client, port)
    }
    pub(crate) fn vip(self, port: u16) -> SocketAddr {
        SocketAddr::new(self.vip, port)
    }
    /// An address that has services of UDP alone.
    pub(crate) fn datagrams(self) -> IpAddr {
        if self.client.is_ipv4() { v4(11) } else { v6(0x11) }
    }
    pub(crate) fn snat(self, port: u16) -> SocketAddr {
        SocketAddr::new(self.snat, port)
    }
    /// A client of the same network without a neighbour entry.
    pub(crate) fn strange_client(self) -> IpAddr {
        if self.client.is_ipv4() { v4(101) } else { v6(0x101) }
    }
    /// No network that there is.
    pub(crate) fn nowhere(self) -> IpAddr {
        if self.client.is_ipv4() {
            IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1))
        } else {
            IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1))
        }
    }
    pub(crate) fn backend(self, port: u16) -> SocketAddr {
        SocketAddr::new(self.backend, port)
    }
}

/// A frame; from a client to the balancer by default.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Frame(Vec<u8>);

impl Frame {
    pub(crate) fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn tcp(from: SocketAddr, to: SocketAddr, flags: u8, hops: u8, payload: &[u8]) -> Self {
        let mut builder = ip(from, to, hops).tcp(from.port(), to.port(), 0x0102_0304, 4096);
        if flags & 1 != 0 {
            builder = builder.fin();
        }
        if flags & 2 != 0 {
            builder = builder.syn();
        }
        if flags & 4 != 0 {
            builder = builder.rst();
        }
        if flags & 8 != 0 {
            builder = builder.psh();
        }
        if flags & 16 != 0 {
            builder = builder.ack(0x0506_0708);
        }
        if flags & 32 != 0 {
            builder = builder.urg(1);
        }
        if flags & 64 != 0 {
            builder = builder.ece();
        }
        if flags & 128 != 0 {
            builder = builder.cwr();
        }
        let mut frame = Vec::new();
        builder.write(&mut frame, payload).unwrap();
        Self(frame)
    }

    /// A TCP reset; with `ack` it acknowledges that.
    pub(crate) fn reset(from: SocketAddr, to: SocketAddr, seq: u32, ack: Option<u32>) -> Self {
        let builder = ip(from, to, 64).tcp(from.port(), to.port(), seq, 0).rst();
        let builder = match ack {
            Some(ack) => builder.ack(ack),
            None => builder,
        };
        let mut frame = Vec::new();
        builder.write(&mut frame, b"").unwrap();
        Self(frame)
    }

    /// Padded with zeros, as links with a shortest frame do.
    pub(crate) fn padded(mut self, len: usize) -> Self {
        self.0.resize(self.0.len().max(len), 0);
        self
    }

    pub(crate) fn udp(from: SocketAddr, to: SocketAddr, hops: u8, payload: &[u8]) -> Self {
        let mut frame = Vec::new();
        let builder = ip(from, to, hops).udp(from.port(), to.port());
        builder.write(&mut frame, payload).unwrap();
        Self(frame)
    }

    /// Destination (port) unreachable from `from` to `to`, about `about`: its IP header and `quoted_l4` bytes after it.
    pub(crate) fn unreachable(
        from: SocketAddr,
        to: SocketAddr,
        hops: u8,
        about: &Self,
        quoted_l4: usize,
    ) -> Self {
        let header = if from.is_ipv4() { 20 } else { 40 };
        Self::error(from, to, hops, &about.0[IP..IP + header + quoted_l4])
    }

    /// An ICMP "too big" to the sender of `about`, with `mtu` and the longest allowed quote.
    pub(crate) fn too_big(from: SocketAddr, to: SocketAddr, about: &Self, mtu: u16) -> Self {
        let (header, most) = if from.is_ipv4() { (20, 576) } else { (40, 1_280) };
        let quoted = (about.0.len() - IP).min(most - header - 8) / 4 * 4;
        let quoted = &about.0[IP..IP + quoted];
        let mut frame = Vec::new();
        if from.is_ipv4() {
            let kind = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu };
            let builder = ip(from, to, 64).icmpv4(Icmpv4Type::DestinationUnreachable(kind));
            builder.write(&mut frame, quoted).unwrap();
        } else {
            let kind = Icmpv6Type::PacketTooBig { mtu: mtu.into() };
            ip(from, to, 64).icmpv6(kind).write(&mut frame, quoted).unwrap();
        }
        Self(frame).lb_to_client()
    }

    fn error(from: SocketAddr, to: SocketAddr, hops: u8, quoted: &[u8]) -> Self {
        let mut frame = Vec::new();
        if from.is_ipv4() {
            let kind = Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Port);
            ip(from, to, hops).icmpv4(kind).write(&mut frame, quoted).unwrap();
        } else {
            let kind = Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Port);
            ip(from, to, hops).icmpv6(kind).write(&mut frame, quoted).unwrap();
        }
        Self(frame)
    }

    /// An echo request, or the reply to one.
    pub(crate) fn echo(from: SocketAddr, to: SocketAddr, request: bool, hops: u8, payload: &[u8]) -> Self {
        Self::echo_of((7, 1), from, to, request, hops, payload)
    }

    /// With this identifier and sequence number.
    pub(crate) fn echo_of(
        (id, seq): (u16, u16),
        from: SocketAddr,
        to: SocketAddr,
        request: bool,
        hops: u8,
        payload: &[u8],
    ) -> Self {
        let (mut frame, ip) = (Vec::new(), ip(from, to, hops));
        match (from.is_ipv4(), request) {
            (true, true) => ip.icmpv4_echo_request(id, seq).write(&mut frame, payload),
            (true, false) => ip.icmpv4_echo_reply(id, seq).write(&mut frame, payload),
            (false, true) => ip.icmpv6_echo_request(id, seq).write(&mut frame, payload),
            (false, false) => ip.icmpv6_echo_reply(id, seq).write(&mut frame, payload),
        }
        .unwrap();
        Self(frame)
    }

    /// With another traffic class: DSCP and ECN.
    pub(crate) fn marked(self, class: u8) -> Self {
        if self.0[12..14] == [0x08, 0x00] {
            let (mut header, _) = Ipv4Header::from_slice(&self.0[IP..]).unwrap();
            header.dscp = (class >> 2).try_into().unwrap();
            header.ecn = (class & 3).try_into().unwrap();
            let checksum = header.calc_header_checksum();
            return self.set(IP + 1, class).set16(IP + 10, checksum);
        }
        let second = self.0[IP + 1] & 0x0f;
        self.set(IP, 0x60 | class >> 4).set(IP + 1, class << 4 | second)
    }

    /// With 8 bytes of IPv4 options (a timestamp), or an IPv6 destination options header.
    pub(crate) fn with_options(self) -> Self {
        let (l4, frame) = if self.0[12..14] == [0x08, 0x00] {
            let (mut header, _) = Ipv4Header::from_slice(&self.0[IP..]).unwrap();
            header.total_len += 8;
            header.options = [68, 8, 5, 0, 0, 0, 0, 0].into();
            header.header_checksum = header.calc_header_checksum();
            let mut frame = self.0[..IP].to_vec();
            header.write(&mut frame).unwrap();
            (IP + 20, frame)
        } else {
            let (mut header, _) = Ipv6Header::from_slice(&self.0[IP..]).unwrap();
            let next = header.next_header.0;
            header.payload_length += 8;
            header.next_header = IpNumber::IPV6_DESTINATION_OPTIONS;
            let mut frame = self.0[..IP].to_vec();
            header.write(&mut frame).unwrap();
            frame.extend([next, 0, 1, 4, 0, 0, 0, 0]);
            (IP + 40, frame)
        };
        Self([&frame, &self.0[l4..]].concat())
    }

    /// An IPv4 packet that routers may cut up.
    pub(crate) fn may_fragment(self) -> Self {
        let (mut header, _) = Ipv4Header::from_slice(&self.0[IP..]).unwrap();
        header.dont_fragment = false;
        let mut frame = self.0[..IP].to_vec();
        header.header_checksum = header.calc_header_checksum();
        header.write(&mut frame).unwrap();
        Self([&frame, &self.0[IP + 20..]].concat())
    }

    /// From the backend to all stations on the link.
    pub(crate) fn multicast(self) -> Self {
        self.macs([255; 6], BACKEND_MAC)
    }

    /// To another machine on the link.
    pub(crate) fn for_another_host(self) -> Self {
        let [rest @ .., last] = LB_MAC;
        let [a, b, c, d, e] = rest;
        let source = self.source_mac();
        self.macs([a, b, c, d, e, last ^ 0x80], source)
    }

    fn source_mac(&self) -> [u8; 6] {
        let mut source = [0; 6];
        source.copy_from_slice(&self.0[6..12]);
        source
    }

    fn macs(mut self, destination: [u8; 6], source: [u8; 6]) -> Self {
        self.0[..6].copy_from_slice(&destination);
        self.0[6..12].copy_from_slice(&source);
        self
    }

    pub(crate) fn backend_to_lb(self) -> Self {
        self.macs(LB_MAC, BACKEND_MAC)
    }

    pub(crate) fn lb_to_backend(self) -> Self {
        self.macs(BACKEND_MAC, LB_MAC)
    }

    pub(crate) fn lb_to_client(self) -> Self {
        self.macs(CLIENT_MAC, LB_MAC)
    }

    pub(crate) fn set(mut self, offset: usize, byte: u8) -> Self {
        self.0[offset] = byte;
        self
    }

    pub(crate) fn set16(mut self, offset: usize, word: u16) -> Self {
        self.0[offset..offset + 2].copy_from_slice(&word.to_be_bytes());
        self
    }

    pub(crate) fn cut(&self, len: usize) -> Self {
        Self(self.0[..len].to_vec())
    }

    /// Puts bytes in at an offset; lengths of headers stay as they are.
    fn insert(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.0.splice(offset..offset, bytes.iter().copied());
        self
    }
}

/// The beginning of a packet.
pub(crate) fn ip(
    from: SocketAddr,
    to: SocketAddr,
    hops: u8,
) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    let builder = PacketBuilder::ethernet2(CLIENT_MAC, LB_MAC);
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => builder.ipv4(from.octets(), to.octets(), hops),
        (IpAddr::V6(from), IpAddr::V6(to)) => builder.ipv6(from.octets(), to.octets(), hops),
        families => panic!("families differ: {families:?}"),
    }
}

/// A packet that must come out as it went in.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) frame: Frame,
    pub(crate) reason: Reason,
}

/// Invalid packets, and packets for other machines.
pub(crate) fn hostile(side: Side) -> Vec<Case> {
    let mut cases = common(side);
    cases.extend(if side.vip.is_ipv4() { only_v4() } else { only_v6() });
    cases
}

fn case(name: impl Into<String>, frame: Frame, reason: Reason) -> Case {
    Case {
        name: name.into(),
        frame,
        reason,
    }
}

fn common(side: Side) -> Vec<Case> {
    let (l4, hops, protocol) = if side.vip.is_ipv4() {
        (34, 22, 23)
    } else {
        (54, 21, 20)
    };
    let tcp = || Frame::tcp(side.client(40_000), side.vip(80), 2, 64, b"0123456789");
    let udp = || Frame::udp(side.client(40_000), side.vip(53), 64, b"0123456789");
    let known = || Frame::udp(side.snat(3000), side.backend(5353), 63, b"hello");
    let icmp_about = |quoted: &Frame, len| Frame::unreachable(side.backend(0), side.snat(0), 64, quoted, len);
    let mut cases = vec![
        case("hop limit 0", tcp().set(hops, 0), Reason::TtlExpired),
        case("hop limit 1", udp().set(hops, 1), Reason::TtlExpired),
        case(
            "broadcast frame",
            tcp().macs([255; 6], CLIENT_MAC),
            Reason::NotOurs,
        ),
        case(
            "multicast frame",
            udp().macs([1, 0, 94, 0, 0, 1], CLIENT_MAC),
            Reason::NotOurs,
        ),
        case("another port", tcp().set16(l4 + 2, 22), Reason::NotOurs),
        case("port 0", tcp().set16(l4 + 2, 0), Reason::NotOurs),
        case(
            "a source NAT port without a flow",
            udp().set16(l4 + 2, 3000),
            Reason::NotOurs,
        ),
        case("tcp to a udp service", tcp().set16(l4 + 2, 53), Reason::NotOurs),
        case(
            "land attack elsewhere",
            Frame::tcp(side.client(22), side.client(22), 2, 64, b""),
            Reason::NotOurs,
        ),
        case(
            "echo request to an address without a service",
            Frame::echo(side.client(0), side.snat(0), true, 64, b"ping"),
            Reason::OtherProtocol,
        ),
        case(
            "error about an unknown flow",
            icmp_about(&known(), 8),
            Reason::OtherProtocol,
        ),
        case(
            "error about another's packet",
            {
                let quoted = Frame::udp(side.client(1), side.backend(5353), 63, b"hello");
                icmp_about(&quoted, 8)
            },
            Reason::OtherProtocol,
        ),
        case(
            "error quoting 7 bytes of its header",
            icmp_about(&known(), 7),
            Reason::Truncated,
        ),
        case(
            "error quoting no header at all",
            Frame::error(side.backend(0), side.snat(0), 64, b""),
            Reason::Truncated,
        ),
        case(
            "error quoting another version",
            Frame::error(side.backend(0), side.snat(0), 64, &[0; 60]),
            Reason::Malformed,
        ),
        case(
            "error quoting an error",
            {
                let inner = icmp_about(&known(), 8);
                let header = if side.vip.is_ipv4() { 20 } else { 40 };
                Frame::error(
                    side.backend(0),
                    side.snat(0),
                    64,
                    &inner.bytes()[IP..IP + header + 8],
                )
            },
            Reason::OtherProtocol,
        ),
    ];
    for words in [0, 1, 4, 8, 15] {
        let name = format!("tcp header of {words} words");
        cases.push(case(name, tcp().set(l4 + 12, words << 4), Reason::BadLength));
    }
    for len in [0, 7, 19, u16::MAX] {
        let name = format!("udp length {len}");
        cases.push(case(name, udp().set16(l4 + 4, len), Reason::BadLength));
    }
    for (name, number) in [
        ("igmp", 2),
        ("gre", 47),
        ("esp", 50),
        ("ah", 51),
        ("ospf", 89),
        ("sctp", 132),
        ("255", 255),
    ] {
        cases.push(case(name, tcp().set(protocol, number), Reason::OtherProtocol));
    }
    for (name, kind, reason) in [
        ("arp", 0x0806, Reason::NotIp),
        ("mpls", 0x8847, Reason::NotIp),
        ("lldp", 0x88cc, Reason::NotIp),
        ("pppoe", 0x8864, Reason::NotIp),
        ("802.3 length", 46, Reason::NotIp),
        ("ether type 0", 0, Reason::NotIp),
        ("802.1Q", 0x8100, Reason::Vlan),
        ("802.1ad", 0x88a8, Reason::Vlan),
    ] {
        cases.push(case(name, tcp().set16(12, kind), reason));
    }
    cases
}

fn only_v4() -> Vec<Case> {
    let tcp = || Frame::tcp(V4.client(40_000), V4.vip(80), 2, 64, b"");
    let total = |word| tcp().set16(IP + 2, word);
    let fragment = |word| tcp().set16(IP + 6, word);
    let mut cases: Vec<Case> = [0, 10, 19]
        .map(|len| case(format!("total length {len}"), total(len), Reason::Malformed))
        .into();
    cases.extend([21, 27].map(|len| case(format!("total length {len}"), total(len), Reason::Malformed)));
    cases.extend(
        [41, 1500, u16::MAX].map(|len| case(format!("total length {len}"), total(len), Reason::Truncated)),
    );
    cases.extend([0, 5, 6, 15].map(|v| {
        case(
            format!("version {v}"),
            tcp().set(IP, (v << 4) | 5),
            Reason::Malformed,
        )
    }));
    cases.extend([0, 1, 4, 15].map(|n| {
        case(
            format!("header of {n} words"),
            tcp().set(IP, 0x40 | n),
            Reason::Malformed,
        )
    }));
    cases.extend([0x0001, 0x2001, 0x1fff, 0x3fff].map(|word| {
        case(
            format!("fragment word {word:#x}"),
            fragment(word),
            Reason::FragmentAlone,
        )
    }));
    cases.push(case(
        "type of IPv6, packet of IPv4",
        tcp().set16(12, 0x86dd),
        Reason::Malformed,
    ));
    cases
}

fn only_v6() -> Vec<Case> {
    let tcp = || Frame::tcp(V6.client(40_000), V6.vip(80), 2, 64, b"");
    let payload = |len| tcp().set16(IP + 4, len);
    // One extension header of 8 bytes, of type `kind`, before TCP; lengths agree.
    let extended = |kind, header: [u8; 8]| payload(28).set(IP + 6, kind).insert(54, &header);
    let chain = |count: usize| {
        let mut headers = Vec::new();
        for left in (0..count).rev() {
            headers.extend([if left == 0 { 6 } else { 60 }, 0, 1, 4, 0, 0, 0, 0]);
        }
        let len = 20 + u16::try_from(headers.len()).unwrap();
        payload(len).set(IP + 6, 60).insert(54, &headers)
    };
    let mut cases = vec![
        case("jumbogram", payload(0), Reason::Malformed),
        case("no next header", tcp().set(IP + 6, 59), Reason::OtherProtocol),
        case("mobility", tcp().set(IP + 6, 135), Reason::OtherProtocol),
        case(
            "routing with a way-point left",
            extended(43, [6, 0, 0, 1, 0, 0, 0, 0]),
            Reason::ExtensionHeaders,
        ),
        case(
            "later fragment",
            extended(44, [6, 0, 0, 8, 0, 0, 0, 1]),
            Reason::FragmentAlone,
        ),
        case(
            "last byte of an offset",
            extended(44, [6, 0, 0xff, 0xf8, 0, 0, 0, 1]),
            Reason::FragmentAlone,
        ),
        case("seven options headers", chain(7), Reason::ExtensionHeaders),
        case(
            "options longer than the packet",
            extended(60, [6, 255, 1, 4, 0, 0, 0, 0]),
            Reason::Malformed,
        ),
        case(
            "type of IPv4, packet of IPv6",
            tcp().set16(12, 0x0800),
            Reason::Malformed,
        ),
    ];
    cases.extend([1, 7].map(|len| case(format!("payload length {len}"), payload(len), Reason::Malformed)));
    cases.extend(
        [21, 1500, u16::MAX]
            .map(|len| case(format!("payload length {len}"), payload(len), Reason::Truncated)),
    );
    cases.extend(
        [0, 4, 5, 15].map(|v| case(format!("version {v}"), tcp().set(IP, v << 4), Reason::Malformed)),
    );
    cases
}
