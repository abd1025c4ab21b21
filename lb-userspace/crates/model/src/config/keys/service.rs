//! Keys of `[[service]]` and its tables, health checks aside.

use lb_common::service::Mode;

use super::{
    access::{Access, Keys, Lens, field, option, written},
    backend::BACKEND,
    codec::{BOOL, PORT_NUMBER, PREFIX_LIST, RING_SIZE, STRING, TIME, count, port_list, quoted, word},
    health::HEALTH,
    key::{KeyTable, Shape},
    row::{
        BOOLEAN, DURATION, NUMBER, PORT, PREFIXES, TEXT, default, described, number, one_of, optional,
        required, table, value,
    },
};
use crate::{
    config::values::{self, ValueError},
    state::{
        clients::Clients,
        desired::Desired,
        quic::{Fingerprint, QuicKey, QuicSettings},
        service::{Affinity, Algorithm, OnDown, OnEmpty, Protocol, Service, Tracking},
        words::Word,
    },
};

/// `[[service]]`.
pub const SERVICE: KeyTable = KeyTable {
    header: "[[service]]",
    prefix: "",
    about: "A service: what clients connect to, and how flows reach its backends.",
    keys: &[
        required("name", written!(Service: |service: &Service| Some(quoted(&service.name))), TEXT, "\"web\"", "Unique name of the service").without_option(),
        required(
            "address", written!(Service: |service: &Service| Some(quoted(service.key.address_text()))),
            described("IP address or prefix of addresses", "IP"),
            "\"192.0.2.10\"",
            "Address that clients connect to (VIP), or a prefix of such addresses",
        )
        .checked(|text| values::service_address(text).map(drop))
        .more(
            "A prefix (`\"192.0.2.0/28\"`) is all of its addresses, which must be routed to this machine. A service of one address goes \
             before, and a longer prefix before a shorter one: [modes.md](modes.md#prefixes-as-addresses).",
        ),
        required("port", written!(Service: |service: &Service| service.ports.is_empty().then(|| service.key.port.to_string())), PORT, "80", "Port that clients connect to")
            .instead_of("ports")
            .more("0 is every port that no other service of the address has; on an address of this machine, its own sockets go before. Needed unless `ports` is set."),
        optional(
            "ports", written!(Service: |service: &Service| (!service.ports.is_empty()).then(|| port_list(&service.ports))),
            value(Shape::Numbers, "list of ports and ranges, up to 1,024 ports", "PORTS"),
            ("only `port`", "[80, 443, \"8000-8100\"]"),
            "Several ports and ranges, in place of port",
        )
        .instead_of("port")
        .remark("for example 80,443,8000-8100")
        .more("The first one identifies the service: it keeps its flows while others come and go."),
        default("protocol", written!(Service: |service: &Service| Some(quoted(service.key.protocol.word()))), one_of::<Protocol>(), "\"tcp\"", "Transport protocol"),
        default("mode", field!(Service.mode = word()), one_of::<Mode>(), "\"nat\"", "How packets reach the backends").more("See [modes.md](modes.md)."),
        default("algorithm", field!(Service.algorithm = word()), one_of::<Algorithm>(), "\"maglev\"", "How new flows are spread").more(
            "`maglev` is consistent hashing: a change of backends moves few flows. `round-robin` gives new flows to the backends \
             in turn; it needs mode `nat` or `tracking = \"full\"`.",
        ),
        default("affinity", field!(Service.affinity = word()), one_of::<Affinity>(), "\"none\"", "What keeps flows together at one backend").more(
            "`none`: each flow on its own. `source`: all flows of a client address. `port`: all flows to a port of the service, from \
             any client (VoIP, TURN); it needs several ports.",
        ),
        default("tracking", field!(Service.tracking = word()), one_of::<Tracking>(), "\"just-enough\"", "Which flows are recorded").more(
            "`just-enough`: only flows that a change would move; `full`: all. Mode `nat` records all flows in any case.",
        ),
        default(
            "ring_size", field!(Service.ring_size = RING_SIZE),
            value(Shape::NumberOr("auto"), "`\"auto\"`, or a prime from 251 to 131071", "SLOTS"),
            "\"auto\"",
            "Slots of the Maglev ring",
        )
        .more(
            "`auto` takes at least 100 for each backend. Set a number where weights differ so much that the smallest share would \
             be a few slots.",
        ),
        default(
            "on_empty", field!(Service.on_empty = word()),
            one_of::<OnEmpty>(),
            "\"drop\"",
            "What happens to new flows while no backend takes any",
        )
        .takes("POLICY")
        .more(
            "`drop`: their packets are dropped. `reject`: they are answered with a TCP reset or an ICMP \"port unreachable\", up \
             to 1,000 a second for each service. `all`: enabled backends take them, also if checks call them down.",
        ),
        default(
            "on_down", field!(Service.on_down = word()),
            one_of::<OnDown>(),
            "\"move\"",
            "What happens to established flows of a backend that checks call down",
        )
        .takes("POLICY")
        .more(
            "`move`: after `on_down_after` they go to another backend, which resets them, so that clients reconnect. `keep`: they \
             stay. New flows go elsewhere at once.",
        ),
        default(
            "on_down_after", field!(Service.on_down_after = TIME),
            DURATION,
            "\"3s\"",
            "Time for which a backend that went down keeps its established flows",
        )
        .more("`0s`: flows move as soon as the backend is down, even for a blip."),
        default(
            "max_removed_percent", field!(Service.max_removed_percent = count()),
            number(0, 100),
            "100",
            "Share of the weight that checks alone may take out, in percent",
        )
        .takes("PERCENT")
        .more(
            "Beyond it, backends that are down take flows all the same (panic mode), the last by address first, so that a broken \
             check does not empty the service.",
        ),
        default(
            "backup_below", field!(Service.backup_below = count()),
            number(1, u32::MAX),
            "1",
            "Backups take new flows while fewer of the other backends can",
        ),
        default(
            "slow_start", field!(Service.slow_start = TIME),
            DURATION,
            "\"0s\"",
            "Time over which the weight of a new or recovered backend rises, in ten steps",
        )
        .more("`0s`: it has its whole weight at once."),
        optional(
            "idle_timeout", option!(Service.idle.established = TIME),
            DURATION,
            ("`2h4m` for TCP, `5m` for UDP", "\"2h4m\""),
            "Time without packets after which an established flow is forgotten; from 1s, whole seconds",
        )
        .more(
            "Mode `nat` records every flow; the other modes do so with `tracking = \"full\"`, for at least three times `transition`.",
        ),
        optional(
            "half_open_timeout", option!(Service.idle.half_open = TIME),
            DURATION,
            ("`1m`", "\"1m\""),
            "The same for a flow with packets in one direction only",
        ),
        optional(
            "closed_timeout", option!(Service.idle.closed = TIME),
            DURATION,
            ("`10s`", "\"10s\""),
            "The same for a TCP connection that was closed or reset",
        ),
        table("guard", Access::Table, &GUARD, "Which clients may send, and how many flows may begin"),
        table("health", Access::Table, &HEALTH, "How backends are checked"),
        table("agent", Access::Table, &AGENT, "Agents beside the backends"),
        table("clients", Access::Table, &CLIENTS, "Clients that go to a group of backends")
            .takes("GROUP=PREFIXES")
            .remark("for example near=10.0.0.0/8,192.0.2.0/24, once for each group; replaces all of them, \"\" removes them"),
        table("quic", Access::Table, &QUIC, "QUIC connection ids that name a backend").without_option(),
        table("backend", Access::Table, &BACKEND, "Backends; one table for each").of_file(),
    ],
};

