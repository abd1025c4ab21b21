//! Keys of `[[service]]` and its tables, health checks aside.

use lb_common::service::Mode;

use super::{
    BOOLEAN, DURATION, HEALTH, KeyTable, NUMBER, PORT, PREFIXES, TEXT, Value, default, one_of, optional,
    required, table,
};
use crate::state::{
    backend::Admin,
    service::{Affinity, Algorithm, OnDown, OnEmpty, Protocol, Tracking},
};

/// `[[service]]`.
pub const SERVICE: KeyTable = KeyTable {
    header: "[[service]]",
    about: "A service: what clients connect to, and how flows reach its backends.",
    keys: &[
        required("name", TEXT, "\"web\"", "Unique name of the service"),
        required(
            "address",
            Value::Is("IP address or prefix of addresses"),
            "\"192.0.2.10\"",
            "Address that clients connect to (VIP), or a prefix of such addresses",
        )
        .more(
            "A prefix (`\"192.0.2.0/28\"`) is all of its addresses, which must be routed to this machine. A service of one address goes \
             before, and a longer prefix before a shorter one: [modes.md](modes.md#prefixes-as-addresses).",
        ),
        required("port", PORT, "80", "Port that clients connect to")
            .more("0 is every port that no other service of the address has; on an address of this machine, its own sockets go before. Needed unless `ports` is set."),
        optional(
            "ports",
            Value::Is("list of ports and ranges, up to 1,024 ports"),
            ("only `port`", "[80, 443, \"8000-8100\"]"),
            "Several ports and ranges, in place of port",
        )
        .more("The first one identifies the service: it keeps its flows while others come and go."),
        default("protocol", one_of::<Protocol>(), "\"tcp\"", "Transport protocol"),
        default("mode", one_of::<Mode>(), "\"nat\"", "How packets reach the backends").more("See [modes.md](modes.md)."),
        default("algorithm", one_of::<Algorithm>(), "\"maglev\"", "How new flows are spread").more(
            "`maglev` is consistent hashing: a change of backends moves few flows. `round-robin` gives new flows to the backends \
             in turn; it needs mode `nat` or `tracking = \"full\"`.",
        ),
        default("affinity", one_of::<Affinity>(), "\"none\"", "What keeps flows together at one backend").more(
            "`none`: each flow on its own. `source`: all flows of a client address. `port`: all flows to a port of the service, from \
             any client (VoIP, TURN); it needs several ports.",
        ),
        default("tracking", one_of::<Tracking>(), "\"just-enough\"", "Which flows are recorded").more(
            "`just-enough`: only flows that a change would move; `full`: all. Mode `nat` records all flows in any case.",
        ),
        default(
            "ring_size",
            Value::Is("`\"auto\"`, or a prime from 251 to 131071"),
            "\"auto\"",
            "Slots of the Maglev ring",
        )
        .more(
            "`auto` takes at least 100 for each backend. Set a number where weights differ so much that the smallest share would \
             be a few slots.",
        ),
        default(
            "on_empty",
            one_of::<OnEmpty>(),
            "\"drop\"",
            "What happens to new flows while no backend takes any",
        )
        .more(
            "`drop`: their packets are dropped. `reject`: they are answered with a TCP reset or an ICMP \"port unreachable\", up \
             to 1,000 a second for each service. `all`: enabled backends take them, also if checks call them down.",
        ),
        default(
            "on_down",
            one_of::<OnDown>(),
            "\"move\"",
            "What happens to established flows of a backend that checks call down",
        )
        .more(
            "`move`: after `on_down_after` they go to another backend, which resets them, so that clients reconnect. `keep`: they \
             stay. New flows go elsewhere at once.",
        ),
        default(
            "on_down_after",
            DURATION,
            "\"3s\"",
            "Time for which a backend that went down keeps its established flows",
        )
        .more("`0s`: flows move as soon as the backend is down, even for a blip."),
        default(
            "max_removed_percent",
            Value::Is("0 to 100"),
            "100",
            "Share of the weight that checks alone may take out, in percent",
        )
        .more(
            "Beyond it, backends that are down take flows all the same (panic mode), the last by address first, so that a broken \
             check does not empty the service.",
        ),
        default(
            "backup_below",
            Value::Is("from 1"),
            "1",
            "Backups take new flows while fewer of the other backends can",
        ),
        default(
            "slow_start",
            DURATION,
            "\"0s\"",
            "Time over which the weight of a new or recovered backend rises, in ten steps",
        )
        .more("`0s`: it has its whole weight at once."),
        optional(
            "idle_timeout",
            DURATION,
            ("`2h4m` for TCP, `5m` for UDP", "\"2h4m\""),
            "Time without packets after which an established flow is forgotten; from 1s, whole seconds",
        )
        .more(
            "Mode `nat` records every flow; the other modes do so with `tracking = \"full\"`, for at least three times `transition`.",
        ),
        optional(
            "half_open_timeout",
            DURATION,
            ("`1m`", "\"1m\""),
            "The same for a flow with packets in one direction only",
        ),
        optional(
            "closed_timeout",
            DURATION,
            ("`10s`", "\"10s\""),
            "The same for a TCP connection that was closed or reset",
        ),
        table("guard", GUARD.header, "Which clients may send, and how many flows may begin"),
        table("health", HEALTH.header, "How backends are checked"),
        table("agent", AGENT.header, "Agents beside the backends"),
        table("quic", QUIC.header, "QUIC connection ids that name a backend"),
        table("backend", BACKEND.header, "Backends; one table for each"),
    ],
};

