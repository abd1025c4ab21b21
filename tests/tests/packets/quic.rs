//! QUIC connection ids that name a backend, from the draft's test vectors, so that none of our code wrote them.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, HashMap};
use lb_common::{
    addr::NetPort,
    backend::{ALIVE, Backend, BackendId},
    map_names,
    quic::{Config, ConfigKey, Server, ServerKey},
    quic_place::{CONFIG_PLACES, PlacedConfig, PlacedServer},
    reason::Reason,
    service::{QUIC, Service, ServiceId, ServiceKeyV4, ServiceKeyV6, UDP},
};

use super::{
    FAMILIES, TX,
    bench::{Bench, DNAT, GUE_V4, GUE_V6, IPIP_V4, IPIP_V6, L2DSR},
    build::{BACKEND_MAC, Frame, LB_MAC},
};

/// A second backend, with an unused number, which the ring never selects.
const NAMED: BackendId = BackendId(60_010);
const NAMED_MAC: [u8; 6] = [2, 0, 0, 0, 7, 7];

const KEY: u128 = 0x8f95_f092_4576_5f80_2569_34e5_0c66_207f;

/// A vector of the draft: config id, server id, bytes of the nonce, key, connection id.
type Vector = (u8, &'static [u8], usize, Option<u128>, &'static [u8]);

/// Appendix B of draft-ietf-quic-load-balancers-21: plaintext, three and four passes, a single one.
const VECTORS: [Vector; 5] = [
    (
        0,
        &[0xc4, 0x60, 0x5e],
        4,
        None,
        &[0x07, 0xc4, 0x60, 0x5e, 0x45, 0x04, 0xcc, 0x4f],
    ),
    (
        0,
        &[0xed, 0x79, 0x3a],
        4,
        Some(KEY),
        &[0x07, 0x20, 0xb1, 0xd0, 0x7b, 0x35, 0x9d, 0x3c],
    ),
    (
        1,
        &[0xed, 0x79, 0x3a, 0x51, 0xd4, 0x9b, 0x8f, 0x5f, 0xab, 0x65],
        5,
        Some(KEY),
        &[
            0x2f, 0xcc, 0x38, 0x1b, 0xc7, 0x4c, 0xb4, 0xfb, 0xad, 0x28, 0x23, 0xa3, 0xd1, 0xf8, 0xfe, 0xd2,
        ],
    ),
    (
        2,
        &[0xed, 0x79, 0x3a, 0x51, 0xd4, 0x9b, 0x8f, 0x5f],
        8,
        Some(KEY),
        &[
            0x50, 0x4d, 0xd2, 0xd0, 0x5a, 0x7b, 0x0d, 0xe9, 0xb2, 0xb9, 0x90, 0x7a, 0xfb, 0x5e, 0xcf, 0x8c,
            0xc3,
        ],
    ),
    (
        0,
        &[0xed, 0x79, 0x3a, 0x51, 0xd4, 0x9b, 0x8f, 0x5f, 0xab],
        9,
        Some(KEY),
        &[
            0x12, 0x57, 0x79, 0xc9, 0xcc, 0x86, 0xbe, 0xb3, 0xa3, 0xa4, 0xa3, 0xca, 0x96, 0xfc, 0xe4, 0xbf,
            0xe0, 0xcd, 0xbc,
        ],
    ),
];

fn short(id: &[u8]) -> Vec<u8> {
    [&[0x40], id, &[0x5a; 21]].concat()
}

fn long(id: &[u8]) -> Result<Vec<u8>> {
    let length = [u8::try_from(id.len())?];
    Ok([&[0xc0, 0, 0, 0, 1], &length[..], id, &[0x5a; 40]].concat())
}

macro_rules! service {
    ($bench:expr, $vip:expr, $address:expr, $key:ident, $map:ident, $flags:expr) => {{
        let mut services: HashMap<_, $key, Service> = HashMap::try_from($bench.map(map_names::$map)?)?;
        let key = $key {
            address: $address.into(),
            port: NetPort::new($vip.port()),
            protocol: UDP,
            pad: 0,
        };
        let mut service = services.get(&key, 0)?;
        service.flags = service.flags & !QUIC | $flags;
        services.insert(key, service, 0)?;
        $bench.ask_table(key.place())?;
        service
    }};
}

/// The record of a service of UDP, with the flag set or not.
fn service(bench: &Bench, vip: SocketAddr, flag: u16) -> Result<Service> {
    Ok(match vip.ip() {
        IpAddr::V4(address) => service!(bench, vip, address, ServiceKeyV4, SERVICES_V4, flag),
        IpAddr::V6(address) => service!(bench, vip, address, ServiceKeyV6, SERVICES_V6, flag),
    })
}