/// `[service.guard]`.
pub const GUARD: KeyTable = KeyTable {
    header: "[service.guard]",
    prefix: "guard.",
    about: "Which clients may send to the service (ACL), and how many flows may begin (rate limits): [guard.md](guard.md).",
    keys: &[
        default(
            "allow",
            field!(Guard.allow = PREFIX_LIST),
            PREFIXES,
            "[]",
            "Prefixes of clients that may send, and no others; empty: all",
        )
        .more(
            "Of several prefixes that contain a client, the longest decides; a prefix in both lists denies.",
        ),
        default(
            "deny",
            field!(Guard.deny = PREFIX_LIST),
            PREFIXES,
            "[]",
            "Prefixes of clients that may not send",
        ),
        default(
            "new_flows",
            field!(Guard.new_flows.per_second = count()),
            NUMBER,
            "0",
            "New flows a second of all clients; 0: no limit",
        ),
        default(
            "new_flows_burst",
            field!(Guard.new_flows.burst = count()),
            NUMBER,
            "0",
            "New flows at once; 0: as many as in a second",
        ),
        default(
            "source_new_flows",
            field!(Guard.source_new_flows.per_second = count()),
            NUMBER,
            "0",
            "New flows a second of each source; 0: no limit",
        )
        .more("A source is all clients whose addresses begin with the same `source_bits`."),
        default(
            "source_new_flows_burst",
            field!(Guard.source_new_flows.burst = count()),
            NUMBER,
            "0",
            "New flows at once of each source; 0: as many as in a second",
        ),
        default(
            "source_bits",
            field!(Guard.source_bits = count()),
            number(0, 64),
            "0",
            "First bits of a client's address that make a source; 0: 32 of IPv4, 64 of IPv6",
        )
        .takes("BITS")
        .more("At most 32 where the service's address is IPv4."),
    ],
};

