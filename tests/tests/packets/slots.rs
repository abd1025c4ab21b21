//! The backend of a packet while slots change hands, and the records: the table in `docs/flow-tracking.md`, row by row,
//! and services that record every flow.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use anyhow::{Context, Result, ensure};
use aya::{
    Pod,
    maps::{Array, HashMap, MapData, MapError},
};
use lb_common::{
    addr::NetPort,
    backend::{ALIVE, Backend, BackendId, Generation, IN_USE, IPV6, RESOLVED},
    flow::{TupleV4, TupleV6},
    hash, map_names,
    reason::Reason,
    ring_slot::{self, RingSlot},
    service::{IN_TURN, Mode, Service, ServiceKeyV4, ServiceKeyV6, TCP, TRACKS_ALL, UDP},
    track::{FlowRecord, Tick, fold},
};
use lb_userspace::state::service::Affinity;

use super::{
    ACK, SYN, TX,
    bench::{Bench, INGRESS, L2DSR},
    build::{Frame, LB_MAC, Side, V4, V6},
};

/// Backends with unused numbers.
const A: BackendId = BackendId(60_001);
const B: BackendId = BackendId(60_002);
const C: BackendId = BackendId(60_003);
const NONE: BackendId = BackendId::NONE;
const GENERATION: Generation = Generation(7);

/// MAC address of a backend, by which a test finds where a packet went.
const fn mac(id: BackendId) -> [u8; 6] {
    let [high, low] = id.0.to_be_bytes();
    [2, 0, 0, 1, high, low]
}

const fn slot(current: BackendId, previous: BackendId) -> RingSlot {
    RingSlot { current, previous }
}

/// Kind of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Syn,
    Ack,
    Udp,
    /// An ICMP error about a packet of the backend's to the client.
    Error,
}
use What::{Ack, Error, Syn, Udp};

/// A flow's owners in the tables: tracked, opening, seen.
type Owners = [BackendId; 3];
const UNKNOWN: Owners = [NONE; 3];
const TRACKED_C: Owners = [C, NONE, NONE];
const OPENING_C: Owners = [NONE, C, NONE];
const SEEN_C: Owners = [NONE, NONE, C];