/// A backend that only connection ids name.
struct Named<'a> {
    bench: &'a Bench,
    service: ServiceId,
    backend: BackendId,
}

impl<'a> Named<'a> {
    /// Makes a service read connection ids, without configurations yet.
    fn new(bench: &'a Bench, vip: SocketAddr) -> Result<Self> {
        Self::with(bench, vip, NAMED)
    }

    /// As [`Self::new`], for a backend of another number.
    fn with(bench: &'a Bench, vip: SocketAddr, named: BackendId) -> Result<Self> {
        let service = service(bench, vip, QUIC)?.id;
        let mut backends: Array<_, Backend> = Array::try_from(bench.map(map_names::BACKENDS)?)?;
        let mut record = Backend::default();
        for backend in 1..100 {
            let other = backends.get(&backend, 0)?;
            if other.service == service && other.protocol == UDP {
                record = other;
            }
        }
        ensure!(record != Backend::default(), "the service has a backend");
        record.next_hop_mac = NAMED_MAC;
        record.flags |= ALIVE;
        backends.set(u32::from(named.0), record, 0)?;
        Ok(Self {
            bench,
            service,
            backend: named,
        })
    }

    /// Makes the service read the vector's connection ids too, whose server is [`NAMED`], by entries of the tables alone: packets
    /// find them there if their places hold no copies.
    fn by(&self, vector: Vector) -> Result<()> {
        let (config, key) = self.entries(vector)?;
        let mut configs: HashMap<_, ConfigKey, Config> =
            HashMap::try_from(self.bench.map(map_names::QUIC_CONFIGS)?)?;
        configs.insert(ConfigKey::new(self.service, vector.0), config, 0)?;
        let mut servers: HashMap<_, ServerKey, Server> =
            HashMap::try_from(self.bench.map(map_names::QUIC_SERVERS)?)?;
        Ok(servers.insert(key, self.server(), 0)?)
    }

    /// As [`Self::by`], by copies alone.
    fn by_copies(&self, vector: Vector) -> Result<()> {
        let (config, key) = self.entries(vector)?;
        self.place(PlacedServer::place(&key), PlacedServer::new(key, self.server()))?;
        let key = ConfigKey::new(self.service, vector.0);
        let mut places: Array<_, PlacedConfig> =
            Array::try_from(self.bench.map(map_names::QUIC_CONFIG_PLACES)?)?;
        Ok(places.set(PlacedConfig::place(key), PlacedConfig::new(key, config), 0)?)
    }

    /// Puts the copy of a server in a place.
    fn place(&self, place: u32, copy: PlacedServer) -> Result<()> {
        let mut places: Array<_, PlacedServer> =
            Array::try_from(self.bench.map(map_names::QUIC_SERVER_PLACES)?)?;
        Ok(places.set(place, copy, 0)?)
    }

    fn entries(&self, (id, server, nonce, key, _): Vector) -> Result<(Config, ServerKey)> {
        let key = key.map(u128::to_be_bytes);
        let config = Config::new(id, server.len(), nonce, key).map_err(|e| anyhow::anyhow!("{e:?}"))?;
        let key = config.key_of(self.service, server);
        Ok((config, key.context("the id has another length")?))
    }

    fn server(&self) -> Server {
        let backend = self.backend;
        Server { backend, pad: 0 }
    }

    /// Has the service read none.
    fn by_nothing(&self) -> Result<()> {
        let mut configs: HashMap<_, ConfigKey, Config> =
            HashMap::try_from(self.bench.map(map_names::QUIC_CONFIGS)?)?;
        for key in configs.keys().collect::<Result<Vec<_>, _>>()? {
            configs.remove(&key)?;
        }
        let mut servers: HashMap<_, ServerKey, Server> =
            HashMap::try_from(self.bench.map(map_names::QUIC_SERVERS)?)?;
        for key in servers.keys().collect::<Result<Vec<_>, _>>()? {
            servers.remove(&key)?;
        }
        let mut places: Array<_, PlacedConfig> =
            Array::try_from(self.bench.map(map_names::QUIC_CONFIG_PLACES)?)?;
        for place in 0..CONFIG_PLACES {
            if places.get(&place, 0)? != PlacedConfig::default() {
                places.set(place, PlacedConfig::default(), 0)?;
            }
        }
        let mut places: Array<_, PlacedServer> =
            Array::try_from(self.bench.map(map_names::QUIC_SERVER_PLACES)?)?;
        for key in VECTORS.map(|vector| self.entries(vector)) {
            places.set(PlacedServer::place(&key?.1), PlacedServer::default(), 0)?;
        }
        Ok(())
    }

