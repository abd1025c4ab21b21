use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use lb_common::{
    addr::{NetAddr, NetPort},
    backend::{ALIVE, Backend, BackendId, Generation, IN_USE, IPV6, RESOLVED},
    clients::ClientRing,
    decap::{EndKey, V4, V6},
    flow::{FIN, PROVEN},
    quic::{Config, ConfigKey, HALF_READ, ServerKey},
    reason::Reason,
    ring_slot::RingSlot,
    service::{
        BY_CLIENTS, FORWARDS, GUARDS_CLIENTS, IN_TURN, Mode, OnEmpty, QUIC, RingId, SHARES_ADDRESS, Service,
        ServiceId, TRACKS_ALL, TRANSLATES,
    },
    settings::{ENDS_TUNNELS, HAS_DNAT, HAS_PREFIX, HAS_WILDCARD, Settings},
    track::{FlowRecord, Table, Tick},
};

use super::*;
use crate::{
    datapath::NextHopState,
    plan::Target,
    state::{
        effective::{self, HealthView, RemovedBackends},
        guard::Prefix,
        service::{Protocol, ServiceKey},
        testing,
    },
};

const A: BackendId = BackendId(1);
const B: BackendId = BackendId(2);
const CLIENT: &str = "198.51.100.7:40000";
const WEB: &str = "192.0.2.1:80";
/// The ring of the client and its neighbours, with b alone, if the service has groups.
const NEAR_RING: RingId = RingId(9);
const IN: u32 = 2;
const OUT: u32 = 3;
/// Server id of b, and a connection id that has it: of configuration 0, in plain text.
const SERVER: [u8; 3] = [0xc4, 0x60, 0x5e];
const NAMES_B: [u8; 8] = [0x07, 0xc4, 0x60, 0x5e, 0x45, 0x04, 0xcc, 0x4f];

/// A service `web` with backends a and b, and a ring with equal slots.
struct Tables {
    settings: Settings,
    service: Service,
    slot: RingSlot,
    backends: BTreeMap<BackendId, Backend>,
    translated: Option<Translated>,
    records: BTreeMap<Table, FlowRecord>,
    quic: Option<Config>,
}

impl Tables {
    fn new(flags: u16, mode: Mode, slot: RingSlot) -> Self {
        let backend = |last: u8| Backend {
            address: NetAddr::from(IpAddr::from([10, 0, 1, last])),
            source: NetAddr::from(IpAddr::from([10, 0, 1, 254])),
            port: NetPort::new(8080),
            flags: IN_USE | ALIVE | RESOLVED,
            generation: Generation(1),
            service: ServiceId(7),
            mode: mode as u8,
            ifindex: OUT,
            ..Backend::default()
        };
        Self {
            settings: Settings {
                snat_port_first: 1_024,
                snat_port_count: 1_000,
                reply_port_first: 1_024,
                reply_port_count: 1_000,
                ..Settings::default()
            },
            service: Service {
                ring_size: 251,
                id: ServiceId(7),
                mode: mode as u8,
                on_empty: OnEmpty::Drop as u8,
                flags,
                ..Service::default()
            },
            slot,
            backends: BTreeMap::from([(A, backend(1)), (B, backend(2))]),
            translated: None,
            records: BTreeMap::new(),
            quic: None,
        }
    }

    fn l2dsr(slot: RingSlot) -> Self {
        Self::new(FORWARDS, Mode::L2dsr, slot)
    }

    fn nat(slot: RingSlot) -> Self {
        Self::new(TRANSLATES, Mode::Nat, slot)
    }

    fn kill(mut self, id: BackendId) -> Self {
        self.backends.get_mut(&id).unwrap().flags &= !ALIVE;
        self
    }

    fn recorded(mut self, table: Table, backend: BackendId) -> Self {
        let record = FlowRecord {
            backend,
            generation: Generation(1),
            last_seen: Tick(0),
            check: 0,
        };
        self.records.insert(table, record);
        self
    }