/// `[service.agent]`.
pub const AGENT: KeyTable = KeyTable {
    header: "[service.agent]",
    prefix: "agent.",
    about: "Programs beside the backends that set weight, drain and maintenance by HAProxy's agent-check protocol: \
            [agents.md](agents.md). Without the table, no agent is asked.",
    keys: &[
        default(
            "enabled",
            field!(Agent.enabled = BOOL),
            BOOLEAN,
            "true",
            "Ask the agents; false discards their updates",
        )
        .option("agent"),
        optional(
            "port",
            option!(Agent.port = PORT_NUMBER),
            PORT,
            ("`agent_port` of each backend", "9707"),
            "Port of agents, on the backend's address",
        )
        .more("Needed unless each backend has `agent_port`."),
        default(
            "send",
            field!(Agent.send = STRING),
            TEXT,
            "\"\"",
            "Text sent to agents first",
        )
        .secret(),
        default(
            "interval",
            field!(Agent.interval = TIME),
            DURATION,
            "\"2s\"",
            "Time between two questions to an agent",
        ),
        default(
            "timeout",
            field!(Agent.timeout = TIME),
            DURATION,
            "\"1s\"",
            "Time after which a question has failed",
        ),
    ],
};

/// The key, or its fingerprint.
const QUIC_KEY: Access = Access::Quic(Lens {
    read: |of, input| {
        let known = input.known;
        let key = input
            .table
            .secret(input.reporter, input.key, |text| quic_key(text, known));
        of.key = key;
    },
    write: |of, keys| {
        let key = of.key.as_ref()?;
        Some(match keys {
            Keys::Hidden => quoted(key.fingerprint()),
            Keys::Whole => quoted(key.reveal()),
        })
    },
});

/// A key, or the fingerprint of one that `known` has.
fn quic_key(text: &str, known: &Desired) -> Result<QuicKey, ValueError> {
    let Some(fingerprint) = Fingerprint::from_text(text) else {
        return values::hex(text);
    };
    known.quic_key(fingerprint).ok_or_else(|| {
        ValueError::new(
            format!("{fingerprint} stands for a key that is not known here"),
            "write the key itself: 32 hexadecimal digits",
        )
    })
}

/// `[[service.clients]]`.
pub const CLIENTS: KeyTable = KeyTable {
    header: "[[service.clients]]",
    prefix: "",
    about: "Clients whose new flows go to a group of backends while that has one that takes flows, for nearer or canary servers: \
            [clients.md](clients.md). One table for each group.",
    keys: &[
        required(
            "group",
            written!(Clients: |clients: &Clients| Some(quoted(&clients.group))),
            TEXT,
            "\"near\"",
            "Group of backends that the clients go to",
        ),
        required(
            "from",
            written!(Clients: |clients: &Clients| Some(PREFIX_LIST.text(&clients.from))),
            PREFIXES,
            "[\"10.0.0.0/8\", \"2001:db8::/32\"]",
            "Prefixes of the clients",
        )
        .more("Of several prefixes that contain a client, the longest decides, also between groups."),
    ],
};

/// `[[service.quic]]`.
pub const QUIC: KeyTable = KeyTable {
    header: "[[service.quic]]",
    prefix: "",
    about: "QUIC connection ids that name a backend (QUIC-LB), so that clients keep theirs when their address changes: \
            [quic.md](quic.md). One table for each generation of keys in use.",
    keys: &[
        required(
            "config_id",
            written!(Quic: |quic: &QuicSettings| Some(quic.config_id.to_string())),
            number(0, 6),
            "0",
            "First three bits of connection ids",
        ),
        required(
            "server_id_length",
            written!(Quic: |quic: &QuicSettings| Some(quic.server_id_length.to_string())),
            number(1, 15),
            "8",
            "Bytes of a server id",
        )
        .more("Server id and nonce have at most 19 bytes together."),
        default(
            "nonce_length",
            field!(Quic.nonce_length = count()),
            number(4, 18),
            "8",
            "Bytes of a nonce",
        ),
        optional(
            "key",
            QUIC_KEY,
            described("32 hexadecimal digits", "HEX"),
            (
                "connection ids are not encrypted",
                "\"8f95f09245765f80256934e50c66207f\"",
            ),
            "AES-128 key that encrypts connection ids",
        ),
    ],
};