/// A family's tuples, and its maps.
trait Key: Pod {
    const SIDE: Side;
    const TABLES: [&'static str; 3];
    fn new(client: SocketAddr, vip: SocketAddr, protocol: u8) -> Self;
    fn check(&self) -> u32;
    fn service(bench: &Bench, vip: SocketAddr, protocol: u8, flags: u16) -> Result<Service>;
}

macro_rules! key {
    ($tuple:ty, $service:ident, $family:ident, $services:ident, $side:ident, $tables:expr) => {
        impl Key for $tuple {
            const SIDE: Side = $side;
            const TABLES: [&'static str; 3] = $tables;

            fn new(client: SocketAddr, vip: SocketAddr, protocol: u8) -> Self {
                let (IpAddr::$family(src), IpAddr::$family(dst)) = (client.ip(), vip.ip()) else {
                    unreachable!("addresses are the family's");
                };
                let ports = [client.port(), vip.port()].map(NetPort::new);
                Self::new(src.into(), dst.into(), ports[0], ports[1], protocol)
            }

            fn check(&self) -> u32 {
                Self::check(self)
            }

            /// The service's record, after it has got these flags beside its own.
            fn service(bench: &Bench, vip: SocketAddr, protocol: u8, flags: u16) -> Result<Service> {
                let tuple = <Self as Key>::new(vip, vip, protocol);
                let key = $service {
                    address: tuple.dst,
                    port: tuple.dst_port,
                    protocol,
                    pad: 0,
                };
                let mut services: HashMap<_, $service, Service> =
                    HashMap::try_from(bench.map(map_names::$services)?)?;
                let mut service = services.get(&key, 0)?;
                service.flags &= !(TRACKS_ALL | IN_TURN);
                service.flags |= flags;
                services.insert(key, service, 0)?;
                bench.ask_table(key.place())?;
                Ok(service)
            }
        }
    };
}

key!(
    TupleV4,
    ServiceKeyV4,
    V4,
    SERVICES_V4,
    V4,
    [map_names::TRACKED_V4, map_names::OPENING_V4, map_names::SEEN_V4]
);
key!(
    TupleV6,
    ServiceKeyV6,
    V6,
    SERVICES_V6,
    V6,
    [map_names::TRACKED_V6, map_names::OPENING_V6, map_names::SEEN_V6]
);

/// A bench whose l2dsr services have all their slots in one state, with backends A, B and C.
struct Slots {
    bench: Bench,
    next_port: u16,
}

impl Slots {
    fn new() -> Result<Self> {
        Ok(Self {
            bench: Bench::new()?,
            next_port: 20_000,
        })
    }

    /// Puts the service of a protocol into this state.
    fn set<K: Key>(&self, protocol: u8, slots: impl Fn(u32) -> RingSlot, flags: u16) -> Result<()> {
        let service = K::service(&self.bench, K::SIDE.vip(L2DSR), protocol, flags)?;
        for id in [A, B, C] {
            let family = if K::SIDE.vip(0).is_ipv6() { IPV6 } else { 0 };
            self.write(id, |backend| {
                *backend = Backend {
                    flags: IN_USE | ALIVE | RESOLVED | family,
                    generation: GENERATION,
                    service: service.id,
                    mode: Mode::L2dsr as u8,
                    next_hop_mac: mac(id),
                    source_mac: LB_MAC,
                    ifindex: INGRESS,
                    mtu: 1500,
                    ..Backend::default()
                };
            })?;
        }
        self.bench.set_slots(&service, slots)
    }

    fn write(&self, id: BackendId, change: impl FnOnce(&mut Backend)) -> Result<()> {
        let mut backends: Array<_, Backend> = Array::try_from(self.bench.map(map_names::BACKENDS)?)?;
        let mut record = backends.get(&u32::from(id.0), 0)?;
        change(&mut record);
        Ok(backends.set(u32::from(id.0), record, 0)?)
    }

    fn table<K: Key>(&self, index: usize) -> Result<HashMap<MapData, K, FlowRecord>> {
        Ok(HashMap::try_from(self.bench.map(K::TABLES[index])?)?)
    }

    /// A flow of a client that was never seen, recorded so.
    fn flow<K: Key>(&mut self, protocol: u8, owners: Owners) -> Result<(SocketAddr, K)> {
        self.next_port += 1;
        let client = K::SIDE.client(self.next_port);
        let key = <K as Key>::new(client, K::SIDE.vip(L2DSR), protocol);
        for (index, backend) in (0..).zip(owners).filter(|(_, owner)| *owner != NONE) {
            let record = FlowRecord {
                backend,
                generation: GENERATION,
                last_seen: Tick(1),
                check: fold(key.check()),
            };
            self.table::<K>(index)?.insert(key, record, 0)?;
        }
        Ok((client, key))
    }

    fn owners<K: Key>(&self, key: &K) -> Result<Owners> {
        let mut owners = UNKNOWN;
        for (index, owner) in owners.iter_mut().enumerate() {
            match self.table::<K>(index)?.get(key, 0) {
                Ok(record) => *owner = record.backend,
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(owners)
    }

    /// Sends a packet of a flow; returns the backend that got it.
    fn send<K: Key>(&self, client: SocketAddr, what: What) -> Result<BackendId> {
        let vip = K::SIDE.vip(L2DSR);
        let frame = match what {
            Syn => Frame::tcp(client, vip, SYN, 64, b""),
            Ack => Frame::tcp(client, vip, ACK, 64, b"x"),
            Udp => Frame::udp(client, vip, 64, b"x"),
            Error => {
                let reply = Frame::tcp(vip, client, ACK, 64, b"x");
                Frame::unreachable(K::SIDE.snat(0), K::SIDE.vip(0), 64, &reply, 8)
            }
        };
        let (action, out, reason) = self.bench.run(&frame)?;
        if reason == Reason::NoBackend {
            return Ok(NONE);
        }
        ensure!(
            (action, reason) == (TX, Reason::SentBack),
            "{what:?}: {action}, {reason:?}"
        );
        let got = out.bytes().first_chunk().context("a short frame")?;
        let to = [A, B, C].into_iter().find(|id| mac(*id) == *got);
        to.with_context(|| format!("sent to {got:02x?}"))
    }
}

/// The slot, the records of a flow, its packet, the backend that gets it, and the records then.
type Row = (RingSlot, Owners, What, BackendId, Owners);

const STABLE: RingSlot = slot(A, A);
const TRANSITION: RingSlot = slot(B, A);
const PINNED: RingSlot = slot(B, NONE);
const DRAINING: RingSlot = slot(NONE, A);
const EMPTY: RingSlot = slot(NONE, NONE);

const ROWS: [Row; 32] = [
    // Stable: no look-up and no record, with any content of the tables.
    (STABLE, TRACKED_C, Syn, A, TRACKED_C),
    (STABLE, TRACKED_C, Ack, A, TRACKED_C),
    (STABLE, UNKNOWN, Syn, A, UNKNOWN),
    (STABLE, UNKNOWN, Ack, A, UNKNOWN),
    (STABLE, UNKNOWN, Udp, A, UNKNOWN),
    // Transition.
    (TRANSITION, TRACKED_C, Syn, C, TRACKED_C),
    (TRANSITION, TRACKED_C, Ack, C, TRACKED_C),
    (TRANSITION, TRACKED_C, Udp, C, TRACKED_C),
    (TRANSITION, OPENING_C, Syn, C, OPENING_C),
    (TRANSITION, OPENING_C, Ack, C, TRACKED_C),
    (TRANSITION, SEEN_C, Ack, C, TRACKED_C),
    (TRANSITION, SEEN_C, Udp, C, TRACKED_C),
    (TRANSITION, UNKNOWN, Syn, B, [NONE, B, NONE]),
    (TRANSITION, UNKNOWN, Ack, A, [NONE, NONE, A]),
    (TRANSITION, UNKNOWN, Udp, A, [NONE, NONE, A]),
    // Pinned: the slot's own flows need no record.
    (PINNED, TRACKED_C, Syn, C, TRACKED_C),
    (PINNED, TRACKED_C, Ack, C, TRACKED_C),
    (PINNED, OPENING_C, Ack, C, TRACKED_C),
    (PINNED, SEEN_C, Udp, C, TRACKED_C),
    (PINNED, UNKNOWN, Syn, B, UNKNOWN),
    (PINNED, UNKNOWN, Ack, B, UNKNOWN),
    (PINNED, UNKNOWN, Udp, B, UNKNOWN),
    // No backend takes new flows.
    (DRAINING, UNKNOWN, Syn, NONE, UNKNOWN),
    (DRAINING, UNKNOWN, Ack, A, [NONE, NONE, A]),
    (DRAINING, TRACKED_C, Ack, C, TRACKED_C),
    (EMPTY, UNKNOWN, Ack, NONE, UNKNOWN),
    (EMPTY, TRACKED_C, Ack, C, TRACKED_C),
    // An ICMP error goes where the flow's packets go, and proves nothing about the client.
    (STABLE, TRACKED_C, Error, A, TRACKED_C),
    (TRANSITION, UNKNOWN, Error, A, UNKNOWN),
    (TRANSITION, OPENING_C, Error, C, OPENING_C),
    (TRANSITION, SEEN_C, Error, C, SEEN_C),
    (PINNED, TRACKED_C, Error, C, TRACKED_C),
];

fn rows<K: Key>(rows: &[Row], flags: u16) -> Result<()> {
    let mut slots = Slots::new()?;
    for (word, known, what, goes_to, then) in rows {
        let protocol = if *what == Udp { UDP } else { TCP };
        slots.set::<K>(protocol, |_| *word, flags)?;
        let (client, key) = slots.flow::<K>(protocol, *known)?;
        let case = format!("{word:?}, {known:?}, {what:?} from {client}");
        let got = slots.send::<K>(client, *what).with_context(|| case.clone())?;
        ensure!(got == *goes_to, "{case}: went to {got:?}, not {goes_to:?}");
        let recorded = slots.owners(&key)?;
        ensure!(
            recorded == *then,
            "{case}: recorded as {recorded:?}, not {then:?}"
        );
    }
    Ok(())
}

#[test]
fn packet_follows_its_slot_and_record() -> Result<()> {
    rows::<TupleV4>(&ROWS, 0)?;
    rows::<TupleV6>(&ROWS, 0)
}

#[test]
fn where_every_flow_is_recorded_no_slot_is_an_exception() -> Result<()> {
    const ROWS: [Row; 8] = [
        (STABLE, UNKNOWN, Syn, A, [NONE, A, NONE]),
        (STABLE, UNKNOWN, Ack, A, [NONE, NONE, A]),
        (STABLE, UNKNOWN, Udp, A, [NONE, NONE, A]),
        (STABLE, SEEN_C, Udp, C, TRACKED_C),
        (STABLE, TRACKED_C, Ack, C, TRACKED_C),
        (TRANSITION, UNKNOWN, Ack, A, [NONE, NONE, A]),
        (PINNED, UNKNOWN, Syn, B, [NONE, B, NONE]),
        (EMPTY, TRACKED_C, Ack, C, TRACKED_C),
    ];
    rows::<TupleV4>(&ROWS, TRACKS_ALL)?;
    rows::<TupleV6>(&ROWS, TRACKS_ALL)
}

fn dead<K: Key>() -> Result<()> {
    let mut slots = Slots::new()?;
    slots.set::<K>(TCP, |_| TRANSITION, 0)?;
    // C is declared dead, and then recovers with another generation: in both cases its records do not count.
    for (flags, generation) in [(IN_USE, GENERATION), (IN_USE | ALIVE, GENERATION.next())] {
        slots.write(C, |backend| {
            backend.flags = backend.flags & !ALIVE | flags;
            backend.generation = generation;
        })?;
        let (client, key) = slots.flow::<K>(TCP, TRACKED_C)?;
        ensure!(slots.send::<K>(client, Ack)? == A, "a dead owner's flow moves");
        ensure!(slots.owners(&key)? == [C, NONE, A], "and is recorded again");
        ensure!(slots.send::<K>(client, Ack)? == A);
        ensure!(slots.owners(&key)? == [A, NONE, NONE]);
    }
    Ok(())
}

#[test]
fn a_record_of_a_dead_backend_calls_no_flow_back() -> Result<()> {
    dead::<TupleV4>()?;
    dead::<TupleV6>()
}

fn turns<K: Key>() -> Result<()> {
    let mut slots = Slots::new()?;
    let owners = [A, B, C];
    slots.set::<K>(
        TCP,
        |index| RingSlot::stable(owners[index as usize % 3]),
        TRACKS_ALL | IN_TURN,
    )?;
    let mut went = Vec::new();
    for _ in 0..12 {
        let (client, _) = slots.flow::<K>(TCP, UNKNOWN)?;
        let owner = slots.send::<K>(client, Syn)?;
        for what in [Syn, Ack, Ack] {
            ensure!(slots.send::<K>(client, what)? == owner, "a flow stays");
        }
        went.push(owner);
    }
    let first = owners.iter().position(|owner| *owner == went[0]);
    let first = first.context("someone else's packet")?;
    let wanted: Vec<_> = owners.into_iter().cycle().skip(first).take(went.len()).collect();
    ensure!(went == wanted, "{went:?}");
    Ok(())
}

#[test]
fn new_flows_take_turns_and_their_packets_do_not() -> Result<()> {
    turns::<TupleV4>()?;
    turns::<TupleV6>()
}

/// Further ports of a service whose flows are spread by port.
const MORE_PORTS: RangeInclusive<u16> = 30_000..=30_029;

fn by_port<K: Key>() -> Result<()> {
    let bench = Bench::with(|key, service| {
        if key.port == L2DSR {
            service.more_ports = MORE_PORTS.collect();
            service.affinity = Affinity::Port;
        }
    })?;
    let slots = Slots {
        bench,
        next_port: 20_000,
    };
    let owners = [A, B, C];
    for protocol in [TCP, UDP] {
        slots.set::<K>(protocol, |index| RingSlot::stable(owners[index as usize % 3]), 0)?;
        let mut met = BTreeSet::new();
        for port in MORE_PORTS.chain([L2DSR]) {
            let index = ring_slot::index(hash::port(NetPort::new(port)), 251);
            let wanted = owners[index as usize % 3];
            for client in 40_000..40_008 {
                let (client, vip) = (K::SIDE.client(client), K::SIDE.vip(port));
                let sent = match protocol {
                    TCP => Frame::tcp(client, vip, SYN, 64, b""),
                    _ => Frame::udp(client, vip, 64, b"x"),
                };
                let (action, out, reason) = slots.bench.run(&sent)?;
                ensure!(
                    (action, reason) == (TX, Reason::SentBack),
                    "port {port}: {reason:?}"
                );
                ensure!(
                    out.bytes().starts_with(&mac(wanted)),
                    "{client} to port {port}: not to {wanted:?}"
                );
            }
            met.insert(wanted);
        }
        ensure!(met.len() == 3, "31 ports lead to {met:?} alone");
    }
    Ok(())
}

#[test]
fn where_the_port_decides_flows_of_all_clients_to_a_port_share_a_backend() -> Result<()> {
    by_port::<TupleV4>()?;
    by_port::<TupleV6>()
}