/// `[service.guard]`.
pub const GUARD: KeyTable = KeyTable {
    header: "[service.guard]",
    about: "Which clients may send to the service (ACL), and how many flows may begin (rate limits): [guard.md](guard.md).",
    keys: &[
        default(
            "allow",
            PREFIXES,
            "[]",
            "Prefixes of clients that may send, and no others; empty: all",
        )
        .more(
            "Of several prefixes that contain a client, the longest decides; a prefix in both lists denies.",
        ),
        default("deny", PREFIXES, "[]", "Prefixes of clients that may not send"),
        default(
            "new_flows",
            NUMBER,
            "0",
            "New flows a second of all clients; 0: no limit",
        ),
        default(
            "new_flows_burst",
            NUMBER,
            "0",
            "New flows at once; 0: as many as in a second",
        ),
        default(
            "source_new_flows",
            NUMBER,
            "0",
            "New flows a second of each source; 0: no limit",
        )
        .more("A source is all clients whose addresses begin with the same `source_bits`."),
        default(
            "source_new_flows_burst",
            NUMBER,
            "0",
            "New flows at once of each source; 0: as many as in a second",
        ),
        default(
            "source_bits",
            Value::Is("0 to 32 for IPv4, 0 to 64 for IPv6"),
            "0",
            "First bits of a client's address that make a source; 0: 32 of IPv4, 64 of IPv6",
        ),
    ],
};

/// `[service.agent]`.
pub const AGENT: KeyTable = KeyTable {
    header: "[service.agent]",
    about: "Programs beside the backends that set weight, drain and maintenance by HAProxy's agent-check protocol: \
            [agents.md](agents.md). Without the table, no agent is asked.",
    keys: &[
        default(
            "enabled",
            BOOLEAN,
            "true",
            "Ask the agents; false discards their updates",
        ),
        optional(
            "port",
            PORT,
            ("`agent_port` of each backend", "9707"),
            "Port of agents, on the backend's address",
        )
        .more("Needed unless each backend has `agent_port`."),
        default("send", TEXT, "\"\"", "Text sent to agents first"),
        default(
            "interval",
            DURATION,
            "\"2s\"",
            "Time between two questions to an agent",
        ),
        default(
            "timeout",
            DURATION,
            "\"1s\"",
            "Time after which a question has failed",
        ),
    ],
};

/// `[[service.quic]]`.
pub const QUIC: KeyTable = KeyTable {
    header: "[[service.quic]]",
    about: "QUIC connection ids that name a backend (QUIC-LB), so that clients keep theirs when their address changes: \
            [quic.md](quic.md). One table for each generation of keys in use.",
    keys: &[
        required(
            "config_id",
            Value::Is("0 to 6"),
            "0",
            "First three bits of connection ids",
        ),
        required(
            "server_id_length",
            Value::Is("from 1"),
            "8",
            "Bytes of a server id",
        )
        .more("Server id and nonce have at most 19 bytes together."),
        default("nonce_length", Value::Is("from 4"), "8", "Bytes of a nonce"),
        optional(
            "key",
            Value::Is("32 hexadecimal digits"),
            (
                "connection ids are not encrypted",
                "\"8f95f09245765f80256934e50c66207f\"",
            ),
            "AES-128 key that encrypts connection ids",
        ),
    ],
};

/// `[[service.backend]]`.
pub const BACKEND: KeyTable = KeyTable {
    header: "[[service.backend]]",
    about: "A backend: a server that takes flows of the service.",
    keys: &[
        required("name", TEXT, "\"web-1\"", "Name of the backend, unique within the service"),
        required(
            "address",
            Value::Is("IP address, with or without a port, or host name with a port"),
            "\"10.0.0.11:8080\"",
            "Where packets go",
        )
        .more(
            "Without a port, or with port 0, packets keep theirs: for services on port 0, or with several ports. A host name \
             (`\"app.example.org:8080\"`) is looked up for as long as the daemon runs, and each of its addresses is a backend with \
             the values of this table: [operations.md](operations.md#backends-by-host-name).",
        ),
        default(
            "weight",
            Value::Is("0 to 65535"),
            "100",
            "Share of new flows, relative to the other backends; 0 takes none",
        ),
        optional("mode", one_of::<Mode>(), ("the service's mode", "\"nat\""), "Mode of this backend"),
        default(
            "backup",
            BOOLEAN,
            "false",
            "Take new flows only while fewer other backends can than backup_below",
        ),
        optional(
            "agent_port",
            PORT,
            ("`port` of `[service.agent]`", "9708"),
            "Port of its agent; 0: it has none",
        ),
        default(
            "server_ids",
            Value::Is("list of hexadecimal texts"),
            "[]",
            "Server ids by which QUIC connection ids name it",
        ),
        default("admin", one_of::<Admin>(), "\"enabled\"", "State that the operator wants").more(
            "`draining`: no new flows. `disabled`: no flows at all.",
        ),
        optional(
            "drain_until",
            Value::Is("time (RFC 3339, UTC)"),
            ("never", "\"2030-01-31T12:00:00Z\""),
            "When a drain ends and the backend is disabled",
        )
        .more("Needs `admin = \"draining\"`."),
        optional(
            "discovered_by",
            TEXT,
            ("the backend is written by hand", "\"app\""),
            "The backend with a host name that this one is an address of",
        )
        .more("Written by `lb export`: a daemon that starts with it has backends before the name is looked up."),
    ],
};