    /// Changes the record of [`NAMED`].
    fn change(&self, change: impl FnOnce(&mut Backend)) -> Result<()> {
        let mut backends: Array<_, Backend> = Array::try_from(self.bench.map(map_names::BACKENDS)?)?;
        let number = u32::from(self.backend.0);
        let mut record = backends.get(&number, 0)?;
        change(&mut record);
        Ok(backends.set(number, record, 0)?)
    }
}

/// Makes services read connection ids of several configurations; returns the ids that name a backend.
pub(crate) fn name(bench: &Bench, vips: &[SocketAddr]) -> Result<[&'static [u8]; 3]> {
    let vectors = [VECTORS[0], VECTORS[2], VECTORS[3]];
    for (vip, number) in vips.iter().zip(NAMED.0..) {
        let named = Named::with(bench, *vip, BackendId(number))?;
        for vector in vectors {
            named.by(vector)?;
        }
    }
    Ok(vectors.map(|vector| vector.4))
}

fn expect(bench: &Bench, case: &str, frame: &Frame, mac: [u8; 6]) -> Result<()> {
    let (action, output, reason) = bench.run(frame)?;
    ensure!(action == TX, "{case}: {}", reason.name());
    ensure!(
        output.bytes()[..6] == mac,
        "{case}: went to {:02x?}",
        &output.bytes()[..6]
    );
    Ok(())
}

/// Services of UDP, by their port: each mode with backends of each family.
const WAYS: [u16; 7] = [53, DNAT, L2DSR, IPIP_V4, IPIP_V6, GUE_V4, GUE_V6];

#[test]
fn a_connection_id_leads_to_its_server_from_any_address() -> Result<()> {
    let bench = Bench::new()?;
    bench.ports(3000..=4000)?;
    let mut port = 40_000;
    for side in FAMILIES {
        for vip in WAYS.map(|port| side.vip(port)) {
            let named = Named::new(&bench, vip)?;
            let held = [Named::by, Named::by_copies].into_iter();
            for (by, vector) in held.flat_map(|by| VECTORS.map(|vector| (by, vector))) {
                named.by_nothing()?;
                by(&named, vector)?;
                let id = vector.4;
                let [mut foreign, mut unconfigured, mut unknown] = [0; 3].map(|_| id.to_vec());
                foreign[0] ^= 0x80;
                unconfigured[0] |= 0xe0;
                unknown[1] ^= 1;
                let cut = id.len() - 1;
                let initial = long(&[0xe7; 8])?;
                for (name, packets) in [
                    ("a client's own id", vec![(initial.clone(), BACKEND_MAC)]),
                    ("short header", vec![(short(id), NAMED_MAC)]),
                    ("long header", vec![(long(id)?, NAMED_MAC)]),
                    (
                        "more than is read",
                        vec![(long(&[id, &[7]].concat())?, NAMED_MAC)],
                    ),
                    ("another configuration", vec![(short(&foreign), BACKEND_MAC)]),
                    ("of no configuration", vec![(short(&unconfigured), BACKEND_MAC)]),
                    ("id of no server", vec![(short(&unknown), BACKEND_MAC)]),
                    ("an id that is too short", vec![(long(&id[..cut])?, BACKEND_MAC)]),
                    ("no id", vec![(long(&[])?, BACKEND_MAC)]),
                    (
                        "a packet that ends within",
                        vec![(short(id)[..id.len()].to_vec(), BACKEND_MAC)],
                    ),
                    ("no QUIC", vec![(Vec::new(), BACKEND_MAC)]),
                    (
                        "a known flow that turns to another",
                        vec![
                            (initial.clone(), BACKEND_MAC),
                            (short(id), NAMED_MAC),
                            (short(id), NAMED_MAC),
                        ],
                    ),
                ] {
                    // Each from a new port: to a balancer, a client that has moved.
                    port += 1;
                    for (payload, mac) in packets {
                        let frame = Frame::udp(side.client(port), vip, 64, &payload);
                        expect(&bench, &format!("{name}, {vip}, {id:02x?}"), &frame, mac)?;
                    }
                }
            }
            port += 1;
            let frame = Frame::udp(side.client(port), vip, 64, &short(VECTORS[4].4));
            expect(&bench, "a living server's id", &frame, NAMED_MAC)?;
            named.change(|backend| backend.flags &= !ALIVE)?;
            expect(&bench, "a dead server's id", &frame, BACKEND_MAC)?;
            named.change(|backend| {
                backend.flags |= ALIVE;
                backend.service.0 += 1;
            })?;
            expect(&bench, "a server of another service", &frame, BACKEND_MAC)?;
            named.change(|backend| backend.service.0 -= 1)?;
            expect(&bench, "alive again", &frame, NAMED_MAC)?;
            service(&bench, vip, 0)?;
            let frame = Frame::udp(side.client(port + 1), vip, 64, &short(VECTORS[4].4));
            expect(&bench, "a service that does not ask", &frame, BACKEND_MAC)?;
        }
    }
    Ok(())
}

