//! Every size, bound and timeout of the data plane, by name and with its unit. `lb status` and the documentation show
//! them from here.

/// Version of all map layouts together; part of the pin path. Raised by any change of a key, value or meaning, so
/// that a daemon never reads maps of another layout as its own.
pub const LAYOUT_VERSION: u32 = 5;

/// Services at most.
pub const MAX_SERVICES: u32 = 4_096;

/// Backend ids: 1 to 65,535 name a backend, 0 means "none".
pub const MAX_BACKENDS: u32 = 65_536;

/// Ring ids: twice the services, since a ring that changes its size is built beside the old one.
pub const MAX_RINGS: u32 = 2 * MAX_SERVICES;

/// Slots of the smallest ring that can be asked for.
pub const RING_SIZE_MIN: u32 = 251;

/// Slots of the largest ring.
pub const RING_SIZE_MAX: u32 = 131_071;

/// Entries of each family's flow table. A NAT flow takes two, one for each direction.
pub const MAX_FLOWS: u32 = 1 << 20;

/// Entries of each family's table of proven flows, for services that record flows otherwise than mode `nat`.
pub const MAX_TRACKED: u32 = 1 << 20;

/// Entries of each family's table of flows that have only opened. The kernel allocates all of them at once.
pub const MAX_OPENING: u32 = 1 << 15;

/// Entries of each family's table of older flows of which one packet came since their slot changed. As above.
pub const MAX_SEEN: u32 = 1 << 16;

/// Datagrams of each family whose later fragments are expected. The kernel allocates all of them at once.
pub const MAX_FRAGMENTED: u32 = 1 << 13;

/// Seconds after the first fragment of a datagram that the others follow it: Linux waits as long for them.
pub const FRAGMENT_SECS: u32 = 30;

/// Prefixes of clients in the guards of all services together.
pub const MAX_GUARD_PREFIXES: u32 = 1 << 16;

/// Entries of the map of prefixes: those of before and after a change stand there together for a moment.
pub const MAX_GUARD_PREFIX_ENTRIES: u32 = 2 * MAX_GUARD_PREFIXES + MAX_SERVICES;

/// Sources whose new flows are counted, of all services together; beyond that, the one idle for longest is forgotten and
/// begins anew. The kernel allocates all of them at once.
pub const MAX_GUARD_SOURCES: u32 = 1 << 16;

/// ICMP messages a second, and at once, that tell clients of one service that it has no backend, or which size would have
/// fit (RFC 4443 section 2.4 (f) asks for a limit; these are the kernel's for all of its messages).
pub const MESSAGE_RATE: u32 = 1_000;
/// See [`MESSAGE_RATE`].
pub const MESSAGE_BURST: u32 = 50;

/// Echo requests to one address of services that are answered a second, and at once.
pub const ECHO_RATE: u32 = 1_000;
/// See [`ECHO_RATE`].
pub const ECHO_BURST: u32 = 50;

/// Bytes of an ICMP message about a packet, from its own IPv4 header on (RFC 1812 section 4.3.2.3).
pub const ICMP_ERROR_V4: usize = 576;
/// Bytes of an ICMPv6 message about a packet, from its own IPv6 header on: the smallest MTU (RFC 4443 section 2.4 (c)).
pub const ICMP_ERROR_V6: usize = 1_280;

/// TTL and hop limit of packets that the balancer itself makes.
pub const OWN_HOP_LIMIT: u8 = 64;

/// Configurations of QUIC connection ids, of all services.
pub const MAX_QUIC_CONFIGS: u32 = 4_096;

/// Server ids of QUIC connection ids, of all services and configurations.
pub const MAX_QUIC_SERVERS: u32 = 65_536;

/// Interfaces that one daemon serves at once.
pub const MAX_INTERFACES: u32 = 16;

/// Link-layer addresses of this machine, of all interfaces that are served and the devices above them. An interface with
/// more takes every unicast frame.
pub const MAX_OWN_MACS: u32 = 4_096;

/// Source NAT addresses per family.
pub const MAX_SNAT_ADDRESSES: u32 = 16;

/// Ports tried, one after the other in turn, for a new flow. The next search goes on behind them.
pub const SNAT_PORT_TURNS: u32 = 32;

/// Ports tried anywhere in the range when none of [`SNAT_PORT_TURNS`] is free, since flows that were opened together hold ports
/// side by side, before the flow is dropped with `snat_ports_exhausted`.
pub const SNAT_PORT_DRAWS: u32 = 32;

/// Ports looked at, one after the other in turn, for a half-open flow that gives way when its service is over its share of the
/// flow table, or the table is full. In turn, the oldest comes first.
pub const GIVING_WAY_TURNS: u32 = 16;

/// Of [`SNAT_PORT_TURNS`], those at which only a half-open flow gives way that is idle for [`GIVING_WAY_IDLE_SECS`]: where
/// ports are not scarce, a free one comes soon.
pub const GIVING_WAY_PATIENCE: u32 = 4;

/// Seconds for which a half-open flow is idle that gives way at once: its client sends a SYN again sooner than that.
pub const GIVING_WAY_IDLE_SECS: u32 = 2;

/// IPv6 extension headers walked before a packet counts as not understood.
pub const MAX_EXTENSION_HEADERS: u32 = 6;

/// Seconds a TCP flow stays known after its last packet (RFC 5382 REQ-5 asks for at least 2 h 4 min).
pub const TCP_ESTABLISHED_IDLE_SECS: u32 = 7_440;

/// Seconds a TCP flow stays known that has not been answered yet, or only half opened.
pub const TCP_OPENING_IDLE_SECS: u32 = 60;

/// Seconds a TCP flow stays known that both sides have ended, by FIN or RST, or that was reset before it was established:
/// long enough for the last segments, short enough that ports come back.
pub const TCP_CLOSED_IDLE_SECS: u32 = 10;

/// Seconds an established TCP flow stays known after a RST that came from one side alone, and after which nothing came: it
/// may be forged (RFC 7857 section 2.2 asks for 4 min).
pub const TCP_RESET_IDLE_SECS: u32 = 240;

/// Milliseconds after a SYN that the same one may come again because there was no answer: RFC 6298 section 2 asks a client
/// to wait for 1 s, of which the network may eat a little. What comes earlier tells nothing about the backend.
pub const SYN_REPEAT_MILLIS: u32 = 900;

/// Seconds within which SYNs that are repeated by two clients tell on a backend: one client alone proves nothing.
pub const SYN_REPEAT_SECS: u32 = 10;

/// Seconds a UDP flow stays known after its last packet (RFC 4787 REQ-5: at least 2 min, recommended 5).
pub const UDP_IDLE_SECS: u32 = 300;

/// Seconds a UDP flow stays known that was never answered.
pub const UDP_OPENING_IDLE_SECS: u32 = 60;

const _: () = assert!(MAX_BACKENDS == 1 << 16, "backend ids are u16");
const _: () = assert!(
    MAX_SERVICES <= 1 << 16 && MAX_RINGS <= 1 << 16,
    "service and ring ids are u16"
);
const _: () = assert!(TCP_CLOSED_IDLE_SECS < TCP_OPENING_IDLE_SECS);
