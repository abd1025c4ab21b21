//! Every mode with packets of every kind: of each, action, bytes, reason and all counters.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use lb_common::reason::Reason;
use lb_userspace::state::service::{Protocol, ServiceKey};

use super::{
    DROP, FAMILIES, REDIRECT, TX,
    bench::{Bench, DNAT, DNAT_TCP, DNAT_UDP, GUE_V4, GUE_V6, IPIP_V4, IPIP_V6, L2DSR},
    build::{Frame, Side, V4, V6},
    counts::{Counted, Counts},
    dnat, fragments,
    kinds::{ERRORS, IP, Kind, kinds},
    modes::{Entropy, tunnelled},
    vlan::TAGS,
};

/// Cases at least, so that none gets lost unseen.
const CASES: usize = 1_500;
/// First ports of clients and of the balancer; each flow has one of its own.
const FIRST_CLIENT: u16 = 20_000;
const FIRST_SNAT: u16 = 3_000;

/// How packets reach a backend.
#[derive(Clone, Copy)]
enum Mode {
    Nat,
    Dnat,
    L2dsr,
    Tunnel { port: u16, outer: Side, gue: bool },
}

const fn tunnel(port: u16, outer: Side, gue: bool) -> Mode {
    Mode::Tunnel { port, outer, gue }
}

const MODES: [(&str, Mode); 7] = [
    ("nat", Mode::Nat),
    ("dnat", Mode::Dnat),
    ("l2dsr", Mode::L2dsr),
    ("ipip in 4", tunnel(IPIP_V4, V4, false)),
    ("ipip in 6", tunnel(IPIP_V6, V6, false)),
    ("gue in 4", tunnel(GUE_V4, V4, true)),
    ("gue in 6", tunnel(GUE_V6, V6, true)),
];
const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// The ends of a flow, as each side sees them.
#[derive(Clone, Copy)]
struct Flow {
    protocol: Protocol,
    client: SocketAddr,
    vip: SocketAddr,
    /// The client's address as the backend sees it.
    seen: SocketAddr,
    backend: SocketAddr,
}

/// Expected outcome of a packet.
struct Outcome {
    action: u32,
    reason: Reason,
    counted: Counted,
}

impl Outcome {
    const fn forward(new: bool) -> Self {
        Self {
            action: TX,
            reason: Reason::SentBack,
            counted: Counted::Forward { new },
        }
    }

    const fn dropped(reason: Reason) -> Self {
        Self {
            action: DROP,
            reason,
            counted: Counted::Refused(reason),
        }
    }
}

/// The cases of a mode and family.
struct Matrix<'a> {
    bench: &'a Bench,
    side: Side,
    name: &'static str,
    mode: Mode,
    flows: u16,
    cases: usize,
    wrong: Vec<String>,
}