#[test]
fn ids_of_several_generations_are_read_side_by_side() -> Result<()> {
    let bench = Bench::new()?;
    bench.ports(3000..=4000)?;
    for side in FAMILIES {
        for vip in WAYS.map(|port| side.vip(port)) {
            let named = Named::new(&bench, vip)?;
            // Three of the vectors have ids of their own.
            let generations = [VECTORS[0], VECTORS[2], VECTORS[3]];
            for known in 0..=generations.len() {
                named.by_nothing()?;
                for vector in &generations[..known] {
                    named.by(*vector)?;
                }
                for (place, vector) in generations.iter().enumerate() {
                    let port = 50_000 + u16::try_from(10 * known + place)?;
                    let frame = Frame::udp(side.client(port), vip, 64, &short(vector.4));
                    let mac = if place < known { NAMED_MAC } else { BACKEND_MAC };
                    expect(&bench, &format!("{place} of {known}, {vip}"), &frame, mac)?;
                }
            }
        }
    }
    Ok(())
}

/// Of two keys with one place, one has its copy there, and packets of the other find their entry in the table.
#[test]
fn a_copy_of_another_key_hides_no_server() -> Result<()> {
    let bench = Bench::new()?;
    for side in FAMILIES {
        let vip = side.vip(L2DSR);
        let named = Named::new(&bench, vip)?;
        let [asked, other] = [VECTORS[0], VECTORS[2]];
        let frame = Frame::udp(side.client(40_000), vip, 64, &short(asked.4));
        let ((_, own), (_, other)) = (named.entries(asked)?, named.entries(other)?);
        let place = PlacedServer::place(&own);
        let unused = Server {
            backend: BackendId(NAMED.0 + 1),
            pad: 0,
        };
        named.by_nothing()?;
        named.by(asked)?;
        named.place(place, PlacedServer::new(other, unused))?;
        expect(&bench, "another key's copy", &frame, NAMED_MAC)?;
        // One that is being written.
        named.place(place, PlacedServer::new(own, Server::default()))?;
        expect(&bench, "half a copy", &frame, NAMED_MAC)?;
        named.by_nothing()?;
        named.by_copies(asked)?;
        expect(&bench, "its own copy", &frame, NAMED_MAC)?;
        named.place(place, PlacedServer::new(other, named.server()))?;
        expect(&bench, "no entry", &frame, BACKEND_MAC)?;
    }
    Ok(())
}

/// The server id is all that the other end gets to see of this.
#[test]
fn a_named_packet_is_handed_over_to_the_byte() -> Result<()> {
    let bench = Bench::new()?;
    for side in FAMILIES {
        let vip = side.vip(L2DSR);
        Named::new(&bench, vip)?.by(VECTORS[2])?;
        let sent = Frame::udp(side.client(40_000), vip, 64, &short(VECTORS[2].4));
        let mut wanted = sent.bytes().to_vec();
        wanted[..6].copy_from_slice(&NAMED_MAC);
        wanted[6..12].copy_from_slice(&LB_MAC);
        let wanted = Frame::from_bytes(wanted);
        bench.expect("l2dsr", &sent, TX, &wanted, Reason::SentBack)?;

        let vip = side.vip(53);
        Named::new(&bench, vip)?.by(VECTORS[2])?;
        bench.one_port(3000)?;
        let payload = short(VECTORS[2].4);
        let sent = Frame::udp(side.client(40_000), vip, 64, &payload);
        let wanted = Frame::udp(side.snat(3000), side.backend(5353), 63, &payload).lb_to_backend();
        let mut wanted = wanted.bytes().to_vec();
        wanted[..6].copy_from_slice(&NAMED_MAC);
        bench.expect("nat", &sent, TX, &Frame::from_bytes(wanted), Reason::SentBack)?;
    }
    Ok(())
}