    fn known(mut self, backend: BackendId, is_reply: bool, state: u8) -> Self {
        self.translated = Some(Translated {
            is_reply,
            source: "10.0.1.254:1024".parse().unwrap(),
            destination: "10.0.1.1:8080".parse().unwrap(),
            backend,
            generation: Generation(1),
            service: ServiceId(7),
            state,
            ifindex: IN,
        });
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn ask(&self, destination: &str, opens: bool) -> Explanation {
        self.answer(&question(destination, opens))
    }

    fn answer(&self, question: &Question) -> Explanation {
        explain(question, self, &view()).unwrap()
    }
}

fn question(destination: &str, opens: bool) -> Question {
    Question {
        source: CLIENT.parse().unwrap(),
        destination: destination.parse().unwrap(),
        protocol: Protocol::Tcp,
        opens,
        ifindex: IN,
        ttl: Question::TTL,
        length: 0,
        connection_id: Vec::new(),
        outer: None,
    }
}

impl ReadTables for Tables {
    fn settings(&self) -> io::Result<Settings> {
        Ok(self.settings)
    }
    fn service(&self, key: &ServiceKey) -> io::Result<Option<Service>> {
        let wildcard = self.settings.flags & HAS_WILDCARD != 0;
        let port = if wildcard { 0 } else { 80 };
        let ours = key.address == WEB.parse::<SocketAddr>().unwrap().ip() && key.port == port;
        Ok(ours.then_some(self.service))
    }
    fn service_of_prefix(&self, address: IpAddr, port: u16, _: Protocol) -> io::Result<Option<Service>> {
        let prefix: Prefix = "192.0.2.0/28".parse().unwrap();
        Ok((prefix.contains(address) && port == 80).then_some(self.service))
    }
    fn ends_tunnels(&self, kind: u8, address: IpAddr) -> io::Result<bool> {
        let known = match kind {
            EndKey::END => ["10.0.9.9", "2001:db8::9"],
            V4 => ["10.0.8.1", ""],
            V6 => ["", "2001:db8:8::1"],
            _ => ["", ""],
        };
        Ok(known.contains(&address.to_string().as_str()))
    }
    fn service_key(&self, _: ServiceId) -> Option<ServiceKey> {
        Some(view().desired.services.values().next().unwrap().key)
    }
    fn slot(&self, ring: RingId, index: u32) -> Option<RingSlot> {
        if ring == NEAR_RING {
            assert!(index < 509);
            return Some(RingSlot::stable(B));
        }
        assert!(index < self.service.ring_size);
        Some(self.slot)
    }
    fn backend(&self, id: BackendId) -> io::Result<Option<Backend>> {
        Ok(self.backends.get(&id).copied())
    }
    fn denies(&self, service: ServiceId, client: IpAddr) -> io::Result<bool> {
        Ok(service == ServiceId(7) && client == CLIENT.parse::<SocketAddr>().unwrap().ip())
    }
    fn client_ring(&self, _: ServiceId, client: IpAddr) -> io::Result<Option<ClientRing>> {
        let near: Prefix = "198.51.100.0/24".parse().unwrap();
        Ok(near.contains(client).then_some(ClientRing {
            ring_size: 509,
            ring: NEAR_RING,
            pad: 0,
        }))
    }
    fn answers_from(&self, endpoint: &ServiceKey) -> io::Result<Option<Answers>> {
        let client: SocketAddr = CLIENT.parse().unwrap();
        let answers = Answers {
            source: WEB.parse().unwrap(),
            service: ServiceId(7),
            backend: A,
        };
        Ok((endpoint.address == client.ip() && endpoint.port == client.port()).then_some(answers))
    }
    fn translated(&self, _: &AnyTuple) -> io::Result<Option<Translated>> {
        Ok(self.translated)
    }
    fn record(&self, _: &AnyTuple, table: Table) -> io::Result<Option<FlowRecord>> {
        Ok(self.records.get(&table).copied())
    }
    fn quic_config(&self, key: &ConfigKey) -> io::Result<Option<Config>> {
        Ok(self.quic.filter(|_| *key == ConfigKey::new(ServiceId(7), 0)))
    }
    fn quic_server(&self, key: &ServerKey) -> io::Result<Option<BackendId>> {
        let of_b = self.quic.and_then(|config| config.key_of(ServiceId(7), &SERVER));
        Ok((of_b == Some(*key)).then_some(B))
    }
    fn next_hop(&self, _: IpAddr) -> Option<NextHopState> {
        Some(NextHopState::Unreachable)
    }
}

fn view() -> ControlView {
    let mut web = testing::service("web", 1, &[("a", 1), ("b", 1)]);
    web.ports = ["80", "8000-8100"].map(|range| range.parse().unwrap()).to_vec();
    let desired = testing::desired([web]);
    let target: Target = effective::target(&desired, &HealthView::new(), &RemovedBackends::new());
    ControlView {
        desired: desired.into(),
        wanted: target.into(),
        programmed: None,
        failure: None,
        lingering: Vec::new(),
        drain_deadlines: BTreeMap::new(),
        whole_at: BTreeMap::new(),
        last_apply_ok: true,
        applied: None,
        refused: None,
    }
}

/// Tables, whether the packet opens a flow, and the expected reason, backend, and whether the flow is recorded.
#[test]
fn an_explanation_agrees_with_the_program_for_packets_of_a_service() {
    use Reason::{BackendMissing, NoBackend, NoNextHop, NoSnatAddress, Redirected, RejectedReset};
    let moved = RingSlot {
        current: B,
        previous: A,
    };
    let none = RingSlot::pinned(BackendId::NONE);
    let stable = RingSlot::stable(A);
    for (number, (tables, opens, reason, backend, tracked)) in (1..).zip([
        (Tables::l2dsr(stable), true, Redirected, Some(1), false),
        (
            Tables::l2dsr(stable).recorded(Table::Tracked, B),
            true,
            Redirected,
            Some(1),
            false,
        ),
        (Tables::l2dsr(moved), true, Redirected, Some(2), false),
        (Tables::l2dsr(moved), false, Redirected, Some(1), false),
        (
            Tables::l2dsr(moved).recorded(Table::Tracked, B),
            false,
            Redirected,
            Some(2),
            true,
        ),
        (
            Tables::l2dsr(moved).recorded(Table::Seen, A),
            true,
            Redirected,
            Some(1),
            true,
        ),
        (
            Tables::l2dsr(moved).recorded(Table::Opening, A).kill(A),
            true,
            Redirected,
            Some(2),
            false,
        ),
        (
            Tables::l2dsr(RingSlot::pinned(B)).recorded(Table::Tracked, A),
            false,
            Redirected,
            Some(1),
            true,
        ),
        (
            Tables::l2dsr(RingSlot::pinned(B)),
            false,
            Redirected,
            Some(2),
            false,
        ),
        (Tables::l2dsr(stable).kill(A), true, NoBackend, None, false),
        (Tables::l2dsr(none), true, NoBackend, None, false),
        (
            Tables::l2dsr(none).with(|t| t.service.on_empty = OnEmpty::Reject as u8),
            true,
            RejectedReset,
            None,
            false,
        ),
        (
            Tables::l2dsr(stable).with(|t| t.service.ring_size = 0),
            true,
            NoBackend,
            None,
            false,
        ),
        (
            Tables::l2dsr(RingSlot::stable(BackendId(9))),
            true,
            BackendMissing,
            None,
            false,
        ),
        (
            Tables::l2dsr(stable).with(|t| t.backends.get_mut(&A).unwrap().flags &= !RESOLVED),
            true,
            NoNextHop,
            Some(1),
            false,
        ),
        (
            Tables::l2dsr(stable)
                .with(|t| t.service.flags |= TRACKS_ALL)
                .recorded(Table::Tracked, B),
            true,
            Redirected,
            Some(2),
            true,
        ),
        (
            Tables::new(FORWARDS, Mode::Dnat, stable),
            true,
            Redirected,
            Some(1),
            false,
        ),
        (
            Tables::l2dsr(stable).with(|t| t.service.flags |= GUARDS_CLIENTS),
            true,
            Reason::ClientDenied,
            None,
            false,
        ),
        (
            Tables::nat(stable)
                .with(|t| t.service.flags |= GUARDS_CLIENTS)
                .known(A, false, PROVEN),
            false,
            Reason::ClientDenied,
            None,
            false,
        ),
        (Tables::nat(stable), true, Redirected, Some(1), false),
        (Tables::nat(moved), true, Redirected, Some(2), false),
        (Tables::nat(moved), false, Reason::NoFlowReset, None, false),
        (
            Tables::nat(stable).known(B, false, PROVEN),
            true,
            Redirected,
            Some(2),
            true,
        ),
        (
            Tables::nat(stable).known(B, false, PROVEN).kill(B),
            true,
            Redirected,
            Some(1),
            false,
        ),
        (
            Tables::nat(stable).known(B, false, PROVEN | FIN),
            true,
            Redirected,
            Some(1),
            false,
        ),
        (
            Tables::nat(stable).known(A, false, PROVEN | FIN),
            true,
            Redirected,
            Some(1),
            true,
        ),
        (
            Tables::nat(stable).known(B, false, PROVEN | FIN),
            false,
            Redirected,
            Some(2),
            true,
        ),
        (
            Tables::nat(stable)
                .with(|t| t.backends.get_mut(&A).unwrap().source = NetAddr::from(IpAddr::from([0; 4]))),
            true,
            NoSnatAddress,
            Some(1),
            false,
        ),
        (
            Tables::nat(stable).with(|t| t.service.flags |= IN_TURN),
            true,
            Redirected,
            None,
            false,
        ),
        (
            Tables::new(TRANSLATES | FORWARDS, Mode::L2dsr, moved),
            true,
            Redirected,
            Some(2),
            false,
        ),
    ]) {
        let explanation = tables.ask(WEB, opens);
        let address = backend.map(|last: u8| SocketAddr::from(([10, 0, 1, last], 8080)));
        assert_eq!(
            (explanation.reason, explanation.backend, explanation.tracked),
            (reason, address, tracked),
            "{number}: {explanation:#?}"
        );
        assert!(explanation.service.is_some() && !explanation.steps.is_empty());
        assert!(
            explanation.steps[0].contains("service web"),
            "{:?}",
            explanation.steps
        );
    }
}

#[test]
fn an_invalid_source_address_is_martian() {
    let stable = RingSlot::stable(A);
    for tables in [Tables::nat(stable), Tables::l2dsr(stable)] {
        for source in ["127.0.0.1:4000", "255.255.255.255:4000", WEB] {
            let explanation = tables.answer(&Question {
                source: source.parse().unwrap(),
                ..question(WEB, true)
            });
            assert_eq!(
                explanation.reason,
                Reason::MartianSource,
                "{source}: {explanation:#?}"
            );
        }
    }
}

#[test]
fn replies_are_distinguished_from_unmatched_packets() {
    let stable = RingSlot::stable(A);
    for (tables, destination, reason) in [
        (Tables::nat(stable), "192.0.2.1:81", Reason::NotOurs),
        (Tables::nat(stable), "10.0.1.254:1024", Reason::NotOurs),
        (
            Tables::nat(stable).known(A, false, 0),
            "10.0.1.254:1024",
            Reason::NotOurs,
        ),
        (
            Tables::nat(stable).known(A, true, 0),
            "10.0.1.254:1024",
            Reason::SentBack,
        ),
        (
            Tables::nat(stable).with(|t| t.settings.flags = HAS_DNAT),
            "203.0.113.1:4000",
            Reason::Redirected,
        ),
        (
            Tables::nat(stable).with(|t| t.settings.flags = HAS_WILDCARD),
            "192.0.2.1:81",
            Reason::Redirected,
        ),
    ] {
        let explanation = tables.ask(destination, true);
        assert_eq!(explanation.reason, reason, "{explanation:#?}");
    }
}

#[test]
fn an_address_without_a_service_may_lie_in_the_prefix_of_one() {
    let tables = Tables::nat(RingSlot::stable(A));
    assert_eq!(tables.ask("192.0.2.5:80", true).reason, Reason::NotOurs);
    let tables = tables.with(|t| t.settings.flags = HAS_PREFIX);
    let explained = tables.ask("192.0.2.5:80", true);
    assert_eq!(explained.reason, Reason::Redirected, "{explained:#?}");
    assert!(
        explained.steps[0].contains("192.0.2.5:80/tcp lies in"),
        "{explained:#?}"
    );
    assert_eq!(tables.ask("192.0.2.5:81", true).reason, Reason::NotOurs);
}

#[test]
fn a_step_mentions_that_a_connection_id_may_select_the_backend() {
    let steps = |flags| {
        let tables = Tables::l2dsr(RingSlot::stable(A)).with(|t| t.service.flags |= flags);
        tables.ask(WEB, false).steps.join("\n")
    };
    assert!(steps(QUIC).contains("QUIC connection id"));
    assert!(!steps(0).contains("QUIC"));
}

#[test]
fn a_step_lists_all_ports_of_the_address_for_a_packet_to_another_port() {
    let explanation = Tables::nat(RingSlot::stable(A)).ask("192.0.2.1:81", true);
    let steps = explanation.steps.join("\n");
    assert!(steps.contains("80,8000-8100/tcp (web)"), "{steps}");
}

#[test]
fn a_step_mentions_sockets_on_an_address_of_the_machine() {
    let steps = |flags| {
        let tables = Tables::nat(RingSlot::stable(A)).with(|t| t.service.flags |= flags);
        tables.ask(WEB, true).steps.join("\n")
    };
    assert!(steps(SHARES_ADDRESS).contains("own sockets"));
    assert!(!steps(0).contains("own sockets"));
}

#[test]
fn a_connection_id_is_read_as_the_program_reads_it() {
    let config = Config::new(0, SERVER.len(), 4, None).unwrap();
    let [mut unknown, mut other] = [NAMES_B; 2];
    unknown[1] ^= 1;
    other[0] |= 0x40;
    for (number, (id, change, backend)) in (1..).zip([
        (&NAMES_B[..], 0, 2),
        (&NAMES_B[..7], 0, 1),
        (&unknown[..], 0, 1),
        (&other[..], 0, 1),
        (&[][..], 0, 1),
        // It is dead, and of another service.
        (&NAMES_B[..], ALIVE, 1),
        (&NAMES_B[..], IN_USE, 1),
    ]) {
        for flags in [FORWARDS, TRANSLATES] {
            let mode = if flags == FORWARDS { Mode::L2dsr } else { Mode::Nat };
            let tables = Tables::new(flags | QUIC, mode, RingSlot::stable(A))
                .known(A, false, PROVEN)
                .with(|t| t.quic = Some(config))
                .with(|t| t.backends.get_mut(&B).unwrap().flags &= !change);
            let question = Question {
                connection_id: id.to_vec(),
                ..question(WEB, true)
            };
            let explanation = tables.answer(&question);
            let address = SocketAddr::from(([10, 0, 1, backend], 8080));
            assert_eq!(explanation.backend, Some(address), "{number}: {explanation:#?}");
        }
    }
}

/// The program reads an id as a whole or not at all, and no more bytes than every QUIC packet has.
#[test]
fn a_connection_id_is_not_read_from_a_packet_too_short_for_it() {
    let config = Config::new(0, SERVER.len(), 4, None).unwrap();
    let tables = Tables::l2dsr(RingSlot::stable(A))
        .with(|t| t.service.flags |= QUIC)
        .with(|t| t.quic = Some(config));
    // IPv4, UDP, the first byte, the first octet of the id, and the bytes that are read for its second half.
    let shortest = 20 + 8 + 1 + 1 + u16::try_from(config.right_at() + HALF_READ).unwrap();
    for (length, backend) in [(0, B), (shortest - 1, A), (shortest, B), (1500, B)] {
        let question = Question {
            connection_id: NAMES_B.to_vec(),
            length,
            ..question(WEB, false)
        };
        let explanation = tables.answer(&question);
        let last = u8::try_from(backend.0).unwrap();
        let address = SocketAddr::from(([10, 0, 1, last], 8080));
        assert_eq!(explanation.backend, Some(address), "{length}: {explanation:#?}");
    }
}

/// Effect of size and TTL in each mode.
#[test]
fn packets_that_are_too_big_or_expire_are_not_forwarded() {
    use Reason::{Redirected, TooBigAnswered, TtlExpired};
    for (mode, overhead, routes) in [
        (Mode::Nat, 0, true),
        (Mode::Dnat, 0, true),
        (Mode::L2dsr, 0, false),
        (Mode::Ipip, 20, false),
        (Mode::Gue, 28, false),
    ] {
        let flags = if mode == Mode::Nat { TRANSLATES } else { FORWARDS };
        let tables = Tables::new(flags, mode, RingSlot::stable(A))
            .with(|t| t.backends.get_mut(&A).unwrap().mtu = 1400);
        let ask = |ttl, length| {
            let question = Question {
                ttl,
                length,
                ..question(WEB, true)
            };
            tables.answer(&question)
        };
        let fits = 1400 - overhead;
        for (ttl, length, reason) in [
            (64, 0, Redirected),
            (2, fits, Redirected),
            (64, fits + 1, TooBigAnswered),
            (1, 0, if routes { TtlExpired } else { Redirected }),
            (0, 0, if routes { TtlExpired } else { Redirected }),
        ] {
            let explanation = ask(ttl, length);
            assert_eq!(explanation.reason, reason, "{mode:?}: {explanation:#?}");
        }
        let explanation = ask(64, fits + 1).steps.join("\n");
        assert!(
            explanation.contains(&format!("that {fits} would")),
            "{explanation}"
        );
    }
    let known = Tables::nat(RingSlot::stable(A)).known(A, true, PROVEN);
    let reply = Question {
        ttl: 1,
        ..question("10.0.1.254:1024", false)
    };
    assert_eq!(known.answer(&reply).reason, TtlExpired);
}

#[test]
fn no_packet_is_translated_to_another_family() {
    for mode in [Mode::Nat, Mode::Dnat] {
        let flags = if mode == Mode::Nat { TRANSLATES } else { FORWARDS };
        let tables = Tables::new(flags, mode, RingSlot::stable(A))
            .with(|t| t.backends.get_mut(&A).unwrap().flags |= IPV6);
        assert_eq!(tables.ask(WEB, true).reason, Reason::ModeMissing);
    }
}

#[test]
fn steps_name_service_and_backends() {
    let moved = RingSlot {
        current: B,
        previous: A,
    };
    let explanation = Tables::l2dsr(moved).ask(WEB, true);
    let steps = explanation.steps.join("\n");
    for part in [
        "192.0.2.1:80/tcp is service web",
        "in transition to b (10.0.1.2:8080); older flows stay with a (10.0.1.1:8080)",
        "a SYN opens a new one",
        "selected backend: b (10.0.1.2:8080)",
        "mode l2dsr",
        "the next hop towards 10.0.1.2 is 00:00:00:00:00:00",
    ] {
        assert!(steps.contains(part), "{part:?} is missing in\n{steps}");
    }
    assert_eq!(
        (explanation.ifindex, explanation.mode),
        (Some(OUT), Some(Mode::L2dsr))
    );
}

#[test]
fn a_packet_in_a_tunnel_is_explained_from_its_outer_header_on() {
    use OuterKind::{Gue, Ipip};
    use Reason::{NotOurs, OtherProtocol, Redirected, TunnelSource};
    let ends = || {
        Tables::l2dsr(RingSlot::stable(A)).with(|t| {
            t.settings.flags |= ENDS_TUNNELS;
            t.settings.gue_port = 6080;
        })
    };
    let none = || Tables::l2dsr(RingSlot::stable(A)).with(|t| t.settings.gue_port = 6080);
    let shared = || ends().with(|t| t.settings.flags |= HAS_WILDCARD);
    let (balancer, own, web) = ("10.0.8.1", "10.0.9.9", "192.0.2.1");
    for (tables, kind, from, to, reason, taken, step) in [
        (
            ends(),
            Ipip,
            balancer,
            own,
            Redirected,
            true,
            "the tunnel ends here",
        ),
        (
            ends(),
            Gue,
            balancer,
            own,
            Redirected,
            true,
            "the tunnel ends here",
        ),
        (
            ends(),
            Gue,
            "2001:db8:8::1",
            "2001:db8::9",
            Redirected,
            true,
            "decap_from has 2001:db8:8::1",
        ),
        (
            ends(),
            Ipip,
            "10.0.8.2",
            own,
            TunnelSource,
            false,
            "decap_from does not have 10.0.8.2",
        ),
        (
            ends(),
            Gue,
            "10.0.8.2",
            own,
            NotOurs,
            false,
            "a datagram to UDP port 6080",
        ),
        (
            ends(),
            Ipip,
            balancer,
            "10.0.9.8",
            OtherProtocol,
            false,
            "tunnels to 10.0.9.8 do not end here",
        ),
        (
            none(),
            Ipip,
            balancer,
            own,
            OtherProtocol,
            false,
            "decap_from is empty",
        ),
        (none(), Gue, balancer, own, NotOurs, false, "decap_from is empty"),
        // A service on each port has the port of GUE, too.
        (shared(), Gue, balancer, web, Redirected, false, "it is no tunnel"),
    ] {
        let outer = Outer {
            kind,
            source: from.parse().unwrap(),
            destination: to.parse().unwrap(),
        };
        let asked = Question {
            outer: Some(outer),
            ..question(WEB, true)
        };
        let explanation = tables.answer(&asked);
        let steps = explanation.steps.join("\n");
        assert_eq!(
            (explanation.reason, explanation.tunnel_ends),
            (reason, Some(taken)),
            "{steps}"
        );
        assert!(steps.contains(step), "{step:?} is missing in\n{steps}");
        // The service and backend are those of the packet within.
        assert_eq!(explanation.service.is_some(), reason == Redirected, "{steps}");
    }
    assert_eq!(ends().ask(WEB, true).tunnel_ends, None);
}

#[test]
fn a_client_of_a_group_is_explained_by_the_groups_ring() {
    let grouped = || Tables::new(FORWARDS | BY_CLIENTS, Mode::L2dsr, RingSlot::stable(A));
    for (tables, client, backend) in [
        (grouped(), CLIENT, 2),
        (grouped(), "198.51.101.7:40000", 1),
        (Tables::l2dsr(RingSlot::stable(A)), CLIENT, 1),
    ] {
        let asked = Question {
            source: client.parse().unwrap(),
            ..question(WEB, true)
        };
        let explanation = tables.answer(&asked);
        let found = explanation.backend.map(|at| at.ip().to_string());
        assert_eq!(
            found,
            Some(format!("10.0.1.{backend}")),
            "{client}: {explanation:#?}"
        );
    }
    let steps = grouped().ask(WEB, true).steps.join("\n");
    assert!(
        steps.contains("is no client of a group: its backends take its new flows"),
        "{steps}"
    );
}