impl Matrix<'_> {
    /// A new flow.
    fn flow(&mut self, protocol: Protocol) -> Result<Flow> {
        let (side, number, tcp) = (self.side, self.flows, protocol == Protocol::Tcp);
        self.flows += 1;
        let client = side.client(FIRST_CLIENT + number);
        let port = |of_tcp, of_udp| if tcp { of_tcp } else { of_udp };
        let flow = |vip, seen, backend| Flow {
            protocol,
            client,
            vip,
            seen,
            backend,
        };
        Ok(match self.mode {
            Mode::Nat => {
                self.bench.one_port(FIRST_SNAT + number)?;
                flow(
                    side.vip(port(80, 53)),
                    side.snat(FIRST_SNAT + number),
                    side.backend(port(8080, 5353)),
                )
            }
            Mode::Dnat => flow(side.vip(DNAT), client, side.backend(port(DNAT_TCP, DNAT_UDP))),
            Mode::L2dsr => flow(side.vip(L2DSR), client, side.backend(L2DSR)),
            Mode::Tunnel { port, outer, .. } => flow(side.vip(port), client, outer.backend(port)),
        })
    }

    /// A flow opened by a packet that is no case.
    fn open(&mut self, protocol: Protocol) -> Result<Flow> {
        let flow = self.flow(protocol)?;
        let (action, ..) = self
            .bench
            .run(&Kind::first(protocol).build(flow.client, flow.vip, 64))?;
        ensure!(action == TX, "{}: not opened", self.name);
        Ok(flow)
    }

    fn translates(&self) -> bool {
        matches!(self.mode, Mode::Nat | Mode::Dnat)
    }

    /// A client's packet as it reaches the backend.
    fn to_backend(&self, flow: &Flow, kind: &Kind, hops: u8) -> Result<Frame> {
        let sent = kind.build(flow.client, flow.vip, hops);
        match self.mode {
            Mode::Nat | Mode::Dnat => Ok(kind.build(flow.seen, flow.backend, hops - 1).lb_to_backend()),
            Mode::L2dsr => Ok(sent.lb_to_backend()),
            Mode::Tunnel { .. } => {
                let packet = kind.build_packet(flow.client, flow.vip, hops);
                let frame = self.within(flow, &packet, kind.is_without_sum())?;
                let len = frame.len();
                Ok(frame.padded(len + kind.padding()))
            }
        }
    }

    /// A packet as sent in modes without translation.
    fn as_is(&self, flow: &Flow, packet: &Frame, without_sum: bool) -> Result<Frame> {
        match self.mode {
            Mode::Tunnel { .. } => self.within(flow, packet, without_sum),
            Mode::Nat | Mode::Dnat | Mode::L2dsr => Ok(packet.clone().lb_to_backend()),
        }
    }

    /// A packet within its tunnel. The outer entropy is learned from a plain packet of the same flow.
    fn within(&self, flow: &Flow, packet: &Frame, without_sum: bool) -> Result<Frame> {
        let Mode::Tunnel { outer, gue, .. } = self.mode else {
            anyhow::bail!("{} is no tunnel", self.name);
        };
        let plain = Kind::plain(flow.protocol).build(flow.client, flow.vip, 64);
        let entropy = Entropy::of(&self.bench.run(&plain)?.1, outer, gue)?;
        let frame = tunnelled(packet, outer, gue.then_some(entropy.port), entropy.label);
        Ok(if without_sum && gue && !outer.vip(0).is_ipv4() {
            frame.set16(IP + 46, 0)
        } else {
            frame
        })
    }

    /// One case. `wanted` may take values that only the program knows from the output.
    fn check(
        &mut self,
        case: &str,
        flow: &Flow,
        sent: &Frame,
        wanted: impl FnOnce(&Frame) -> Result<Frame>,
        outcome: &Outcome,
    ) -> Result<Frame> {
        let Outcome {
            action,
            reason,
            counted,
        } = *outcome;
        let before = Counts::of(self.bench)?;
        let (got, output) = self.bench.many(|runner| {
            let (action, output) = runner.run(sent.bytes())?;
            Ok((action, Frame::from_bytes(output.to_vec())))
        })?;
        let after = Counts::of(self.bench)?;
        let key = ServiceKey::new(flow.vip.ip(), flow.vip.port(), flow.protocol);
        let judged = || -> Result<()> {
            before.ensure_one_more(&after, reason, sent, (key, flow.backend), counted)?;
            ensure!(got == action, "action {got}, not {action}");
            let wanted = wanted(&output)?;
            ensure!(
                output == wanted,
                "bytes\n sent   {:02x?}\n got    {:02x?}\n wanted {:02x?}",
                sent.bytes(),
                output.bytes(),
                wanted.bytes()
            );
            Ok(())
        };
        if let Err(error) = judged() {
            let family = if self.side.vip(0).is_ipv4() { 4 } else { 6 };
            self.wrong
                .push(format!("{}, IPv{family}, {case}: {error}", self.name));
        }
        self.cases += 1;
        Ok(output)
    }

    /// A client's packet, and once more where the first one opens a flow for the second.
    fn forwarded(&mut self, kind: &Kind) -> Result<()> {
        let nat = matches!(self.mode, Mode::Nat);
        // In mode nat, only a SYN opens a flow.
        let known = nat && kind.protocol == Protocol::Tcp && !kind.opens();
        let flow = if known {
            self.open(kind.protocol)?
        } else {
            self.flow(kind.protocol)?
        };
        let sent = kind.build(flow.client, flow.vip, 64);
        let wanted = self.to_backend(&flow, kind, 64)?;
        let first = Outcome::forward((nat || kind.opens()) && !known);
        self.check(&kind.name, &flow, &sent, |_| Ok(wanted.clone()), &first)?;
        if nat {
            let name = format!("{}, once more", kind.name);
            self.check(&name, &flow, &sent, |_| Ok(wanted), &Outcome::forward(false))?;
        }
        Ok(())
    }

    /// How a reply leaves.
    const fn replied(&self) -> Outcome {
        let (action, reason) = match self.mode {
            Mode::Dnat => (REDIRECT, Reason::Redirected),
            Mode::Nat | Mode::L2dsr | Mode::Tunnel { .. } => (TX, Reason::SentBack),
        };
        Outcome {
            action,
            reason,
            counted: Counted::Reply,
        }
    }

    /// A backend's packet.
    fn reply(&mut self, kind: &Kind) -> Result<()> {
        let flow = self.open(kind.protocol)?;
        let sent = kind.build(flow.backend, flow.seen, 64).backend_to_lb();
        let wanted = kind.build(flow.vip, flow.client, 63).lb_to_client();
        let outcome = self.replied();
        self.check(
            &format!("reply, {}", kind.name),
            &flow,
            &sent,
            |_| Ok(wanted),
            &outcome,
        )?;
        Ok(())
    }

    /// The last hops.
    fn hops(&mut self, protocol: Protocol) -> Result<()> {
        let kind = Kind::plain(protocol);
        for hops in [255, 2, 1] {
            let flow = self.open(protocol)?;
            let sent = kind.build(flow.client, flow.vip, hops);
            let name = format!("{protocol:?}, TTL {hops}");
            if self.translates() && hops == 1 {
                let outcome = Outcome::dropped(Reason::TtlExpired);
                self.check(&name, &flow, &sent, |_| Ok(sent.clone()), &outcome)?;
            } else {
                let wanted = self.to_backend(&flow, &kind, hops)?;
                self.check(&name, &flow, &sent, |_| Ok(wanted), &Outcome::forward(false))?;
            }
        }
        Ok(())
    }

    /// One and two tags: off on the way to a backend without a VLAN.
    fn tagged(&mut self, protocol: Protocol) -> Result<()> {
        for (name, tags, back) in TAGS {
            let flow = self.flow(protocol)?;
            let kind = if let Mode::Nat = self.mode {
                Kind::first(protocol)
            } else {
                Kind::plain(protocol)
            };
            let wanted = self.to_backend(&flow, &kind, 64)?;
            let sent = kind.build(flow.client, flow.vip, 64).tagged(tags);
            let name = format!("{protocol:?}, {name}");
            let first = Outcome::forward(matches!(self.mode, Mode::Nat));
            self.check(&name, &flow, &sent, |_| Ok(wanted), &first)?;
            if let Mode::Nat = self.mode {
                let sent = kind.build(flow.backend, flow.seen, 64).backend_to_lb();
                let wanted = kind.build(flow.vip, flow.client, 63).lb_to_client();
                let outcome = self.replied();
                self.check(
                    &format!("{name}, reply"),
                    &flow,
                    &sent,
                    |_| Ok(wanted.tagged(back)),
                    &outcome,
                )?;
            }
        }
        Ok(())
    }

    /// A datagram in fragments, the first one first.
    fn fragments(&mut self, protocol: Protocol) -> Result<()> {
        let (kind, flow) = (Kind::fragmented(protocol), self.open(protocol)?);
        let whole = kind.build(flow.client, flow.vip, 64);
        let mut id = None;
        for (number, sent) in fragments::split(&whole, 77).iter().enumerate() {
            let name = format!("{protocol:?}, fragment {number}");
            let wanted = if self.translates() {
                None
            } else {
                Some(self.as_is(&flow, sent, true)?)
            };
            let mut learned = None;
            let output = self.check(
                &name,
                &flow,
                sent,
                |output| match wanted {
                    Some(frame) => Ok(frame),
                    None => {
                        // All of them carry the identification that the first one was given.
                        let new = id.map_or_else(|| fragments::id_of(output), Ok)?;
                        learned = Some(new);
                        let translated = kind.build(flow.seen, flow.backend, 63).lb_to_backend();
                        let pieces = fragments::split(&translated, new);
                        pieces.into_iter().nth(number).context("fewer fragments")
                    }
                },
                &Outcome::forward(false),
            )?;
            ensure!(output.len() >= sent.len(), "{name}: cut");
            id = id.or(learned);
        }
        Ok(())
    }

    /// A packet that does not fit: its sender gets an ICMP error.
    fn too_big(&mut self, protocol: Protocol) -> Result<()> {
        let flow = self.open(protocol)?;
        let overhead = match self.mode {
            Mode::Nat | Mode::Dnat | Mode::L2dsr => 0,
            Mode::Tunnel { outer, gue, .. } => {
                let header = if outer.vip(0).is_ipv4() { 20 } else { 40 };
                header + if gue { 8 } else { 0 }
            }
        };
        for kind in kinds(self.side).iter().filter(|kind| {
            kind.protocol == protocol && (kind.name.contains("1001 bytes") || kind.name.contains("may be"))
        }) {
            let sent = kind.build(flow.client, flow.vip, 64);
            let length = u16::try_from(sent.len() - IP)?;
            self.bench
                .change_backends(|backend| backend.mtu = length + overhead - 1)?;
            let wanted = Frame::too_big(flow.vip, flow.client, &sent, length - 1);
            let outcome = Outcome {
                action: TX,
                reason: Reason::TooBigAnswered,
                counted: Counted::Refused(Reason::TooBigAnswered),
            };
            let name = format!("too big, {}", kind.name);
            self.check(&name, &flow, &sent, |_| Ok(wanted), &outcome)?;
            self.bench.change_backends(|backend| backend.mtu = 1_500)?;
        }
        Ok(())
    }

    /// ICMP errors about a backend's packets, with the shortest allowed quote, and with a longer one.
    fn errors_from_client(&mut self, protocol: Protocol) -> Result<()> {
        let kind = Kind::plain(protocol);
        for (error, quoted) in ERRORS.into_iter().flat_map(|error| [(error, 8), (error, 19)]) {
            let flow = self.open(protocol)?;
            let about = kind.build(flow.vip, flow.client, 40);
            let sent = error.build(flow.client, flow.vip, 64, &about, quoted);
            let wanted = if self.translates() {
                // In mode nat the backend knows the client as the balancer.
                let about = kind.build(flow.backend, flow.seen, 40);
                error
                    .build(flow.seen, flow.backend, 63, &about, quoted)
                    .lb_to_backend()
            } else {
                self.as_is(&flow, &sent, true)?
            };
            let name = format!("{protocol:?}, {error:?} that quotes {quoted} bytes");
            self.check(&name, &flow, &sent, |_| Ok(wanted), &Outcome::forward(false))?;
        }
        Ok(())
    }

    /// The same about a client's packets, in modes whose replies pass the balancer.
    fn errors_from_backend(&mut self, protocol: Protocol) -> Result<()> {
        let kind = Kind::plain(protocol);
        for (error, quoted) in ERRORS.into_iter().flat_map(|error| [(error, 8), (error, 19)]) {
            let flow = self.open(protocol)?;
            let about = kind.build(flow.seen, flow.backend, 40);
            let router = self.side.snat(0);
            let sent = error.build(router, flow.seen, 64, &about, quoted).backend_to_lb();
            let about = kind.build(flow.client, flow.vip, 40);
            let wanted = error
                .build(flow.vip, flow.client, 63, &about, quoted)
                .lb_to_client();
            let name = format!("{protocol:?}, reply, {error:?} that quotes {quoted} bytes");
            let outcome = self.replied();
            self.check(&name, &flow, &sent, |_| Ok(wanted), &outcome)?;
        }
        Ok(())
    }

    fn all(&mut self) -> Result<()> {
        for kind in kinds(self.side) {
            self.forwarded(&kind)?;
            if self.translates() {
                self.reply(&kind)?;
            }
        }
        for protocol in PROTOCOLS {
            self.hops(protocol)?;
            self.tagged(protocol)?;
            self.fragments(protocol)?;
            self.too_big(protocol)?;
            self.errors_from_client(protocol)?;
            if self.translates() {
                self.errors_from_backend(protocol)?;
            }
        }
        Ok(())
    }
}

#[test]
fn packets_of_every_kind_follow_their_mode_and_are_counted() -> Result<()> {
    let bench = dnat::routed()?;
    let (mut cases, mut wrong) = (0, Vec::new());
    for side in FAMILIES {
        for (name, mode) in MODES {
            let mut matrix = Matrix {
                bench: &bench,
                side,
                name,
                mode,
                flows: 0,
                cases: 0,
                wrong: Vec::new(),
            };
            matrix.all()?;
            let family = if side.vip(0).is_ipv4() { 4 } else { 6 };
            println!("{name}, IPv{family}: {} cases", matrix.cases);
            cases += matrix.cases;
            wrong.append(&mut matrix.wrong);
        }
    }
    println!("{cases} cases");
    ensure!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    ensure!(cases >= CASES, "{cases} cases");
    Ok(())
}
